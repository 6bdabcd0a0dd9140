"""The parallel coordinates of one front: a line per configuration over all objectives, the better the higher."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from hwdse.report.bits import chosen_row
from hwdse.report.drawing import DOUBLE_INCHES, INK, Drawing, head, new_figure, sentence_figure, spans_decade
from hwdse.report.pareto import window_of
from hwdse.report.tables import DeviceTables, RunTables
from hwdse.report.words import axis_label, number, quality_text

__all__ = ["draw_parallel", "heights"]

LABEL_INCHES = 1.0
"""Width below which the words of an axis stand below each other."""

MOST_MORE_DIGITS = 3
COLOURS = "viridis"
SHADES = 256
DARK, LIGHT = 0.0, 0.85
"""Part of the colour map that is used: its yellow end vanishes on white. It is lighter all along, in grey too."""


def heights(values: NDArray[np.float64], *, maximise: bool) -> NDArray[np.float64]:
    """Return where values lie between the worst (0) and the best (1) of them; 0.5 where they do not differ.

    Values over a decade or more are placed by their logarithm.

    >>> heights(np.array([1.0, 2.0, 3.0]), maximise=False).tolist()
    [1.0, 0.5, 0.0]
    >>> heights(np.array([1.0, 10.0, 100.0]), maximise=True).tolist()
    [0.0, 0.5, 1.0]
    """
    placed = np.log(values) if spans_decade(values) else values
    low, high = float(placed.min()), float(placed.max())
    if high == low:
        return np.full(len(values), 0.5)
    return np.asarray((placed - low if maximise else high - placed) / (high - low))


def draw_parallel(tables: RunTables, name: str, *, width: float = DOUBLE_INCHES) -> Drawing:
    """Return the figure of parallel coordinates of the front of the device ``name``, coloured by quality.

    Parameters
    ----------
    tables, name
        Of the run, and of the device.
    width
        Of the figure in inches.
    """
    device = tables.results[name]
    file_name, title = f"parallel-{name}", f"{tables.title_of(name)}: front in parallel coordinates"
    front = device.front
    if device.emptiness:
        columns = ["config_id", "emphasised", *tables.objectives]
        return Drawing(
            file_name, sentence_figure(device.emptiness, title), pd.DataFrame(columns=columns), device.emptiness
        )
    chosen, why = chosen_row(tables, device)
    hidden = window_of(tables, front, device.measured).hidden(front[tables.quality.column].to_numpy(float))
    if hidden.all() or hidden[(front["config_id"] == chosen["config_id"]).to_numpy(bool)].any():
        hidden[:] = False
    everything = _points(tables, front, ~hidden, str(chosen["config_id"]))
    front, table = front[~hidden], everything[~hidden]
    places = table[[f"{column}_height" for column in tables.objectives]].to_numpy(float)
    figure = new_figure(width, 2.7)
    axes = figure.subplots()
    quality = tables.quality.factor * front[tables.quality.column].to_numpy(float)
    scale = _colours(quality)
    order = np.argsort(places[:, -1], kind="stable")  # the best on top
    x = np.arange(places.shape[1])
    for i in order:
        axes.plot(x, places[i], color=scale.to_rgba(quality[i]), linewidth=0.9, alpha=0.9, zorder=2)
    emphasised = table["emphasised"].to_numpy(bool)
    for line in places[emphasised]:
        axes.plot(x, line, "o-", color=INK, linewidth=2.0, markersize=4.5, mec="white", mew=0.5, zorder=4)
    _draw_axes(axes, tables, front, width=width)
    if np.ptp(quality) > 0:
        bar = figure.colorbar(scale, ax=axes, pad=0.02, aspect=25)
        bar.set_label(axis_label(tables.quality.column))
        bar.locator = MaxNLocator(5)
        bar.update_ticks()
    _legend(figure, len(front), bool(emphasised.any()), "picked" if device.pick is not None else "chosen")
    head(figure, title)
    caption = _caption(tables, device, int(hidden.sum()), why if emphasised.any() else "")
    return Drawing(file_name, figure, everything, caption)


def _points(tables: RunTables, front: pd.DataFrame, drawn: NDArray[np.bool_], chosen: str) -> pd.DataFrame:
    """Return the front with the height of every value on its axis; what is not drawn has none."""
    table = front[["config_id", *tables.objectives, "samples"]].assign(emphasised=front["config_id"] == chosen)
    for column in tables.objectives:
        is_more_better = column == tables.quality.column and tables.quality.maximise
        table[f"{column}_height"] = np.nan
        placed = heights(front.loc[drawn, column].to_numpy(float), maximise=is_more_better)
        table.loc[drawn, f"{column}_height"] = placed
    return table


def _colours(quality: NDArray[np.float64]) -> ScalarMappable:
    """Return colours from dark to light over the qualities of the front."""
    colours = colormaps[COLOURS](np.linspace(DARK, LIGHT, SHADES))
    low, high = float(quality.min()), float(quality.max())
    return ScalarMappable(Normalize(low, high if high > low else low + 1.0), ListedColormap(colours))


def _draw_axes(axes: Axes, tables: RunTables, front: pd.DataFrame, *, width: float) -> None:
    """Draw an upright line per objective with its best value above and its worst below."""
    columns, quality = tables.objectives, tables.quality
    for place, column in enumerate(columns):
        axes.axvline(place, color=INK, linewidth=0.7, zorder=3)
        values = front[column]
        is_more_better = column == quality.column and quality.maximise
        ends = (values.min(), values.max()) if is_more_better else (values.max(), values.min())
        is_log = spans_decade(values.to_numpy(float))
        texts = _apart(quality.name if column == quality.column else "", *ends)
        for height, words in zip((-0.03, 1.03), texts, strict=True):
            axes.text(place, height, words, fontsize=6, ha="center", va="top" if height < 0 else "bottom")
        if is_log:
            axes.text(place + 0.02, 0.5, "log", fontsize=5.5, rotation=90, va="center", ha="left", color="#555555")
    names = [axis_label(column).replace(" (", "\n(", 1) for column in columns]
    if width / len(columns) < LABEL_INCHES:
        names = [name.replace(" ", "\n") for name in names]
    axes.set_xticks(range(len(columns)), names)
    axes.tick_params(axis="x", length=0, pad=8)
    axes.set_xlim(-0.3, len(columns) - 0.7)
    axes.set_ylim(-0.02, 1.02)
    axes.set_yticks([])
    axes.set_ylabel("better →")
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.grid(visible=False)


def _apart(quality: str, first: float, second: float) -> tuple[str, str]:
    """Return two values as text with as many digits as tell them apart, at most six."""
    for more in range(MOST_MORE_DIGITS + 1):
        texts = [
            quality_text(quality, value, decimals=2 + more) if quality else number(value, digits=3 + more)
            for value in (first, second)
        ]
        if texts[0] != texts[1] or first == second:
            break
    return texts[0], texts[1]


def _legend(figure: Figure, count: int, is_emphasised: bool, words: str) -> None:
    handles = {f"configurations on the front (n = {count})": Line2D([], [], color="#31688E", linewidth=0.9)}
    if is_emphasised:
        handles[words] = Line2D([], [], color=INK, marker="o", linewidth=2.0, markersize=4.5, mec="white", mew=0.5)
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=2)


def _caption(tables: RunTables, device: DeviceTables, hidden: int, why: str) -> str:
    sentences = [
        f"The measured front of {tables.name} on {device.device} in parallel coordinates, seed {tables.seed}: "
        f"{len(device.front)} of {len(device.measured)} measured configurations, a line each, coloured by quality.",
        f"{hidden} of them have collapsed in quality and are not drawn." if hidden else "",
        f"Bold: {why}." if why else "",
        f"Quality measured on n = {int(device.front['samples'].max())} samples.",
        device.caveat_sentence,
    ]
    return " ".join(filter(None, sentences))
