"""Labels beside points that cover neither each other nor what is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.text import Annotation, Text
from numpy.typing import NDArray

__all__ = ["place_labels", "shared_area"]

DISTANCES_PT = (5.0, 8.0, 12.0, 17.0, 23.0, 30.0)
DIRECTIONS = tuple((round(np.cos(angle), 3), round(np.sin(angle), 3)) for angle in np.arange(16) * np.pi / 8)
MARKER_PT, LABELLED_PT = 2.5, 4.5
LINE_PT = 0.6
LEADER_FROM_PT = 13.0
LEADER_COST = 10.0
UNMISTAKEN = 2.0
"""How many times as far another labelled point must be from a label as its own."""

COVERED_COST = 3.0
OUTSIDE_COST = 20.0
LABEL_WEIGHT = 4
"""How many times as bad it is to cover another label as to cover a point."""

LEADER = {"arrowstyle": "-", "linewidth": 0.4, "color": "#555555", "shrinkA": 0, "shrinkB": 2}
GROUND = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.5}

Boxes = NDArray[np.float64]
"""``(n, 4)`` rectangles ``x0, y0, x1, y1`` in pixels."""


def place_labels(
    axes: Axes,
    labels: Sequence[tuple[float, float, str]],
    *,
    points: NDArray[np.float64],
    lines: NDArray[np.float64],
) -> list[Annotation]:
    """Return annotations placed near their points, where they cover the least.

    Parameters
    ----------
    axes
        Where to draw; its limits and the figure's layout must be final.
    labels
        ``(x, y, text)`` with the position in data coordinates.
    points
        ``(n, 2)`` markers in data coordinates that no label should cover.
    lines
        ``(n, 4)`` level or upright lines ``x0, y0, x1, y1`` in data coordinates that no label should cross.

    Positions around a point are tried from near to far. A label that had to go far, or stands about as near to another
    labelled point as to its own, gets a thin line to its point.
    """
    canvas = axes.figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    renderer: RendererAgg = canvas.get_renderer()  # type: ignore[no-untyped-call]  # the canvas's own signature
    labelled = np.array([label[:2] for label in labels]).reshape(-1, 2)
    taken = _occupied(axes, labelled, points, lines, renderer.dpi / 72.0)
    placed = []
    for x, y, text in labels:
        annotation = axes.annotate(
            text, (x, y), xytext=(0, 0), textcoords="offset points", fontsize=6, annotation_clip=False,
            arrowprops=LEADER, bbox=GROUND, zorder=8,
        )  # fmt: skip
        annotation.set_in_layout(False)
        others = axes.transData.transform(labelled[(labelled != (x, y)).any(axis=1)])
        box = _settle(annotation, renderer, taken, others)
        taken = np.vstack([taken, *[box] * LABEL_WEIGHT])
        placed.append(annotation)
    return placed


def _occupied(
    axes: Axes,
    labelled: NDArray[np.float64],
    points: NDArray[np.float64],
    lines: NDArray[np.float64],
    scale: float,
) -> Boxes:
    """Return the boxes of all markers and lines; ``scale`` is in pixels per point."""
    centres = axes.transData.transform(np.concatenate([points, labelled]))
    radius = np.array([MARKER_PT] * len(points) + [LABELLED_PT] * len(labelled))[:, None] * scale
    ends = axes.transData.transform(lines.reshape(-1, 2)).reshape(-1, 2, 2)
    markers = np.hstack([centres - radius, centres + radius])
    strokes = np.hstack([ends.min(axis=1) - LINE_PT * scale, ends.max(axis=1) + LINE_PT * scale])
    return np.concatenate([markers, strokes])


def shared_area(box: NDArray[np.float64], boxes: Boxes) -> NDArray[np.float64]:
    """Return the area ``(n,)`` that ``box`` shares with each of ``boxes``.

    >>> shared_area(np.array([0.0, 0.0, 2.0, 2.0]), np.array([[1.0, 1.0, 3.0, 3.0], [5.0, 0.0, 6.0, 1.0]])).tolist()
    [1.0, 0.0]
    """
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    return np.asarray(np.clip(sides, 0.0, None).prod(axis=1))


def distances(box: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far each of ``points (n, 2)`` is from a box, ``(n,)``; 0 inside.

    >>> distances(np.array([0.0, 0.0, 2.0, 1.0]), np.array([[1.0, 0.5], [5.0, 5.0]])).tolist()
    [0.0, 5.0]
    """
    away: NDArray[np.float64] = np.hypot(*np.maximum(np.maximum(box[:2] - points, points - box[2:]), 0.0).T)
    return away


def _settle(
    annotation: Annotation, renderer: RendererAgg, taken: Boxes, others: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Move a label to where distance and overlap, in square points, are least together; return its box in pixels.

    ``others (n, 2)`` are the other points with labels, in pixels.
    """
    assert annotation.axes is not None
    frame, square_point = np.array([annotation.axes.get_window_extent().extents]), (renderer.dpi / 72.0) ** 2
    costs, leads = {}, {}
    for distance, (right, up) in product(DISTANCES_PT, DIRECTIONS):
        box = _move(annotation, renderer, distance * right, distance * up)
        outside = float((box[2:] - box[:2]).prod()) - shared_area(box, frame)[0]
        covered = (OUTSIDE_COST * outside + COVERED_COST * shared_area(box, taken).sum()) / square_point
        nearest = float(distances(box, others).min(initial=np.inf)) * 72.0 / renderer.dpi
        leads[distance, right, up] = distance >= LEADER_FROM_PT or nearest < UNMISTAKEN * distance
        costs[distance, right, up] = covered + distance + LEADER_COST * leads[distance, right, up]
    distance, right, up = best = min(costs, key=costs.__getitem__)
    assert annotation.arrow_patch is not None
    annotation.arrow_patch.set_visible(leads[best])
    return _move(annotation, renderer, distance * right, distance * up)


def _move(annotation: Annotation, renderer: RendererAgg, right: float, up: float) -> NDArray[np.float64]:
    """Put the text's nearest edge at the offset in points, and return the box of its ground in pixels."""
    annotation.set_position((right, up))
    annotation.set_horizontalalignment("center" if abs(right) < 0.5 * abs(up) else "left" if right > 0 else "right")
    annotation.set_verticalalignment("center" if abs(up) < 0.5 * abs(right) else "bottom" if up > 0 else "top")
    annotation.update_positions(renderer)
    words = np.asarray(Text.get_window_extent(annotation, renderer).extents, dtype=np.float64)
    return np.asarray(words + np.array([-1, -1, 1, 1]) * renderer.dpi / 72.0)
