"""Tables of a run for the terminal, at most 80 columns wide, each with its rows as plain data for machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table

from hwdse.report.summary import (
    DEFAULT_DROP,
    Box,
    best_quality,
    cheapest,
    cheapest_within,
    common_box,
    common_hypervolume,
    front_hypervolume,
)
from hwdse.report.tables import DeviceTables, RunTables
from hwdse.report.words import drop_text, number, precision_counts, quality_text, split_column

__all__ = [
    "WIDTH",
    "compare_rows",
    "compare_table",
    "drop_heading",
    "front_rows",
    "front_table",
    "heading",
    "new_table",
    "pick_rows",
    "pick_table",
    "plain",
    "quality_cells",
]

WIDTH = 80
SHORTEST_ID = 8


def front_rows(tables: RunTables, device: str) -> list[dict[str, Any]]:
    """Return the measured front of ``device``, cheapest first, one plain dictionary per configuration."""
    result = tables.results[device]
    front = result.front.sort_values(tables.main_cost, kind="stable")
    return [plain(tables, result, row) for _, row in front.iterrows()]


def front_table(tables: RunTables, device: str) -> Table:
    """Return the measured front of ``device`` as a table, cheapest first; the picked configuration is marked."""
    result = tables.results[device]
    table = new_table(f"{tables.name} on {device}: measured front", [result])
    table.add_column("Configuration", no_wrap=True)
    table.add_column(heading(tables.quality.column), justify="right")
    table.add_column(drop_heading(tables), justify="right", no_wrap=True)
    for column in tables.costs.values():
        table.add_column(heading(column), justify="right")
    short = _short_ids(result.measured["config_id"].tolist())
    rows = front_rows(tables, device)
    for row in rows:
        mark = "*" if row["picked"] else " "
        cells = [number(row[column]) for column in tables.costs.values()]
        table.add_row(
            f"{mark}{short.get(row['config_id'], row['config_id'])}", *quality_cells(tables, row, gap=" "), *cells
        )
    if not rows:
        table.caption = result.emptiness
    return table


def pick_rows(tables: RunTables) -> list[dict[str, Any]]:
    """Return the picked configuration of each device that has one, as plain dictionaries."""
    return [
        plain(tables, device, device.picked.iloc[0]) for device in tables.results.values() if device.pick is not None
    ]


def pick_table(tables: RunTables, rows: Sequence[Mapping[str, Any]] | None = None) -> Table:
    """Return one configuration per device as a table.

    Parameters
    ----------
    rows
        Rows with the keys of :func:`pick_rows`, which is the default.
    """
    chosen = pick_rows(tables) if rows is None else rows
    results = [tables.results[row["device"]] for row in chosen]
    table = new_table(f"{tables.name}: picked configurations", results)
    table.add_column("Device", overflow="fold")
    table.add_column(heading(tables.quality.column), justify="right")
    table.add_column(drop_heading(tables), justify="right", no_wrap=True)
    for column in tables.costs.values():
        table.add_column(heading(column), justify="right")
    table.add_column("Layers by\nprecision", no_wrap=True)
    for row in chosen:
        cells = [number(row[column]) for column in tables.costs.values()]
        counts = precision_counts(row["bits"]).replace(", ", "\n")
        table.add_row(row["device"], *quality_cells(tables, row), *cells, counts)
    if not chosen:
        table.caption = "Nothing was picked."
    elif tables.reference is not None:
        table.caption = f"Full precision: {quality_text(tables.quality.name, tables.reference)}"
    return table


def compare_rows(tables: RunTables, *, drop: float = DEFAULT_DROP) -> list[dict[str, Any]]:
    """Return one plain dictionary per device.

    Its keys are ``device``, ``front_points``, ``measured_points``, ``hypervolume`` (the share of the box of what was
    measured on the device, between 0 and 1: it does not compare costs between devices), ``common_hypervolume`` (the
    share of the box of all devices here: it does), ``drop_limit``, ``note``, ``worth``, ``infeasible``, and
    ``cheapest_within_drop``, ``smallest``, ``fastest`` and ``best_quality``: a configuration each, or ``None`` where
    there is none.
    """
    box = common_box(tables)
    return [_compare_row(tables, device, drop, box) for device in tables.results.values()]


def compare_table(tables: RunTables, *, drop: float = DEFAULT_DROP) -> Table:
    """Return the devices side by side: what :func:`compare_rows` holds, each configuration as cost and quality."""
    table = new_table(f"{tables.name}: devices compared", list(tables.results.values()))
    main = tables.main_cost
    extremes = {
        "cheapest_within_drop": (f"Drop at most {drop_text(tables.quality.name, drop)}", main),
        "smallest": ("Smallest", tables.cost_like("size")),
        "fastest": ("Fastest", tables.cost_like("latency")),
        "best_quality": ("Best quality", main),
    }
    table.add_column("Device", overflow="fold")
    table.add_column("Front\npoints", justify="right", no_wrap=True)
    table.add_column("Hyper-\nvolume\nown", justify="right")
    table.add_column("\n\ncommon", justify="right", no_wrap=True)
    shown = {key: (words, column) for key, (words, column) in extremes.items() if column is not None}
    for words, _ in shown.values():
        table.add_column(words, justify="right")
    for row in compare_rows(tables, drop=drop):
        cells = [_extreme_cell(tables, row[key], column) for key, (_, column) in shown.items()]
        points = f"{row['front_points']} of {row['measured_points']}"
        volumes = [f"{row[key]:.3f}" for key in ("hypervolume", "common_hypervolume")]
        table.add_row(row["device"], points, *volumes, *cells)
    tier = split_column(main)[2]
    sentences = [
        f"Costs are {tier}; quality is measured." if tier else "Quality is measured.",
        "Hypervolume, own: share of the box of what was measured on that device; not for comparing devices.",
        _common_note(tables),
        *(device.emptiness for device in tables.results.values()),
        *(f"{device.device}: {sentence}." for device in tables.results.values() for sentence in device.worth),
        str(table.caption or ""),
    ]
    table.caption = "\n".join(filter(None, sentences))
    return table


def _common_note(tables: RunTables) -> str:
    """Return what the common hypervolume is measured against."""
    box = common_box(tables)
    if box is None:
        return ""
    unit, name = split_column(tables.main_cost)[1], tables.quality.name
    best, worst = (
        f"{quality_text(name, quality)} at {number(cost)} {unit}".strip()
        for quality, cost in ((box.best, box.cheapest), (box.worst, box.costliest))
    )
    return (
        "Hypervolume, common: for comparing devices; share of one box of quality and the logarithm of "
        f"{split_column(tables.main_cost)[0].lower()}, from {best} to the reference, {worst}."
    )


def _compare_row(tables: RunTables, device: DeviceTables, drop: float, box: Box | None) -> dict[str, Any]:
    size, latency = tables.cost_like("size"), tables.cost_like("latency")
    chosen = {
        "cheapest_within_drop": cheapest_within(tables, device, drop=drop),
        "smallest": cheapest(tables, device, size) if size else None,
        "fastest": cheapest(tables, device, latency) if latency else None,
        "best_quality": best_quality(tables, device),
    }
    return {
        "device": device.device,
        "front_points": len(device.front),
        "measured_points": len(device.measured),
        "hypervolume": front_hypervolume(tables, device),
        "common_hypervolume": 0.0 if box is None else common_hypervolume(tables, device, box),
        "drop_limit": drop,
        "note": device.note,
        "worth": list(device.worth),
        "infeasible": device.infeasible,
    } | {key: None if row is None else plain(tables, device, row) for key, row in chosen.items()}


def plain(tables: RunTables, device: DeviceTables, row: pd.Series) -> dict[str, Any]:
    """Return a configuration with plain Python values, in the columns of the result tables."""
    numbers = [*tables.costs.values(), *tables.quality.columns]
    return {
        "device": device.device,
        "config_id": row["config_id"],
        "bits": row["bits"],
        "picked": bool(row["config_id"] == device.pick),
        **{column: float(row[column]) for column in numbers},
        "samples": int(row["samples"]),
    }


def new_table(title: str, devices: Sequence[DeviceTables] = ()) -> Table:
    """Return an empty table of the common look; its caption holds the notes of ``devices``."""
    notes = [f"{device.device}: {device.note}" for device in devices if device.note]
    return Table(
        title=title, caption="\n".join(notes) or None, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), width=WIDTH,
        title_justify="left", caption_justify="left",
    )  # fmt: skip


def heading(column: str) -> str:
    """Return words, unit and tier of a column, a line each."""
    words, unit, tier = split_column(column)
    return "\n".join(filter(None, (words.replace(" ", "\n"), unit, tier)))


def drop_heading(tables: RunTables) -> str:
    """Return the words over a drop of quality."""
    unit = "points\n" if tables.quality.factor > 1 else ""
    return f"Drop\n{unit}95 % interval"


def quality_cells(tables: RunTables, row: Mapping[str, Any], *, gap: str = "\n") -> list[str]:
    """Return a configuration's quality, and its drop with the interval after a ``gap``, as text."""
    quality = tables.quality
    value = f"{quality.factor * row[quality.column]:.2f}" if quality.factor > 1 else number(row[quality.column])
    ends = [quality.factor * row[column] for column in (quality.drop, f"{quality.drop}_low", f"{quality.drop}_high")]
    drop, low, high = (f"{end:.2f}" if quality.factor > 1 else number(end, digits=2) for end in ends)
    return [value, f"{drop}{gap}{low} to {high}" if gap == "\n" else f"{drop}{gap}({low} to {high})"]


def _extreme_cell(tables: RunTables, row: Mapping[str, Any] | None, column: str) -> str:
    if row is None:
        return "none"
    quality, unit = tables.quality, split_column(column)[1]
    return f"{number(row[column])} {unit}".strip() + f"\n{quality_text(quality.name, row[quality.column])}"


def _short_ids(ids: Sequence[str]) -> dict[str, str]:
    """Return the shortest prefix of each identifier, at least eight characters, that names it alone.

    >>> _short_ids(["0123456789ab", "0123456799ab", "w8a8"])
    {'0123456789ab': '012345678', '0123456799ab': '012345679', 'w8a8': 'w8a8'}
    """
    longest = max(map(len, ids), default=0)
    distinct = len(set(ids))
    length = next((n for n in range(SHORTEST_ID, longest) if len({text[:n] for text in ids}) == distinct), longest)
    return {text: text[:length] for text in ids}
