"""All figures of an analysis, with the numbers and the captions beside them."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hwdse.files import inside, write_text
from hwdse.report.analysis import AnalysisTables
from hwdse.report.correlation_figure import draw_correlation
from hwdse.report.drawing import Drawing, save, style
from hwdse.report.heat_map import draw_heat_map
from hwdse.report.layer_figure import draw_layer

__all__ = ["count_analysis_figures", "file_names", "write_analysis_report"]

LONGEST_NAME = 100


def count_analysis_figures(folder: Path) -> int:
    """Return how many figures :func:`write_analysis_report` draws from the tables in ``folder``.

    Raises
    ------
    RunFolderError
        If a table is missing or damaged.
    """
    return len(_figures(AnalysisTables.load(folder)))


def write_analysis_report(folder: Path, *, on_figure: Callable[[], None] | None = None) -> list[Path]:
    """Return the paths of the files written to ``folder/figures``: PDF, PNG and CSV per figure, and ``captions.md``.

    Parameters
    ----------
    folder
        An analysis folder.
    on_figure
        Called after each figure.

    The same tables give the same bytes. Where the analysis has several schemes, each has its own figures, and their
    names end in ``-scheme1``, ``-scheme2``, ... in the order of the tables.

    Raises
    ------
    RunFolderError
        If a table is missing or damaged.
    """
    tables = AnalysisTables.load(folder)
    paths, captions = [], ["# Figures of the analysis"]
    with style():
        for draw in _figures(tables):
            drawing = draw()
            paths += save(drawing, inside(folder, "figures"))
            captions.append(f"**{drawing.name}.** {drawing.caption}")
            if on_figure is not None:
                on_figure()
    return [*paths, write_text(folder / "figures" / "captions.md", "\n\n".join([*captions, ""]))]


def _figures(tables: AnalysisTables) -> list[Callable[[], Drawing]]:
    """Return a function for every figure, so that only one of them is in memory at a time."""
    layers = tables.layers["layer"].tolist()
    names = dict(zip(layers, file_names(layers), strict=True))
    figures: list[Callable[[], Drawing]] = []
    for place, scheme in enumerate(tables.schemes, start=1):
        end = f"-scheme{place}" if len(tables.schemes) > 1 else ""
        figures.append(partial(draw_heat_map, tables, scheme, name=f"difficulty{end}"))
        figures.append(partial(draw_correlation, tables, scheme, name=f"correlation{end}"))
        figures += [partial(draw_layer, tables, scheme, layer, name=f"layer_{names[layer]}{end}") for layer in layers]
    return figures


def file_names(layers: list[str]) -> list[str]:
    """Return a name for each layer that is safe as part of a file's name, and different also where case is ignored.

    >>> file_names(["layer1.0", "a/b", "a b", "A-B"])
    ['layer1.0', 'a-b', 'a-b-2', 'A-B-3']
    """
    names: list[str] = []
    taken: set[str] = set()
    for layer in layers:
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", layer)[-LONGEST_NAME:]
        name, number = plain, 1
        while name.lower() in taken:
            number += 1
            name = f"{plain}-{number}"
        taken.add(name.lower())
        names.append(name)
    return names
