"""The Pareto figure of one device: each minimised cost against measured quality."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from math import ceil

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import blended_transform_factory
from numpy.typing import NDArray

from hwdse.report.drawing import (
    DOUBLE_INCHES,
    INK,
    MEASURED,
    SINGLE_INCHES,
    Drawing,
    Look,
    head,
    limit_x,
    look_of,
    new_figure,
    sentence_figure,
    set_log,
    spans_decade,
)
from hwdse.report.placement import place_labels
from hwdse.report.tables import DeviceTables, RunTables
from hwdse.report.words import axis_label, counted, quality_text, span_text

__all__ = ["Window", "draw_pareto", "draw_reference", "hidden_note", "shows_reference", "staircase", "window_of"]

CLOUD = "#DDDDDD"
USEFUL_SHARE = 0.06
EDGE = 0.03
CHARACTERS_PER_INCH = 18
OFF_AXIS = "Full precision is 0, which a logarithmic axis cannot show."


@dataclass(frozen=True)
class Window:
    """The part of the quality axis that is drawn, in the units of the tables.

    Attributes
    ----------
    worst, best
        Its ends; ``worst`` is the greater one where less is better.
    log
        Whether the axis is logarithmic.
    """

    worst: float
    best: float
    log: bool = False

    def hidden(self, quality: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which values are worse than the window shows.

        >>> Window(0.8, 0.9).hidden(np.array([0.1, 0.85])).tolist()
        [True, False]
        """
        return quality < self.worst if self.worst < self.best else quality > self.worst


def staircase(cost: NDArray[np.float64], quality: NDArray[np.float64], *, maximise: bool) -> NDArray[np.intp]:
    """Return the indices of the points that are best in these two dimensions, cheapest first.

    A front over three objectives need not be a line over two of them: the others are drawn as points only.

    >>> staircase(np.array([3.0, 1.0, 2.0]), np.array([0.9, 0.7, 0.6]), maximise=True).tolist()
    [1, 0]
    """
    value = quality if maximise else -quality
    order = np.lexsort((-value, cost))
    best = np.maximum.accumulate(np.concatenate([[-np.inf], value[order]]))
    return order[value[order] > best[:-1]]


def window_of(tables: RunTables, front: pd.DataFrame, measured: pd.DataFrame) -> Window:
    """Return the window that shows the useful part of a front that is not empty.

    Collapsed configurations can be on a front, because nothing is cheaper. They must not flatten the rest: the window
    reaches as far below full precision as four times the lower quartile of the front's losses, but at least 6 % of
    the full-precision quality. Where less is better and values span decades the axis is logarithmic and hides nothing.
    """
    quality = tables.quality
    values = front[quality.column].to_numpy(float)
    everything = np.concatenate([values, measured[quality.column].to_numpy(float)])
    if not quality.maximise and spans_decade(everything):
        return Window(float(everything.max()) * 1.3, float(everything.min()) / 1.6, log=True)
    reference = tables.reference
    if reference is None:
        reference = float(values.max() if quality.maximise else values.min())
    loss = quality.loss(values, reference)
    reach = max(4 * float(np.quantile(loss, 0.25)), USEFUL_SHARE * abs(reference))
    shown = front[loss <= reach] if (loss <= reach).any() else front
    low, high = f"{quality.column}_low", f"{quality.column}_high"
    ends = np.concatenate([[reference], shown[low].to_numpy(float), shown[high].to_numpy(float)])
    pad = 0.09 * float(np.ptp(ends)) or 0.01
    lowest, highest = float(ends.min()) - pad, float(ends.max()) + pad
    return Window(lowest, highest) if quality.maximise else Window(highest, lowest)


def draw_pareto(tables: RunTables, name: str, *, width: float = DOUBLE_INCHES) -> Drawing:
    """Return the Pareto figure of the device ``name``: one panel per minimised cost, quality upwards.

    Parameters
    ----------
    tables, name
        Of the run, and of the device.
    width
        Of the figure in inches at most: panels stand one above the other where it is a single column's.
    """
    device = tables.results[name]
    file_name, title = f"pareto-{name}", tables.title_of(name)
    if device.emptiness:
        figure = sentence_figure(device.emptiness, title)
        return Drawing(file_name, figure, _points(tables, device), device.emptiness)
    window = window_of(tables, device.front, device.measured)
    costs = list(tables.costs.values())
    rows = ceil(len(costs) / (3 if width > SINGLE_INCHES else 1))
    columns = ceil(len(costs) / rows)
    width = SINGLE_INCHES if columns == 1 else width
    figure = new_figure(width, 0.75 + 2.15 * rows)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes in grid.flat[len(costs) :]:
        axes.remove()
    for axes, cost in zip(grid.flat, costs, strict=False):
        _draw_panel(axes, tables, device, cost, window)
    for axes in grid.flat[: len(costs)]:
        draw_reference(axes, tables, window, named=axes.get_subplotspec().is_last_col())
    for axes in grid[:, 0]:
        axes.set_ylabel(tables.quality.label)
    head(figure, title)
    note = hidden_note(tables, device, window, marks="triangles: those on the front, uniform or picked")
    _legend(figure, tables, device, columns, note)
    figure.draw_without_rendering()
    for axes, cost in zip(grid.flat, costs, strict=False):
        _label_panel(axes, tables, device, cost, window)
    return Drawing(file_name, figure, _points(tables, device), _caption(tables, device, window, note))


def _draw_panel(axes: Axes, tables: RunTables, device: DeviceTables, cost: str, window: Window) -> None:
    quality, look = tables.quality, look_of(device.device, tables.devices)
    cloud = device.predicted.dropna(subset=["quality_predicted"])
    scale = quality.factor
    axes.plot(cloud[cost], scale * cloud["quality_predicted"], ".", markersize=1.6, color=CLOUD, zorder=1)
    others = device.measured[~device.measured["config_id"].isin(device.front["config_id"])]
    near = others["within_noise"] != ""
    axes.plot(
        others.loc[~near, cost], scale * others.loc[~near, quality.column], "x", markersize=2.2, mew=0.6,
        color=MEASURED, zorder=2,
    )  # fmt: skip
    axes.plot(
        others.loc[near, cost], scale * others.loc[near, quality.column], look.marker, markersize=2.6, mfc="white",
        mec=look.colour, mew=0.5, zorder=3,
    )  # fmt: skip
    _draw_front(axes, tables, device.front, cost, look)
    uniform = device.measured[device.measured["uniform"] != ""]
    axes.plot(
        uniform[cost], scale * uniform[quality.column], "D", markersize=4.2, mfc="none", mec=INK, mew=0.8, zorder=6
    )
    picked = device.picked
    axes.plot(picked[cost], scale * picked[quality.column], "o", markersize=8.5, mfc="none", mec=INK, mew=1.3, zorder=7)
    _limit(axes, device, cost, window, scale)
    _draw_hidden(axes, tables, device, cost, window)
    factors = device.factors(cost, device.front["bits"]) if cost in device.uncertainty else None
    axes.set_xlabel(
        axis_label(cost) + (f"\n90 % within a factor of {span_text(factors)}" if factors is not None else "")
    )


def _draw_front(axes: Axes, tables: RunTables, front: pd.DataFrame, cost: str, look: Look) -> None:
    """Draw the front: its staircase in this panel, its points, the interval of the value and of the paired drop."""
    quality, scale = tables.quality, tables.quality.factor
    x, y = front[cost].to_numpy(float), front[quality.column].to_numpy(float)
    low, high = (scale * front[f"{quality.column}_{end}"] for end in ("low", "high"))
    axes.vlines(x, low, high, color=look.colour, linewidth=0.6, alpha=0.6, zorder=3)
    if tables.reference is not None:
        sign = -1.0 if quality.maximise else 1.0
        low, high = (scale * (tables.reference + sign * front[f"{quality.drop}_{end}"]) for end in ("low", "high"))
        axes.vlines(x, low, high, color=look.colour, linewidth=2.4, alpha=0.35, zorder=3)
    steps = staircase(x, y, maximise=quality.maximise)
    axes.step(x[steps], scale * y[steps], where="post", color=look.colour, linewidth=1.0, zorder=4)
    axes.plot(x, scale * y, look.marker, color=look.colour, markersize=3.4, mec="white", mew=0.4, zorder=5)


def shows_reference(tables: RunTables, window: Window) -> bool:
    """Return whether full precision has a place on the axis: a divergence of 0 has none on a logarithmic one."""
    return tables.reference is not None and not (window.log and tables.reference <= 0)


def draw_reference(axes: Axes, tables: RunTables, window: Window, *, named: bool) -> None:
    """Draw full precision as a level line, named beside the axes, where nothing else is drawn."""
    if tables.reference is None or not shows_reference(tables, window):
        return
    level = tables.quality.factor * tables.reference
    axes.axhline(level, color=INK, linewidth=0.8, linestyle=(0, (4, 2)), zorder=3)
    if named:
        words = f"full\nprecision\n{quality_text(tables.quality.name, tables.reference)}"
        beside = blended_transform_factory(axes.transAxes, axes.transData)
        axes.text(1.02, level, words, transform=beside, va="center", fontsize=6)


def _limit(axes: Axes, device: DeviceTables, cost: str, window: Window, scale: float) -> None:
    x = np.concatenate([device.measured[cost].to_numpy(float), device.front[cost].to_numpy(float)])
    limit_x(axes, x)
    if window.log:
        set_log(axes, "y")
    axes.set_ylim(scale * window.worst, scale * window.best)


def _hidden_marked(tables: RunTables, device: DeviceTables, window: Window) -> pd.DataFrame:
    """Return the configurations below the window that matter: on the front, uniform or picked."""
    below = device.measured[window.hidden(device.measured[tables.quality.column].to_numpy(float))]
    front = below["config_id"].isin(device.front["config_id"])
    return below[front | (below["uniform"] != "") | (below["config_id"] == device.pick)]


def _draw_hidden(axes: Axes, tables: RunTables, device: DeviceTables, cost: str, window: Window) -> None:
    """Mark on the lower edge where the configurations that matter lie below it."""
    below = _hidden_marked(tables, device, window)
    look = look_of(device.device, tables.devices)
    on_front = below["config_id"].isin(device.front["config_id"])
    edge = blended_transform_factory(axes.transData, axes.transAxes)
    for rows, face in ((below[on_front], look.colour), (below[~on_front], "white")):
        height = np.full(len(rows), EDGE)
        axes.plot(rows[cost], height, "v", transform=edge, markersize=4, mfc=face, mec=INK, mew=0.6, zorder=6)


def _label_panel(axes: Axes, tables: RunTables, device: DeviceTables, cost: str, window: Window) -> None:
    """Label the uniform points and the picked one where they cover nothing."""
    quality, scale = tables.quality, tables.quality.factor
    bottom = float(axes.transData.inverted().transform(axes.transAxes.transform((0.0, EDGE)))[1])
    is_marked = (device.measured["uniform"] != "") | (device.measured["config_id"] == device.pick)
    labels = []
    for _, row in device.measured[is_marked].sort_values(cost, kind="stable").iterrows():
        is_below = bool(window.hidden(np.array([row[quality.column]]))[0])
        words = " ".join(filter(None, ("picked" if row["config_id"] == device.pick else "", row["uniform"])))
        value = f" ({quality_text(quality.name, row[quality.column], decimals=0)})" if is_below else ""
        labels.append((float(row[cost]), bottom if is_below else scale * row[quality.column], words + value))
    below = _hidden_marked(tables, device, window)[cost].to_numpy(float)
    triangles = np.column_stack([below, np.full(len(below), bottom)])
    points = device.measured[[cost, quality.column]].to_numpy(float) * (1.0, scale)
    place_labels(
        axes, labels, points=np.concatenate([points, triangles]), lines=_lines(axes, tables, device.front, cost)
    )


def _lines(axes: Axes, tables: RunTables, front: pd.DataFrame, cost: str) -> NDArray[np.float64]:
    """Return the lines ``(n, 4)`` that a label should not cross: intervals, staircase and full precision."""
    quality, scale = tables.quality, tables.quality.factor
    x, y = front[cost].to_numpy(float), scale * front[quality.column].to_numpy(float)
    low, high = (scale * front[f"{quality.column}_{end}"].to_numpy(float) for end in ("low", "high"))
    steps = staircase(x, y, maximise=quality.maximise)
    here, there = steps[:-1], steps[1:]
    lines = [
        np.column_stack([x, low, x, high]),
        np.column_stack([x[here], y[here], x[there], y[here]]),
        np.column_stack([x[there], y[here], x[there], y[there]]),
    ]
    if tables.reference is not None:
        left, right = axes.get_xlim()
        lines.append(np.array([[left, scale * tables.reference, right, scale * tables.reference]]))
    return np.concatenate(lines)


def hidden_note(tables: RunTables, device: DeviceTables, window: Window, *, marks: str = "not drawn") -> str:
    """Return how many measured configurations lie below the window, and what marks them; empty if none does."""
    quality = tables.quality
    below = int(window.hidden(device.measured[quality.column].to_numpy(float)).sum())
    if not below:
        return ""
    front = int(window.hidden(device.front[quality.column].to_numpy(float)).sum())
    side = "below" if quality.maximise else "above"
    return (
        f"{below} of {len(device.measured)} measured configurations ({front} of {len(device.front)} on the front) lie "
        f"{side} {quality_text(quality.name, window.worst)}; {marks}."
    )


def _legend(figure: Figure, tables: RunTables, device: DeviceTables, columns: int, note: str) -> None:
    look = look_of(device.device, tables.devices)
    cloud = int(device.predicted["quality_predicted"].notna().sum())
    front = Line2D([], [], color=look.colour, marker=look.marker, mec="white", mew=0.4, linewidth=1.0)
    handles: dict[str, Artist] = {f"measured front, 95 % intervals (n = {len(device.front)})": front}
    near = int((device.measured["within_noise"] != "").sum())
    if near:
        handles[f"within noise of the front (n = {near})"] = Line2D(
            [], [], ls="", marker=look.marker, markersize=3.4, mfc="white", mec=look.colour, mew=0.5
        )
    if others := len(device.measured) - len(device.front) - near:
        cross = Line2D([], [], ls="", marker="x", markersize=3, mew=0.6, color=MEASURED)
        handles[f"measured, others (n = {others})"] = cross
    if cloud:
        handles[f"predicted (n = {cloud})"] = Line2D([], [], ls="", marker=".", markersize=4, color="#BBBBBB")
    if (device.measured["uniform"] != "").any():
        handles["uniform, where it runs"] = Line2D(
            [], [], ls="", marker="D", markersize=4.2, mfc="none", mec=INK, mew=0.8
        )
    if device.pick is not None:
        handles["picked"] = Line2D([], [], ls="", marker="o", markersize=7, mfc="none", mec=INK, mew=1.3)
    wrapped = textwrap.fill(note, int(CHARACTERS_PER_INCH * figure.get_figwidth()))
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=2 if columns == 1 else 3,
        title=wrapped or None,
    )


def _points(tables: RunTables, device: DeviceTables) -> pd.DataFrame:
    """Return every number of the figure: one row per point, with its series."""
    costs, quality = list(tables.costs.values()), tables.quality
    keys = ["config_id", "uniform", "within_noise", "picked", *costs]
    measured = device.measured.assign(
        series=np.where(device.measured["config_id"].isin(device.front["config_id"]), "front", "measured"),
        picked=device.measured["config_id"] == device.pick,
    )[["series", *keys, *quality.columns, "samples"]]
    predicted = device.predicted.dropna(subset=["quality_predicted"]).assign(series="predicted")
    return pd.concat([measured, predicted[["series", *costs, "quality_predicted"]]], ignore_index=True)


def _caption(tables: RunTables, device: DeviceTables, window: Window, note: str) -> str:
    quality = tables.quality
    predicted = int(device.predicted["quality_predicted"].notna().sum())
    sentences = [
        f"Costs against {axis_label(quality.column)} of {tables.name} on {device.device}, seed {tables.seed}.",
        f"Front: {len(device.front)} non-dominated of {len(device.measured)} measured configurations "
        f"(n = {device.samples} samples each). Bars: 95 % intervals, thick ones paired with full precision.",
        f"Grey: {counted(predicted, 'configuration')}, predicted."
        if predicted
        else "No predicted quality was given, so no cloud is drawn.",
        "" if tables.reference is None or shows_reference(tables, window) else OFF_AXIS,
        note,
        device.caveat_sentence,
    ]
    return " ".join(filter(None, sentences))
