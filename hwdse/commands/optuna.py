"""``hwdse optuna``: a run as Optuna studies, for its dashboard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from hwdse.commands.answer import INFEASIBLE
from hwdse.commands.screen import CONSOLE, fail, print_json, watched
from hwdse.report.optuna_study import study_name, write_studies
from hwdse.report.tables import RunTables

__all__ = ["write_optuna"]


def write_optuna(run: Path, out: Path, *, devices: Sequence[str], as_json: bool) -> None:
    """Write a study per device; exit 3 if nothing was measured on any, after the file is written."""
    tables = RunTables.load(run, devices=devices or None)
    with watched(only_live=True) as progress:
        write_studies(tables, out, progress)
    studies = [
        {"device": name, "study": study_name(tables, name), "trials": len(result.measured), "reason": result.emptiness}
        for name, result in tables.results.items()
    ]
    if as_json:
        print_json({"file": str(out), "studies": studies})
    else:
        for study in studies:
            CONSOLE.print(f"{study['study']}: {study['trials']} trials", markup=False)
        CONSOLE.print(f"open it: optuna-dashboard sqlite:///{out}", markup=False, soft_wrap=True)
    for study in studies:
        if study["reason"]:
            fail(str(study["reason"]))
    if not any(study["trials"] for study in studies):
        raise typer.Exit(INFEASIBLE)
