"""``hwdse compare``: which device, or which one configuration for all; from the run folder, without the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from pathlib import Path

import typer

from hwdse.commands.answer import INFEASIBLE, limits_of, named_number
from hwdse.commands.screen import CONSOLE, fail, print_json, watched
from hwdse.errors import InputError
from hwdse.files import write_text
from hwdse.report.binding import binding_of, binding_table, draw_binding
from hwdse.report.comparison import Asked, Choice, choose_devices
from hwdse.report.devices import draw_devices
from hwdse.report.drawing import save, style
from hwdse.report.fleet import Fleet, draw_fleet, fleet_tables
from hwdse.report.ranking import Ranking, draw_ranking, rank_devices, ranking_tables
from hwdse.report.tables import RunTables
from hwdse.report.terminal import compare_rows, compare_table

__all__ = ["compare"]


def compare(
    run: Path,
    *,
    devices: Sequence[str],
    maximum: Sequence[str],
    minimum: Sequence[str],
    price: Sequence[str],
    out: Path | None,
    as_json: bool,
) -> None:
    """Compare devices of a run, write the figures, and say which is cheapest within limits; exit 3 if none meets them.

    Everything is measured or predicted already: nothing but the run folder is read.
    """
    asked = Asked(limits_of(maximum), limits_of(minimum), _prices(price))
    tables = RunTables.load(run, devices=devices or None)
    choice = choose_devices(tables, asked)
    bindings = [binding_of(tables, tables.results[name], row) for name, row in choice.rows.items()]
    rankings = _rankings(tables, choice)
    fleet = Fleet(tables)
    folder = out or run / "figures"
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
    captions = [f"# Devices of {tables.name} compared", *(f"**{d.name}.** {d.caption}" for d in drawings)]
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
        ranked = [table for ranking in rankings for table in ranking_tables(tables, ranking)]
        overview = compare_table(tables, drop=tables.max_drop)
        for table in (overview, choice.table(), binding_table(tables, bindings), *ranked, *fleet_tables(fleet)):
            CONSOLE.print(table)
        CONSOLE.print(f"figures: {folder / 'compare-*'}", markup=False, soft_wrap=True)
    if not choice.rows and (maximum or minimum):
        if not as_json:
            fail(f"no device of {', '.join(tables.results)} meets the limits: {choice.limits}")
        raise typer.Exit(INFEASIBLE)


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
