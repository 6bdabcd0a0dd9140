"""Configurations per second through `DesignSpace.evaluate`, and against a loop over groups, in the same run."""

from time import perf_counter
from typing import Any

import numpy as np

from hwdse.cost.table import Metric, Reduction
from hwdse.formats import Precision
from hwdse.graph import TiedGroup
from hwdse.space import DesignSpace

GROUPS, CANDIDATES, METRICS = 54, 3, 4
CONFIGURATIONS = 2_000_000
TARGET_PER_SECOND = 1e7
TARGET_RATIO = 10.0


def make_space(rng: np.random.Generator, *, groups: int, candidates: int, metrics: int) -> DesignSpace:
    """Return a space of random costs without a mask, edges or peaks."""
    return DesignSpace(
        groups=tuple(TiedGroup(f"g{i}", (f"g{i}",)) for i in range(groups)),
        candidates=tuple(Precision.parse(f"W{bits}A8") for bits in (2, 4, 8, 3, 5, 6, 7)[:candidates]),
        metrics=tuple(Metric(f"m{i}", Reduction.SUM, f"m{i}") for i in range(metrics)),
        allowed=np.ones((groups, candidates), dtype=bool),
        unary=rng.random((groups, candidates, metrics)),
        constant=np.zeros(metrics),
        edges=np.empty((0, 2), dtype=np.int64),
        pairwise=np.empty((0, candidates, candidates, metrics)),
    )


def by_group(space: DesignSpace, genes: np.ndarray) -> np.ndarray:
    """Return the metrics the obvious way: one indexed addition per group."""
    total = np.tile(space.constant, (len(genes), 1))
    for g in range(len(space.groups)):
        total += space.unary[g][genes[:, g]]
    return total


def best_seconds(function: Any, repeats: int) -> float:
    """Return the shortest of several timings, in seconds."""
    seconds = []
    for _ in range(repeats):
        start = perf_counter()
        function()
        seconds.append(perf_counter() - start)
    return min(seconds)


def run() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    rng = np.random.default_rng(0)
    space = make_space(rng, groups=GROUPS, candidates=CANDIDATES, metrics=METRICS)
    genes = space.random(CONFIGURATIONS, rng)
    space.evaluate(genes[:1])  # builds the tables
    rate = CONFIGURATIONS / best_seconds(lambda: space.evaluate(genes), 5)
    part = genes[: CONFIGURATIONS // 20]
    ratio = rate / (len(part) / best_seconds(lambda: by_group(space, part), 2))
    shape = f"{GROUPS} groups x {CANDIDATES} candidates x {METRICS} metrics"
    return [
        {
            "name": f"evaluate {shape}",
            "value": rate,
            "unit": "configurations/s",
            "target": TARGET_PER_SECOND,
            "holds": rate >= TARGET_PER_SECOND,
        },
        {
            "name": "evaluate against a loop over groups",
            "value": ratio,
            "unit": "times as fast",
            "target": TARGET_RATIO,
            "holds": ratio >= TARGET_RATIO,
        },
    ]
