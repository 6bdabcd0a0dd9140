"""``hwdse report``: the page of a run and its figures, from the run folder alone."""

from __future__ import annotations

from pathlib import Path

import typer

from hwdse.commands.answer import INFEASIBLE
from hwdse.commands.screen import CONSOLE, fail, print_json, watched
from hwdse.errors import RunFolderError
from hwdse.files import check_file, check_folder
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
    InputError
        If the page or the figures cannot be written where they belong.
    """
    if out is not None:
        check_file(out)
    if (out is None or figures) and run.is_dir():
        check_folder(run)
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
    else:
        if drawn:
            kinds = (
                "PDF, PNG, PGF and CSV" if pgf and any(path.suffix == ".pgf" for path in drawn) else "PDF, PNG and CSV"
            )
            count = sum(path.suffix == ".pdf" for path in drawn)
            CONSOLE.print(f"{drawn[0].parent}: {count} figures as {kinds}, captions.md", markup=False, soft_wrap=True)
        CONSOLE.print(str(page), markup=False, soft_wrap=True)
    for device, reason in state.infeasible.items():
        fail(f"{device}: {reason}")
    if state.is_infeasible:
        raise typer.Exit(INFEASIBLE)
