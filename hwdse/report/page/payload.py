"""What the page shows, as plain data for JSON: exactly the numbers of the result tables, column by column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from hwdse.formats import Precision
from hwdse.report.binding import NAMES
from hwdse.report.bits import chosen_row
from hwdse.report.drawing import look_of
from hwdse.report.pareto import window_of
from hwdse.report.tables import DeviceTables, RunTables
from hwdse.report.words import elide, split_column

__all__ = ["BETWEEN", "FIRST_LETTER", "FIXED", "SWITCHES", "breakdown_kinds", "page_payload"]

FIRST_LETTER = "A"
"""A configuration is a text with a letter per layer; this one stands for the first of the run's precisions."""

BETWEEN, SWITCHES, FIXED = "between", "switches", "fixed"
"""Kinds of latency beside those of ``resources.csv``: around a group's layers, of format changes, and of no choice."""

KIND_NAMES = NAMES | {
    BETWEEN: "operators around the layers",
    SWITCHES: "switches of format between layers",
    FIXED: "once per inference",
}
SYMBOLS = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "D": "diamond",
    "v": "triangle-down",
    "P": "cross",
    "*": "star",
    "<": "triangle-left",
}
LONGEST_NAME = 24
CLOUD_POINTS = 2000
MEASURED_POINTS = 12_000
"""On a page, over all devices, fronts aside: what a browser draws at once, in a file that can be sent."""
LATENCY = "latency_ms_predicted"
_TEXT = ("config_id", "bits", "uniform", "within_noise")


def page_payload(tables: RunTables) -> dict[str, Any]:
    """Return everything that the page draws and computes with, as lists, texts and finite numbers.

    Tables are given by column. ``bits`` are texts with one letter per layer, the place of its precision in
    ``precisions``; ``front`` holds rows of ``measured``. Costs per candidate are given once per device, so that the
    cost of a point by layer and kind is a sum that the page makes itself.
    """
    precisions = _precisions(tables)
    groups = list(dict.fromkeys(tables.layers["group"]))
    quality = tables.quality
    return {
        "name": tables.name,
        "run": tables.run.resolve().name,
        "quality": quality.column,
        "drop": quality.drop,
        "objectives": _objectives(tables),
        "mainCost": tables.main_cost,
        "reference": tables.reference,
        "maxDrop": tables.max_drop,
        "layers": {
            "name": tables.layers["layer"].tolist(),
            "short": elide(tables.layers["layer"].tolist(), LONGEST_NAME),
            "group": [groups.index(name) for name in tables.layers["group"]],
            "macs": tables.layers["macs"].tolist(),
            "weights": tables.layers["weight_count"].tolist(),
        },
        "groups": {"name": groups, "short": elide(groups, LONGEST_NAME)},
        "precisions": [_precision(text) for text in precisions],
        "firstLetter": FIRST_LETTER,
        "kinds": KIND_NAMES,
        "devices": [_device(tables, device, precisions, groups) for device in tables.results.values()],
    }


def _precisions(tables: RunTables) -> list[str]:
    """Return the distinct precisions of the measured configurations, in alphabetical order."""
    rows = (bits for device in tables.results.values() for bits in device.measured["bits"])
    return sorted({text for bits in rows for text in bits.split()})


def _precision(text: str) -> dict[str, Any]:
    parsed = Precision.parse(text)
    return {
        "name": text,
        "weights": {"format": parsed.weights.name, "bits": parsed.weights.bits},
        "activations": {"format": parsed.activations.name, "bits": parsed.activations.bits},
    }


def _objectives(tables: RunTables) -> list[dict[str, Any]]:
    """Return the quality and the costs, with words, and what a value is multiplied with to be shown."""
    quality = tables.quality
    rows = [
        ("", quality.column, quality.maximise, quality.factor),
        *((n, c, False, 1.0) for n, c in tables.costs.items()),
    ]
    return [
        {"name": name, "column": column, "maximise": maximise, "factor": factor}
        | dict(zip(("words", "unit", "tier"), split_column(column), strict=True))
        for name, column, maximise, factor in rows
    ]


def _device(tables: RunTables, device: DeviceTables, precisions: list[str], groups: list[str]) -> dict[str, Any]:
    look = look_of(device.device, tables.devices)
    measured = _shown(device, MEASURED_POINTS // len(tables.results))
    places = {config: row for row, config in enumerate(measured["config_id"])}
    return {
        "name": device.device,
        "title": device.title,
        "colour": look.colour,
        "symbol": SYMBOLS[look.marker],
        "note": device.note,
        "worth": list(device.worth),
        "emptiness": device.emptiness,
        "limits": dict(device.limits),
        "uncertainty": dict(device.uncertainty),
        "widening": {letter: device.widening.get(text, 1.0) for text, letter in _letters(precisions).items()},
        "pick": places.get(device.pick or ""),
        "start": None if device.emptiness else places[str(chosen_row(tables, device)[0]["config_id"])],
        "measured": _measured(measured, precisions),
        "total": len(device.measured),
        "front": [places[config] for config in device.front["config_id"]],
        "frontColumns": [name for name in device.front.columns if name not in _TEXT],
        "cloud": _cloud(tables, device),
        "window": None if device.emptiness else _window(tables, device),
        "breakdown": _breakdown(tables, device, precisions, groups),
    }


def _shown(device: DeviceTables, most: int) -> pd.DataFrame:
    """Return the measured table, where it is longer than ``most`` without an even share of what no one looks for.

    What is on the front, picked, or one precision everywhere always stays.
    """
    table = device.measured
    if len(table) <= most:
        return table
    wanted = table["config_id"].isin({*device.front["config_id"], device.pick}) | (table["uniform"] != "")
    rest = np.flatnonzero(~wanted)
    few = np.linspace(0, len(rest) - 1, max(most - int(wanted.sum()), 2)).astype(int)
    return table.iloc[np.sort(np.concatenate([np.flatnonzero(wanted), rest[np.unique(few)]]))].reset_index(drop=True)


def _measured(measured: pd.DataFrame, precisions: list[str]) -> dict[str, list[Any]]:
    """Return the measured table by column, its bits as letters."""
    letter = _letters(precisions)
    return {
        "config_id": measured["config_id"].tolist(),
        "bits": ["".join(letter[text] for text in bits.split()) for bits in measured["bits"]],
        "uniform": measured["uniform"].tolist(),
        "near": [int(text != "") for text in measured["within_noise"]],
        **{name: _holed(measured[name]) for name in measured.columns if name not in _TEXT},
    }


def _letters(precisions: Sequence[str]) -> dict[str, str]:
    """Return the letter of each precision."""
    return {text: chr(ord(FIRST_LETTER) + place) for place, text in enumerate(precisions)}


def _holed(numbers: pd.Series) -> list[float | None]:
    """Return numbers, and ``None`` where there is none: JSON knows no other hole."""
    return [None if np.isnan(number) else number for number in numbers.tolist()]


def _cloud(tables: RunTables, device: DeviceTables) -> dict[str, list[float]]:
    """Return the predicted configurations that have a predicted quality, evenly thinned, by objective."""
    rows = device.predicted.dropna(subset=["quality_predicted"])
    if len(rows) > CLOUD_POINTS:
        rows = rows.iloc[np.linspace(0, len(rows) - 1, CLOUD_POINTS).astype(int)]
    named = dict(zip(tables.costs.values(), tables.costs.values(), strict=True)) | {
        tables.quality.column: "quality_predicted"
    }
    # A background needs no more than five digits.
    return {column: [float(f"{value:.5g}") for value in rows[name]] for column, name in named.items()}


def _window(tables: RunTables, device: DeviceTables) -> dict[str, Any]:
    window = window_of(tables, device.front, device.measured)
    return {"worst": window.worst, "best": window.best, "log": window.log}


def _breakdown(
    tables: RunTables, device: DeviceTables, precisions: list[str], groups: list[str]
) -> dict[str, dict[str, Any]]:
    """Return, by cost that adds up, what each candidate costs each group by kind, and what no choice changes.

    ``by_kind`` maps a kind to ``(groups, precisions)`` lists, 0 where a choice is not allowed; the kinds of a group
    add up to what it costs. ``fixed`` is ``None`` where the run did not record it.
    """
    if device.costs is None:
        return {}
    columns = [column for column in tables.costs.values() if column in device.costs.columns]
    return {
        column: {
            "by_kind": {
                kind: values.tolist() for kind, values in breakdown_kinds(device, column, groups, precisions).items()
            },
            "fixed": device.constants.get(column),
        }
        for column in columns
    }


def breakdown_kinds(
    device: DeviceTables, column: str, groups: list[str], precisions: list[str]
) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """Return what each candidate costs each group by kind, ``(groups, precisions)`` each.

    Latency is divided by resource where the run recorded that; what the resources leave is :data:`BETWEEN`. Other costs
    are of one kind, named like their column.
    """
    assert device.costs is not None
    total = _grid(device.costs, column, groups, precisions)
    if column != LATENCY or device.resources is None:
        return {column: total}
    resources = dict.fromkeys(device.resources["resource"])
    kinds = {
        name: _grid(device.resources[device.resources["resource"] == name], "latency_ms", groups, precisions)
        for name in resources
    }
    rest = total - sum(kinds.values())
    rest[np.abs(rest) <= 1e-9 * np.abs(total)] = 0.0  # sums of the same numbers in another order
    return kinds | {BETWEEN: rest} if rest.any() else kinds


def _grid(
    table: pd.DataFrame, column: str, groups: list[str], precisions: list[str]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return a column of a table by (group, candidate) as ``(groups, precisions)``, 0 where it has no row."""
    grid = table.pivot_table(index="group", columns="candidate", values=column, aggfunc="sum", fill_value=0.0)
    return grid.reindex(index=groups, columns=precisions, fill_value=0.0).to_numpy(np.float64)
