"""Configurations for all devices of a study at once: predicted by minimax regret, and measured under every scheme."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwdse.files import read_csv, write_csv
from hwdse.progress import Progress
from hwdse.search.fleet import minimax
from hwdse.search.integer_program import cheapest
from hwdse.search.limits import as_limits
from hwdse.search.propose import CARED_FOR
from hwdse.study.device import LOSS, DeviceProblem
from hwdse.study.measure import Laboratory, SchemeState

if TYPE_CHECKING:
    from hwdse.study import Study

__all__ = ["FleetPlan", "rising"]

COLUMNS = ("drop_level", "largest_regret_predicted", "scheme", "bits")


class FleetPlan:
    """What is measured for the fleet, after the budget is spent; kept in ``fleet.csv`` before it is measured.

    A resumed run so knows which evaluations of its pool were not chosen by the devices themselves.

    Parameters
    ----------
    levels
        Levels of harm, each with one configuration; 0 for none.
    folder
        Run folder, ``None`` without one.
    """

    def __init__(self, levels: int, folder: Path | None) -> None:
        self._levels = levels
        self._path = None if folder is None else folder / "fleet.csv"
        self._kept = pd.DataFrame(columns=COLUMNS)
        if self._path is not None and self._path.is_file():
            self._kept = read_csv(self._path, text=("scheme", "bits"))
        self._earlier = set(zip(self._kept["scheme"], self._kept["bits"], strict=True))

    def holds(self, state: SchemeState, bits: str) -> bool:
        """Return True if an earlier session measured a configuration for the fleet, and not for a device."""
        return (state.key, bits) in self._earlier

    def measure(self, study: Study, laboratory: Laboratory, progress: Progress) -> None:
        """Plan from all that was measured, and measure what is planned under every scheme of the devices.

        What an earlier session measured for another plan stays.
        """
        problems = [p for p in study.problems.values() if p.infeasible is None]
        if len(problems) < 2 or not (self._levels or self._earlier):
            return
        states = {state.key: state for state in map(study.state, problems)}
        plan = _planned(problems, states, study, self._levels) if self._levels else []
        rows: list[dict[Any, Any]] = [{**row, "scheme": key} for row in plan for key in states]
        rows += [row for row in self._kept.to_dict("records") if laboratory.knows(states[row["scheme"]], row["bits"])]
        table = pd.DataFrame(rows, columns=COLUMNS).drop_duplicates(["scheme", "bits"])
        fresh = [b not in states[key].measured for key, b in zip(table["scheme"], table["bits"], strict=True)]
        table = table[fresh]
        if self._path is not None:
            write_csv(self._path, table)
        progress.start("fleet", len(table))
        for key, bits in zip(table["scheme"], table["bits"], strict=True):
            laboratory.begin(states[key], bits)
        while laboratory.under_way:
            seconds, was_there = laboratory.settle()
            study.meter.add(seconds, is_earlier=was_there)
            progress.advance()


def _planned(
    problems: list[DeviceProblem], states: Mapping[str, SchemeState], study: Study, levels: int
) -> list[dict[str, object]]:
    """Return the minimax configuration of each level of harm, each configuration once."""
    if not all(state.measured for state in states.values()):
        return []  # nothing says what harm a predicted loss stands for
    objectives = problems[0].objectives
    cost = next((column for column in objectives if column.startswith("latency")), objectives[0])
    curves = {
        key: _loss_by_harm(state, [p for p in problems if study.state(p) is state]) for key, state in states.items()
    }
    rows: dict[str, dict[str, object]] = {}
    for drop in _levels(states, levels):
        limits = []
        for problem in problems:
            harms, losses = curves[study.state(problem).key]
            limits.append({**problem.limits, LOSS.name: float(np.interp(drop, harms, losses))})
        own = [
            cheapest(problem.space, cost, as_limits(problem.space, ours))
            for problem, ours in zip(problems, limits, strict=True)
        ]
        if any(genes is None for genes in own):
            continue  # on some device nothing is predicted to be that good
        best = [_cost(problem, genes, cost) for problem, genes in zip(problems, own, strict=True) if genes is not None]
        shared = minimax([p.space for p in problems], cost=cost, best=best, limits=limits)
        if shared is None:
            continue
        paid = [_cost(problem, genes, cost) for problem, genes in zip(problems, shared, strict=True)]
        bits = problems[0].bits(shared[0])
        regret = float(np.max(np.array(paid) / np.array(best)) - 1.0)
        rows.setdefault(bits, {"drop_level": drop, "largest_regret_predicted": regret, "bits": bits})
    return list(rows.values())


def _cost(problem: DeviceProblem, genes: NDArray[np.uint8], cost: str) -> float:
    """Return one cost of one configuration."""
    return float(problem.space.evaluate(genes[None])[0, problem.space.column(cost)])


def _levels(states: Mapping[str, SchemeState], count: int) -> list[float]:
    """Return drops from the smallest measured one to the largest that anybody cares for, by equal factors."""
    drops = np.array([result.drop.mean for state in states.values() for result in state.measured.values()])
    if not (drops > 0).any():
        return [0.0]
    highest = CARED_FOR * float(drops.max())
    return [float(drop) for drop in np.geomspace(min(float(drops[drops > 0].min()), highest), highest, count)]


def _loss_by_harm(state: SchemeState, problems: list[DeviceProblem]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return measured harms, ascending, and the largest predicted loss at each, harm made to rise with it."""
    pairs = []
    for bits, result in state.measured.items():
        for problem in problems:  # the first that can run it; devices have columns of their own
            known = problem.known(bits)
            if known is not None:
                pairs.append((float(known.metrics[problem.space.column(LOSS.name)]), result.drop.mean))
                break
    losses, drops = np.array(sorted(pairs), dtype=np.float64).reshape(-1, 2).T
    harms, first_from_the_end = np.unique(rising(drops)[::-1], return_index=True)
    return harms, losses[::-1][first_from_the_end]


def rising(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the non-decreasing sequence nearest to ``values`` in squares, by pooling neighbours [Barlow1972]_.

    >>> rising(np.array([1.0, 3.0, 2.0, 4.0])).tolist()
    [1.0, 2.5, 2.5, 4.0]
    """
    means: list[float] = []
    counts: list[int] = []
    for value in values:
        means.append(float(value))
        counts.append(1)
        while len(means) > 1 and means[-2] > means[-1]:
            mean, count = means.pop(), counts.pop()
            means[-1] = (means[-1] * counts[-1] + mean * count) / (counts[-1] + count)
            counts[-1] += count
    return np.repeat(means, counts)
