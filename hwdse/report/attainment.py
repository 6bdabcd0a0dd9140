"""The attainment figure: how much of the final front was there after so many evaluations, and after so many seconds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from hwdse.pareto import hypervolume, non_dominated
from hwdse.report.drawing import (
    DOUBLE_INCHES,
    SINGLE_INCHES,
    Drawing,
    columns_for,
    head,
    look_of,
    new_figure,
    sentence_figure,
    short_names,
)
from hwdse.report.seconds import evaluation_seconds
from hwdse.report.summary import scaled_objectives
from hwdse.report.tables import RunTables

__all__ = ["attained", "draw_attainment"]

COLUMNS = ("device", "evaluation", "seconds", "hypervolume")
MARKED = 5
EARLY = 0.05
"""Share of a curve whose steep rise need not be seen."""

Floats = NDArray[np.float64]


def attained(points: Floats) -> Floats:
    """Return the hypervolume ``(n,)`` below 1 of the first ``k`` of ``points`` ``(n, m)``, for every ``k``.

    A point adds the volume that no earlier one dominates: all of its box but for what the others dominate of it.

    >>> attained(np.array([[0.5, 0.5], [0.75, 0.75], [0.0, 0.5]])).tolist()
    [0.25, 0.25, 0.5]
    """
    total, front, ones = 0.0, points[:0], np.ones(points.shape[1])
    totals = np.empty(len(points))
    for place, point in enumerate(points):
        if not (front <= point).all(axis=1).any():
            within = np.maximum(front, point)
            total += float((1.0 - point).prod()) - hypervolume(within[non_dominated(within)], ones)
            front = np.vstack([front[~(point <= front).all(axis=1)], point])
        totals[place] = total
    return totals


def draw_attainment(tables: RunTables, *, width: float = DOUBLE_INCHES) -> Drawing:
    """Return the figure of hypervolume against evaluations and seconds, a line per device.

    Parameters
    ----------
    tables
        Of the run.
    width
        Of the figure in inches: panels stand one above the other where it is a single column's.
    """
    curves, flat = {}, []
    for name, device in tables.results.items():
        points = scaled_objectives(tables, device, device.measured)
        if points.size:
            curves[name] = (attained(points), np.cumsum(evaluation_seconds(tables, device)))
        else:
            flat.append(device.emptiness or f"The measured configurations of {name} do not differ.")
    table = _points(curves)
    if not curves:
        return Drawing("attainment", sentence_figure(" ".join(flat), tables.name), table, " ".join(flat))
    timed = {name: (volumes, seconds) for name, (volumes, seconds) in curves.items() if np.isfinite(seconds).all()}
    is_single = width <= SINGLE_INCHES
    panels = 2 if timed else 1
    names = short_names(list(curves), width=width)
    legend_columns = columns_for(names, width=width)
    legend = 0.15 * -(-len(curves) // legend_columns)
    figure = new_figure(width, 0.6 + legend + 1.9 * (panels if is_single else 1))
    grid = figure.subplots(panels, 1, sharey=True) if is_single else figure.subplots(1, panels, sharey=True)
    all_axes: list[Axes] = list(np.atleast_1d(grid))
    for name, (volumes, _) in curves.items():
        _draw_curve(all_axes[0], tables, name, np.arange(1.0, len(volumes) + 1.0), volumes)
    all_axes[0].set_xlabel("Configurations measured for the device")
    all_axes[0].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    for name, (volumes, seconds) in timed.items():
        _draw_curve(all_axes[-1], tables, name, seconds, volumes)
    if timed:
        all_axes[-1].set_xlabel("Time of these evaluations (s)")
        all_axes[-1].set_xlim(left=0)
    _limit(all_axes, [volumes for volumes, _ in curves.values()])
    for axes in all_axes if is_single else all_axes[:1]:
        axes.set_ylabel("Hypervolume of the front\n(share of the measured box)")
    handles = [_handle(tables, name) for name in curves]
    figure.legend(handles, names, loc="outside lower center", ncols=legend_columns)
    head(figure, f"{tables.name}: attainment")
    return Drawing("attainment", figure, table, _caption(tables, curves, timed, flat))


def _points(curves: Mapping[str, tuple[Floats, Floats]]) -> pd.DataFrame:
    frames = [
        pd.DataFrame({"evaluation": np.arange(1, len(volumes) + 1), "seconds": seconds, "hypervolume": volumes}).assign(
            device=name
        )
        for name, (volumes, seconds) in curves.items()
    ]
    return pd.concat(frames, ignore_index=True)[list(COLUMNS)] if frames else pd.DataFrame(columns=list(COLUMNS))


def _draw_curve(axes: Axes, tables: RunTables, name: str, x: Floats, volumes: Floats) -> None:
    """Draw a line of steps with the device's markers along it, at other places than those of a line beneath it."""
    look = look_of(name, tables.devices)
    axes.step(x, volumes, where="post", color=look.colour, linestyle=look.line, linewidth=1.1)
    shift = (tables.devices.index(name) + 1) / (len(tables.devices) + 1)
    along = np.unique(((np.arange(MARKED) + shift) / MARKED * (len(x) - 1)).round().astype(int))
    axes.plot(x[along], volumes[along], look.marker, color=look.colour, mec="white", mew=0.3, markersize=3.6)


def _handle(tables: RunTables, name: str) -> Line2D:
    look = look_of(name, tables.devices)
    return Line2D([], [], color=look.colour, marker=look.marker, linestyle=look.line, mec="white", mew=0.3)


def _limit(all_axes: list[Axes], curves: list[Floats]) -> None:
    """Fit the axis to the curves but for their very first points, which may be far below."""
    low = min(float(volumes[int(EARLY * len(volumes))]) for volumes in curves)
    high = max(float(volumes[-1]) for volumes in curves)
    margin = 0.05 * (high - low) or 0.05
    for axes in all_axes:
        axes.set_ylim(low - margin, high + margin)


def _caption(
    tables: RunTables,
    curves: Mapping[str, tuple[Floats, Floats]],
    timed: Mapping[str, tuple[Floats, Floats]],
    flat: list[str],
) -> str:
    counts = ", ".join(f"{name} n = {len(volumes)}" for name, (volumes, _) in curves.items())
    untimed = [name for name in curves if name not in timed]
    sentences = [
        f"Hypervolume of the measured front of {tables.name} against the configurations measured so far and the time "
        f"that their evaluations took, seed {tables.seed}, one run ({counts} configurations).",
        f"Over all {len(tables.objectives)} objectives, scaled per device: levels of two devices are not comparable.",
        f"The seconds of evaluations are not known for {', '.join(untimed)}." if untimed else "",
        *flat,
    ]
    return " ".join(filter(None, sentences))
