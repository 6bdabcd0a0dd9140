"""What a front comes to: the configurations a reader asks for first, and one number for all of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwdse.pareto import hypervolume
from hwdse.report.tables import DEFAULT_DROP, DeviceTables, RunTables

__all__ = [
    "DEFAULT_DROP",
    "Box",
    "best_quality",
    "cheapest",
    "cheapest_within",
    "common_box",
    "common_hypervolume",
    "front_hypervolume",
    "scaled_objectives",
]

USEFUL_DROPS = 5.0
"""Times the allowed drop: what loses more belongs to no comparison between devices."""


@dataclass(frozen=True)
class Box:
    """The range of cost and quality that the fronts of several devices share; its worst corner is the reference.

    Attributes
    ----------
    cheapest, costliest
        Ends of the main cost.
    best, worst
        Ends of the measured quality.
    """

    cheapest: float
    costliest: float
    best: float
    worst: float


def best_quality(tables: RunTables, device: DeviceTables) -> pd.Series | None:
    """Return the front's configuration with the best measured quality, the cheapest among equals; ``None`` if empty."""
    quality = tables.quality
    order = device.front.sort_values(
        [quality.column, tables.main_cost], ascending=[not quality.maximise, True], kind="stable"
    )
    return None if order.empty else order.iloc[0]


def cheapest(tables: RunTables, device: DeviceTables, column: str) -> pd.Series | None:
    """Return the front's configuration with the lowest ``column``, the best among equals; ``None`` if it is empty."""
    return _first(tables, device.front, column)


def cheapest_within(tables: RunTables, device: DeviceTables, *, drop: float) -> pd.Series | None:
    """Return the configuration on the front with the lowest main cost and a measured drop of at most ``drop``."""
    return _first(tables, device.front[device.front[tables.quality.drop] <= drop], tables.main_cost)


def _first(tables: RunTables, rows: pd.DataFrame, column: str) -> pd.Series | None:
    quality = tables.quality
    order = rows.sort_values([column, quality.column], ascending=[True, not quality.maximise], kind="stable")
    return None if order.empty else order.iloc[0]


def front_hypervolume(tables: RunTables, device: DeviceTables) -> float:
    """Return the share of the box of all measured configurations that the front dominates, between 0 and 1.

    The box reaches, in each objective, from the best to the worst value that was measured on the device; the worst
    corner is the reference point. An objective in which nothing differs is left out.
    """
    points = scaled_objectives(tables, device, device.front)
    return float(hypervolume(points, np.ones(points.shape[1]))) if points.size else 0.0


def scaled_objectives(tables: RunTables, device: DeviceTables, rows: pd.DataFrame) -> NDArray[np.float64]:
    """Return the objectives ``(n, m)`` of ``rows``, 0 the best and 1 the worst value measured on the device.

    All are minimised. The ``m`` objectives are those in which measured configurations differ.
    """
    sign = np.ones(len(tables.objectives))
    sign[-1] = -1.0 if tables.quality.maximise else 1.0
    everything = pd.concat([device.front, device.measured])[tables.objectives].to_numpy(float) * sign
    if not len(everything):
        return np.empty((0, 0))
    best, worst = everything.min(axis=0), everything.max(axis=0)
    varies = worst > best
    points = rows[tables.objectives].to_numpy(float)[:, varies] * sign[varies]
    return np.asarray((points - best[varies]) / (worst - best)[varies])


def common_box(tables: RunTables) -> Box | None:
    """Return the box around the useful part of all loaded fronts, ``None`` if no front has one.

    Useful is what drops by at most five times the allowed drop: a collapsed configuration would decide the range.
    """
    fronts = [_useful(tables, device.front) for device in tables.results.values()]
    rows = pd.concat(fronts) if fronts else pd.DataFrame()
    if rows.empty:
        return None
    cost, quality = rows[tables.main_cost], rows[tables.quality.column]
    low, high = float(quality.min()), float(quality.max())
    best, worst = (high, low) if tables.quality.maximise else (low, high)
    return Box(float(cost.min()), float(cost.max()), best, worst)


def _useful(tables: RunTables, front: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that lose little enough to matter, all if the allowed drop is 0."""
    return front[front[tables.quality.drop] <= USEFUL_DROPS * tables.max_drop] if tables.max_drop else front


def common_hypervolume(tables: RunTables, device: DeviceTables, box: Box) -> float:
    """Return the share of a common box that a device's front dominates, between 0 and 1: comparable between devices.

    The box is quality by the logarithm of the main cost, so that a factor counts the same on a fast and a slow device.
    A dimension in which nothing differs is left out.
    """
    front = _useful(tables, device.front)
    cost = np.log(front[tables.main_cost].to_numpy(float) / box.cheapest)
    loss = np.abs(front[tables.quality.column].to_numpy(float) - box.best)
    spans = np.array([np.log(box.costliest / box.cheapest), abs(box.worst - box.best)])
    varies = spans > 0
    if front.empty or not varies.any():
        return 0.0
    points: NDArray[np.float64] = np.column_stack([cost, loss])[:, varies] / spans[varies]
    return float(hypervolume(points, np.ones(int(varies.sum()))))
