"""All figures of a run, with the numbers and the captions beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from hwdse.files import inside, write_text
from hwdse.progress import SILENT, Progress
from hwdse.report.attainment import draw_attainment
from hwdse.report.bits import draw_bits
from hwdse.report.devices import draw_devices
from hwdse.report.drawing import DOUBLE_INCHES, SINGLE_INCHES, Drawing, save, style
from hwdse.report.guide import guide_text
from hwdse.report.parallel import draw_parallel
from hwdse.report.pareto import draw_pareto
from hwdse.report.pgf import pgf_writer
from hwdse.report.predicted import draw_predicted
from hwdse.report.roofline import draw_roofline
from hwdse.report.scatter import draw_scatter
from hwdse.report.tables import RunTables

__all__ = ["Width", "write_report"]

Width = Literal["single", "double"]
WIDTHS: dict[Width, float] = {"single": SINGLE_INCHES, "double": DOUBLE_INCHES}

FEWEST_COSTS = 2
"""Costs from which on a scatter matrix shows more than the Pareto figure: with quality that makes three objectives."""


def write_report(
    run: Path,
    *,
    devices: Sequence[str] | None = None,
    every: bool = False,
    width: Width = "double",
    pgf: bool = False,
    progress: Progress = SILENT,
) -> list[Path]:
    """Return the paths of the files written to ``run/figures``: PDF, PNG and CSV per figure, and two texts.

    ``captions.md`` says what each figure shows, ``README.txt`` what is common to those of a kind. Figures of one column
    lie in ``run/figures/single``, beside those of two.

    Parameters
    ----------
    run
        A run folder.
    devices
        Report these devices alone; all of the run by default.
    every
        Draw every figure for a paper; otherwise fronts, bits and the comparison of devices, which is quicker.
    width
        One column of a page or two. The comparison of devices and scatter matrices always take two.
    pgf
        Write every figure as PGF, too. Without LaTeX it is left out and ``progress`` is warned.
    progress
        Who watches.

    The same tables give the same bytes.

    Raises
    ------
    RunFolderError
        If a table is missing or damaged.
    """
    tables = RunTables.load(run, devices=devices)
    folder = inside(run, "figures") if width == "double" else inside(run, "figures", width)
    paths, captions = [], [f"# Figures of {tables.name}", "How to read them: README.txt."]
    figures = _figures(tables, WIDTHS[width], every=every)
    progress.start("figures", len(figures))
    with style(), pgf_writer(progress, wanted=pgf) as write_pgf:
        for draw in figures:
            drawing = draw()
            paths += [*save(drawing, folder), *write_pgf(drawing, folder)]
            captions.append(f"**{drawing.name}.** {drawing.caption}")
            progress.advance()
    paths.append(write_text(folder / "README.txt", guide_text(tables)))
    return [*paths, write_text(folder / "captions.md", "\n\n".join([*captions, ""]))]


def _figures(tables: RunTables, inches: float, *, every: bool) -> list[Callable[[], Drawing]]:
    """Return a function for every figure, so that only one of them is in memory at a time."""
    figures: list[Callable[[], Drawing]] = []
    for name in tables.results:
        figures += [partial(draw, tables, name, width=inches) for draw in (draw_pareto, draw_bits)]
        if every:
            figures += [partial(draw, tables, name, width=inches) for draw in (draw_parallel, draw_predicted)]
            figures.append(partial(draw_roofline, tables, name, width=inches))
            if len(tables.costs) >= FEWEST_COSTS:
                figures.append(partial(draw_scatter, tables, name, width=inches))
    figures.append(partial(draw_devices, tables, width=inches))
    if every:
        figures.append(partial(draw_attainment, tables, width=inches))
    return figures
