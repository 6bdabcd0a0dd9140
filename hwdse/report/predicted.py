"""What was predicted of one device's configurations against what was measured of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from hwdse.report.drawing import (
    DOUBLE_INCHES,
    INK,
    SINGLE_INCHES,
    Drawing,
    Look,
    head,
    limit_x,
    look_of,
    new_figure,
    powers_alone,
    sentence_figure,
    set_log,
)
from hwdse.report.tables import PREDICTED, DeviceTables, RunTables
from hwdse.report.words import axis_label, lower_first, number, split_column

__all__ = ["draw_predicted", "rank_correlation"]

PALE = "#B8B8B8"
FEWEST = 3
"""Configurations from which on a rank correlation says anything."""

LATENCY = "latency_ms_predicted"
VERIFIED = "latency_ms_measured"

Panel = Callable[[Axes], None]


def rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return Spearman's rank correlation, ties with their mean rank; NaN where one of the two does not vary.

    >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0]))
    1.0
    """
    ranks = [pd.Series(values).rank().to_numpy(float) for values in (first, second)]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return float("nan")
    return float(np.clip(np.corrcoef(ranks[0], ranks[1])[0, 1], -1.0, 1.0))


def draw_predicted(tables: RunTables, name: str, *, width: float = DOUBLE_INCHES) -> Drawing:
    """Return the figure of predicted against measured for the device ``name``.

    Panels: the sum of sensitivities against the measured drop; the quality that all measurements let expect against
    the measured one; and the latency of a configuration that was verified on the device. Those without data are left
    out.

    Parameters
    ----------
    tables, name
        Of the run, and of the device.
    width
        Of the figure in inches: panels stand one above the other where it is a single column's.
    """
    device = tables.results[name]
    file_name, title = f"predicted-{name}", f"{tables.title_of(name)}: predicted against measured"
    table = _points(tables, device)
    look = look_of(name, tables.devices)
    panels: list[Panel] = []
    sentences: list[str] = []
    for part in (_harm(tables, table, look), _quality(tables, table, look), _latency(device, look)):
        if part is not None:
            panels.append(part[0])
            sentences.append(part[1])
    if not panels:
        sentence = device.emptiness or f"Nothing was predicted of the configurations measured for {name}."
        return Drawing(file_name, sentence_figure(sentence, title), table, sentence)
    is_single = width <= SINGLE_INCHES
    shape = (len(panels), 1) if is_single else (1, len(panels))
    inches = min(width, DOUBLE_INCHES / 3 * max(len(panels), 2)) if not is_single else width
    figure = new_figure(inches, 0.4 + 2.3 * shape[0])
    for axes, panel in zip(figure.subplots(*shape, squeeze=False).flat, panels, strict=True):
        panel(axes)
    head(figure, title)
    places = ("Top", "Middle", "Bottom") if is_single else ("Left", "Middle", "Right")
    where = [places[0], places[-1]] if len(panels) == 2 else list(places)
    told = [f"{at}: {said}" for at, said in zip(where, sentences, strict=False)] if len(panels) > 1 else sentences
    caption = " ".join(
        [
            f"Predicted against measured of {tables.name} on {name}, seed {tables.seed}.",
            *told,
            *filter(None, [device.caveat_sentence]),
        ]
    )
    return Drawing(file_name, figure, table, caption)


def _points(tables: RunTables, device: DeviceTables) -> pd.DataFrame:
    """Return a row per measured configuration with all that was predicted of it, and of one what was verified."""
    columns = ["config_id", "loss_predicted", *PREDICTED, *tables.quality.columns, "samples"]
    known = device.predicted.drop_duplicates("bits")[["bits", *PREDICTED]]
    table = device.measured.merge(known, on="bits", how="left")[columns]
    verified = device.verified if device.verified.get(VERIFIED) is not None else {}
    is_verified = table["config_id"] == str(verified.get("config_id"))
    for column in (LATENCY, VERIFIED):
        table[column] = np.where(is_verified, float(verified.get(column, np.nan)), np.nan)
    return table


def _harm(tables: RunTables, table: pd.DataFrame, look: Look) -> tuple[Panel, str] | None:
    """Return the panel of predicted harm against the measured drop, and its sentence."""
    rows = table.dropna(subset=["loss_predicted"])
    if rows.empty:
        return None
    quality = tables.quality
    loss, scale = rows["loss_predicted"].to_numpy(float), quality.factor
    drop, low, high = (scale * rows[f"{quality.drop}{end}"].to_numpy(float) for end in ("", "_low", "_high"))
    rho, sentence = _rho(loss, drop)
    harm, (words, unit, _) = split_column(tables.loss)[0], split_column(quality.column)
    points = {"%": "points"}.get(unit, unit)

    def draw(axes: Axes) -> None:
        axes.vlines(loss, low, high, color=look.colour, linewidth=0.5, alpha=0.35, zorder=2)
        axes.plot(loss, drop, look.marker, color=look.colour, markersize=3.2, mec="white", mew=0.3, zorder=3)
        axes.axhline(0.0, color=INK, linewidth=0.8, linestyle=(0, (4, 2)), zorder=2)
        limit_x(axes, loss)
        if axes.get_xscale() == "log":
            powers_alone(axes, "x")
        axes.set_xlabel(f"Sum of sensitivities ({harm}, predicted)")
        axes.set_ylabel(f"Drop of {lower_first(words)} ({points + ', ' if points else ''}measured)")
        axes.set_title(f"before measuring (n = {len(rows)}, {rho})")

    return draw, (
        f"the sum of the layers' sensitivities ({harm}), known before anything is measured, against the measured "
        f"drop of n = {len(rows)} configurations ({sentence})."
    )


def _quality(tables: RunTables, table: pd.DataFrame, look: Look) -> tuple[Panel, str] | None:
    """Return the panel of expected against measured quality, and its sentence."""
    rows = table.dropna(subset=["quality_predicted"])
    if rows.empty:
        return None
    quality = tables.quality
    scale = quality.factor
    x, left, right = (scale * rows[column].to_numpy(float) for column in PREDICTED)
    y, low, high = (scale * rows[f"{quality.column}{end}"].to_numpy(float) for end in ("", "_low", "_high"))
    rho, sentence = _rho(x, y)

    def draw(axes: Axes) -> None:
        axes.hlines(y, left, right, color=look.colour, linewidth=0.5, alpha=0.35, zorder=2)
        axes.vlines(x, low, high, color=look.colour, linewidth=0.5, alpha=0.35, zorder=2)
        axes.plot(x, y, look.marker, color=look.colour, markersize=3.2, mec="white", mew=0.3, zorder=3)
        _equal(axes, np.concatenate([left, right, low, high]))
        axes.set_xlabel(axis_label(quality.column).replace("measured", "predicted"))
        axes.set_ylabel(axis_label(quality.column))
        axes.set_title(f"after measuring (n = {len(rows)}, {rho})")

    return draw, (
        f"quality that all measurements of the run let expect, these among them, against the measured one, for the "
        f"n = {len(rows)} measured configurations on the predicted front ({sentence}; the line is equality)."
    )


def _latency(device: DeviceTables, look: Look) -> tuple[Panel, str] | None:
    """Return the panel of the verified latency, and its sentence; nothing where none was measured."""
    measured, predicted = (device.verified.get(column) for column in (VERIFIED, LATENCY))
    if measured is None or predicted is None:
        return None
    x, y = float(predicted), float(measured)
    bits = device.measured.set_index("config_id")["bits"].get(device.verified.get("config_id"), "")
    factor = device.factor(LATENCY, bits)

    def draw(axes: Axes) -> None:
        if factor is not None:
            axes.hlines([y], x / factor, x * factor, color=look.colour, linewidth=1.0, zorder=2)
        axes.plot([x], [y], look.marker, color=look.colour, markersize=5.0, mec="white", mew=0.4, zorder=3)
        reach = max(x / y, y / x, factor or 1.0, 1.5) * 1.2
        _equal(axes, np.array([x / reach, x * reach]), log=True)
        axes.set_xlabel("Latency (ms, predicted)")
        axes.set_ylabel("Latency (ms, measured)")
        axes.set_title("verified (n = 1)")

    interval = f"; the bar is its 90 % interval, a factor of {factor:.3g}" if factor is not None else ""
    return draw, (
        f"latency of configuration {device.verified.get('config_id')} on the device, predicted {number(x)} ms and "
        f"measured {number(y)} ms (smallest time of one inference{interval})."
    )


def _rho(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[str, str]:
    """Return the rank correlation for a title and for a sentence."""
    if len(first) < FEWEST:
        return "too few for rho", "too few for a rank correlation"
    rho = rank_correlation(first, second)
    if np.isnan(rho):
        return "rho undefined", "rho undefined, as one side does not vary"
    return f"rho = {round(rho, 2) + 0.0:.2f}", f"rho = {round(rho, 3) + 0.0:.3f}"


def _equal(axes: Axes, values: NDArray[np.float64], *, log: bool = False) -> None:
    """Give both axes the same limits around ``values`` and draw the line of equality."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = 0.05 * (high - low) or 0.01 * abs(high) or 1.0
    ends = (low, high) if log else (low - margin, high + margin)
    axes.plot(ends, ends, color=PALE, linewidth=0.9, zorder=1)
    for which, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        if log:
            set_log(axes, which)
        else:
            axis.set_major_locator(MaxNLocator(5))
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)
