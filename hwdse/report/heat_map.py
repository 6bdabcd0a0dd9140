"""The overview of an analysis: how well every number format fits every layer's weight and input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hwdse.formats import parse
from hwdse.report.analysis import AnalysisTables, TensorTables
from hwdse.report.drawing import DOUBLE_INCHES, Drawing, new_figure, sentence_figure
from hwdse.report.layer_figure import sqnr_text
from hwdse.report.words import elide

__all__ = ["difficulty_matrix", "draw_heat_map"]

PANELS = {"weight": "Weights", "activation": "Inputs"}
COLOURS = "viridis"
"""Its lightness rises evenly, so that grey print keeps the order."""

ABSENT, PALE, GROUND = "#D4D4D4", "#6E6E6E", "white"
LONGEST_NAME = 26
CAP_DB = 60.0
"""SQNR from which on the colour stays the same, so that a 16-bit format does not take the colours from the others."""

# Lengths in inches.
LETTER, PAD = 0.052, 0.08
WIDEST_CELL, GAP, BAR_GAP, BAR, BAR_LABELS = 0.42, 0.16, 0.12, 0.11, 0.27
TALL_CELL, LOW_CELL, MANY_LAYERS = 0.16, 0.125, 40
HEAD, FOOT, LONGEST_BAR, NARROWEST = 0.52, 0.1, 2.4, 4.6
DECIMAL_WIDTH, WHOLE_WIDTH, NUMBER_SIZE = 0.23, 0.14, 5.0
"""Widths of a cell from which on a number with one decimal, or a whole one, fits into it."""


def difficulty_matrix(tensors: Mapping[str, TensorTables | None]) -> pd.DataFrame:
    """Return the highest predicted SQNR (dB) over calibrators: a row per layer, a column per format.

    Columns are ordered by bits, then by their median; a cell without an entry is NaN.
    """
    best = [tensor.best.assign(row=layer) for layer, tensor in tensors.items() if tensor is not None]
    if not best:
        return pd.DataFrame(index=list(tensors))
    rows = pd.concat(best)
    bits = rows.groupby("format")["bits"].first()
    matrix = rows.pivot_table(index="row", columns="format", values="sqnr_db_predicted", aggfunc="first", dropna=False)
    matrix = matrix.reindex(index=list(tensors)).rename_axis(index=None, columns=None)
    medians = matrix.median().fillna(-np.inf)
    order = pd.DataFrame({"bits": bits, "median": medians}).sort_values(["bits", "median"], kind="stable")
    return matrix[order.index.tolist()]


def draw_heat_map(tables: AnalysisTables, scheme: str, *, name: str) -> Drawing:
    """Return the map of the predicted SQNR over layers and formats under ``scheme``, weights beside inputs.

    Parameters
    ----------
    tables
        Of the analysis.
    scheme
        Which one.
    name
        File name without its suffix.
    """
    layers = tables.layers["layer"].tolist()
    operands = {layer: tables.operands(scheme, layer) for layer in layers}
    matrices = {
        kind: difficulty_matrix({layer: pair[place] for layer, pair in operands.items()})
        for place, kind in enumerate(PANELS)
    }
    matrices = {kind: matrix for kind, matrix in matrices.items() if matrix.size}
    finite = np.concatenate([matrix.to_numpy(float).ravel() for matrix in matrices.values()] or [np.zeros(0)])
    finite = finite[np.isfinite(finite)]
    points = _points(tables, scheme, operands)
    title = "Predicted SQNR (dB) of every tensor by number format, best calibrator"
    if not finite.size:
        sentence = f"No tensor has a finite predicted SQNR under scheme {scheme}."
        return Drawing(name, sentence_figure(sentence, title), points, sentence)
    seconds = [layer for layer, (second, _) in operands.items() if second is not None and second.kind == "activation"]
    top = min(float(finite.max()), CAP_DB)
    norm = Normalize(min(float(finite.min()), top), top)
    figure = _draw(matrices, layers, norm, seconds=bool(seconds))
    figure.suptitle(title, x=0.5, y=1 - 0.07 / figure.get_figheight(), va="top")
    figure.text(0.5, 1 - 0.22 / figure.get_figheight(), f"scheme {scheme}", fontsize=6, color=PALE, ha="center",
                va="top")  # fmt: skip
    return Drawing(name, figure, points, _caption(scheme, len(layers), matrices, top, seconds))


def _draw(matrices: Mapping[str, pd.DataFrame], layers: list[str], norm: Normalize, *, seconds: bool) -> Figure:
    """Return the figure with a panel for every matrix and the colour bar; all cells have the same size."""
    names = elide(layers, LONGEST_NAME)
    left = PAD + LETTER * max(map(len, names)) + 0.05
    formats = [name for matrix in matrices.values() for name in matrix.columns]
    beside = left + GAP * (len(matrices) - 1) + BAR_GAP + BAR + BAR_LABELS
    cell = min((DOUBLE_INCHES - beside) / len(formats), WIDEST_CELL)
    width = max(beside + cell * len(formats), NARROWEST)
    top = HEAD + 0.08 + LETTER * max(map(len, formats))
    tall = len(layers) * (TALL_CELL if len(layers) <= MANY_LAYERS else LOW_CELL)
    height = top + tall + FOOT
    figure = new_figure(width, height)
    figure.set_layout_engine("none")
    left += (width - beside - cell * len(formats)) / 2
    for place, (kind, matrix) in enumerate(matrices.items()):
        wide = cell * matrix.shape[1]
        axes = figure.add_axes((left / width, FOOT / height, wide / width, tall / height))
        _draw_cells(axes, matrix, norm, cell)
        axes.set_yticks(range(len(names)), names if place == 0 else [""] * len(names), fontsize=6)
        words = "Weights, second operands" if kind == "weight" and seconds else PANELS[kind]
        figure.text((left + wide / 2) / width, 1 - (HEAD - 0.02) / height, words, ha="center", va="bottom", fontsize=7)
        left += wide + GAP
    long = min(tall, LONGEST_BAR)
    box = ((left - GAP + BAR_GAP) / width, (FOOT + tall - long) / height, BAR / width, long / height)
    bar = figure.add_axes(box)
    figure.colorbar(ScalarMappable(norm, COLOURS), cax=bar)
    bar.set_title("dB", pad=4)
    bar.grid(visible=False)
    return figure


def _draw_cells(axes: Axes, matrix: pd.DataFrame, norm: Normalize, cell: float) -> None:
    """Draw a matrix as coloured cells with their numbers, its formats named on top, a gap where the bits change."""
    bits = {name: parse(name).bits for name in matrix.columns}
    values = matrix.to_numpy(float)
    shown = np.ma.masked_invalid(np.clip(values, norm.vmin, norm.vmax))
    axes.patch.set(facecolor=GROUND, edgecolor=ABSENT, hatch="//////", linewidth=0)
    rows, columns = values.shape
    axes.pcolormesh(np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5, shown, cmap=COLOURS, norm=norm,
                    edgecolors=GROUND, linewidth=0.4)  # fmt: skip
    for place in np.flatnonzero(np.diff([bits[name] for name in matrix.columns])):
        axes.axvline(place + 0.5, color=GROUND, linewidth=2.0)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.xaxis.tick_top()
    axes.set_xticks(range(columns), matrix.columns.tolist(), rotation=90, fontsize=6)
    axes.tick_params(length=0, pad=2)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    if cell >= WHOLE_WIDTH:
        _write_numbers(axes, values, norm, decimals=cell >= DECIMAL_WIDTH)


def _write_numbers(axes: Axes, values: NDArray[np.float64], norm: Normalize, *, decimals: bool) -> None:
    colours = colormaps[COLOURS](norm(np.clip(np.nan_to_num(values), norm.vmin, norm.vmax)))
    light = colours[..., :3] @ np.array([0.2126, 0.7152, 0.0722]) > 0.45
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            continue
        text = sqnr_text(value) if decimals or not np.isfinite(value) else f"{value + 0.0:.0f}".replace("-0", "0")
        axes.text(column, row, text, fontsize=NUMBER_SIZE, ha="center", va="center_baseline",
                  color="black" if light[row, column] else "white")  # fmt: skip


def _points(tables: AnalysisTables, scheme: str, operands: Mapping[str, Sequence[TensorTables | None]]) -> pd.DataFrame:
    """Return a row per (layer, operand, format): what every cell shows."""
    columns = ["format", "bits", "calibrator", "sqnr_db_predicted"]
    parts = [
        tensor.best[columns].assign(scheme=scheme, layer=layer, tensor=tensor.name, kind=tensor.kind, panel=panel)
        for layer, pair in operands.items()
        for panel, tensor in zip(PANELS.values(), pair, strict=True)
        if tensor is not None
    ]
    order = ["scheme", "layer", "panel", "tensor", "kind", *columns]
    return pd.concat(parts)[order] if parts else tables.difficulty.iloc[:0].reindex(columns=order)


def _caption(scheme: str, layers: int, matrices: Mapping[str, pd.DataFrame], top: float, seconds: Sequence[str]) -> str:
    values = np.concatenate([matrix.to_numpy(float).ravel() for matrix in matrices.values()])
    sentences = [
        "SQNR in dB that each number format would reach on each layer's weight and on its input "
        f"(n = {layers} layers in execution order) under scheme {scheme}, at the calibrator with the highest; "
        "predicted from the distributions, not measured. Formats are ordered by bits, then by their median over layers."
    ]
    if seconds:
        sentences.append(f"In place of a weight stands the second operand of {', '.join(seconds)}.")
    if np.isnan(values).any():
        sentences.append("Hatched cells have no entry in the tables.")
    if (values > top).any():
        sentences.append(f"Values above {sqnr_text(top)} dB, ∞ (no error) among them, have one colour.")
    return " ".join(sentences)
