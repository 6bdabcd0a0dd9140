"""``hwdse pick``, ``compare`` and ``report``: answers from the run folder, without the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from hwdse.commands.screen import CONSOLE, fail, print_json
from hwdse.errors import InputError
from hwdse.infeasible import Infeasible
from hwdse.report import RunTables, write_report
from hwdse.report.terminal import compare_rows, compare_table, pick_table
from hwdse.study.folder import write_json

__all__ = ["compare", "default_picks", "pick", "report", "show_picks"]

INFEASIBLE = 3


def pick(
    run: Path, device: str, *, maximum: Sequence[str], minimum: Sequence[str], minimize: str | None, as_json: bool
) -> None:
    """Pick a configuration, write ``pick.json`` and show it; exit 3 with the reason if there is none."""
    tables = RunTables.load(run)
    front = tables.front(device)
    row = front.pick_row(maximum=_limits(maximum), minimum=_limits(minimum), minimize=minimize)
    if isinstance(row, Infeasible):
        if as_json:
            print_json({"device": device, "infeasible": str(row)})
        else:
            fail(f"infeasible on {device}: {row}")
        raise typer.Exit(INFEASIBLE)
    picked = _picked(front.table.iloc[row].to_dict())
    write_json(run / device / "pick.json", picked)
    if as_json:
        print_json({"device": device, **picked})
    else:
        show_picks(run, {device: picked})


def compare(run: Path, *, devices: Sequence[str], as_json: bool) -> None:
    """Compare the devices of a run side by side."""
    tables = RunTables.load(run, devices=devices or None)
    if as_json:
        print_json({"run": str(run), "devices": compare_rows(tables)})
    else:
        CONSOLE.print(compare_table(tables))


def report(run: Path, *, as_json: bool) -> None:
    """Draw the figures of a run."""
    written = write_report(run)
    if as_json:
        print_json({"figures": [str(path) for path in written]})
    for path in [] if as_json else written:
        CONSOLE.print(str(path), markup=False, soft_wrap=True)


def default_picks(run: Path) -> dict[str, dict[str, Any]]:
    """Pick for every device the cheapest configuration within the run's allowed drop, and write the picks.

    A device where none is within the drop gets its most accurate one; a device with nothing measured gets none.
    """
    tables = RunTables.load(run)
    lowest = tables.full_precision.quality - float(tables.resolved["max_drop"])
    picks = {}
    for device in tables.devices:
        front = tables.front(device)
        if not len(front):
            continue
        row = front.pick_row(minimum={"accuracy": lowest})
        if isinstance(row, Infeasible):
            row = int(front.table[front.qualities[0].column].to_numpy().argmax())
        picks[device] = _picked(front.table.iloc[row].to_dict())
        write_json(run / device / "pick.json", picks[device])
    return picks


def show_picks(run: Path, picks: Mapping[str, Mapping[str, Any]]) -> None:
    """Print a table of picked configurations, one per device."""
    CONSOLE.print(pick_table(RunTables.load(run), picks))


def _picked(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a row of a front as plain numbers and text."""
    return {str(key): value.item() if hasattr(value, "item") else value for key, value in row.items()}


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
