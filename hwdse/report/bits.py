"""The bits figure of one device: number of bits per layer of one configuration, over the layers' share of the work."""

from __future__ import annotations

import textwrap
from math import ceil

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from hwdse.formats import Precision
from hwdse.report.drawing import DOUBLE_INCHES, Drawing, Look, look_of, new_figure, sentence_figure
from hwdse.report.summary import best_quality, cheapest_within
from hwdse.report.tables import DeviceTables, RunTables
from hwdse.report.words import drop_text, elide, number, precision_counts, quality_text, split_column

__all__ = ["chosen_row", "draw_bits"]

INK = "#222222"
LONGEST_NAME = 26
PITCH_INCHES = 0.095
LINEAR_BITS = 16


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


def draw_bits(tables: RunTables, name: str) -> Drawing:
    """Return the figure of weight and activation bits per layer of the device ``name``."""
    device = tables.results[name]
    file_name, heading = f"bits-{name}", f"{tables.name} on {name}"
    if device.pick is None and device.emptiness:
        figure = sentence_figure(device.emptiness, heading)
        columns = ["layer", "precision", "weight_bits", "activation_bits", "mac_share", "weight_share"]
        return Drawing(file_name, figure, pd.DataFrame(columns=columns), device.emptiness)
    row, why = chosen_row(tables, device)
    points = _points(tables, row["bits"])
    look = look_of(name, tables.devices)
    longest = max(map(len, elide(points["layer"].tolist(), LONGEST_NAME)))
    figure = new_figure(DOUBLE_INCHES, 2.75 + 0.055 * longest)
    bits, macs, weights = figure.subplots(3, 1, sharex=True, height_ratios=(2.2, 1, 1))
    _draw_widths(bits, points, look)
    _draw_share(macs, points["mac_share"].to_numpy(float), "MACs (%)", look)
    _draw_share(weights, points["weight_share"].to_numpy(float), "Weights (%)", look)
    _name_layers(weights, points["layer"].tolist())
    figure.suptitle("\n".join([*textwrap.wrap(f"{heading}: {why}", 110), _costs(tables, device, row)]))
    caption = (
        f"Bits per layer of configuration {row['config_id']} of {heading} ({why}), seed {tables.seed}: "
        f"{precision_counts(row['bits'])}. Below: each layer's share of all MACs and of all weights "
        f"(n = {len(points)} layers in execution order). Quality measured on n = {int(row['samples'])} samples."
    )
    sentences = [f"{name}: {device.note}."] if device.note else []
    sentences += [f"{sentence}." for sentence in device.worth]
    return Drawing(file_name, figure, points, " ".join([caption, *sentences]))


def _costs(tables: RunTables, device: DeviceTables, row: pd.Series) -> str:
    """Return one line with the configuration's quality and costs, each with its tier."""
    quality = tables.quality
    parts = [f"{split_column(quality.column)[0]} {quality_text(quality.name, row[quality.column])}"]
    for column in tables.costs.values():
        words, unit, tier = split_column(column)
        parts.append(" ".join(filter(None, (words.lower(), number(row[column]), unit, tier and f"({tier})"))))
    return ", ".join(parts) + (f"; {device.caveat}" if device.note else "")


def _points(tables: RunTables, bits: str) -> pd.DataFrame:
    precisions = [Precision.parse(text) for text in bits.split()]
    macs, weights = (tables.layers[name].to_numpy(float) for name in ("macs", "weight_count"))
    return pd.DataFrame(
        {
            "layer": tables.layers["layer"],
            "precision": [str(precision) for precision in precisions],
            "weight_bits": [precision.weights.bits for precision in precisions],
            "activation_bits": [precision.activations.bits for precision in precisions],
            "mac_share": macs / max(macs.sum(), 1.0),
            "weight_share": weights / max(weights.sum(), 1.0),
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


def _name_layers(axes: Axes, layers: list[str]) -> None:
    """Name the layers upright; where they are too many for the width, name every second, third, ..."""
    every = ceil(len(layers) * PITCH_INCHES / (DOUBLE_INCHES - 0.6))
    place = np.arange(0, len(layers), every)
    names = elide(layers, LONGEST_NAME)
    size = 6.0 if len(layers) <= 45 or every > 1 else 5.0
    axes.set_xticks(place, [names[i] for i in place], rotation=90, fontsize=size)
    axes.set_xlim(-0.7, len(layers) - 0.3)
    axes.set_xlabel("Layer" if every == 1 else f"Layer (every {every} named)")
