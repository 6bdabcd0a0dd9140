"""One configuration for a whole fleet: the measured one whose largest regret over all devices is smallest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from math import inf, nan
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from hwdse.pareto import non_dominated
from hwdse.report.comparison import Asked
from hwdse.report.drawing import DOUBLE_INCHES, Drawing, head, look_of, new_figure, sentence_figure
from hwdse.report.fronts import load_front
from hwdse.report.tables import RunTables
from hwdse.report.terminal import heading, new_table
from hwdse.report.words import drop_text, number, quality_text, split_column

__all__ = ["Fleet", "Shared", "draw_fleet", "fleet_tables"]

USEFUL_DROPS = 5.0
LINES = 8
ADVICE = "add [fleet] evaluations = 8 to the experiment and explore again with --resume, or compare fewer devices"

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Shared:
    """One configuration for all devices against one configuration per device, at an allowed drop.

    Attributes
    ----------
    drop
        The allowed drop of quality.
    bits
        The shared configuration, a precision per layer.
    config_id
        Its short name.
    own, shared
        What each device's own best and the shared configuration cost, ``(devices,)``.
    own_ids
        Name of each device's own best.
    quality
        Measured quality of the shared configuration on each device, ``(devices,)``.
    """

    drop: float
    bits: str
    config_id: str
    own: Floats
    shared: Floats
    own_ids: tuple[str, ...]
    quality: Floats

    @property
    def regret(self) -> Floats:
        """What sharing costs each device, relative to its own best, ``(devices,)``."""
        return np.asarray(self.shared / self.own - 1.0)


class Fleet:
    """The measured configurations that all devices of a comparison can run, and that meet the limits on each.

    Parameters
    ----------
    tables
        The run, with the devices to compare.
    asked
        The limits; where none is about quality, the run's allowed drop is one.

    Raises
    ------
    InputError
        If a limit is of a metric that a device does not know, or not a finite number.
    """

    def __init__(self, tables: RunTables, asked: Asked | None = None) -> None:
        self.tables, self.asked = tables, (asked or Asked()).within(tables)
        self.devices = tuple(name for name, device in tables.results.items() if not device.emptiness)
        drop = tables.quality.drop
        limited = {name: value for name, value in self.asked.maximum.items() if name != drop}
        self.allowed = self.asked.maximum.get(drop, inf)
        self._all = {name: tables.results[name].measured.drop_duplicates("bits") for name in self.devices}
        self._measured = {}
        for name, table in self._all.items():
            front = replace(load_front(tables.run, name, tables=tables), table=table)
            met = front.meets(maximum=limited, minimum=self.asked.minimum)
            self._measured[name] = table[met].set_index("bits")
        self.common = _in_all([table.index for table in self._measured.values()])

    def _column(self, name: str) -> Floats:
        """Return a column of the common configurations, ``(configurations, devices)``."""
        columns = [table.loc[self.common, name].to_numpy(float) for table in self._measured.values()]
        return np.stack(columns, axis=1)

    @cached_property
    def _costs(self) -> Floats:
        return self._column(self.tables.main_cost)

    @cached_property
    def _drops(self) -> Floats:
        return self._column(self.tables.quality.drop)

    @cached_property
    def _qualities(self) -> Floats:
        return self._column(self.tables.quality.column)

    @property
    def least_drop(self) -> float | None:
        """The smallest drop within which a configuration is shared; ``None`` if none is."""
        return float(self._drops.max(axis=1).min()) if self.common else None

    def best(self, drop: float) -> Shared | None:
        """Return the shared configuration with the smallest largest regret within ``drop``; ``None`` if there is none.

        Of equal ones the smaller sum of regrets decides, then the smaller drop.
        """
        if not self.common:
            return None
        worst = self._drops.max(axis=1)
        rows = np.flatnonzero(worst <= drop)
        if rows.size == 0:
            return None
        quality, main = self.tables.quality, self.tables.main_cost
        own, ids = np.empty(len(self.devices)), []
        for d, table in enumerate(self._measured.values()):
            costs = np.where(table[quality.drop] <= drop, table[main], np.inf)
            own[d] = costs.min()
            ids.append(str(table["config_id"].iloc[int(costs.argmin())]))
        regret = self._costs[rows] / own - 1.0
        row = int(rows[np.lexsort((worst[rows], regret.sum(axis=1), regret.max(axis=1)))[0]])
        bits = self.common[row]
        first = next(iter(self._measured.values()))
        name = str(first["config_id"].iloc[first.index.get_loc(bits)])
        return Shared(drop, bits, name, own, self._costs[row], tuple(ids), self._qualities[row])

    @property
    def sentence(self) -> str:
        """What one configuration for all devices costs within the limits; empty where none was measured on all."""
        shared = self.best(self.allowed)
        if shared is None:
            return f"One configuration for all: none. {self.absence}" if self._are_shared else ""
        words, most = split_column(self.tables.main_cost)[0].lower(), _percent(float(shared.regret.max()))
        return (
            f"One configuration for all: {shared.config_id}, within {self.limits} at most {most} above a device's own "
            f"best {words} ({self.devices[int(shared.regret.argmax())]})."
        )

    def curve(self) -> list[Shared]:
        """Return the best shared configuration wherever it changes, from the least drop to five times the allowed."""
        if self.least_drop is None:
            return []
        top = max(USEFUL_DROPS * self.usual, 2 * self.least_drop, self.least_drop)
        steps = np.unique(self._turns[(self._turns >= self.least_drop) & (self._turns <= top)])
        found = [shared for drop in steps if (shared := self.best(float(drop))) is not None]
        return [
            shared
            for i, shared in enumerate(found)
            if i == 0 or shared.bits != found[i - 1].bits or not np.array_equal(shared.regret, found[i - 1].regret)
        ]

    @cached_property
    def _turns(self) -> Floats:
        """Drops at which the best shared configuration, or a device's own best, can change: no others need be tried."""
        worst = self._drops.max(axis=1)
        turns = [worst[non_dominated(np.column_stack([self._costs, worst]))]]
        for table in self._measured.values():
            drops, costs = (table[name].to_numpy(float) for name in (self.tables.quality.drop, self.tables.main_cost))
            order = np.lexsort((costs, drops))
            least = np.minimum.accumulate(costs[order])
            turns.append(drops[order][np.diff(least, prepend=np.inf) < 0])
        return np.concatenate(turns)

    @property
    def reason(self) -> str:
        """Why no configuration is shared, and what to do; empty where one is."""
        if len(self.devices) < 2:
            return "A fleet takes two devices or more with measured configurations; compare more devices."
        if self.common:
            return ""
        if self._are_shared:
            none = [name for name, table in self._measured.items() if table.empty]
            if none:
                return f"{', '.join(none)} {'has' if len(none) == 1 else 'have'} none within {self.limits}."
            return f"No configuration that was measured on all devices is within {self.limits} on each of them."
        bound = self._nothing_in_common()
        if bound:
            return f"No precision of {bound} runs on all of {', '.join(self.devices)}; compare fewer devices."
        apart = [
            f"{a} and {b}"
            for a, b in combinations(self.devices, 2)
            if self._measured[a].index.intersection(self._measured[b].index).empty
        ]
        who = "; ".join(apart) or f"all of {', '.join(self.devices)} together"
        return f"No measured configuration is shared by {who}; {ADVICE}."

    def _nothing_in_common(self) -> str:
        """Return the first group for which the devices have no candidate in common; empty if there is none."""
        found = [self.tables.results[name].costs for name in self.devices]
        costs = [table for table in found if table is not None]
        if len(costs) < len(found):
            return ""
        pairs = [set(zip(table["group"], table["candidate"], strict=True)) for table in costs]
        left = {group for group, _ in set.intersection(*pairs)}
        return next((str(group) for group in costs[0]["group"] if group not in left), "")

    @property
    def facts(self) -> dict[str, Any]:
        """Everything as plain data."""
        shared = self.best(self.allowed)
        facts: dict[str, Any] = {
            "devices": list(self.devices),
            "shared_measured": len(self.common),
            "reason": self.reason,
            "least_drop": self.least_drop,
            "allowed_drop": None if self.allowed == inf else self.allowed,
            "limits": self.limits,
            "best": None if shared is None else self._plain(shared),
        }
        return facts | {"curve": [self._plain(each) for each in self.curve()]}

    @property
    def limits(self) -> str:
        """The limits as words."""
        return self.asked.words(self.tables)

    @property
    def absence(self) -> str:
        """Why there is no shared configuration within the limits; empty if there is one."""
        if self.reason or self.least_drop is None or self.least_drop <= self.allowed:
            return self.reason
        name = self.tables.quality.name
        return (
            f"No shared configuration is within {self.limits} on all devices; the best of {len(self.common)} drops by "
            f"{_drop(name, self.least_drop)}; {ADVICE}."
        )

    @cached_property
    def _are_shared(self) -> bool:
        """True if some configuration was measured on all devices, within limits or not."""
        return bool(_in_all([pd.Index(table["bits"]) for table in self._all.values()]))

    @property
    def usual(self) -> float:
        """The allowed drop; the run's, where limits are about something else."""
        return self.tables.max_drop if self.allowed == inf else self.allowed

    def _plain(self, shared: Shared) -> dict[str, Any]:
        """Return one shared configuration as plain data."""
        column = self.tables.main_cost
        rows = [
            {
                "device": name,
                "own_config_id": shared.own_ids[i],
                f"own_{column}": float(shared.own[i]),
                f"shared_{column}": float(shared.shared[i]),
                "regret": float(shared.regret[i]),
                self.tables.quality.column: float(shared.quality[i]),
            }
            for i, name in enumerate(self.devices)
        ]
        largest = float(shared.regret.max())
        return {
            "drop": None if shared.drop == inf else shared.drop,
            "config_id": shared.config_id,
            "bits": shared.bits,
            "largest_regret": largest,
            "devices": rows,
        }


def _in_all(indices: Sequence[pd.Index]) -> list[str]:
    """Return what is in all of two indices or more, in the order of the first."""
    return [bits for bits in indices[0] if all(bits in index for index in indices)] if len(indices) > 1 else []


def fleet_tables(fleet: Fleet) -> list[Table]:
    """Return the shared configuration by device, and the largest regret by allowed drop, for a terminal."""
    tables = fleet.tables
    table = new_table(f"{tables.name}: one configuration for all within {fleet.limits}")
    words = heading(tables.main_cost)
    table.add_column("Device", overflow="fold")
    for column in (f"Own best\n{words}", f"Shared\n{words}", "Regret", heading(tables.quality.column)):
        table.add_column(column, justify="right")
    shared = fleet.best(fleet.allowed)
    if shared is None:
        table.caption = escape(fleet.absence)
        return [table] if fleet.least_drop is None else [table, _curve_table(fleet)]
    for i, name in enumerate(fleet.devices):
        cells = [number(shared.own[i]), number(shared.shared[i]), _percent(shared.regret[i])]
        table.add_row(name, *cells, quality_text(tables.quality.name, shared.quality[i]))
    table.caption = (
        f"Configuration {shared.config_id}: its largest regret, {_percent(float(shared.regret.max()))}, is the "
        f"smallest of the {len(fleet.common)} configurations measured on all {len(fleet.devices)} devices."
    )
    return [table, _curve_table(fleet)]


def _drop(name: str, value: float) -> str:
    """Return a measured drop, rounded up so that asking for it admits it."""
    return drop_text(name, float(np.ceil(value * 1e5) / 1e5))


def _curve_table(fleet: Fleet) -> Table:
    """Return the largest regret by allowed drop, at most eight lines of it."""
    tables = fleet.tables
    table = new_table("Largest regret by allowed drop")
    table.add_column("Drop", justify="right")
    table.add_column("Largest regret", justify="right")
    table.add_column("On", overflow="fold")
    table.add_column("Configuration", overflow="fold")
    curve = fleet.curve()
    places = np.unique(np.linspace(0, len(curve) - 1, min(LINES, len(curve))).round().astype(int))
    for place in places:
        shared = curve[place]
        worst = int(shared.regret.argmax())
        drop = _drop(tables.quality.name, shared.drop)
        table.add_row(drop, _percent(float(shared.regret[worst])), fleet.devices[worst], shared.config_id)
    if len(places) < len(curve):
        table.caption = f"{len(places)} of {len(curve)} steps; all are in compare-fleet.csv."
    return table


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def draw_fleet(fleet: Fleet) -> Drawing:
    """Return the figure of a fleet: largest regret by allowed drop, and own best against shared by device."""
    tables, curve = fleet.tables, fleet.curve()
    points = _points(fleet, curve)
    if not curve:
        return Drawing("compare-fleet", sentence_figure(fleet.reason, tables.name), points, fleet.reason)
    shared = fleet.best(fleet.allowed)
    at = shared or curve[0]
    figure = new_figure(DOUBLE_INCHES, 1.3 + 0.26 * max(len(fleet.devices), 5))
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    _draw_curve(left, fleet, curve)
    _draw_bars(right, fleet, at)
    within = fleet.limits if shared else f"a drop of {_drop(tables.quality.name, at.drop)}"
    most = _percent(float(at.regret.max()))
    head(
        figure,
        f"{tables.name}: one configuration for {len(fleet.devices)} devices",
        f"within {within} it costs at most {most} more",
    )
    caption = (
        f"Left: smallest largest regret in {split_column(tables.main_cost)[0].lower()} of one configuration for all "
        f"devices, over what each could have for itself, by allowed drop; from {len(fleet.common)} configurations "
        f"measured on all devices. Right: its cost by device relative to the device's own best, within {within}. "
        "A factor by which all predictions of a device are off leaves its regret as it is."
    )
    return Drawing("compare-fleet", figure, points, caption)


def _draw_curve(axes: Axes, fleet: Fleet, curve: Sequence[Shared]) -> None:
    tables = fleet.tables
    factor = tables.quality.factor
    drops = np.array([shared.drop for shared in curve])
    regrets = np.array([100 * shared.regret.max() for shared in curve])
    end = max(USEFUL_DROPS * fleet.usual, 1.05 * float(drops[-1])) or 1.0
    x, y = np.append(drops, end) * factor, np.append(regrets, regrets[-1])
    axes.step(x, y, where="post", color="#0072B2", linewidth=1.2)
    axes.plot(x[:-1], y[:-1], "o", color="#0072B2", markersize=2.5)
    if fleet.allowed < inf:
        axes.axvline(factor * fleet.allowed, color="#222222", linewidth=0.8, linestyle=(0, (4, 2)))
        axes.text(
            factor * fleet.allowed, 1.0, " allowed", transform=axes.get_xaxis_transform(), va="bottom", fontsize=6
        )
    axes.set_ylim(bottom=0, top=max(1.15 * float(y.max()), 1.0))
    unit = "points" if factor > 1 else tables.quality.name
    axes.set_xlabel(f"Allowed drop ({unit})")
    axes.set_ylabel("Largest regret (%)")


def _draw_bars(axes: Axes, fleet: Fleet, shared: Shared) -> None:
    tables = fleet.tables
    unit = split_column(tables.main_cost)[1]
    extra = 100 * shared.regret
    places = np.arange(len(fleet.devices))
    colours = [look_of(name, tables.devices).colour for name in fleet.devices]
    axes.barh(places - 0.19, np.full(len(places), 100.0), height=0.34, color=colours, alpha=0.4, zorder=2)
    axes.barh(places + 0.19, 100 + extra, height=0.34, color=colours, zorder=2)
    for place in places:
        own, both = number(shared.own[place]), number(shared.shared[place])
        axes.text(101.5, place - 0.19, f"own {own} {unit}".rstrip(), va="center", fontsize=5.5)
        axes.text(101.5 + extra[place], place + 0.19, f"shared {both} {unit}".rstrip(), va="center", fontsize=5.5)
    axes.set_yticks(places, list(fleet.devices))
    axes.set_ylim(len(places) - 0.4, -0.6)
    axes.set_xlim(0, (100 + max(float(extra.max()), 0.0)) * 1.3)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(visible=False, axis="y")
    words, _, tier = split_column(tables.main_cost)
    axes.set_xlabel(f"{words} relative to the device's own best (%{', ' + tier if tier else ''})")


def _points(fleet: Fleet, curve: Sequence[Shared]) -> pd.DataFrame:
    """Return one row per step and device, with the largest regret of the step."""
    allowed = fleet.best(fleet.allowed)
    series = [("curve", shared) for shared in curve] + ([("allowed", allowed)] if allowed is not None else [])
    rows = [
        {
            "series": name,
            "drop": nan if shared.drop == inf else shared.drop,
            "largest_regret": float(shared.regret.max()),
            "config_id": shared.config_id,
            "bits": shared.bits,
            "device": device,
            "own": shared.own[i],
            "shared": shared.shared[i],
            "regret": shared.regret[i],
        }
        for name, shared in series
        for i, device in enumerate(fleet.devices)
    ]
    names = ["series", "drop", "largest_regret", "config_id", "bits", "device", "own", "shared", "regret"]
    return pd.DataFrame(rows, columns=names)
