"""What every figure shares: the style, a device's look, log axes, and files that are the same on every run."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from hwdse.files import inside, write_bytes

__all__ = [
    "DOUBLE_INCHES",
    "INK",
    "MEASURED",
    "SINGLE_INCHES",
    "Drawing",
    "LineStyle",
    "Look",
    "columns_for",
    "head",
    "limit_x",
    "look_of",
    "new_figure",
    "powers_alone",
    "save",
    "sentence_figure",
    "set_log",
    "short_names",
    "spans_decade",
    "style",
]

SINGLE_INCHES, DOUBLE_INCHES = 3.5, 7.2
"""Widths of a figure in one and in two columns of a page."""

LineStyle = Literal["-", "--", "-.", ":"] | tuple[float, tuple[float, ...]]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "*", "<")
LINES: tuple[LineStyle, ...] = ("-", "--", "-.", ":", (0.0, (5.0, 1.0, 1.0, 1.0, 1.0, 1.0)))
RASTER_FROM = 2000
"""Marks from which on they are pixels in a PDF too: as shapes they would take minutes to show."""

INK, MEASURED = "#222222", "#8C8C8C"
"""Words and marks that belong to no device; configurations beside the front."""

LOG_RATIO = 10.0
TITLE_CHARACTERS_PER_INCH = 14.0
HANDLE_INCHES, LETTER_INCHES = 0.55, 0.057
"""What a legend's sign with the space around it, and a letter, take in width."""

PLAIN_FROM, PLAIN_TO = 1e-3, 1e5
"""Ends of what is written without an exponent."""

MANY_DECADES = 10**2.5


@dataclass(frozen=True)
class Drawing:
    """A figure with what it was drawn from.

    Attributes
    ----------
    name
        File name without its suffix.
    figure
        The figure.
    points
        The numbers it shows, in the units and columns of the result tables.
    caption
        What it shows, with the sample count, the seed and the method.
    """

    name: str
    figure: Figure
    points: pd.DataFrame
    caption: str


@dataclass(frozen=True)
class Look:
    """Colour, marker and line style: each alone tells the first five devices apart, so grey print does too."""

    colour: str
    marker: str
    line: LineStyle


def look_of(device: str, devices: Sequence[str]) -> Look:
    """Return the look of ``device``, the same in every figure of a run.

    >>> look_of("b", ["a", "b"])
    Look(colour='#D55E00', marker='s', line='--')
    """
    place = list(devices).index(device)
    return Look(COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)], LINES[place % len(LINES)])


@contextmanager
def style() -> Iterator[None]:
    """Apply ``hwdse.mplstyle`` on matplotlib's defaults inside the block and restore the user's settings after it."""
    with as_file(files("hwdse.report") / "hwdse.mplstyle") as path, matplotlib.style.context(path, after_reset=True):
        yield


def new_figure(width_inches: float, height_inches: float) -> Figure:
    """Return an empty figure with a canvas of its own, outside of pyplot."""
    figure = Figure(figsize=(width_inches, height_inches))
    FigureCanvasAgg(figure)
    return figure


def head(figure: Figure, *lines: str) -> None:
    """Title a figure; lines that are too long for its width are broken."""
    most = int(TITLE_CHARACTERS_PER_INCH * figure.get_figwidth())
    figure.suptitle("\n".join(part for line in lines for part in textwrap.wrap(line, most)))


def short_names(names: Sequence[str], *, width: float) -> list[str]:
    """Return names that fit a legend of ``width`` inches beside their signs: what is too long loses its middle.

    >>> short_names(["chip", "a" * 50 + "b" * 50], width=3.5)[1]
    'aaaaaaaaaaaaaaaaaaaaaaaaa…bbbbbbbbbbbbbbbbbbbbbbbbb'
    """
    most = int((width - HANDLE_INCHES) / LETTER_INCHES)
    half = (most - 1) // 2
    return [name if len(name) <= most else f"{name[:half]}…{name[-half:]}" for name in names]


def columns_for(names: Sequence[str], *, width: float) -> int:
    """Return how many columns a legend of ``width`` inches has room for, at least 1.

    >>> columns_for(["mpic", "gap9"], width=3.5), columns_for(["a" * 40] * 3, width=3.5)
    (2, 1)
    """
    entry = HANDLE_INCHES + LETTER_INCHES * max(map(len, names))
    return max(1, min(len(names), int(width / entry)))


def sentence_figure(sentence: str, title: str) -> Figure:
    """Return a figure that says in words why there is nothing to draw."""
    figure = new_figure(DOUBLE_INCHES, 1.2)
    head(figure, title)
    figure.text(0.5, 0.42, textwrap.fill(sentence, 100), ha="center", va="center")
    return figure


def spans_decade(values: NDArray[np.float64]) -> bool:
    """Return True if the finite values are positive and the largest is at least ten times the smallest.

    >>> spans_decade(np.array([1.0, 9.0])), spans_decade(np.array([1.0, 10.0])), spans_decade(np.array([0.0, 10.0]))
    (False, True, False)
    """
    finite = values[np.isfinite(values)]
    return bool(finite.size and finite.min() > 0 and finite.max() >= LOG_RATIO * finite.min())


def set_log(axes: Axes, which: str) -> None:
    """Make the ``x`` or ``y`` axis logarithmic with ticks at 1, 2 and 5 in plain numbers."""
    axis: XAxis | YAxis
    if which == "x":
        axes.set_xscale("log")
        axis = axes.xaxis
    else:
        axes.set_yscale("log")
        axis = axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def powers_alone(axes: Axes, which: str) -> None:
    """Leave ticks at powers of ten alone on a logarithmic axis that spans more than two and a half decades."""
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    if high / low > MANY_DECADES:
        (axes.xaxis if which == "x" else axes.yaxis).set_major_locator(LogLocator())


def limit_x(axes: Axes, values: NDArray[np.float64], *, ticks: int = 5) -> None:
    """Fit the x axis around ``values``, logarithmic where they span a decade; differences under 1 % stay small."""
    lowest, highest = float(values.min()), float(values.max())
    if spans_decade(values):
        set_log(axes, "x")
        margin = (highest / lowest) ** 0.06
        axes.set_xlim(lowest / margin, highest * margin)
        return
    margin = max(0.06 * (highest - lowest), 0.01 * abs(highest)) or 1.0
    axes.set_xlim(lowest - margin, highest + margin)
    is_plain = PLAIN_FROM <= max(abs(lowest), abs(highest)) < PLAIN_TO
    axes.xaxis.set_major_locator(MaxNLocator(ticks if is_plain else 2))
    if not is_plain:  # a common exponent would stand over the words of the axis
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _rendered(figure: Figure, suffix: str) -> bytes:
    buffer = io.BytesIO()
    # Neither the date nor the software belongs to the result: the same tables give the same bytes.
    metadata = {"CreationDate": None} if suffix == "pdf" else {"Software": None}
    figure.savefig(buffer, format=suffix, metadata=metadata)
    return buffer.getvalue()


def _rasterize(figure: Figure) -> None:
    """Have what consists of very many marks drawn as pixels; axes and words stay what they are."""
    for line in figure.findobj(Line2D):
        if np.size(line.get_xdata(orig=True)) > RASTER_FROM:
            line.set_rasterized(True)
    for bars in figure.findobj(LineCollection):
        if len(bars.get_segments()) > RASTER_FROM:
            bars.set_rasterized(True)


def save(drawing: Drawing, folder: Path) -> list[Path]:
    """Write a drawing as PDF and PNG with its numbers as CSV, and return the three paths. Call inside :func:`style`."""
    _rasterize(drawing.figure)
    pictures = [
        write_bytes(inside(folder, f"{drawing.name}.{suffix}"), _rendered(drawing.figure, suffix))
        for suffix in ("pdf", "png")
    ]
    numbers = drawing.points.to_csv(index=False, lineterminator="\n").encode()
    return [*pictures, write_bytes(inside(folder, f"{drawing.name}.csv"), numbers)]
