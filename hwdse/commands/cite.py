"""``hwdse cite``: the bibliography of a run."""

from __future__ import annotations

from pathlib import Path

import typer

from hwdse.commands.screen import note, print_json
from hwdse.report.citations import cite

__all__ = ["show_citations"]


def show_citations(run: Path, *, as_json: bool) -> None:
    """Print what to cite of a run as BibTeX, sorted by key."""
    found = cite(run)
    if as_json:
        entries = [{"key": entry.key, "uses": list(entry.uses), "bibtex": entry.bibtex} for entry in found.entries]
        print_json({"run": str(run), "entries": entries, "missing": list(found.missing)})
        return
    typer.echo(found.bibtex)
    for device in found.missing:
        note(f"the profile of {device} was not found, so its sources are left out; name its folder in HWDSE_PROFILES")
