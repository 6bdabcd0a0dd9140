"""The bits figure of one device: number of bits per layer of one configuration, over the layers' share of the work."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from hwdse.formats import Precision
from hwdse.pareto import select_spread
from hwdse.report.drawing import (
    DOUBLE_INCHES,
    INK,
    Drawing,
    Look,
    head,
    look_of,
    new_figure,
    sentence_figure,
    set_log,
    spans_decade,
)
from hwdse.report.summary import best_quality, cheapest_within, scaled_objectives
from hwdse.report.tables import DeviceTables, RunTables
from hwdse.report.words import counted, drop_text, elide, number, precision_counts, quality_text, split_column

__all__ = ["chosen_row", "draw_bits"]

LONGEST_NAME = 26
PITCH_INCHES = 0.095
LINEAR_BITS = 16

SENSITIVITY, MOST = "sensitivity_measured", "sensitivity_most_measured"
OTHERS = 4
"""Most configurations of the front beside the chosen one."""

STRIP_SHARE = 0.48
SIDE_INCHES = 0.6
CELL_INCHES = 0.19
"""Width of a cell from which on its bits can be written in it."""

DARK_SHADE = 2.5
BELOW = 3.0


def chosen_row(tables: RunTables, device: DeviceTables) -> tuple[pd.Series, str]:
    """Return the configuration to show and why: the picked one, else the cheapest with a small drop, else the best.

    The front must not be empty if nothing is picked.
    """
    if device.pick is not None:
        return device.picked.iloc[0], "the picked configuration"
    quality = tables.quality
    cheapest = cheapest_within(tables, device, drop=tables.max_drop)
    words, _, _ = split_column(tables.main_cost)
    if cheapest is not None:
        within = drop_text(quality.name, tables.max_drop)
        return cheapest, f"lowest {words.lower()} with a drop of at most {within}, as nothing was picked"
    best = best_quality(tables, device)
    assert best is not None
    return best, "best quality on the front, as nothing was picked"


def draw_bits(tables: RunTables, name: str, *, width: float = DOUBLE_INCHES) -> Drawing:
    """Return the figure of weight and activation bits per layer of the device ``name``.

    Below the chosen configuration: some others on the front, the measured sensitivity of every layer where the run has
    it, and the layers' shares of MACs and weights.

    Parameters
    ----------
    tables, name
        Of the run, and of the device.
    width
        Of the figure in inches.
    """
    device = tables.results[name]
    file_name, heading = f"bits-{name}", f"{tables.name} on {name}"
    if device.pick is None and device.emptiness:
        figure = sentence_figure(device.emptiness, heading)
        columns = ["layer", "precision", "weight_bits", "activation_bits", "mac_share", "weight_share"]
        return Drawing(file_name, figure, pd.DataFrame(columns=columns), device.emptiness)
    row, why = chosen_row(tables, device)
    others = _others(tables, device, str(row["config_id"]))
    points = _points(tables, device, row["bits"])
    look = look_of(name, tables.devices)
    has_harm = bool(points[SENSITIVITY].notna().any())
    ratios = [2.2, *([STRIP_SHARE * len(others)] if len(others) else []), *([1.5] if has_harm else []), 1, 1]
    longest = max(map(len, elide(points["layer"].tolist(), LONGEST_NAME)))
    figure = new_figure(width, 1.0 + 0.42 * sum(ratios) + 0.055 * longest)
    panels = iter(figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios))
    _draw_widths(next(panels), points, look)
    if len(others):
        _draw_strip(next(panels), others["bits"].tolist(), _row_names(tables, others), width=width)
    if has_harm:
        _draw_harm(next(panels), tables, points, look)
    _draw_share(next(panels), points["mac_share"].to_numpy(float), "MACs\n(%)", look)
    lowest = next(panels)
    _draw_share(lowest, points["weight_share"].to_numpy(float), "Weights\n(%)", look)
    _name_layers(lowest, points["layer"].tolist(), width=width)
    figure.align_ylabels()
    head(figure, f"{heading}: {why}", _costs(tables, row), *([device.caveat] if device.note else []))
    table = points.dropna(axis="columns", how="all")
    for _, other in others.iterrows():
        table[f"precision_{other['config_id']}"] = other["bits"].split()
    harm = split_column(tables.loss)[0]
    sentences = [
        f"Bits per layer of configuration {row['config_id']} of {heading} ({why}), seed {tables.seed}: "
        f"{precision_counts(row['bits'])}.",
        f"Then {counted(len(others), 'other')} on the front." if len(others) else "",
        f"Sensitivity: {harm} with that layer's group alone quantized, measured on n = {_samples(tables)} samples."
        if has_harm
        else "",
        f"Below: shares of MACs and weights (n = {len(points)} layers). Quality: n = {int(row['samples'])} samples.",
        device.caveat_sentence,
    ]
    return Drawing(file_name, figure, table, " ".join(filter(None, sentences)))


def _others(tables: RunTables, device: DeviceTables, chosen: str) -> pd.DataFrame:
    """Return a few configurations on the front that are spread over its objectives, cheapest first."""
    rest = device.front[device.front["config_id"] != chosen]
    kept = select_spread(scaled_objectives(tables, device, rest), OTHERS) if len(rest) > OTHERS else slice(None)
    return rest.iloc[kept].sort_values([tables.main_cost, "config_id"])


def _row_names(tables: RunTables, rows: pd.DataFrame) -> list[str]:
    """Return a name for each configuration: its quality and its main cost."""
    quality, (_, unit, _) = tables.quality, split_column(tables.main_cost)
    return [
        f"{quality_text(quality.name, row[quality.column], decimals=1)}\n{number(row[tables.main_cost])} {unit}".strip()
        for _, row in rows.iterrows()
    ]


def _draw_strip(axes: Axes, bits: Sequence[str], names: Sequence[str], *, width: float) -> None:
    """Draw a row of cells per configuration, the darker the more weight bits, with the bits written where they fit."""
    precisions = [[Precision.parse(text) for text in row.split()] for row in bits]
    shades = np.log2([[precision.weights.bits for precision in row] for row in precisions])
    axes.imshow(shades, cmap="Greys", vmin=-1.0, vmax=6.0, aspect="auto", interpolation="nearest")
    if len(precisions[0]) * CELL_INCHES <= width - SIDE_INCHES:
        for y, row in enumerate(precisions):
            for x, precision in enumerate(row):
                words = f"{precision.weights.bits}/{precision.activations.bits}"
                colour = "white" if shades[y, x] > DARK_SHADE else INK
                axes.text(x, y, words, fontsize=5, ha="center", va="center", color=colour)
    axes.set_yticks(range(len(names)), names, fontsize=5, linespacing=0.95)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False)
    for height in range(1, len(names)):
        axes.axhline(height - 0.5, color="white", linewidth=1.5)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("Front\n(W/A bits)")


def _draw_harm(axes: Axes, tables: RunTables, points: pd.DataFrame, look: Look) -> None:
    """Draw the measured sensitivity at the chosen precision and at the most harmful candidate."""
    place = np.arange(len(points))
    chosen, most = (points[column].to_numpy(float) for column in (SENSITIVITY, MOST))
    both = np.concatenate([chosen, most])
    above = both[both > 0]
    if spans_decade(above):
        floor = above.min() / BELOW  # where a harm of 0 is drawn
        chosen, most = np.maximum(chosen, floor), np.maximum(most, floor)
        set_log(axes, "y")
        axes.yaxis.set_major_locator(LogLocator(numticks=4))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.margins(y=0.12)
    axes.vlines(place, chosen, most, color=look.colour, linewidth=0.6, alpha=0.6)
    worst = axes.plot(place, most, look.marker, markersize=3.2, mfc="white", mec=look.colour, mew=0.7)[0]
    own = axes.plot(place, chosen, look.marker, markersize=3.2, color=look.colour, mec="white", mew=0.3)[0]
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("Sensitivity\n(measured)")
    axes.legend(
        [own, worst], [f"{split_column(tables.loss)[0]}, as chosen", "most harmful candidate"],
        loc="lower right", bbox_to_anchor=(1, 0.98), ncols=2, borderaxespad=0.2,
    )  # fmt: skip


def _samples(tables: RunTables) -> str:
    """Return on how many samples sensitivities were measured."""
    counts = tables.sensitivity["samples"]
    low, high = int(counts.min()), int(counts.max())
    return f"{low}" if low == high else f"{low} to {high}"


def _costs(tables: RunTables, row: pd.Series) -> str:
    """Return one line with the configuration's quality and costs, each with its tier."""
    quality = tables.quality
    parts = [f"{split_column(quality.column)[0]} {quality_text(quality.name, row[quality.column])}"]
    for column in tables.costs.values():
        words, unit, tier = split_column(column)
        parts.append(" ".join(filter(None, (words.lower(), number(row[column]), unit, tier and f"({tier})"))))
    return ", ".join(parts)


def _points(tables: RunTables, device: DeviceTables, bits: str) -> pd.DataFrame:
    """Return a row per layer: its precision, its group's sensitivity and its shares."""
    precisions = [Precision.parse(text) for text in bits.split()]
    own = tables.sensitivity[tables.sensitivity["scheme"] == device.scheme].set_index(["group", "candidate"])
    harm = own[tables.loss].groupby(level=[0, 1]).first()
    groups = tables.layers["group"].tolist()
    macs, weights = (tables.layers[name].to_numpy(float) for name in ("macs", "weight_count"))
    return pd.DataFrame(
        {
            "layer": tables.layers["layer"],
            "precision": [str(precision) for precision in precisions],
            "weight_bits": [precision.weights.bits for precision in precisions],
            "activation_bits": [precision.activations.bits for precision in precisions],
            "mac_share": macs / max(macs.sum(), 1.0),
            "weight_share": weights / max(weights.sum(), 1.0),
            SENSITIVITY: harm.reindex(list(zip(groups, bits.split(), strict=True))).to_numpy(float),
            MOST: harm.groupby(level=0).max().reindex(groups).to_numpy(float),
        }
    )


def _draw_widths(axes: Axes, points: pd.DataFrame, look: Look) -> None:
    """Draw weight bits as bars and activation bits as a line of steps with markers."""
    place = np.arange(len(points))
    weights, activations = points["weight_bits"].to_numpy(float), points["activation_bits"].to_numpy(float)
    axes.bar(place, weights, width=0.8, color=look.colour, alpha=0.55, edgecolor=look.colour, label="weights")
    axes.step(place, activations, where="mid", color=INK, linewidth=0.9)
    axes.plot(place, activations, "s", markersize=2.6, mfc="white", mec=INK, mew=0.7)
    handle = axes.plot([], [], "s-", color=INK, linewidth=0.9, markersize=2.6, mfc="white", mew=0.7)[0]
    highest = float(max(weights.max(), activations.max()))
    if highest > LINEAR_BITS:
        axes.set_yscale("log", base=2)
        axes.set_ylim(1, highest * 1.35)
    else:
        axes.set_ylim(0, highest * 1.12)
    used = sorted({*weights, *activations})
    axes.yaxis.set_major_locator(FixedLocator(used))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylabel("Bits")
    axes.grid(visible=False, axis="x")
    axes.legend(
        [axes.containers[0], handle], ["weights", "activations"],
        loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2,
    )  # fmt: skip


def _draw_share(axes: Axes, share: NDArray[np.float64], label: str, look: Look) -> None:
    axes.bar(np.arange(len(share)), 100 * share, width=0.8, color=look.colour)
    axes.set_ylabel(label)
    axes.set_ylim(0, max(110 * float(share.max()), 1.0))
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.grid(visible=False, axis="x")


def _name_layers(axes: Axes, layers: list[str], *, width: float) -> None:
    """Name the layers upright; where they are too many for the width, name every second, third, ..."""
    every = ceil(len(layers) * PITCH_INCHES / (width - SIDE_INCHES))
    place = np.arange(0, len(layers), every)
    names = elide(layers, LONGEST_NAME)
    size = 6.0 if len(layers) <= 45 or every > 1 else 5.0
    axes.set_xticks(place, [names[i] for i in place], rotation=90, fontsize=size)
    axes.set_xlim(-0.7, len(layers) - 0.3)
    axes.set_xlabel("Layer" if every == 1 else f"Layer (every {every} named)")
