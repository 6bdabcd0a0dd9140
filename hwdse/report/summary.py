"""What a front comes to: the configurations a reader asks for first, and one number for all of it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hwdse.pareto import hypervolume
from hwdse.report.tables import DEFAULT_DROP, DeviceTables, RunTables

__all__ = ["DEFAULT_DROP", "best_quality", "cheapest", "cheapest_within", "front_hypervolume"]


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
    signs = dict.fromkeys(tables.costs.values(), 1.0)
    signs[tables.quality.column] = -1.0 if tables.quality.maximise else 1.0
    if device.front.empty:
        return 0.0
    names, sign = list(signs), np.array(list(signs.values()))
    front, measured = (table[names].to_numpy(float) * sign for table in (device.front, device.measured))
    everything = np.concatenate([front, measured])
    best, worst = everything.min(axis=0), everything.max(axis=0)
    varies = worst > best
    if not varies.any():
        return 0.0
    points = (front[:, varies] - best[varies]) / (worst - best)[varies]
    return float(hypervolume(points, np.ones(int(varies.sum()))))
