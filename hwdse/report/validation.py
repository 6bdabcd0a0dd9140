"""Predicted against published latencies and energies, one panel per device with its 90 % interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator
from numpy.typing import NDArray

from hwdse.report.drawing import COLOURS, DOUBLE_INCHES, INK, MARKERS, Drawing, new_figure, set_log

__all__ = ["Panel", "draw_validation"]

PALE = "#B8B8B8"
PANELS_PER_ROW = 5
PANEL_INCHES = 1.3
WIDE = 50.0
"""Ratio of the ends of an axis above which it has ticks at powers of ten alone."""


@dataclass(frozen=True)
class Panel:
    """A device's predictions of one figure.

    Attributes
    ----------
    title
        Name of the device.
    table
        Rows with ``network``, ``precision``, ``published`` and ``predicted``, in one unit.
    factor
        90 % interval: predicted divided by it to predicted times it; ``None`` where the profile states none.
    words
        How good the predictions are, in a few words.
    """

    title: str
    table: pd.DataFrame
    factor: float | None
    words: str


def draw_validation(panels: Sequence[Panel], *, name: str, quantity: str, unit: str, method: str) -> Drawing:
    """Return the figure of predicted against published figures.

    Parameters
    ----------
    panels
        One per device, at least one.
    name
        File name without its suffix.
    quantity, unit
        Such as ``latency`` and ``ms``.
    method
        How the predictions were made, for the caption.
    """
    rows = ceil(len(panels) / PANELS_PER_ROW)
    columns = min(PANELS_PER_ROW, len(panels))
    figure = new_figure(max(DOUBLE_INCHES * columns / PANELS_PER_ROW, 2.6), 0.75 + (PANEL_INCHES + 0.25) * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    precisions = sorted({text for panel in panels for text in panel.table["precision"]}, key=_order)
    looks = {text: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, text in enumerate(precisions)}
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw_panel(axes, panel, looks)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    for column in range(columns):
        lowest = grid[(len(panels) - 1 - column) // columns, column]
        lowest.set_xlabel(f"Published ({unit})", fontsize=6.5)
    for axes in grid[:, 0]:
        axes.set_ylabel(f"Predicted ({unit})", fontsize=6.5)
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="none", mec="white", mew=0.3, label=text)
        for text, (colour, marker) in looks.items()
    ]
    handles.append(Line2D([], [], color=PALE, linewidth=5, label="90 % interval of the profile"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6))
    points = pd.concat([panel.table.assign(profile=panel.title) for panel in panels], ignore_index=True)
    counted = f"{len(points)} published figures of {len(panels)} devices"
    caption = (
        f"Predicted against published {quantity} of whole networks, {counted}. {method} The line is equality; the band "
        "is the 90 % interval that the profile states."
    )
    return Drawing(name, figure, points[["profile", "network", "precision", "published", "predicted"]], caption)


def _order(precision: str) -> tuple[int, str]:
    """Sort the commonest first."""
    first = ("W8A8", "W8A16", "fp16", "fp32", "W4A4", "mixed")
    return (first.index(precision) if precision in first else len(first), precision)


def _draw_panel(axes: Axes, panel: Panel, looks: Mapping[str, tuple[str, str]]) -> None:
    table = panel.table
    values = table[["published", "predicted"]].to_numpy(float)
    low, high = _span(values)
    ends = np.array([low, high])
    if panel.factor is not None:
        axes.fill_between(ends, ends / panel.factor, ends * panel.factor, color=PALE, alpha=0.45, linewidth=0, zorder=1)
    axes.plot(ends, ends, color=INK, linewidth=0.6, zorder=2)
    for precision, (colour, marker) in looks.items():
        rows = table[table["precision"] == precision]
        axes.plot(
            rows["published"], rows["predicted"], marker, color=colour, markersize=3.4, mec="white", mew=0.3, zorder=3
        )
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    set_log(axes, "x")
    set_log(axes, "y")
    if high / low > WIDE:
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator())
    axes.set_aspect("equal")
    axes.set_title(panel.title, fontsize=6.5)
    axes.text(0.04, 0.96, panel.words, transform=axes.transAxes, fontsize=5.5, va="top", color=INK)
    axes.tick_params(labelsize=5.5, which="both")


def _span(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return limits with a margin, at least a factor of 4 apart so that a panel has two ticks."""
    low, high = float(values.min()) / 1.5, float(values.max()) * 1.5
    missing = max(1.0, 12.0 / (high / low)) ** 0.5
    return low / missing, high * missing
