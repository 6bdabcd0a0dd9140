"""How well an exploration keeps many workers busy, simulated: 64 of them, and evaluations of very unequal length.

A discrete-event simulation of the real schedule, proposals and models (``hwdse.study.schedule``, ``hwdse.search``) on
the DS-CNN, all 59,049 configurations of which were measured (``kws_truth.py``): nothing is computed but which
configuration is asked for when, by whom, and how long that takes. Lengths are drawn from a Pareto distribution of shape
1.5, whose variance is infinite, cut off at a hundred times the shortest. Choosing and sending are taken to cost
``OVERHEAD_S`` per piece of work. Run it with ``python experiments/many_workers.py``; it needs neither network nor data.
"""

from __future__ import annotations

import heapq
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from kws_truth import Truth  # noqa: E402 (a neighbour, found through its folder)

from hwdse.evaluate.remote import pieces_for  # noqa: E402
from hwdse.files import write_csv  # noqa: E402
from hwdse.search.adaptive import predicted_front  # noqa: E402
from hwdse.search.propose import CARED_FOR, Belief, Proposer  # noqa: E402
from hwdse.search.surrogate import HarmModel, Learner  # noqa: E402
from hwdse.study.device import LOSS  # noqa: E402
from hwdse.study.schedule import ahead  # noqa: E402

COSTS = ("size_kib", "bops_g")
WORKERS = (1, 2, 64)
EVALUATIONS = 500
SEEDS = 3
BATCHES = 40
SHORTEST_S, SHAPE, LONGEST_S = 20.0, 1.5, 2000.0
OVERHEAD_S = 0.02

Genes = NDArray[np.uint8]
Ahead = Callable[[int], int]


class Machines:
    """Workers that take one piece of work after another, first come, first served."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.busy_s = 0.0
        self._free = [0.0] * count

    @property
    def end_s(self) -> float:
        """When the last piece of work is done."""
        return max(self._free)

    def run(self, begun_s: float, seconds: float, pieces: int) -> float:
        """Return when an evaluation in so many pieces is done that was asked for at ``begun_s``."""
        self.busy_s += seconds
        ends = []
        for _ in range(pieces):
            ends.append(max(begun_s, heapq.heappop(self._free)) + seconds / pieces + OVERHEAD_S)
            heapq.heappush(self._free, ends[-1])
        return max(ends)


@dataclass
class Found:
    """What a simulated exploration measured, in order, and what its workers did."""

    genes: Genes
    utilisation: float
    hours: float


def explore(truth: Truth, cost: str, seed: int, *, workers: int, ahead_of: Ahead) -> Found:
    """Return what ``workers`` measure when so many configurations may be under way as ``ahead_of`` says."""
    space, rng = truth.space, np.random.default_rng(seed)
    objectives = (LOSS.name, cost)
    proposer = Proposer(
        space, objectives, predicted_front(space, objectives, limits={}, rng=rng).genes, lambda g: np.ones(len(g), bool)
    )
    learner = Learner(space.unary[..., space.column(LOSS.name)])
    lengths = np.minimum(SHORTEST_S * (1.0 + np.random.default_rng(seed).pareto(SHAPE, EVALUATIONS)), LONGEST_S)
    machines = Machines(workers)
    line: deque[tuple[Genes, float]] = deque()
    measured: list[Genes] = []
    now, begun = 0.0, 0

    def begin(genes: Genes) -> None:
        nonlocal begun
        pieces = pieces_for(workers, BATCHES, at_once=len(line) + 1)
        line.append((genes, machines.run(now, float(lengths[begun]), pieces)))
        begun += 1

    def settle() -> None:
        nonlocal now
        genes, end = line.popleft()
        measured.append(genes)
        now = max(now, end)

    for genes in np.concatenate([space.random(1, rng), space.uniforms]):
        begin(genes)
    while line:
        settle()
    for turn in range(EVALUATIONS - begun):
        known = np.array(measured)
        harms = truth.drop(known)
        model = learner.model(known, harms, None)
        if line:
            asked = np.array([genes for genes, _ in line])
            known, harms = np.concatenate([known, asked]), np.concatenate([harms, model(asked).median])
            model = HarmModel(learner.losses, known, harms, widths=model.widths)
        belief = Belief(known, harms, model, model.corrected)
        reference = max(CARED_FOR * float(truth.drop(np.array(measured)).max()), 1e-9)
        proposal = proposer.propose(belief, turn=turn, harm_reference=reference)
        assert proposal is not None
        begin(proposal.genes)
        while len(line) >= ahead_of(begun):
            settle()
    while line:
        settle()
    return Found(np.array(measured), machines.busy_s / (workers * machines.end_s), machines.end_s / 3600.0)


def simulated(truth: Truth) -> pd.DataFrame:
    """Return utilisation and quality by number of workers, cost and seed, beside one configuration at a time."""
    rows = []
    jobs = [(cost, seed) for cost in COSTS for seed in range(SEEDS)]
    for cost, seed in track(jobs, "simulating", console=Console(stderr=True)):
        alone = explore(truth, cost, seed, workers=1, ahead_of=lambda _: 1)
        whole = truth.volume(alone.genes, cost)
        for workers in WORKERS:
            found = explore(truth, cost, seed, workers=workers, ahead_of=ahead)
            rows.append(
                {
                    "workers": workers,
                    "cost": cost,
                    "seed": seed,
                    "evaluations": len(found.genes),
                    "utilisation_simulated": found.utilisation,
                    "hours_simulated": found.hours,
                    "hypervolume_over_one_at_a_time": truth.volume(found.genes, cost) / whole,
                    **{
                        f"hypervolume_over_one_at_a_time_after_{n}": truth.volume(found.genes[:n], cost)
                        / truth.volume(alone.genes[:n], cost)
                        for n in (50, 100)
                    },
                }
            )
    return pd.DataFrame(rows)


def main() -> None:
    """Simulate, print the means, and write the table beside the experiments."""
    table = simulated(Truth.load())
    path = write_csv(HERE / "results" / "many_workers.csv", table)
    console = Console()
    means = table.groupby(["workers", "cost"]).mean(numeric_only=True).drop(columns="seed").reset_index()
    console.print(means.T.to_string(header=False, float_format="{:.4f}".format), markup=False, soft_wrap=True)
    console.print(str(path), markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
