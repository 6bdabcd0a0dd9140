"""Does the order of devices survive what the predictions leave open? Draws from the interval of each device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray
from rich.table import Table

from hwdse.report.drawing import DOUBLE_INCHES, Drawing, look_of, new_figure, sentence_figure, set_log
from hwdse.report.tables import RunTables
from hwdse.report.terminal import new_table
from hwdse.report.words import axis_label, number, split_column

__all__ = [
    "NO_INTERVAL",
    "Ranking",
    "draw_intervals",
    "draw_ranking",
    "factor_taken",
    "rank_devices",
    "ranking_tables",
    "thin_ticks",
]

DRAWS, SEED = 10_000, 0
Z90 = 1.645
UNKNOWN_FACTOR = 10.0
NO_INTERVAL = "no interval: order of magnitude"

Floats = NDArray[np.float64]


def factor_taken(known: float | None) -> float:
    """Return the factor to reckon with: 10 where none is known."""
    return UNKNOWN_FACTOR if known is None else known


@dataclass(frozen=True, eq=False)
class Ranking:
    """The order of devices by one cost, and how sure it is.

    A device's true cost is its predicted one times a factor that is common to all of its configurations, log-normal
    and independent between devices: 90 % of it lies between 1 / f and f.

    Attributes
    ----------
    column
        The cost.
    devices
        Names, cheapest first.
    costs
        Predicted, ``(devices,)``.
    known
        Factor of each device's 90 % interval; ``None`` where none is known, and 10 is taken.
    """

    column: str
    devices: tuple[str, ...]
    costs: Floats
    known: tuple[float | None, ...]

    @property
    def factors(self) -> Floats:
        """Factors of the 90 % intervals, ``(devices,)``."""
        return np.array([factor_taken(factor) for factor in self.known])

    @cached_property
    def draws(self) -> Floats:
        """Logarithms of costs, ``(draws, devices)``."""
        normal = np.random.default_rng(SEED).standard_normal((DRAWS, len(self.devices)))
        return np.log(self.costs) + np.log(self.factors) / Z90 * normal

    @cached_property
    def ranks(self) -> NDArray[np.intp]:
        """Rank of each device in each draw, from 1, ``(draws, devices)``."""
        return self.draws.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable") + 1

    @property
    def best(self) -> Floats:
        """Probability that a device is the cheapest, ``(devices,)``."""
        return np.asarray((self.ranks == 1).mean(axis=0))

    @property
    def rank_interval(self) -> NDArray[np.intp]:
        """Ends of the 90 % interval of each rank, ``(devices, 2)``."""
        return np.quantile(self.ranks, (0.05, 0.95), axis=0, method="inverted_cdf").astype(np.intp).T

    @property
    def whole(self) -> float:
        """Probability that the whole order is as predicted."""
        return float((self.ranks == np.arange(1, len(self.devices) + 1)).all(axis=1).mean())

    @property
    def before(self) -> Floats:
        """Probability that the device of the row is cheaper than that of the column, ``(devices, devices)``."""
        return np.asarray((self.ranks[:, :, None] < self.ranks[:, None, :]).mean(axis=0))

    @property
    def sentence(self) -> str:
        """Which device is first and how sure that is; empty where there is one device or none."""
        if len(self.devices) <= 1:
            return ""
        words = split_column(self.column)[0].lower()
        return (
            f"By {words}: {self.devices[0]} first with a chance of {_percent(float(self.best[0]))}, the whole order "
            f"with {_percent(self.whole)}."
        )

    @property
    def facts(self) -> dict[str, Any]:
        """Everything as plain data."""
        before, best, ranks = self.before, self.best, self.rank_interval
        rows = []
        for i, name in enumerate(self.devices):
            cost, factor = float(self.costs[i]), float(self.factors[i])
            others = {other: float(before[i, j]) for j, other in enumerate(self.devices) if j != i}
            rows.append(
                {
                    "device": name,
                    self.column: cost,
                    "low": cost / factor,
                    "high": cost * factor,
                    "factor": factor,
                    "note": NO_INTERVAL if self.known[i] is None else "",
                    "best_probability": float(best[i]),
                    "rank_low": int(ranks[i, 0]),
                    "rank_high": int(ranks[i, 1]),
                    "before_probability": others,
                }
            )
        return {"column": self.column, "draws": DRAWS, "whole_order_probability": self.whole, "devices": rows}


def rank_devices(tables: RunTables, column: str, rows: Mapping[str, pd.Series]) -> Ranking:
    """Return the order by ``column`` of the devices that have a row, one configuration each."""
    costs = {name: float(row[column]) for name, row in rows.items()}
    names = tuple(sorted(costs, key=lambda name: costs[name]))
    known = tuple(tables.results[name].factor(column, str(rows[name]["bits"])) for name in names)
    return Ranking(column, names, np.array([costs[name] for name in names]), known)


def ranking_tables(tables: RunTables, ranking: Ranking) -> list[Table]:
    """Return the order with its intervals, and who comes before whom, for a terminal."""
    words, unit, tier = split_column(ranking.column)
    first = new_table(f"{tables.name}: order by {words.lower()}, and whether it survives its uncertainty")
    for name in ("", "Device"):
        first.add_column(name, overflow="fold")
    for name in (" ".join(filter(None, (unit, tier))), "90 % interval", "Chance to\nbe first", "Rank,\n90 %"):
        first.add_column(name, justify="right", no_wrap=True)
    for place, row in enumerate(ranking.facts["devices"], start=1):
        span = "none*" if row["note"] else f"{number(row['low'])} to {number(row['high'])}"
        ends = dict.fromkeys((row["rank_low"], row["rank_high"]))
        ranks = " to ".join(map(str, ends))
        chance = _percent(row["best_probability"])
        first.add_row(str(place), row["device"], number(row[ranking.column]), span, chance, ranks)
    sentences = [
        f"The whole order holds with a probability of {_percent(ranking.whole)} ({DRAWS} draws, seed {SEED}).",
        f"* {NO_INTERVAL}; chances and ranks take a factor of {UNKNOWN_FACTOR:g}." if None in ranking.known else "",
        "A device's factor is common to all its configurations and independent of the others'.",
    ]
    first.caption = "\n".join(filter(None, sentences))
    second = new_table("Probability in % that the row costs less than the column")
    second.add_column("", justify="right")
    second.add_column("Device", overflow="fold")
    count = len(ranking.devices)
    for place in range(1, count + 1):
        second.add_column(str(place), justify="right", no_wrap=True)
    before = ranking.before
    for i, name in enumerate(ranking.devices):
        cells = ["" if i == j else f"{100 * before[i, j]:.0f}" for j in range(count)]
        second.add_row(str(i + 1), name, *cells)
    return [first, second]


def _percent(share: float) -> str:
    """Return a probability in percent; what was never or always drawn is not said to be certain.

    >>> _percent(0.0), _percent(0.004), _percent(0.5), _percent(1.0)
    ('< 1 %', '< 1 %', '50 %', '> 99 %')
    """
    if share < 0.005:
        return "< 1 %"
    return "> 99 %" if share > 0.995 else f"{100 * share:.0f} %"


def draw_ranking(tables: RunTables, ranking: Ranking) -> Drawing:
    """Return the figure of an order: costs with their 90 % intervals, and who comes before whom."""
    name = f"compare-ranking-{ranking.column}"
    points = _points(ranking)
    if not ranking.devices:
        sentence = "No device meets the limits, so there is no order."
        return Drawing(name, sentence_figure(sentence, tables.name), points, sentence)
    count = len(ranking.devices)
    figure = new_figure(DOUBLE_INCHES, 1.1 + 0.24 * max(count, 4))
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    _draw_costs(left, tables, ranking)
    _draw_before(right, ranking)
    words = split_column(ranking.column)[0].lower()
    figure.suptitle(f"{tables.name}: order by {words}; all of it holds with a probability of {_percent(ranking.whole)}")
    missing = [device for device, factor in zip(ranking.devices, ranking.known, strict=True) if factor is None]
    caption = (
        f"Cheapest configuration within the limits of each device by {axis_label(ranking.column)} with its 90 % "
        f"interval, and the probability that the row costs less than the column ({DRAWS} log-normal draws, seed "
        f"{SEED}, independent between devices)."
    )
    if missing:
        caption += f" Dashed and hollow: {NO_INTERVAL}, a factor of {UNKNOWN_FACTOR:g} ({', '.join(missing)})."
    return Drawing(name, figure, points, caption)


def _draw_costs(axes: Axes, tables: RunTables, ranking: Ranking) -> None:
    low, high = ranking.costs / ranking.factors, ranking.costs * ranking.factors
    draw_intervals(axes, tables, ranking.devices, ranking.costs, ranking.known)
    axes.set_yticks(range(len(ranking.devices)), [f"{name}  {i}" for i, name in enumerate(ranking.devices, start=1)])
    set_log(axes, "x")
    margin = float(high.max() / low.min()) ** 0.05
    axes.set_xlim(float(low.min()) / margin, float(high.max()) * margin)
    thin_ticks(axes, decades=float(np.log10(high.max() / low.min())))
    axes.set_xlabel(axis_label(ranking.column) + ", 90 % interval")


def draw_intervals(
    axes: Axes, tables: RunTables, devices: Sequence[str], costs: Floats, known: Sequence[float | None]
) -> None:
    """Draw one bar per device, top down, on an axis of cost; dashed and hollow where no interval is known."""
    for place, (name, cost, factor) in enumerate(zip(devices, costs, known, strict=True)):
        look, f = look_of(name, tables.devices), factor_taken(factor)
        line = (0, (2, 1.5)) if factor is None else "-"
        axes.plot([cost / f, cost * f], [place, place], color=look.colour, linewidth=1.4, linestyle=line, zorder=2)
        face = "white" if factor is None else look.colour
        axes.plot(cost, place, look.marker, color=look.colour, mfc=face, markersize=4, zorder=3)
    axes.set_yticks(range(len(devices)), list(devices))
    axes.set_ylim(len(devices) - 0.4, -0.6)


def thin_ticks(axes: Axes, *, decades: float) -> None:
    """Leave only powers of ten as ticks where the axis spans many decades."""
    if decades > 2.5:
        axes.xaxis.get_major_locator().set_params(subs=(1.0,))  # type: ignore[call-arg]


def _draw_before(axes: Axes, ranking: Ranking) -> None:
    count, before = len(ranking.devices), ranking.before
    shown = np.where(np.eye(count, dtype=bool), np.nan, 100 * before)
    axes.imshow(shown, cmap="RdBu", vmin=-15, vmax=115, aspect="auto")
    size = 6.0 if count <= 8 else 5.0
    for i, j in np.argwhere(~np.eye(count, dtype=bool)):
        colour = "white" if abs(shown[i, j] - 50) > 38 else "#222222"
        axes.text(j, i, f"{shown[i, j]:.0f}", ha="center", va="center", fontsize=size, color=colour)
    axes.set_xticks(range(count), [str(j + 1) for j in range(count)])
    axes.set_yticks(range(count), [f"{i + 1}" for i in range(count)])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.set_ylim(count - 0.4, -0.6)
    axes.set_xlabel("Probability (%) that the row costs less than the column")


def _points(ranking: Ranking) -> pd.DataFrame:
    """Return one row per device: cost, interval, chances, and the probability to come before each other device."""
    rows = []
    for row in ranking.facts["devices"] if ranking.devices else []:
        others = row.pop("before_probability")
        rows.append(row | {f"before_{name}": value for name, value in others.items()})
    return pd.DataFrame(rows, columns=None if rows else ["device", ranking.column])
