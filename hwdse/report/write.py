"""All figures of a run, with the numbers and the captions beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hwdse.files import write_text
from hwdse.report.bits import draw_bits
from hwdse.report.devices import draw_devices
from hwdse.report.drawing import save, style
from hwdse.report.pareto import draw_pareto
from hwdse.report.tables import RunTables

__all__ = ["write_report"]


def write_report(run: Path, *, devices: Sequence[str] | None = None) -> list[Path]:
    """Return the paths of the files written to ``run/figures``: PDF, PNG and CSV per figure, and ``captions.md``.

    Parameters
    ----------
    run
        A run folder.
    devices
        Report these devices alone; all of the run by default.

    The same tables give the same bytes.

    Raises
    ------
    RunFolderError
        If a table is missing or damaged.
    """
    tables = RunTables.load(run, devices=devices)
    folder = run / "figures"
    with style():
        drawings = [draw(tables, name) for name in tables.results for draw in (draw_pareto, draw_bits)]
        drawings.append(draw_devices(tables))
        paths = [path for drawing in drawings for path in save(drawing, folder)]
    captions = [f"# Figures of {tables.name}", *(f"**{drawing.name}.** {drawing.caption}" for drawing in drawings)]
    return [*paths, write_text(folder / "captions.md", "\n\n".join([*captions, ""]))]
