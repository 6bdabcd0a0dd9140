"""The figure that compares devices: their fronts side by side, on one relative axis, and against the size."""

from __future__ import annotations

import textwrap
from math import ceil

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D

from hwdse.formats import Precision
from hwdse.report.drawing import (
    DOUBLE_INCHES,
    INK,
    SINGLE_INCHES,
    TITLE_CHARACTERS_PER_INCH,
    Drawing,
    columns_for,
    head,
    limit_x,
    look_of,
    new_figure,
    sentence_figure,
    set_log,
    short_names,
)
from hwdse.report.pareto import Window, draw_reference, shows_reference, staircase, window_of
from hwdse.report.ranking import NO_INTERVAL, draw_intervals, factor_taken, thin_ticks
from hwdse.report.tables import DeviceTables, RunTables
from hwdse.report.words import axis_label, on_two_lines, quality_text, split_column

__all__ = ["draw_devices", "relative_cost"]

PANELS_PER_ROW, SINGLE_PANELS_PER_ROW = 4, 2
LEGEND_COLUMNS = 5
LEGEND_ROW_INCHES = 0.14
NAME_INCHES = 2.0
"""Width that the names of devices beside the lowest panel may take."""


def draw_devices(tables: RunTables, *, width: float = DOUBLE_INCHES) -> Drawing:
    """Return the figure that compares the fronts of all loaded devices on the same axis of quality.

    Parameters
    ----------
    tables
        Of the run.
    width
        Of the figure in inches; what stands side by side in two columns stands one below the other in one.
    """
    present = [device for device in tables.results.values() if not device.emptiness]
    if not present:
        sentence = " ".join(device.emptiness for device in tables.results.values())
        return Drawing("devices", sentence_figure(sentence, tables.name), _points(tables), sentence)
    window = _common_window(tables, present)
    devices = list(tables.results.values())
    is_single = width <= SINGLE_INCHES
    rows = ceil(len(devices) / (SINGLE_PANELS_PER_ROW if is_single else PANELS_PER_ROW))
    columns = ceil(len(devices) / rows)
    strip = 0.35 + 0.13 * len(present)
    stacked = is_single and tables.cost_like("size") is not None
    # A page has room for 9 inches.
    heights = (1.5 * rows, 1.45 * (1 + stacked), 1.5 + strip) if is_single else (1.7 * rows, 2.2, 1.8 + strip)
    handles = {device.device: _handle(tables, device.device) for device in present}
    if tables.reference is not None and shows_reference(tables, window):
        words = f"full precision ({quality_text(tables.quality.name, tables.reference)})"
        handles[words] = Line2D([], [], color=INK, linewidth=0.8, linestyle=(0, (4, 2)))
    names = short_names(list(handles), width=width)
    legend_columns = min(LEGEND_COLUMNS, columns_for(names, width=width))
    legend = LEGEND_ROW_INCHES * ceil(len(names) / legend_columns)
    figure = new_figure(width, 0.5 + sum(heights) + legend)
    upper, middle, lower = figure.subfigures(3, 1, squeeze=False, height_ratios=heights).flat
    _draw_multiples(upper, tables, devices, window, columns=columns, rows=rows, width=width)
    _draw_overlays(middle, tables, present, window, stacked=stacked)
    _draw_together(lower, tables, present, window, strip=strip)
    title = _hidden_note(tables, present, window) or None
    figure.legend(list(handles.values()), names, loc="outside lower center", ncols=legend_columns, title=title)
    head(figure, f"{tables.name}: measured fronts of {len(present)} of {len(devices)} devices")
    return Drawing("devices", figure, _points(tables), _caption(tables, present, window))


def relative_cost(device: DeviceTables, column: str) -> tuple[pd.Series, str]:
    """Return the front's cost relative to a configuration of the same device, and the words for that configuration.

    It is the uniform configuration of the widest precision, usually 8 bits everywhere; where no uniform one was
    measured, the costliest measured one.
    """
    uniform = device.measured[device.measured["uniform"] != ""]
    if uniform.empty:
        return device.front[column] / device.measured[column].max(), "the costliest measured"
    row = uniform.iloc[int(np.argmax([_width(text) for text in uniform["uniform"]]))]
    return device.front[column] / row[column], f"uniform {row['uniform']}"


def _width(precision: str) -> int:
    """Return the bits of a weight and an activation together."""
    parsed = Precision.parse(precision)
    return parsed.weights.bits + parsed.activations.bits


def _common_window(tables: RunTables, present: list[DeviceTables]) -> Window:
    """Return the window of all fronts together, so that all panels share one axis."""
    return window_of(
        tables, pd.concat([device.front for device in present]), pd.concat([device.measured for device in present])
    )


def _draw_multiples(
    figure: SubFigure, tables: RunTables, devices: list[DeviceTables], window: Window, *, columns: int, rows: int,
    width: float,
) -> None:  # fmt: skip
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes in grid.flat[len(devices) :]:
        axes.remove()
    for axes, device in zip(grid.flat, devices, strict=False):
        lines = [device.device, *([f"({device.caveat})"] if device.note else [])]
        axes.set_title("\n".join(short_names(lines, width=width / columns)))
        axes.set_xlabel(axis_label(tables.main_cost))
        draw_reference(axes, tables, window, named=False)
        if device.emptiness:
            words = "no feasible\nconfiguration" if device.infeasible else "no front"
            axes.text(0.5, 0.5, words, ha="center", va="center", transform=axes.transAxes)
            axes.set_xticks([])
        else:
            _draw_front(axes, tables, device, device.front[tables.main_cost], intervals=True)
            _limit(axes, tables, [_drawn(tables, device, device.front[tables.main_cost], window)], window, ticks=3)
    figure.supylabel(_quality_label(tables, figure), fontsize=7)


def _draw_overlays(
    figure: SubFigure, tables: RunTables, present: list[DeviceTables], window: Window, *, stacked: bool
) -> None:
    """Draw all fronts on one axis of relative cost and, where size is an objective, on one axis of size."""
    size = tables.cost_like("size")
    shape = (2, 1) if stacked else (1, 2 if size else 1)
    panels = figure.subplots(*shape, sharey=True, squeeze=False).ravel()
    relative = {device.device: relative_cost(device, tables.main_cost) for device in present}
    words = sorted({reference for _, reference in relative.values()})
    cost, _, tier = split_column(tables.main_cost)
    panels[0].set_xlabel(f"{cost} relative to {' or '.join(words)}" + (f" ({tier})" if tier else ""))
    for axes in panels if stacked else panels[:1]:
        axes.set_ylabel(_quality_label(tables, figure))
    columns = [{name: values for name, (values, _) in relative.items()}]
    if size:
        columns.append({device.device: device.front[size] for device in present})
        panels[1].set_xlabel(axis_label(size))
    for axes, costs in zip(panels, columns, strict=True):
        draw_reference(axes, tables, window, named=False)
        for device in present:
            _draw_front(axes, tables, device, costs[device.device], intervals=False)
        shown = [_drawn(tables, device, costs[device.device], window) for device in present]
        _limit(axes, tables, shown, window)


def _draw_together(
    figure: SubFigure, tables: RunTables, present: list[DeviceTables], window: Window, *, strip: float
) -> None:
    """Draw all fronts on one axis of cost, and below it how far each may be off: the same factor for all of a front."""
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1.8, strip))
    main = tables.main_cost
    draw_reference(above, tables, window, named=False)
    for device in present:
        _draw_front(above, tables, device, device.front[main], intervals=False)
    if window.log:
        set_log(above, "y")
    above.set_ylim(tables.quality.factor * window.worst, tables.quality.factor * window.best)
    above.set_ylabel(_quality_label(tables, figure))
    shown = [_drawn(tables, device, device.front[main], window) for device in present]
    middles = np.array([float(np.exp(np.log(cost).mean())) for cost in shown])
    known = [_widest(device, main) for device in present]
    names = [device.device for device in present]
    draw_intervals(below, tables, names, middles, known)
    below.set_yticks(below.get_yticks(), short_names(names, width=NAME_INCHES))
    factors = np.array([factor_taken(factor) for factor in known])
    ends = np.concatenate([pd.concat(shown).to_numpy(float), middles / factors, middles * factors])
    low, high = float(ends.min()), float(ends.max())
    set_log(below, "x")
    thin_ticks(below, decades=float(np.log10(high / low)))
    margin = (high / low) ** 0.03
    below.set_xlim(low / margin, high * margin)
    words = "bars: 90 % interval of the prediction around the middle of each front"
    most = int(TITLE_CHARACTERS_PER_INCH * 0.8 * figure.figure.get_figwidth())
    below.set_xlabel("\n".join([axis_label(main), *textwrap.wrap(words, most)]))


def _quality_label(tables: RunTables, figure: SubFigure) -> str:
    """Return the words for an axis of quality, on two lines where panels are low."""
    label = tables.quality.label
    return on_two_lines(label) if figure.figure.get_figwidth() <= SINGLE_INCHES else label


def _drawn(tables: RunTables, device: DeviceTables, cost: pd.Series, window: Window) -> pd.Series:
    """Return the costs of those points of a front that the window shows, of all if it shows none."""
    hidden = window.hidden(device.front[tables.quality.column].to_numpy(float))
    return cost if hidden.all() else cost[~hidden]


def _draw_front(axes: Axes, tables: RunTables, device: DeviceTables, cost: pd.Series, *, intervals: bool) -> None:
    quality, look = tables.quality, look_of(device.device, tables.devices)
    x, y = cost.to_numpy(float), quality.factor * device.front[quality.column].to_numpy(float)
    if intervals:
        low, high = (quality.factor * device.front[f"{quality.column}_{end}"] for end in ("low", "high"))
        axes.vlines(x, low, high, color=look.colour, linewidth=0.6, alpha=0.45, zorder=2)
    steps = staircase(x, y, maximise=quality.maximise)
    axes.step(x[steps], y[steps], where="post", color=look.colour, linestyle=look.line, linewidth=1.1, zorder=3)
    axes.plot(x, y, look.marker, color=look.colour, markersize=3.2, mec="white", mew=0.3, zorder=4)


def _limit(axes: Axes, tables: RunTables, costs: list[pd.Series], window: Window, *, ticks: int = 5) -> None:
    x = pd.concat(costs).to_numpy(float)
    limit_x(axes, x, ticks=ticks)
    if window.log:
        set_log(axes, "y")
    axes.set_ylim(tables.quality.factor * window.worst, tables.quality.factor * window.best)


def _widest(device: DeviceTables, column: str) -> float | None:
    """Return the factor of the 90 % interval that holds for a whole front, ``None`` where none is known."""
    factors = device.factors(column, device.front["bits"])
    return None if factors is None else float(factors.max())


def _handle(tables: RunTables, device: str) -> Line2D:
    look = look_of(device, tables.devices)
    return Line2D([], [], color=look.colour, marker=look.marker, linestyle=look.line, mec="white", mew=0.3)


def _points(tables: RunTables) -> pd.DataFrame:
    """Return the fronts of all devices in one table."""
    costs, quality = list(tables.costs.values()), tables.quality
    frames = []
    for device in tables.results.values():
        table = device.front[["config_id", *costs, *quality.columns, "samples"]].assign(device=device.device)
        relative = f"{tables.main_cost}_relative"
        table[relative] = relative_cost(device, tables.main_cost)[0] if not device.emptiness else np.nan
        frames.append(table[["device", "config_id", *costs, relative, *quality.columns, "samples"]])
    return pd.concat(frames, ignore_index=True)


def _hidden_note(tables: RunTables, present: list[DeviceTables], window: Window) -> str:
    """Return how many points of the fronts the window leaves out, empty if none."""
    quality = tables.quality
    hidden = [window.hidden(device.front[quality.column].to_numpy(float)) for device in present]
    below, total = sum(int(mask.sum()) for mask in hidden), sum(map(len, hidden))
    side = "below" if quality.maximise else "above"
    where = f"{side} {quality_text(quality.name, window.worst)}"
    return f"{below} of {total} points on the fronts lie {where} and are not drawn." if below else ""


def _interval_note(tables: RunTables, present: list[DeviceTables]) -> str:
    """Return which devices have no interval, empty if all have one."""
    missing = [device.device for device in present if _widest(device, tables.main_cost) is None]
    return f"Dashed and hollow: {NO_INTERVAL} ({', '.join(missing)})." if missing else ""


def _caption(tables: RunTables, present: list[DeviceTables], window: Window) -> str:
    counts = ", ".join(f"{device.device} n = {len(device.front)}" for device in present)
    sentences = [
        f"Measured fronts of {tables.name}, seed {tables.seed}, each over all objectives ({counts} configurations).",
        "Bars: 95 % intervals; dashed: full precision. Bottom: how far a whole front may be shifted.",
        _interval_note(tables, present),
        _hidden_note(tables, present, window),
        *(device.emptiness for device in tables.results.values()),
    ]
    return " ".join(filter(None, sentences))
