"""``hwdse pick``, ``compare`` and ``report``: answers from the run folder, without the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from hwdse.commands.screen import CONSOLE, fail, print_json
from hwdse.errors import InputError
from hwdse.files import write_json
from hwdse.infeasible import Infeasible
from hwdse.report.fronts import load_front
from hwdse.report.tables import RunTables
from hwdse.report.terminal import compare_rows, compare_table, pick_table
from hwdse.report.write import write_report

__all__ = ["compare", "default_picks", "pick", "report", "show_picks"]

INFEASIBLE = 3


def pick(
    run: Path, device: str, *, maximum: Sequence[str], minimum: Sequence[str], minimize: str | None, as_json: bool
) -> None:
    """Pick a configuration, write ``pick.json`` and show it; exit 3 with the reason if there is none."""
    front = load_front(run, device)
    row = front.pick_row(maximum=_limits(maximum), minimum=_limits(minimum), minimize=minimize)
    if isinstance(row, Infeasible):
        if as_json:
            print_json({"device": device, "infeasible": asdict(row)})
        else:
            fail(f"infeasible on {device}: {row}")
        raise typer.Exit(INFEASIBLE)
    picked = _picked(device, front.table.iloc[row].to_dict())
    write_json(run / device / "pick.json", picked)
    if as_json:
        print_json(picked)
    else:
        show_picks(run, [picked])


def compare(run: Path, *, devices: Sequence[str], as_json: bool) -> None:
    """Compare the devices of a run side by side."""
    tables = RunTables.load(run, devices=devices or None)
    if as_json:
        print_json({"run": str(run), "devices": compare_rows(tables, drop=tables.max_drop)})
    else:
        CONSOLE.print(compare_table(tables, drop=tables.max_drop))


def report(run: Path, *, as_json: bool) -> None:
    """Draw the figures of a run."""
    written = write_report(run)
    if as_json:
        print_json({"figures": [str(path) for path in written]})
    for path in [] if as_json else written:
        CONSOLE.print(str(path), markup=False, soft_wrap=True)


def default_picks(run: Path) -> list[dict[str, Any]]:
    """Pick for every device the cheapest configuration within the run's allowed drop, and write the picks.

    A device where none is within the drop gets its most accurate one; a device with nothing measured gets none.
    """
    tables = RunTables.load(run)
    picks = []
    for device, result in tables.results.items():
        if result.emptiness:
            continue
        front = load_front(run, device, tables=tables)
        drop = f"{tables.quality.drop}"
        row = front.pick_row(maximum={drop: tables.max_drop}, minimize=next(iter(tables.costs)))
        if isinstance(row, Infeasible):
            row = int(front.table[tables.quality.column].to_numpy().argmax())
        picks.append(_picked(device, front.table.iloc[row].to_dict()))
        write_json(run / device / "pick.json", picks[-1])
    return picks


def show_picks(run: Path, picks: Sequence[Mapping[str, Any]]) -> None:
    """Print a table of picked configurations, one per device."""
    CONSOLE.print(pick_table(RunTables.load(run), picks))


def _picked(device: str, row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a row of a front as plain numbers and text."""
    plain = {str(key): value.item() if hasattr(value, "item") else value for key, value in row.items()}
    return {"device": device, **plain}


def _limits(texts: Sequence[str]) -> dict[str, float]:
    """Return limits written as ``metric=number``."""
    limits = {}
    for text in texts:
        name, separator, number = text.partition("=")
        try:
            limits[name] = float(number)
        except ValueError as error:
            raise InputError(f"expected a limit as metric=number, such as latency_ms=33, got {text!r}") from error
        if not (separator and name):
            raise InputError(f"expected a limit as metric=number, such as latency_ms=33, got {text!r}")
    return limits
