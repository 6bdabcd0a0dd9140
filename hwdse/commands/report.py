"""``hwdse report``: the page of a run and its figures, from the run folder alone."""

from __future__ import annotations

from pathlib import Path

import typer

from hwdse.commands.answer import INFEASIBLE
from hwdse.commands.screen import CONSOLE, fail, print_json, watched
from hwdse.errors import RunFolderError
from hwdse.report.page.write import write_page
from hwdse.report.write import Width, write_report

__all__ = ["report"]


def report(run: Path, *, out: Path | None, figures: bool, width: Width, pgf: bool, as_json: bool) -> None:
    """Write the page of a run, and its figures where asked for; say what stands in the way.

    Exits with 3 if nothing fits any device, after the page is written.

    Raises
    ------
    RunFolderError
        If the run is unfinished or empty, after a page that says so is written; or if it is damaged.
    """
    drawn: list[Path] = []
    with watched(only_live=True) as progress:
        progress.start("page", 1)
        page, state = write_page(run, out)
        progress.advance()
        if state.unfinished:
            raise RunFolderError(f"expected a finished run in {run}; {state.unfinished} The page says so too: {page}")
        if figures and state.tables is not None:
            drawn = write_report(run, every=True, width=width, pgf=pgf, progress=progress)
    if as_json:
        print_json({"page": str(page), "figures": [str(path) for path in drawn], "infeasible": dict(state.infeasible)})
    for path in [] if as_json else [*drawn, page]:
        CONSOLE.print(str(path), markup=False, soft_wrap=True)
    for device, reason in state.infeasible.items():
        fail(f"{device}: {reason}")
    if state.is_infeasible:
        raise typer.Exit(INFEASIBLE)
