"""Measured Pareto fronts, and picking one configuration from them under limits."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.graph import BitConfig
from hwdse.infeasible import Infeasible, Limit, Reason, explain
from hwdse.pareto import knee
from hwdse.units import TIERS

__all__ = ["SHARES", "Front", "Objective"]

KEY_COLUMNS = ("config_id", "bits")

SHARES = frozenset({"accuracy", "top1", "top5"})
"""Qualities that are shares of the samples, from 0 to 1."""


@dataclass(frozen=True)
class Objective:
    """What a front trades: the user's name for it, its column, and whether more is better.

    Attributes
    ----------
    name
        The user's word: ``accuracy``, ``latency_ms``.
    column
        Column of the front's table, with its tier: ``top1_measured``, ``latency_ms_predicted``.
    maximize
        True where more is better.
    """

    name: str
    column: str
    maximize: bool


@dataclass(frozen=True, eq=False)
class Front:
    """The measured, non-dominated configurations of one network on one device.

    Attributes
    ----------
    table
        One row per configuration: ``config_id``, ``bits`` (a precision per layer, separated by spaces), the metric
        columns, each quality with ``_low`` and ``_high``, and ``samples``.
    objectives
        What the front trades; the order decides ties.
    layers
        Layer names, in the order of ``bits``.
    reach
        Column to a value that no configuration of the whole design space is better than; empty where unknown.
    device
        Name of the device.
    origin
        Goes with every configuration; see :class:`hwdse.BitConfig`.

    Raises
    ------
    InputError
        If a column is missing, an objective's value is not a number, or ``bits`` do not fit ``layers``.
    """

    table: pd.DataFrame
    objectives: tuple[Objective, ...]
    layers: tuple[str, ...]
    reach: Mapping[str, float] = field(default_factory=dict)
    device: str = ""
    origin: object = field(default=None, repr=False)

    def __post_init__(self) -> None:
        wanted = [*KEY_COLUMNS, *(objective.column for objective in self.objectives)]
        missing = [column for column in wanted if column not in self.table.columns]
        if missing or not self.objectives:
            raise InputError(
                f"expected a front with at least 1 objective and columns {wanted}, missing {missing}; "
                f"the table has {list(self.table.columns)}"
            )
        for objective in self.objectives:
            values = self._values(objective.column)
            if np.isnan(values).any():
                raise InputError(
                    f"expected a number in column {objective.column} of every row, got NaN in row "
                    f"{int(np.isnan(values).argmax())}; drop rows that were not measured"
                )
        for row, bits in enumerate(self.table["bits"]):
            count = len(str(bits).split())
            if count != len(self.layers):
                raise InputError(f"expected {len(self.layers)} precisions (layers) in bits of row {row}, got {count}")

    def __repr__(self) -> str:
        ends = ((o.name, self._values(o.column)) for o in self.objectives)
        spans = "; ".join(f"{name} {v.min():.4g} to {v.max():.4g}" if len(v) else name for name, v in ends)
        return f"<Front of {self.device or 'a device'} with {len(self)} configurations: {spans}>"

    def __len__(self) -> int:
        return len(self.table)

    @property
    def qualities(self) -> tuple[Objective, ...]:
        """Objectives that say how good a configuration is: maximised, or measured with an interval."""
        return tuple(o for o in self.objectives if o.maximize or f"{o.column}_low" in self.table.columns)

    @property
    def costs(self) -> tuple[Objective, ...]:
        """The other objectives: what a configuration takes."""
        return tuple(o for o in self.objectives if o not in self.qualities)

    @property
    def points(self) -> NDArray[np.float64]:
        """Values of the objectives, everything minimised, ``(rows, objectives)``."""
        return np.stack([self._losses(objective) for objective in self.objectives], axis=1)

    def pick(self, *, minimize: str | None = None, **limits: float) -> BitConfig | Infeasible:
        """Return the configuration to use under ``limits``, or what stands in the way.

        With a limit on a cost it is the best quality that meets all limits, ties to the smaller costs; with limits on
        quality alone the cheapest, in ``minimize`` or the first cost; without limits the knee.

        Parameters
        ----------
        minimize
            Metric to minimise instead.
        **limits
            Upper limits of metrics that are minimised, lower limits of those that are maximised, by objective name or
            column: ``latency_ms=33.0, accuracy=0.9``. Meeting a limit exactly is enough.

        Raises
        ------
        InputError
            If a metric is unknown, or a limit is not a finite number.
        """
        maximum = {name: value for name, value in limits.items() if not self._metric(name).maximize}
        minimum = {name: value for name, value in limits.items() if name not in maximum}
        row = self.pick_row(maximum=maximum, minimum=minimum, minimize=minimize)
        return row if isinstance(row, Infeasible) else self.config(row)

    def pick_row(
        self,
        *,
        maximum: Mapping[str, float] | None = None,
        minimum: Mapping[str, float] | None = None,
        minimize: str | None = None,
    ) -> int | Infeasible:
        """Return the row to use under upper and lower limits, or what stands in the way; see :meth:`pick`.

        Raises
        ------
        InputError
            If a metric is unknown, or a limit is not a finite number.
        """
        limits = self._limits(maximum or {}, minimum or {})
        target = self._metric(minimize) if minimize is not None else None
        if target is not None and target.maximize:
            raise InputError(
                f"expected a cost to minimise, got {minimize}, of which more is better; name another metric"
            )
        if len(self.table) == 0:
            return Infeasible(Reason.EMPTY, levers=("measure at least one configuration: raise the budget",))
        met = self._met(limits)
        if not met.any():
            values = np.stack([self._values(limit.column) for limit in limits], axis=1)
            return explain(limits, values, reach=self.reach, labels=[f"{c}" for c in self.table["config_id"]])
        if not limits and target is None:
            return knee(self.points)
        order = self._preference(limits, target)
        keys = [self._losses(objective) for objective in reversed(order)]
        ranked = np.lexsort(keys)
        return int(ranked[met[ranked]][0])

    def column(self, name: str) -> str:
        """Return the column of a metric, which may be called by its objective, its column, or that without its tier.

        Raises
        ------
        InputError
            If it is unknown.
        """
        return self._metric(name).column

    def meets(
        self, *, maximum: Mapping[str, float] | None = None, minimum: Mapping[str, float] | None = None
    ) -> NDArray[np.bool_]:
        """Return which rows meet all upper and lower limits, ``(rows,)``; see :meth:`pick`.

        Raises
        ------
        InputError
            If a metric is unknown, or a limit is not a finite number.
        """
        return self._met(self._limits(maximum or {}, minimum or {}))

    def _met(self, limits: list[Limit]) -> NDArray[np.bool_]:
        met = np.ones(len(self), dtype=bool)
        for limit in limits:
            met &= limit.is_met(self._values(limit.column))
        return met

    def config(self, row: int) -> BitConfig:
        """Return the bit configuration of a row.

        Raises
        ------
        InputError
            If there is no such row.
        """
        if not 0 <= row < len(self.table):
            raise InputError(f"expected a row of the front from 0 to {len(self.table) - 1}, got {row}")
        texts = str(self.table["bits"].iloc[row]).split()
        return BitConfig(dict(zip(self.layers, map(Precision.parse, texts), strict=True)), self.origin)

    def _preference(self, limits: list[Limit], target: Objective | None) -> list[Objective]:
        """Return the objectives in the order in which a row is chosen: the first decides, the others break ties."""
        quality_columns = {c for quality in self.qualities for c in (quality.column, _drop_of(quality.column))}
        cost_limited = any(_without_interval(limit.column) not in quality_columns for limit in limits)
        if target is not None:
            order = [target, *self.qualities, *self.costs]
        elif cost_limited or not self.costs:
            order = [*self.qualities, *self.costs]
        else:
            order = [self.costs[0], *self.qualities, *self.costs[1:]]
        return order

    def _limits(self, maximum: Mapping[str, float], minimum: Mapping[str, float]) -> list[Limit]:
        """Return upper and lower limits, checked."""
        upper = [self._limit(name, value, 1) for name, value in maximum.items()]
        return [*upper, *(self._limit(name, value, -1) for name, value in minimum.items())]

    def _limit(self, name: str, value: float, sign: int) -> Limit:
        """Return the limit on metric ``name``, checked."""
        metric = self._metric(name)
        if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not np.isfinite(value):
            raise InputError(f"expected a finite number as the limit of {name}, got {value!r}")
        if round(value, 6) > 1.0 and metric.column.removesuffix("_measured") in SHARES:
            raise InputError(f"expected {name} as a share from 0 to 1, got {value:g}; did you mean {value / 100:g}?")
        if value >= 1.0 and metric.column in map(_drop_of, SHARES):
            raise InputError(
                f"expected {name} as a share below 1, where 0.01 is a point, got {value:g}; did you mean "
                f"{value / 100:g}?"
            )
        return Limit(name=name, column=metric.column, sign=sign, value=float(value))

    def _metric(self, name: str) -> Objective:
        """Return the metric called ``name``: an objective by name or column, or any numeric column of the table."""
        for objective in self.objectives:
            if name in (objective.name, objective.column):
                return objective
        known = [c for c in self.table.columns if pd.api.types.is_numeric_dtype(self.table[c]) and c not in KEY_COLUMNS]
        name = next((c for c in (name, *(f"{name}_{tier}" for tier in TIERS)) if c in known), name)
        if name in known:
            raised = {o.column for o in self.objectives if o.maximize}
            return Objective(name, name, _without_interval(name) in raised)
        names = sorted({objective.name for objective in self.objectives} | set(known))
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise InputError(f"expected a metric of this front ({', '.join(names)}), got {name!r}{hint}")

    def _values(self, column: str) -> NDArray[np.float64]:
        """Return a column as ``(rows,)`` float64."""
        return self.table[column].to_numpy(dtype=np.float64)

    def _losses(self, objective: Objective) -> NDArray[np.float64]:
        """Return an objective's values, minimised, ``(rows,)``."""
        values = self._values(objective.column)
        return -values if objective.maximize else values


def _drop_of(column: str) -> str:
    """Return the column of the drop of a measured quality.

    >>> _drop_of("top1_measured")
    'top1_drop_measured'
    """
    return f"{column.removesuffix('_measured')}_drop_measured"


def _without_interval(column: str) -> str:
    """Return the quality column whose interval ends in ``column``, or ``column`` itself."""
    return column.removesuffix("_low").removesuffix("_high")
