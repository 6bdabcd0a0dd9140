"""The figure of one layer: where its two operands have their values, and where every number format has its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from hwdse.errors import InputError
from hwdse.formats import parse
from hwdse.report.analysis import SECOND, AnalysisTables, TensorTables
from hwdse.report.drawing import DOUBLE_INCHES, INK, Drawing, new_figure
from hwdse.report.words import number

__all__ = ["clip_points", "draw_layer", "grid_values", "sqnr_text", "view_of"]

PALE, RULE = "#6E6E6E", "#DADADA"
WEIGHT, ACTIVATION = "#0072B2", "#B8500A"
SMALL = 6.0
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
LONGEST_NAME, LONGEST_TENSOR, LONGEST_LAYER = 13, 30, 90
AXIS_LABELS = {"value": "Value", "share of channel maximum": "Share of the output channel's maximum"}

# Lengths in inches: fixed, so that text has its place and a figure needs no search for a layout.
LEFT, PLOT, RIGHT, PANEL = 0.78, 2.26, 0.44, DOUBLE_INCHES / 2
TITLE, PANEL_TITLE, BINS, HEADING, LANE, ROW, FOOT = 0.38, 0.32, 1.25, 0.22, 0.115, 0.125, 0.4
X_LABEL = 0.23

END = 1 + (RIGHT - 0.02) / PLOT
"""Right end of what stands beside an axis, as a share of its width."""

VIEW_MARGIN = 0.02
FARTHEST = 1.2
"""How far the x axis may reach, in multiples of the largest absolute value: clip points beyond it become triangles."""

DENSE, TICK = 64, 0.36
RESOLUTION = 1000
"""Columns that the x axis is divided in: values of one format that fall into one column are one line."""

UNUSED_CODE = 0.75
"""Steps beyond the clip point from which on an integer is a code that a restricted grid leaves out."""


@dataclass(frozen=True)
class View:
    """What the x axis shows."""

    low: float
    high: float

    def beyond(self, values: NDArray[np.float64]) -> tuple[bool, bool]:
        """Return whether some of ``values`` lie to the left and to the right of the view.

        >>> View(-1.0, 1.0).beyond(np.array([0.0, 1.0, 2.0]))
        (False, True)
        """
        return bool((values < self.low).any()), bool((values > self.high).any())


def view_of(tensor: TensorTables) -> View:
    """Return the part of the x axis that holds all values and the clip points of the reference format.

    Clip points may widen it to ``FARTHEST`` times the largest absolute value.
    """
    edges, _ = tensor.bins
    low, high = min(float(edges[0]), 0.0), max(float(edges[-1]), 0.0)
    farthest = FARTHEST * max(-low, high)
    clips = clip_points(tensor)
    if len(clips):
        low = min(low, max(float(clips["low"].min()), -farthest))
        high = max(high, min(float(clips["high"].max()), farthest))
    margin = VIEW_MARGIN * (high - low) or 1.0
    return View(low - margin, high + margin)


def clip_points(tensor: TensorTables) -> pd.DataFrame:
    """Return the rows of the reference format, one per calibrator in the order of the table."""
    rows = tensor.difficulty[tensor.difficulty["format"] == tensor.reference]
    return rows.dropna(subset=["low", "high"])


def grid_values(row: pd.Series, kind: str) -> NDArray[np.float64]:
    """Return the values, ascending, that the format of a row of the difficulty table has at that row's scale.

    Parameters
    ----------
    row
        A row of the difficulty table.
    kind
        ``weight`` or ``activation``: integer weights leave out a code that lies beyond the clip points.

    Raises
    ------
    InputError
        If the format's values are neither listed in the row nor by the format.

    >>> row = pd.Series({"format": "int2", "levels": "", "scale": 0.5, "zero_point": 0.0, "low": -0.5, "high": 0.5})
    >>> grid_values(row, "weight").tolist(), grid_values(row, "activation").tolist()
    ([-0.5, 0.0, 0.5], [-1.0, -0.5, 0.0, 0.5])
    """
    if row["levels"]:
        return np.sort(np.array(row["levels"].split(), dtype=np.float64))
    number_format = parse(row["format"])
    codes = number_format.values  # noqa: PD011  (a number format's, not a table's)
    values = (codes - row["zero_point"]) * row["scale"]
    if number_format.is_integer and kind == "weight":
        end = max(-row["low"], row["high"]) + UNUSED_CODE * row["scale"]
        values = values[np.abs(values) <= end]
    return np.asarray(values, dtype=np.float64)


def sqnr_text(decibels: float) -> str:
    """Return an SQNR with one decimal.

    >>> sqnr_text(12.345), sqnr_text(float("inf")), sqnr_text(float("nan")), sqnr_text(-0.04)
    ('12.3', '∞', '?', '0.0')
    """
    if np.isnan(decibels):
        return "?"
    return f"{round(decibels, 1) + 0.0:.1f}" if np.isfinite(decibels) else "∞" if decibels > 0 else "-∞"


def draw_layer(tables: AnalysisTables, scheme: str, layer: str, *, name: str) -> Drawing:
    """Return the figure of ``layer`` under ``scheme``: its weight, or the second operand in its place, and its input.

    Parameters
    ----------
    tables
        Of the analysis.
    scheme, layer
        Which ones.
    name
        File name without its suffix.
    """
    facts = tables.layers.set_index("layer")
    tensors = tables.operands(scheme, layer)
    present = [tensor for tensor in tensors if tensor is not None]
    lanes = max([len(clip_points(tensor)) for tensor in present], default=0)
    formats = max([len(tensor.best) for tensor in present], default=0)
    figure = new_figure(DOUBLE_INCHES, TITLE + PANEL_TITLE + BINS + 2 * HEADING + LANE * lanes + ROW * formats + FOOT)
    figure.set_layout_engine("none")
    work = f"{facts['op_class'][layer]}, {number(facts['macs'][layer] / 1e6)} M MACs per sample"
    figure.suptitle(f"{_cut(layer, LONGEST_LAYER)}  ({work})", x=0.5, y=1 - 0.07 / figure.get_figheight(), va="top")
    figure.text(0.5, 1 - 0.21 / figure.get_figheight(), f"scheme {scheme}", fontsize=SMALL, color=PALE,
                ha="center", va="top")  # fmt: skip
    for place, tensor in enumerate(tensors):
        axes = _panel_axes(figure, place, lanes, formats)
        if tensor is None:
            _say_absent(axes, "weight" if place == 0 else "input")
        else:
            _draw_panel(axes, tensor, WEIGHT if tensor.kind == "weight" else ACTIVATION)
            axes[-1].xaxis.set_label_coords(0.5, -X_LABEL / (ROW * max(formats, 1)))
    points = [_points(tensor) for tensor in present]
    return Drawing(name, figure, pd.concat(points) if points else pd.DataFrame(), _caption(layer, scheme, tensors))


def _panel_axes(figure: Figure, place: int, lanes: int, formats: int) -> tuple[Axes, Axes, Axes]:
    """Return the axes of histogram, clip points and formats, one above the other."""
    width, height = figure.get_figwidth(), figure.get_figheight()
    left, top = place * PANEL + LEFT, height - TITLE - PANEL_TITLE
    axes: list[Axes] = []
    for tall, gap in ((BINS, HEADING), (LANE * max(lanes, 1), HEADING), (ROW * max(formats, 1), 0.0)):
        box = (left / width, (top - tall) / height, PLOT / width, tall / height)
        axes.append(figure.add_axes(box, sharex=axes[0] if axes else None))
        top -= tall + gap
    return axes[0], axes[1], axes[2]


def _say_absent(axes: tuple[Axes, Axes, Axes], word: str) -> None:
    for one in axes:
        one.set_axis_off()
    sentence = f"The tables hold no {word}\nof this layer alone."
    axes[0].text(0.5, 0.5, sentence, transform=axes[0].transAxes, ha="center", va="center", color=PALE)


def _draw_panel(axes: tuple[Axes, Axes, Axes], tensor: TensorTables, colour: str) -> None:
    bins, lanes, grids = axes
    view = view_of(tensor)
    bins.set_xlim(view.low, view.high)
    clips = clip_points(tensor)
    _draw_bins(bins, tensor, colour)
    _draw_lanes(lanes, clips, view, colour)
    if len(clips):
        _heading(lanes, f"Clip points for {tensor.reference} by calibrator")
        best = clips.iloc[int(clips["sqnr_db_predicted"].fillna(-np.inf).argmax())]
        for end in {best["low"], best["high"]} - {0.0}:
            bins.axvline(end, color=INK, linewidth=0.6, linestyle=(0, (4, 2)), zorder=3)
    _draw_grids(grids, tensor, view, colour)
    if len(tensor.best):
        _heading(grids, "Values by format, best calibrator")
    grids.set_xlabel(AXIS_LABELS[tensor.unit])
    grids.xaxis.set_major_locator(MaxNLocator(5))
    for one in (bins, lanes):
        one.tick_params(axis="x", length=0, labelbottom=False)
    for one in (lanes, grids):
        one.spines["left"].set_visible(False)
        one.tick_params(axis="y", length=0, labelsize=SMALL, pad=3)
        one.grid(visible=False, axis="y")
    lanes.spines["bottom"].set_visible(False)


def _heading(axes: Axes, words: str) -> None:
    for text, x, align in ((words, 0.0, "left"), ("predicted SQNR (dB)", END, "right")):
        axes.annotate(text, (x, 1), xytext=(0, 3), xycoords="axes fraction", textcoords="offset points",
                      fontsize=SMALL, color=PALE, ha=align, va="baseline")  # fmt: skip


def _draw_bins(axes: Axes, tensor: TensorTables, colour: str) -> None:
    """Draw counts on a log axis, exact zeros as a stem, and say in the title what it is."""
    edges, counts = tensor.bins
    heights = np.append(counts[counts > 0], [tensor.zeros] if tensor.zeros else [])
    floor = 0.6 * float(heights.min())
    axes.set_yscale("log")
    axes.set_ylim(floor, float(heights.max()) * (float(heights.max()) / floor) ** 0.06)
    if counts.size:
        axes.stairs(np.maximum(counts, floor), edges, baseline=floor, fill=True, color=colour, alpha=0.75, linewidth=0)
    if tensor.zeros:
        axes.plot([0, 0], [floor, tensor.zeros], color=INK, linewidth=0.9, zorder=4)
        axes.plot([0], [tensor.zeros], "o", color=INK, markersize=2.6, zorder=4, clip_on=False)
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("Count")
    axes.yaxis.set_label_coords(-0.14, 0.5)  # given places spare a search for them
    what = "Weight" if tensor.kind == "weight" else "Second operand" if tensor.name.endswith(SECOND) else "Input"
    zeros = f", {_percent(tensor.zeros / tensor.count)} exactly 0" if tensor.zeros else ", none exactly 0"
    axes.set_title(f"{what} {_cut(tensor.name, LONGEST_TENSOR)}\n{_thousands(tensor.count)} values{zeros}",
                   loc="left", linespacing=1.25, y=1.0)  # fmt: skip


def _draw_lanes(axes: Axes, clips: pd.DataFrame, view: View, colour: str) -> None:
    """Draw the range that each calibrator keeps, one lane each, with the SQNR at the right."""
    places = np.arange(len(clips))
    low, high = clips["low"].to_numpy(float), clips["high"].to_numpy(float)
    segments = [((a, y), (b, y)) for y, a, b in zip(places, low, high, strict=True)]
    axes.add_collection(LineCollection(segments, colors=RULE, linewidths=1.0), autolim=False)
    ends, lanes = np.concatenate([low, high]), np.concatenate([places, places])
    inside = (ends >= view.low) & (ends <= view.high)
    axes.plot(ends[inside], lanes[inside], "|", color=colour, markersize=6, markeredgewidth=1.3)
    for place, (a, b) in enumerate(zip(low, high, strict=True)):
        _mark_beyond(axes, place, view.beyond(np.array([a, b])), colour)
    sqnr = clips["sqnr_db_predicted"].to_numpy(float)
    _name_rows(axes, clips["calibrator"].tolist(), sqnr, bold=sqnr == np.nanmax(sqnr, initial=-np.inf))


def _draw_grids(axes: Axes, tensor: TensorTables, view: View, colour: str) -> None:
    """Draw the values of every format as a row of ticks, with the SQNR at the right."""
    best = tensor.best
    for place, (_, row) in enumerate(best.iterrows()):
        try:
            values = grid_values(row, tensor.kind)
        except InputError:
            axes.text(0.5, place, "too many values to draw", transform=axes.get_yaxis_transform(), fontsize=5.5,
                      color=PALE, ha="center", va="center")  # fmt: skip
            continue
        _mark_beyond(axes, place, view.beyond(values), colour)
        axes.add_artist(_ticks(_visible(values, view), place, colour))
    bits = best["bits"].to_numpy(float)
    for change in np.flatnonzero(np.diff(bits)):
        axes.axhline(change + 0.5, color=RULE, linewidth=0.5)
    sqnr = best["sqnr_db_predicted"]
    tops = sqnr.groupby(best["bits"]).transform("max")
    _name_rows(axes, best["format"].tolist(), sqnr.to_numpy(float), bold=(sqnr == tops).to_numpy(bool))


def _visible(values: NDArray[np.float64], view: View) -> NDArray[np.float64]:
    """Return the values within the view, one per column of it where they are many."""
    inside = values[(values >= view.low) & (values <= view.high)]
    if len(inside) <= DENSE:
        return inside
    width = (view.high - view.low) / RESOLUTION
    return np.asarray(np.unique(np.round((inside - view.low) / width)) * width + view.low)


def _ticks(values: NDArray[np.float64], place: float, colour: str) -> PathPatch:
    """Return a row of upright ticks as one path; many are thin, so that they read as a band that is denser or less."""
    ends = np.column_stack([np.repeat(values, 2), np.tile([place - TICK, place + TICK], len(values))])
    path = Path(ends, np.tile([Path.MOVETO, Path.LINETO], len(values)))
    is_dense = len(values) > DENSE
    return PathPatch(path, fill=False, edgecolor=colour, linewidth=0.3 if is_dense else 0.8, snap=not is_dense)


def _mark_beyond(axes: Axes, place: float, beyond: tuple[bool, bool], colour: str) -> None:
    """Mark with a triangle at the edge that a row goes on outside of the view."""
    for edge, marker, is_beyond in ((0, "<", beyond[0]), (1, ">", beyond[1])):
        if is_beyond:
            axes.plot([edge], [place], marker, color=colour, markersize=2.4, transform=axes.get_yaxis_transform(),
                      clip_on=False, markeredgewidth=0)  # fmt: skip


def _name_rows(axes: Axes, names: Sequence[str], sqnr: NDArray[np.float64], *, bold: NDArray[np.bool_]) -> None:
    """Name the rows at the left, say their SQNR at the right, and put the first row at the top."""
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), [_cut(name, LONGEST_NAME) for name in names])
    for place, (value, is_bold) in enumerate(zip(sqnr, bold, strict=True)):
        axes.text(END, place, sqnr_text(value), transform=axes.get_yaxis_transform(),
                  fontsize=SMALL, color=INK, ha="right", va="center_baseline",
                  fontweight="bold" if is_bold else "normal")  # fmt: skip


def _percent(share: float) -> str:
    """Return a share in percent; one that is small is said to be.

    >>> _percent(0.5234), _percent(0.00001), _percent(1.0)
    ('52.3 %', '< 0.1 %', '100.0 %')
    """
    return "< 0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"


def _power(value: float) -> str:
    """Return a power of ten: small ones in full, without a formula's cost.

    >>> _power(1.0), _power(100.0), _power(1e6)
    ('1', '100', '10⁶')
    """
    exponent = round(np.log10(value))
    return f"{value:g}" if 0 <= exponent <= 2 else "10" + str(exponent).translate(SUPERSCRIPTS)


def _cut(name: str, longest: int) -> str:
    """Return a name with at most ``longest`` characters, cut on the left, where names of one network agree.

    >>> _cut("model.layer1.conv1", 12), _cut("conv1", 12)
    ('…ayer1.conv1', 'conv1')
    """
    return name if len(name) <= longest else "…" + name[len(name) - longest + 1 :]


def _thousands(count: float) -> str:
    """Return a count with its digits in threes.

    >>> _thousands(1234567.0)
    '1 234 567'
    """
    return f"{count:,.0f}".replace(",", " ")


def _points(tensor: TensorTables) -> pd.DataFrame:
    """Return what a panel shows: bins, clip points of the reference format, and the grid of every format."""
    columns = ["tensor", "kind", "left", "right", "count", "unit"]
    grid = ["tensor", "kind", "format", "bits", "calibrator", "low", "high", "scale", "zero_point", "levels",
            "sqnr_db_predicted"]  # fmt: skip
    parts = [
        tensor.histogram[columns].assign(series="histogram"),
        clip_points(tensor)[grid].assign(series="clip points", unit=tensor.unit),
        tensor.best[grid].assign(series="values of a format", unit=tensor.unit),
    ]
    order = ["series", *dict.fromkeys([*columns, *grid])]
    return pd.concat([part for part in parts if len(part)]).reindex(columns=order)


def _caption(layer: str, scheme: str, tensors: Sequence[TensorTables | None]) -> str:
    panels = []
    for place, tensor in zip(("Left", "Right"), tensors, strict=True):
        if tensor is None:
            panels.append(f"{place}: not in the tables.")
            continue
        panels.append(
            f"{place}: {tensor.kind} {tensor.name} (n = {_thousands(tensor.count)}, "
            f"{_percent(tensor.zeros / tensor.count)} exactly 0{_unit(tensor)}), reference format "
            f"{tensor.reference or 'none'}."
        )
    return " ".join([
        f"Distributions of layer {layer} and the number formats under scheme {scheme}.", *panels,
        "Top: counts on a logarithmic axis; the stem is the exact zeros. Middle: the range that each calibrator keeps "
        "for the reference format (the integer format with the fewest bits, else the format with the fewest); bold, "
        "and dashed above, is the one with the highest predicted SQNR. Bottom: the values of every format at the "
        "calibrator with the highest predicted SQNR, in rows by bits; bold is the highest of its number of bits. A "
        "triangle says that a row goes on beyond the axis. SQNR in dB is predicted from the distribution, not "
        "measured; ∞ stands for no error, ? for no number in the tables.",
    ])  # fmt: skip


def _unit(tensor: TensorTables) -> str:
    return "" if tensor.unit == "value" else f", each as a {tensor.unit}"
