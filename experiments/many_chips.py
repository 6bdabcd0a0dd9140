"""What five chips cost that share their evaluations, against one chip: on a space that is known whole.

The truth are all 59,049 configurations of the DS-CNN (``kws_truth.py``). The chips are imagined: each multiplies at
rates of its own for every precision and reads weights at a bandwidth of its own, so that their fronts differ; all
represent numbers alike, so that an evaluation is worth the same to all. Run it with
``python experiments/many_chips.py``; it needs neither network nor data.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from kws_truth import Truth  # noqa: E402 (a neighbour, found through its folder)

from hwdse.files import write_csv  # noqa: E402
from hwdse.pareto import hypervolume  # noqa: E402
from hwdse.search.adaptive import predicted_front  # noqa: E402
from hwdse.search.propose import Belief, Proposer  # noqa: E402
from hwdse.search.surrogate import Learner  # noqa: E402
from hwdse.space import DesignSpace  # noqa: E402
from hwdse.study.device import LOSS  # noqa: E402

CHIPS, SEEDS = 5, 5
ALONE, TOGETHER = 40, 200
LARGEST_DROP = 0.2
COST = "size_kib"

Genes = NDArray[np.uint8]


def chip(truth: Truth, rng: np.random.Generator) -> DesignSpace:
    """Return the truth's space with an imagined latency, in arbitrary units, in place of the size."""
    size, bit_operations = (truth.space.unary[..., truth.space.column(name)] for name in ("size_kib", "bops_g"))
    bits = np.array([c.weights.bits * c.activations.bits for c in truth.candidates])
    macs = bit_operations[:, :1] / bits[0]
    rates = np.sort(rng.uniform(1.0, 4.0, len(bits)))[np.argsort(np.argsort(-bits))]
    share = rng.uniform(0.1, 0.6)
    compute, reading = macs / rates, size * rng.uniform(0.8, 1.2, size.shape)
    latency = (1.0 - share) * compute / compute.max(1).sum() + share * reading / reading.max(1).sum()
    unary = truth.space.unary.copy()
    unary[..., truth.space.column(COST)] = latency
    return replace(truth.space, unary=unary)


def volume(truth: Truth, space: DesignSpace, genes: Genes) -> float:
    """Return the hypervolume of measured harm and latency, below 20 points at the largest latency."""
    column = space.column(COST)
    low, high = space.unary[..., column].min(1).sum(), space.unary[..., column].max(1).sum()
    latency = (space.evaluate(genes)[:, column] - low) / (high - low)
    return hypervolume(np.column_stack([truth.drop(genes), latency]), (LARGEST_DROP, 1.0))


def explore(truth: Truth, spaces: list[DesignSpace], evaluations: int, rng: np.random.Generator) -> Genes:
    """Return what is measured, in order, when ``spaces`` take turns and share a model."""
    losses = truth.space.unary[..., truth.space.column(LOSS.name)]
    learner, proposers = Learner(losses), []
    for space in spaces:
        archive = predicted_front(space, (LOSS.name, COST), limits={}, rng=rng).genes
        proposers.append(Proposer(space, (LOSS.name, COST), archive, lambda genes: np.ones(len(genes), dtype=bool)))
    measured = np.concatenate([truth.space.random(1, rng), truth.space.uniforms])
    turn = 0
    while len(measured) < evaluations:
        harms = truth.drop(measured)
        model = learner.model(measured, harms, None)
        belief = Belief(measured, harms, model, model.corrected)
        proposer = proposers[turn % len(proposers)]
        found = proposer.propose(belief, turn=turn // len(proposers), harm_reference=LARGEST_DROP)
        assert found is not None
        measured = np.concatenate([measured, found.genes[None]])
        turn += 1
    return measured


def main() -> None:
    """Compare, print the table and write it beside the experiments."""
    truth, rows = Truth.load(), []
    for seed in range(SEEDS):
        spaces = [chip(truth, np.random.default_rng([seed, k])) for k in range(CHIPS)]
        whole = [volume(truth, space, truth.genes) for space in spaces]
        alone = [explore(truth, [space], ALONE, np.random.default_rng(seed)) for space in spaces]
        reached = [volume(truth, s, genes) / w for s, genes, w in zip(spaces, alone, whole, strict=True)]
        together = explore(truth, spaces, TOGETHER, np.random.default_rng(seed))
        needed = [
            next((n for n in range(4, TOGETHER + 1) if volume(truth, s, together[:n]) / w >= r), TOGETHER + 1)
            for s, w, r in zip(spaces, whole, reached, strict=True)
        ]
        rows += [(seed, k, r, n, n / ALONE) for k, (r, n) in enumerate(zip(reached, needed, strict=True))]
    names = ["seed", "chip", "share_of_true_hypervolume_alone", "evaluations_together", "ratio"]
    table = pd.DataFrame(rows, columns=names)
    console = Console()
    console.print(table.to_string(index=False, float_format="{:.3f}".format), markup=False, soft_wrap=True)
    worst = table.groupby("seed")["ratio"].max()
    console.print(
        f"evaluations of {CHIPS} chips together / of one alone ({ALONE}): until all chips have what they reach alone "
        f"{worst.mean():.2f} ({worst.min():.2f} to {worst.max():.2f}, {SEEDS} seeds); a chip on average "
        f"{table['ratio'].mean():.2f}",
        markup=False,
        soft_wrap=True,
    )
    console.print(str(write_csv(HERE / "results" / "many_chips.csv", table)), markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
