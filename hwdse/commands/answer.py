"""``hwdse pick``: answers from the run folder, without the network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import typer

from hwdse.commands.screen import CONSOLE, fail, note, print_json
from hwdse.errors import InputError
from hwdse.files import inside, read_json, write_json
from hwdse.infeasible import Infeasible
from hwdse.report.fronts import load_front
from hwdse.report.page.write import write_page
from hwdse.report.tables import DeviceTables, RunTables, device_of
from hwdse.report.terminal import pick_table

__all__ = ["INFEASIBLE", "default_picks", "limits_of", "named_number", "pick", "show_picks", "stop"]

INFEASIBLE = 3


def pick(
    run: Path,
    device: str | None,
    *,
    maximum: Sequence[str],
    minimum: Sequence[str],
    minimize: str | None,
    as_json: bool,
) -> None:
    """Pick a configuration, write ``pick.json`` and show it; exit 3 with the reason if there is none."""
    upper, lower = limits_of(maximum), limits_of(minimum)
    device = device_of(run, device)
    tables = RunTables.load(run, devices=[device])
    if sentence := tables.results[device].infeasible:
        stop(device, sentence, {"reason": sentence}, as_json=as_json)
    front = load_front(run, device, tables=tables)
    row = front.pick_row(maximum=upper, minimum=lower, minimize=minimize)
    if isinstance(row, Infeasible):
        stop(device, str(row), asdict(row), as_json=as_json)
    asked = {"maximum": upper, "minimum": lower, "minimize": minimize}
    picked = _picked(tables.results[device], front.table.iloc[row].to_dict()) | {"asked": asked}
    written = write_json(inside(run, device, "pick.json"), picked)
    page = _redrawn_page(run)
    if as_json:
        print_json(picked)
    else:
        if tables.full_precision.doubt:
            note(tables.full_precision.doubt)
        show_picks(run, [picked])
        shown = {*tables.costs.values(), *tables.quality.columns}
        for column in dict.fromkeys(front.column(name) for name in (*upper, *lower, minimize or "") if name):
            if column not in shown:
                CONSOLE.print(f"{column}: {picked[column]:.6g}", markup=False)
        CONSOLE.print(
            f"{written}: what export, verify, refine and finetune take, and hwdse report shows",
            markup=False,
            soft_wrap=True,
        )
        if page is not None:
            CONSOLE.print(
                f"{page}: drawn again with it; figures show it after hwdse report {run} --figures",
                markup=False,
                soft_wrap=True,
            )


def _redrawn_page(run: Path) -> Path | None:
    """Draw the page of a run anew where it has one, so that it shows what was picked; return where it lies."""
    return write_page(run)[0] if (run / "report.html").is_file() else None


def stop(device: str, sentence: str, facts: Mapping[str, Any], *, as_json: bool) -> NoReturn:
    """Say what stands in the way, and exit."""
    if as_json:
        print_json({"device": device, "infeasible": facts})
    else:
        fail(f"{device}: {sentence}")
    raise typer.Exit(INFEASIBLE)


def default_picks(run: Path) -> list[dict[str, Any]]:
    """Pick for every device the cheapest configuration within the run's allowed drop, and write the picks.

    A device where none is within the drop gets its most accurate one; a device with nothing measured gets none. What
    somebody picked with limits of their own stays.
    """
    tables = RunTables.load(run)
    picks = []
    for device, result in tables.results.items():
        if result.emptiness:
            continue
        path = inside(run, device, "pick.json")
        if path.is_file() and "asked" in (kept := read_json(path)):
            picks.append(kept)
            continue
        front = load_front(run, device, tables=tables)
        row = front.pick_row(maximum={tables.quality.drop: tables.max_drop}, minimize=next(iter(tables.costs)))
        if isinstance(row, Infeasible):
            row = int(front.table[tables.quality.column].to_numpy().argmax())
        picks.append(_picked(result, front.table.iloc[row].to_dict()))
        write_json(path, picks[-1])
    return picks


def show_picks(run: Path, picks: Sequence[Mapping[str, Any]]) -> None:
    """Print a table of picked configurations, one per device."""
    CONSOLE.print(pick_table(RunTables.load(run), picks))


def _picked(result: DeviceTables, row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a row of a front as plain numbers and text, with the 90 % intervals of what is predicted."""
    plain = {str(key): value.item() if hasattr(value, "item") else value for key, value in row.items()}
    interval: dict[str, float] = {}
    for column in result.uncertainty:
        factor = result.factor(column, str(plain["bits"])) or 1.0
        interval |= {f"{column}_low": plain[column] / factor, f"{column}_high": plain[column] * factor}
    return {"device": result.device, **plain, **interval}


def named_number(text: str) -> tuple[str, float]:
    """Return the two sides of ``name=number``; NaN where there is no number.

    >>> named_number("mpic=4.5")
    ('mpic', 4.5)
    """
    name, _, number = text.partition("=")
    try:
        return name, float(number)
    except ValueError:
        return name, math.nan


def limits_of(texts: Sequence[str]) -> dict[str, float]:
    """Return limits written as ``metric=number``."""
    limits: dict[str, float] = {}
    for text in texts:
        name, value = named_number(text)
        if not name or not math.isfinite(value):
            raise InputError(f"expected a limit as metric=number, such as latency_ms=33, got {text!r}; correct it")
        if name in limits:
            raise InputError(f"expected one limit of a kind for {name}, got {limits[name]:g} and {value:g}; drop one")
        limits[name] = value
    return limits
