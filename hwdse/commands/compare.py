"""``hwdse compare``: which device, or which one configuration for all; from the run folder, without the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from math import inf
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from hwdse.commands.answer import INFEASIBLE, limits_of, named_number
from hwdse.commands.screen import CONSOLE, fail, print_json, watched
from hwdse.errors import InputError
from hwdse.files import check_folder, inside, write_text
from hwdse.report.binding import binding_of, binding_table, draw_binding
from hwdse.report.comparison import Asked, Choice, choose_devices
from hwdse.report.devices import draw_devices
from hwdse.report.drawing import save, style
from hwdse.report.fleet import Fleet, draw_fleet, fleet_tables
from hwdse.report.guide import READING
from hwdse.report.ranking import Ranking, draw_ranking, rank_devices, ranking_tables
from hwdse.report.tables import RunTables
from hwdse.report.terminal import compare_rows, compare_table

__all__ = ["compare"]

COLUMNS = 80


def compare(
    run: Path,
    *,
    devices: Sequence[str],
    maximum: Sequence[str],
    minimum: Sequence[str],
    price: Sequence[str],
    out: Path | None,
    show_all: bool,
    as_json: bool,
) -> None:
    """Compare devices of a run, write the figures, and say which is cheapest within limits; exit 3 if none meets them.

    What is not shown lies in a file beside the figures. Everything is measured or predicted already: nothing but the
    run folder is read.
    """
    check_folder(out or run)
    asked = Asked(limits_of(maximum), limits_of(minimum), _prices(price))
    tables = RunTables.load(run, devices=devices or None)
    choice = choose_devices(tables, asked)
    bindings = [binding_of(tables, tables.results[name], row) for name, row in choice.rows.items()]
    rankings = _rankings(tables, choice)
    fleet = Fleet(tables, asked)
    folder = out or inside(run, "figures")
    with style(), watched(only_live=True) as progress:
        drawings = [
            replace(draw_devices(tables), name="compare-fronts"),
            *(draw_ranking(tables, ranking) for ranking in rankings),
            draw_binding(tables, bindings),
            draw_fleet(fleet),
        ]
        for stale in sorted(folder.glob("compare-*")) if folder.is_dir() else ():
            stale.unlink()  # of chips or limits that were asked for before
        progress.start("figures", len(drawings))
        paths = []
        for drawing in drawings:
            paths += save(drawing, folder)
            progress.advance()
    ranked = [table for ranking in rankings for table in ranking_tables(tables, ranking)]
    overview = compare_table(tables, drop=tables.max_drop)
    every = [overview, choice.table(), binding_table(tables, bindings), *ranked, *fleet_tables(fleet)]
    paths.append(write_text(folder / "compare-tables.txt", _as_text(every)))
    captions = [f"# Devices of {tables.name} compared", *(f"**{d.name}.** {d.caption}" for d in drawings)]
    captions.append(f"Of all fronts: {READING['devices']}")
    captions += [device.note_sentence for device in tables.results.values() if device.note]
    paths.append(write_text(folder / "compare-captions.md", "\n\n".join([*captions, ""])))
    if as_json:
        print_json(
            {
                "run": str(run),
                "devices": compare_rows(tables, drop=tables.max_drop),
                "cheapest": choice.facts,
                "binding": [each.facts for each in bindings],
                "rankings": [ranking.facts for ranking in rankings],
                "fleet": fleet.facts,
                "figures": list(map(str, paths)),
            }
        )
    else:
        for table in every if show_all else [choice.table()]:
            CONSOLE.print(table)
        for sentence in () if show_all else filter(None, [*(each.sentence for each in rankings), fleet.sentence]):
            CONSOLE.print(sentence, markup=False)
        CONSOLE.print(f"{folder / 'compare-tables.txt'}: what else there is to compare", markup=False, soft_wrap=True)
        CONSOLE.print(f"{folder / 'compare-*'}: figures", markup=False, soft_wrap=True)
    if not choice.rows and (maximum or minimum):
        if not as_json:
            fail(f"no device of {', '.join(tables.results)} meets the limits: {choice.limits}")
        raise typer.Exit(INFEASIBLE)


def _as_text(tables: Sequence[Table]) -> str:
    """Return tables as text of the width of a terminal."""
    # Names are words: what looks like markup in them is none.
    console = Console(file=StringIO(), width=COLUMNS, color_system=None, markup=False, emoji=False)
    for table in tables:
        console.print(table)
    assert isinstance(console.file, StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


def _rankings(tables: RunTables, choice: Choice) -> list[Ranking]:
    """Return the order by the main cost and by what devices are ranked by, where these are predicted."""
    by = [tables.main_cost, choice.by] if choice.rows else []
    columns = [column for column in dict.fromkeys(by) if column.endswith("_predicted")]
    return [rank_devices(tables, column, choice.cheapest(column)) for column in columns]


def _prices(texts: Sequence[str]) -> dict[str, float]:
    """Return prices written as ``device=USD``."""
    prices: dict[str, float] = {}
    for text in texts:
        name, value = named_number(text)
        if not name or not 0 <= value < inf:
            raise InputError(f"expected a price as device=USD, such as mpic=4.50, got {text!r}; correct it")
        if name in prices:
            raise InputError(f"expected one price of {name}, got {prices[name]:g} and {value:g}; drop one")
        prices[name] = value
    return prices
