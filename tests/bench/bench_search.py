"""Seconds and quality of the searchers: exact fronts, and what NSGA-II reaches of their hypervolume."""

from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd

from hwdse.cost.table import Metric, Reduction
from hwdse.formats import Precision
from hwdse.graph import TiedGroup
from hwdse.pareto import hypervolume
from hwdse.search import exact, nsga2
from hwdse.space import DesignSpace

GOLDEN = Path(__file__).parents[1] / "golden"
EXACT_SECONDS = 0.1
NSGA2_SHARE = 0.998
NSGA2_SECONDS = 10.0
THREE_OBJECTIVES_SECONDS = 3.0
BITS = range(2, 9)


def make_space(unary: np.ndarray, names: tuple[str, ...]) -> DesignSpace:
    """Return a space without a mask, edges or peaks from costs `(groups, candidates, metrics)`."""
    g, c, m = unary.shape
    return DesignSpace(
        groups=tuple(TiedGroup(f"g{i}", (f"g{i}",)) for i in range(g)),
        candidates=tuple(Precision.parse(f"W{bits}A8") for bits in BITS[:c]),
        metrics=tuple(Metric(name, Reduction.SUM, name) for name in names),
        allowed=np.ones((g, c), dtype=bool),
        unary=unary,
        constant=np.zeros(m),
        edges=np.empty((0, 2), dtype=np.int64),
        pairwise=np.empty((0, c, c, m)),
    )


def resnet50() -> DesignSpace:
    """Return ResNet-50 at 2 to 8 bits from the data of HAWQ-V3, errors scaled from 4 bits by (15 / (2^b - 1))^2."""
    table = pd.read_csv(GOLDEN / "hawq_v3_resnet50.csv", comment="#")
    layers = np.stack(
        [
            np.stack([table.trace * table.error4 * (15 / (2**b - 1)) ** 2, table.size8 * b / 8, table.mmacs * b**2], 1)
            for b in BITS
        ],
        axis=1,
    )
    unary = np.zeros((int(table.group.max()) + 1, *layers.shape[1:]))
    np.add.at(unary, table.group.to_numpy(), layers)
    return make_space(unary, ("omega", "size", "bops"))


def scaled(space: DesignSpace, values: np.ndarray, cost: str) -> np.ndarray:
    """Return (log10 Omega, cost) scaled by the uniform configurations."""
    uniform = np.repeat(np.arange(len(BITS), dtype=np.uint8)[:, None], len(space.groups), axis=1)
    corners = space.evaluate(uniform)[:, [space.column("omega"), space.column(cost)]]
    both = [np.column_stack([np.log10(v[:, 0]), v[:, 1]]) for v in (values, corners)]
    return (both[0] - both[1].min(axis=0)) / np.ptp(both[1], axis=0)


def row(name: str, value: float, unit: str, target: float, *, at_most: bool) -> dict[str, Any]:
    """Return one row of the benchmark's table."""
    return {
        "name": name,
        "value": float(value),
        "unit": unit,
        "target": target,
        "holds": bool(value <= target if at_most else value >= target),
    }


def exact_seconds(seed: int) -> float:
    """Return the shortest of three timings of an exact front over random real costs, in seconds."""
    unary = np.sort(np.random.default_rng(seed).random((50, 3, 2)), axis=1)
    unary[..., 0] = unary[:, ::-1, 0]  # less cost is more harm, so that no candidate is ruled out beforehand
    space = make_space(unary, ("harm", "cost"))
    seconds = []
    for _ in range(3):
        start = perf_counter()
        assert exact.search(space, ("harm", "cost")).exact
        seconds.append(perf_counter() - start)
    return min(seconds)


def three_objectives_seconds(seed: int, *, coupled: bool) -> float:
    """Return the shortest of two timings of NSGA-II with 20,000 look-ups over 50 groups and 3 objectives, in seconds.

    Both costs fall where harm rises, so that large parts of the space do not dominate one another; a coupled space has
    a mask and a cost between neighbours as well. The tables are built inside the timing.
    """
    rng = np.random.default_rng(seed)
    unary = np.sort(rng.random((50, 3, 3)), axis=1)
    unary[..., 0] = unary[:, ::-1, 0]
    names = ("harm", "first", "second")
    seconds = []
    for _ in range(2):
        space = make_space(unary, names)
        if coupled:
            allowed = rng.random((50, 3)) < 0.9
            allowed[:, 2] = True
            edges = np.column_stack([np.arange(49), np.arange(1, 50)])
            space = replace(space, allowed=allowed, edges=edges, pairwise=rng.random((49, 3, 3, 3)) / 4)
        start = perf_counter()
        found = nsga2.search(space, names, evaluations=20_000, rng=np.random.default_rng(seed))
        seconds.append(perf_counter() - start)
        assert found.evaluations == 20_000
    return min(seconds)


def run() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    slowest = max(exact_seconds(seed) for seed in range(5))
    rows = [row("exact front of 50 groups x 3 candidates, slowest of 5", slowest, "s", EXACT_SECONDS, at_most=True)]
    slowest = max(three_objectives_seconds(seed, coupled=coupled) for seed in range(2) for coupled in (False, True))
    what = "nsga2, 20,000 evaluations, 50 groups, 3 objectives, slowest of 4: time"
    rows.append(row(what, slowest, "s", THREE_OBJECTIVES_SECONDS, at_most=True))
    space = resnet50()
    for cost in ("size", "bops"):
        whole = exact.search(space, ("omega", cost))
        volume = hypervolume(scaled(space, whole.values, cost), (1.05, 1.05))
        shares, start = [], perf_counter()
        for seed in range(3):
            found = nsga2.search(space, ("omega", cost), evaluations=20_000, rng=np.random.default_rng(seed))
            shares.append(hypervolume(scaled(space, found.values, cost), (1.05, 1.05)) / volume)
        seconds = (perf_counter() - start) / 3
        what = f"nsga2, 20,000 evaluations, ResNet-50, {cost}"
        rows.append(row(f"{what}: share of the exact hypervolume", np.mean(shares), "1", NSGA2_SHARE, at_most=False))
        rows.append(row(f"{what}: time", seconds, "s", NSGA2_SECONDS, at_most=True))
    return rows
