"""The scatter matrix of one device: every pair of objectives, the front over what else was measured."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from hwdse.report.drawing import (
    DOUBLE_INCHES,
    INK,
    MEASURED,
    SINGLE_INCHES,
    Drawing,
    head,
    look_of,
    new_figure,
    powers_alone,
    sentence_figure,
    set_log,
    spans_decade,
)
from hwdse.report.pareto import Window, hidden_note, window_of
from hwdse.report.tables import DeviceTables, RunTables
from hwdse.report.words import axis_label, on_two_lines

__all__ = ["draw_scatter"]

PANEL_INCHES, SINGLE_PANEL_INCHES = 1.55, 0.95
SMALLEST_POINTS = 5.5
TITLE_LINE_INCHES = 0.14
MARGIN = 0.07


def draw_scatter(tables: RunTables, name: str, *, width: float = DOUBLE_INCHES) -> Drawing:
    """Return the scatter matrix of the device ``name``: a panel for every pair of its objectives.

    Parameters
    ----------
    tables, name
        Of the run, and of the device.
    width
        Of the figure in inches.
    """
    device = tables.results[name]
    file_name, title = f"scatter-{name}", f"{tables.title_of(name)}: every pair of objectives"
    table = _points(tables, device)
    if device.emptiness:
        return Drawing(file_name, sentence_figure(device.emptiness, title), table, device.emptiness)
    columns = tables.objectives
    count = len(columns) - 1
    is_single = width <= SINGLE_INCHES
    figure = new_figure(width, 0.45 + (SINGLE_PANEL_INCHES if is_single else PANEL_INCHES) * max(count, 1))
    grid = figure.subplots(count, count, sharex="col", sharey="row", squeeze=False)
    for row in range(count):
        for place in range(count):
            if place > row:
                grid[row, place].remove()
            else:
                _draw_pair(grid[row, place], tables, device, columns[place], columns[row + 1])
    for place in range(count):
        _fit(grid[-1, place], "x", table[columns[place]], ticks=2 if is_single else 4)
        grid[-1, place].set_xlabel(on_two_lines(axis_label(columns[place])))
        if place < count - 1:
            _fit(grid[place, 0], "y", table[columns[place + 1]], ticks=3 if is_single else 4)
        grid[place, 0].set_ylabel(on_two_lines(axis_label(columns[place + 1])))
    window = window_of(tables, device.front, device.measured)
    for axes in grid[-1]:
        if window.log:
            set_log(axes, "y")
        axes.set_ylim(tables.quality.factor * window.worst, tables.quality.factor * window.best)
    if is_single:
        for axes in figure.axes:
            axes.tick_params(labelsize=SMALLEST_POINTS)
            for label in (axes.xaxis.label, axes.yaxis.label):
                label.set_fontsize(SMALLEST_POINTS)
    figure.align_labels()
    head(figure, title)
    _legend(figure, tables, device)
    return Drawing(file_name, figure, table, _caption(tables, device, window))


def _shown(tables: RunTables, values: pd.Series, column: str) -> pd.Series:
    return values * (tables.quality.factor if column == tables.quality.column else 1.0)


def _fit(axes: Axes, which: str, values: pd.Series, *, ticks: int) -> None:
    """Fit an axis around all values, logarithmic where they span a decade."""
    low, high = float(values.min()), float(values.max())
    if spans_decade(values.to_numpy(float)):
        margin = (high / low) ** MARGIN
        axes.set(**{f"{which}lim": (low / margin, high * margin)})
        set_log(axes, which)
        axes.set(**{f"{which}lim": (low / margin, high * margin)})
        powers_alone(axes, which)
        return
    margin = MARGIN * (high - low) or 0.01 * abs(high) or 1.0
    axes.set(**{f"{which}lim": (low - margin, high + margin)})
    (axes.xaxis if which == "x" else axes.yaxis).set_major_locator(MaxNLocator(ticks))


def _draw_pair(axes: Axes, tables: RunTables, device: DeviceTables, x: str, y: str) -> None:
    look = look_of(device.device, tables.devices)
    others = device.measured[~device.measured["config_id"].isin(device.front["config_id"])]
    for rows, marker, style in (
        (others, "x", {"markersize": 2.2, "mew": 0.6, "color": MEASURED, "zorder": 2}),
        (device.front, look.marker, {"markersize": 3.4, "mec": "white", "mew": 0.4, "color": look.colour, "zorder": 3}),
        (device.picked, "o", {"markersize": 8.0, "mfc": "none", "mec": INK, "mew": 1.2, "zorder": 4}),
    ):
        axes.plot(_shown(tables, rows[x], x), _shown(tables, rows[y], y), marker, **style)  # type: ignore[arg-type]


def _legend(figure: Figure, tables: RunTables, device: DeviceTables) -> None:
    """Put the legend in the empty upper half of the matrix."""
    look = look_of(device.device, tables.devices)
    front = len(device.front)
    handles = {
        f"measured front (n = {front})": Line2D(
            [], [], ls="", marker=look.marker, color=look.colour, mec="white", mew=0.4
        ),
    }
    if others := len(device.measured) - front:
        cross = Line2D([], [], ls="", marker="x", markersize=3, mew=0.6, color=MEASURED)
        handles[f"measured, others (n = {others})"] = cross
    if device.pick is not None:
        handles["picked"] = Line2D([], [], ls="", marker="o", markersize=7, mfc="none", mec=INK, mew=1.2)
    title_inches = 0.3 + TITLE_LINE_INCHES * figure.get_suptitle().count("\n")
    bottom = 1 - title_inches / figure.get_figheight()
    figure.legend(list(handles.values()), list(handles), loc="upper right", bbox_to_anchor=(0.99, bottom))


def _points(tables: RunTables, device: DeviceTables) -> pd.DataFrame:
    series = np.where(device.measured["config_id"].isin(device.front["config_id"]), "front", "measured")
    table = device.measured[["config_id", *tables.objectives, "samples"]].assign(
        series=series, picked=device.measured["config_id"] == device.pick
    )
    return table[["series", "config_id", "picked", *tables.objectives, "samples"]]


def _caption(tables: RunTables, device: DeviceTables, window: Window) -> str:
    sentences = [
        f"Every pair of the {len(tables.objectives)} objectives of {tables.name} on {device.device}, "
        f"seed {tables.seed}.",
        f"Front: {len(device.front)} of {len(device.measured)} measured configurations, non-dominated over all "
        f"objectives together (n = {device.samples} samples each); crosses: the others.",
        hidden_note(tables, device, window),
        device.caveat_sentence,
    ]
    return " ".join(filter(None, sentences))
