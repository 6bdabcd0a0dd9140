"""The roofline of one device with the network's layers on it, at one configuration: what bounds each layer."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from hwdse.errors import RunFolderError
from hwdse.report.bits import chosen_row
from hwdse.report.drawing import (
    DOUBLE_INCHES,
    INK,
    SINGLE_INCHES,
    Drawing,
    LineStyle,
    head,
    look_of,
    new_figure,
    powers_alone,
    sentence_figure,
    set_log,
)
from hwdse.report.placement import place_labels
from hwdse.report.tables import DeviceTables, RunTables
from hwdse.report.words import elide, number

__all__ = ["draw_roofline"]

COLUMNS = (
    "layer", "precision", "macs", "mac_share", "memory", "memory_bytes", "intensity_macs_per_byte",
    "compute_gmac_per_s", "memory_gb_per_s", "roof_gmac_per_s", "bound_gmac_per_s_predicted",
    "attained_gmac_per_s_predicted", "bounded_by", "latency_origin",
)  # fmt: skip
OVERHEAD, COMPUTE = "overhead", "compute"
BOUND_MARKERS = {COMPUTE: "o", "memory": "s", OVERHEAD: "^"}
SLOPES: tuple[LineStyle, ...] = ("-", "--", ":", "-.")
SMALLEST, GROWTH = 3.0, 9.0
"""Diameter in points of a layer without MACs, and what it is wider where one layer has all of them."""

NAMED_SINGLE, NAMED_DOUBLE = 3, 8
LONGEST_NAME = 24
MARGIN = 1.5
SLOPE_STEPS = 60
NARROWEST = 10.0
"""Ratio of the ends of an axis at least, so that it has ticks."""

RATE_GAP = 0.055
"""Distance between the names of two level lines at least, as a share of the height."""


@dataclass(frozen=True)
class _Roof:
    """Lines of the roof: rates by precision in GMAC/s, highest first, and bandwidths by memory level in GB/s."""

    rates: dict[str, float]
    levels: dict[str, float]

    @property
    def ridges(self) -> list[tuple[float, float]]:
        """Where a slope meets a level line: MACs per byte and GMAC/s."""
        return [(rate / bandwidth, rate) for bandwidth in self.levels.values() for rate in self.rates.values()]


def draw_roofline(tables: RunTables, name: str, *, width: float = DOUBLE_INCHES) -> Drawing:
    """Return the roofline of the device ``name`` with the layers of the picked configuration.

    Parameters
    ----------
    tables, name
        Of the run, and of the device.
    width
        Of the figure in inches.

    Raises
    ------
    RunFolderError
        If the run's table of bounds lacks a choice of the configuration.
    """
    device = tables.results[name]
    file_name, title = f"roofline-{name}", f"{tables.title_of(name)}: roofline"
    sentence = device.emptiness if device.pick is None else ""
    if not sentence and device.roofline is None:
        sentence = (
            f"The run does not hold what bounds the layers on {name} (no roofline.csv); hwdse explore with --resume "
            "writes it."
        )
    if sentence:
        return Drawing(file_name, sentence_figure(sentence, title), pd.DataFrame(columns=list(COLUMNS)), sentence)
    row, why = chosen_row(tables, device)
    table, roof = _points(tables, device, row["bits"])
    figure = new_figure(width, 3.1)
    axes = figure.subplots()
    _limit(axes, table, roof)
    _draw_roof(axes, roof)
    _draw_layers(axes, table, look_of(name, tables.devices).colour)
    axes.set_xlabel("Arithmetic intensity (MACs per byte moved)")
    axes.set_ylabel("Speed (GMAC/s, predicted)")
    head(figure, title, why)
    _legend(figure, table, roof, look_of(name, tables.devices).colour)
    _name_rates(axes, roof)
    figure.draw_without_rendering()  # whatever takes room is there: labels are placed where they stay
    _label(axes, table, roof, most=NAMED_SINGLE if width <= SINGLE_INCHES else NAMED_DOUBLE)
    return Drawing(file_name, figure, table, _caption(tables, device, row, why, table))


def _points(tables: RunTables, device: DeviceTables, bits: str) -> tuple[pd.DataFrame, _Roof]:
    """Return a row per layer at its precision, and the roof over them."""
    known = device.roofline
    assert known is not None
    chosen = pd.DataFrame({"layer": tables.layers["layer"], "candidate": bits.split()})
    table = chosen.merge(known, on=["layer", "candidate"], how="left")
    missing = table[table["macs"].isna()]
    if len(missing):
        raise RunFolderError(
            f"expected every choice of a configuration in {tables.run / device.device / 'roofline.csv'}, got none for "
            f"{missing['layer'].iloc[0]} at {missing['candidate'].iloc[0]}; the tables belong to different runs"
        )
    peaks = known.groupby("candidate")["compute_gmac_per_s"].max()
    rates = {name: float(peaks[name]) for name in sorted(set(chosen["candidate"]), key=lambda name: -peaks[name])}
    levels = table[table["memory"] != ""].groupby("memory", sort=False)["memory_gb_per_s"].max()
    roof = _Roof(rates, {str(name): float(value) for name, value in levels.items()})
    table = table.rename(columns={"candidate": "precision"})
    table["mac_share"] = table["macs"] / max(float(table["macs"].sum()), 1.0)
    table["intensity_macs_per_byte"] = table["macs"] / table["memory_bytes"]
    slope = table["intensity_macs_per_byte"] * table["memory"].map(roof.levels)
    table["roof_gmac_per_s"] = np.fmin(table["precision"].map(rates), slope)
    table["bound_gmac_per_s_predicted"] = table["macs"] / table["bound_ms_predicted"] * 1e-6
    table["attained_gmac_per_s_predicted"] = table["macs"] / table["latency_ms_predicted"] * 1e-6
    table["bounded_by"] = _bounds(table)
    return table[list(COLUMNS)], roof


def _bounds(table: pd.DataFrame) -> NDArray[np.str_]:
    """Return what takes most of a layer's time: overhead, a memory level, or MACs."""
    overhead = table["latency_ms_predicted"] > 2 * table["bound_ms_predicted"]
    slope = table["intensity_macs_per_byte"] * table["memory_gb_per_s"]
    by_memory = (table["memory"] != "") & np.isclose(table["bound_gmac_per_s_predicted"], slope, rtol=1e-6)
    return np.where(overhead, OVERHEAD, np.where(by_memory, table["memory"], COMPUTE)).astype(str)


def _limit(axes: Axes, table: pd.DataFrame, roof: _Roof) -> None:
    """Fit both axes around layers and ridges."""
    ridges = np.array(roof.ridges).reshape(-1, 2)
    x = np.concatenate([table["intensity_macs_per_byte"], ridges[:, 0]])
    speeds = table[["bound_gmac_per_s_predicted", "attained_gmac_per_s_predicted"]].to_numpy(float).ravel()
    y = np.concatenate([speeds, list(roof.rates.values())])
    for which, values in (("x", x), ("y", y)):
        set_log(axes, which)
        low, high = float(values.min()), float(values.max())
        low = min(low, high / NARROWEST)
        margin = MARGIN * (high / low) ** 0.04
        axes.set(**{f"{which}lim": (low / margin, high * margin)})
        powers_alone(axes, which)


def _draw_roof(axes: Axes, roof: _Roof) -> None:
    """Draw a level line per precision, named at its end, and a slope per memory level."""
    left, right = axes.get_xlim()
    fastest = max(roof.rates.values())
    widest = max(roof.levels.values(), default=0.0)
    for rate in roof.rates.values():
        axes.plot([rate / widest if widest else left, right], [rate, rate], color=INK, linewidth=0.9, zorder=2)
    for (_, bandwidth), line in zip(roof.levels.items(), SLOPES * len(roof.levels), strict=False):
        ridge = fastest / bandwidth
        axes.plot([left, ridge], [left * bandwidth, fastest], color=INK, linewidth=0.9, linestyle=line, zorder=2)
    for x, y in roof.ridges:
        axes.plot([x], [y], "D", markersize=3.2, mfc="white", mec=INK, mew=0.7, zorder=4)


def _draw_layers(axes: Axes, table: pd.DataFrame, colour: str) -> None:
    """Draw each layer where it is with the overhead, and a thin line up to where it would be without."""
    x, attained = table["intensity_macs_per_byte"], table["attained_gmac_per_s_predicted"]
    axes.vlines(x, attained, table["bound_gmac_per_s_predicted"], color=colour, linewidth=0.6, alpha=0.7, zorder=3)
    for i in table.index:
        axes.plot(
            [x[i]], [attained[i]], BOUND_MARKERS.get(table["bounded_by"][i], BOUND_MARKERS["memory"]), color=colour,
            mfc="white" if table["latency_origin"][i] == "table" else colour, alpha=0.85, mec="white"
            if table["latency_origin"][i] != "table" else colour, mew=0.5, zorder=5,
            markersize=_diameter(table["mac_share"][i]),
        )  # fmt: skip


def _label(axes: Axes, table: pd.DataFrame, roof: _Roof, *, most: int) -> None:
    """Name the layers with the most MACs and the ridge points, where they cover nothing."""
    labels = [(x, y, number(x)) for x, y in dict.fromkeys(roof.ridges)] if len(roof.ridges) <= most else []
    places = table[["intensity_macs_per_byte", "attained_gmac_per_s_predicted"]].to_numpy(float)
    names = elide(table["layer"].tolist(), LONGEST_NAME)
    together: dict[tuple[str, str], list[int]] = {}
    for i in np.argsort(-table["mac_share"].to_numpy(float), kind="stable"):
        together.setdefault((f"{places[i, 0]:.3g}", f"{places[i, 1]:.3g}"), []).append(int(i))
    for first, *others in list(together.values())[:most]:
        words = f"{names[first]} and {len(others)} more" if others else names[first]
        labels.append((float(places[first, 0]), float(places[first, 1]), words))
    corners = _corners(axes, places, table["mac_share"].to_numpy(float))
    place_labels(axes, labels, points=corners, lines=_lines(axes, table, roof))


def _name_rates(axes: Axes, roof: _Roof) -> None:
    """Name the level lines at their right ends, lines of one height together, apart from each other."""
    by_rate: dict[float, list[str]] = {}
    for name, rate in roof.rates.items():
        by_rate.setdefault(rate, []).append(name)
    taken = -np.inf
    for rate, names in sorted(by_rate.items()):
        height = float(axes.transAxes.inverted().transform(axes.transData.transform((1.0, rate)))[1])
        taken = max(height, taken + RATE_GAP)
        axes.text(1.01, taken, f"{', '.join(names)}: {_speed(rate)}", transform=axes.transAxes, fontsize=6, va="center")


def _speed(value: float) -> str:
    """Return a speed with three digits and no exponent.

    >>> _speed(0.875), _speed(129920.0)
    ('0.875', '130000')
    """
    return number(value) if value < 1e5 else f"{float(f'{value:.3g}'):.0f}"


def _lines(axes: Axes, table: pd.DataFrame, roof: _Roof) -> NDArray[np.float64]:
    """Return the lines ``(n, 4)`` that a label should not cross: the roof, and the ways up to it."""
    left, right = axes.get_xlim()
    lines = [[left, rate, right, rate] for rate in roof.rates.values()]
    steps = np.geomspace(left, right, SLOPE_STEPS)
    for bandwidth in roof.levels.values():
        kept = steps[steps * bandwidth <= max(roof.rates.values())]
        lines += [[a, a * bandwidth, b, b * bandwidth] for a, b in pairwise(kept)]
    uprights = table[["intensity_macs_per_byte", "attained_gmac_per_s_predicted", "bound_gmac_per_s_predicted"]]
    lines += [[x, low, x, high] for x, low, high in uprights.to_numpy(float)]
    return np.array(lines, dtype=np.float64)


def _corners(axes: Axes, places: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the corners ``(4 n, 2)`` of the layers' points, which are wider than others, in data coordinates."""
    radius = np.array([_diameter(share) for share in shares]) * axes.figure.dpi / 72 / 2 / np.sqrt(2)
    around = np.array([(1, 1), (1, -1), (-1, 1), (-1, -1)], dtype=np.float64)
    pixels = axes.transData.transform(places)[:, None] + radius[:, None, None] * around
    return np.asarray(axes.transData.inverted().transform(pixels.reshape(-1, 2)))


def _diameter(share: float) -> float:
    """Return the size of a layer's point: its area beyond the smallest grows with the share of MACs."""
    return float(SMALLEST + GROWTH * np.sqrt(share))


def _legend(figure: Figure, table: pd.DataFrame, roof: _Roof, colour: str) -> None:
    handles: dict[str, Line2D] = {}
    for bound in dict.fromkeys(table["bounded_by"]):
        marker = BOUND_MARKERS.get(bound, BOUND_MARKERS["memory"])
        count = int((table["bounded_by"] == bound).sum())
        words = {COMPUTE: "MACs", OVERHEAD: "overhead per layer"}.get(bound, bound)
        handles[f"layers bound by {words} (n = {count})"] = Line2D(
            [], [], ls="", marker=marker, color=colour, mec="white", mew=0.5, markersize=4.5
        )
    for (level, bandwidth), line in zip(roof.levels.items(), SLOPES * len(roof.levels), strict=False):
        handles[f"{level}, {number(bandwidth)} GB/s"] = Line2D([], [], color=INK, linewidth=0.9, linestyle=line)
    if roof.levels:
        handles["ridge points (MACs per byte)"] = Line2D(
            [], [], ls="", marker="D", markersize=3.2, mfc="white", mec=INK, mew=0.7
        )
    columns = 1 if figure.get_figwidth() <= SINGLE_INCHES else 3
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=columns)


def _caption(tables: RunTables, device: DeviceTables, row: pd.Series, why: str, table: pd.DataFrame) -> str:
    measured = int((table["latency_origin"] == "table").sum())
    sentences = [
        f"The roofline of {device.device} as its cost model has it, predicted and not measured, with the layers of "
        f"{tables.name} at configuration {row['config_id']} ({why}), seed {tables.seed}, n = {len(table)} layers.",
        "Level lines: highest rates; slopes: bandwidths; the thin line over a layer: its speed without overhead.",
        f"Hollow: {measured} layers whose latency is a measured table's, which may lie above the roof."
        if measured
        else "",
        device.caveat_sentence,
    ]
    return " ".join(filter(None, sentences))
