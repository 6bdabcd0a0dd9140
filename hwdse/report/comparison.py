"""Which device to buy: the cheapest configuration within limits on each, and the devices in order of what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from rich.table import Table

from hwdse.errors import InputError
from hwdse.front import Front
from hwdse.infeasible import Infeasible
from hwdse.report.fronts import load_front
from hwdse.report.tables import RunTables
from hwdse.report.terminal import drop_heading, heading, new_table, plain, quality_cells
from hwdse.report.words import drop_text, number, split_column

__all__ = ["Asked", "Choice", "choose_devices"]

PRICE = "price"
ENERGY = "energy_mj_predicted"


@dataclass(frozen=True)
class Asked:
    """What a configuration must meet, and what devices cost.

    Attributes
    ----------
    maximum, minimum
        Upper and lower limits by metric; where none is about quality, the run's allowed drop is one.
    prices
        Device to its price in USD.
    """

    maximum: Mapping[str, float] = field(default_factory=dict)
    minimum: Mapping[str, float] = field(default_factory=dict)
    prices: Mapping[str, float] = field(default_factory=dict)

    def within(self, tables: RunTables) -> Asked:
        """Return the same with the run's allowed drop, unless a limit is about quality."""
        quality = tables.quality
        own = {"accuracy", *quality.columns}
        if own & {*self.maximum, *self.minimum}:
            return self
        return Asked({**self.maximum, quality.drop: tables.max_drop}, self.minimum, self.prices)

    def words(self, tables: RunTables) -> str:
        """Return the limits as words."""
        quality = tables.quality
        words = [
            f"a drop of {drop_text(quality.name, value)}" if name == quality.drop else f"{name} <= {value:.6g}"
            for name, value in self.maximum.items()
        ]
        return ", ".join([*words, *(f"{name} >= {value:.6g}" for name, value in self.minimum.items())])


@dataclass(frozen=True)
class Choice:
    """The devices that meet the limits, the cheapest first.

    Attributes
    ----------
    asked
        The limits, the allowed drop among them.
    by
        What devices are ranked by: ``price``, or a column.
    rows
        Device to its cheapest configuration within the limits.
    fails
        Device to the sentence that says why it has none.
    fronts
        Device to its front, of those that meet the limits.
    """

    tables: RunTables
    asked: Asked
    by: str
    rows: Mapping[str, pd.Series]
    fails: Mapping[str, str]
    fronts: Mapping[str, Front] = field(repr=False)

    def cheapest(self, column: str) -> dict[str, pd.Series]:
        """Return, by device, the configuration within the limits that is lowest in ``column``."""
        found = {name: _cheapest(self.fronts[name], self.asked, column) for name in self.rows}
        return {name: row for name, row in found.items() if isinstance(row, pd.Series)}

    @property
    def facts(self) -> dict[str, Any]:
        """Everything as plain data, the devices in their order."""
        tables = self.tables
        ranked = [
            {"rank": place, **plain(tables, tables.results[name], row)}
            | ({"price_usd": self.asked.prices[name]} if name in self.asked.prices else {})
            for place, (name, row) in enumerate(self.rows.items(), start=1)
        ]
        asked = {"maximum": dict(self.asked.maximum), "minimum": dict(self.asked.minimum)}
        return {"asked": asked, "ranked_by": self.by, "devices": ranked, "fails": dict(self.fails)}

    @property
    def words(self) -> str:
        """What devices are ranked by, as words."""
        return PRICE if self.by == PRICE else split_column(self.by)[0].lower()

    @property
    def limits(self) -> str:
        """The limits as words."""
        return self.asked.words(self.tables)

    def table(self) -> Table:
        """Return the ranked devices for a terminal; its caption says which fail and why."""
        tables, prices = self.tables, self.asked.prices
        table = new_table(f"{tables.name}: cheapest within {self.limits}")
        table.add_column("Rank", justify="right")
        table.add_column("Device", overflow="fold")
        if prices:
            table.add_column("Price\nUSD", justify="right", no_wrap=True)
        table.add_column(heading(tables.quality.column), justify="right")
        table.add_column(drop_heading(tables), justify="right", no_wrap=True)
        costs = list(dict.fromkeys([*tables.costs.values(), *([] if self.by == PRICE else [self.by])]))
        for column in costs:
            table.add_column(heading(column), justify="right")
        for place, (name, row) in enumerate(self.rows.items(), start=1):
            price = [f"{prices[name]:g}" if name in prices else "none"] if prices else []
            cells = [number(row[column]) for column in costs]
            values = plain(tables, tables.results[name], row)
            table.add_row(str(place), name, *price, *quality_cells(tables, values), *cells)
        unpriced = [name for name in self.rows if name not in prices] if prices else []
        sentences = [
            f"Ranked by {self.words}." if self.rows else "No device meets the limits.",
            f"No price was given for {', '.join(unpriced)}, so prices do not decide." if unpriced else "",
            *(f"{name}: {sentence}" for name, sentence in self.fails.items()),
        ]
        table.caption = "\n".join(filter(None, sentences))
        return table


def choose_devices(tables: RunTables, asked: Asked) -> Choice:
    """Return the cheapest configuration within limits of every loaded device, ranked.

    Devices are ranked by price where all that meet the limits have one, else by energy where all have it, else by the
    main cost. The configuration of a device is its cheapest in what the devices are ranked by, in the main cost where
    that is the price.

    Raises
    ------
    InputError
        If a price is of no loaded device, or a device knows nothing of a limited metric.
    """
    strangers = sorted(set(asked.prices) - set(tables.results))
    if strangers:
        known = ", ".join(tables.results)
        raise InputError(f"expected prices of devices compared here ({known}), got {strangers[0]}; correct the name")
    asked = asked.within(tables)
    fails = {name: device.emptiness for name, device in tables.results.items() if device.emptiness}
    fronts = {name: load_front(tables.run, name, tables=tables) for name in tables.results if name not in fails}
    main = tables.main_cost
    rows: dict[str, pd.Series] = {}
    for name, front in fronts.items():
        found = _cheapest(front, asked, main)
        if isinstance(found, Infeasible):
            fails[name] = str(found)
        else:
            rows[name] = found
    by = main
    if rows and all(name in asked.prices for name in rows):
        by = PRICE
    elif rows and all(_energy(tables) in fronts[name].table.columns for name in rows):
        by = _energy(tables)
        rows = Choice(tables, asked, by, rows, fails, fronts).cheapest(by)
    keys = {name: (asked.prices[name] if by == PRICE else row[by], row[main]) for name, row in rows.items()}
    ranked = {name: rows[name] for name in sorted(rows, key=keys.__getitem__)}
    ordered = {name: fails[name] for name in tables.results if name in fails}
    return Choice(tables, asked, by, ranked, ordered, {name: fronts[name] for name in ranked})


def _energy(tables: RunTables) -> str:
    """Return the column of energy."""
    return tables.cost_like("energy") or ENERGY


def _cheapest(front: Front, asked: Asked, column: str) -> pd.Series | Infeasible:
    """Return the configuration of a front within limits that is lowest in ``column``."""
    try:
        row = front.pick_row(maximum=asked.maximum, minimum=asked.minimum, minimize=column)
    except InputError as error:
        raise InputError(f"{front.device}: {error}; correct the limit, or leave the device out") from error
    return row if isinstance(row, Infeasible) else front.table.iloc[row]
