"""Checks of a profile across its sections; they read the raw TOML, so that one bad section hides no other's faults."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from hwdse.errors import RunFolderError
from hwdse.files import inside
from hwdse.hardware.faults import closest
from hwdse.hardware.rate import OP_CLASSES

__all__ = ["cited", "cross_faults", "table_file"]

Raw = Mapping[str, Any]
_CLOCKED = ("macs_per_cycle", "cycles")
"""What a rate may be given by that takes the clock."""


_NAMES_NO_FORMAT = re.compile(r"rates(\[\d+\](\.(activations|container|scaling)\b.*)?)?")
"""Where a fault leaves open which formats a rate stores activations in."""


def cross_faults(raw: Raw, *, stem: str | None, folder: Path | None, faulty: Collection[str]) -> list[str]:
    """Return the faults between sections: names, citations, duplicates, missing partners, missing files.

    Parameters
    ----------
    raw
        The file as TOML gives it; sections of the wrong shape are left to the schema.
    stem
        File name without its ending, where there is a file.
    folder
        Where its table must lie.
    faulty
        Paths in the file that the schema found a fault at: a check that rests on them is left out.
    """
    stored = None if any(map(_NAMES_NO_FORMAT.fullmatch, faulty)) else _stored_formats(raw)
    return [
        *_name_faults(raw, stem),
        *_source_faults(raw),
        *_rate_faults(raw),
        *_efficiency_faults(raw),
        *_memory_faults(raw),
        *_energy_faults(raw),
        *_conversion_faults(raw, stored),
        *_handover_faults(raw),
        *_overhead_faults(raw),
        *_node_faults(raw, stored),
        *_table_faults(raw, folder),
    ]


def table_file(raw: Raw, folder: Path | None) -> Path | None:
    """Return the table that a profile in ``folder`` names; ``None`` where it names none that lies beside it."""
    name = raw.get("table")
    if folder is None or not isinstance(name, str):
        return None
    try:
        path = inside(folder, name)
    except RunFolderError:
        return None
    return path if path.is_file() else None


def cited(raw: Raw) -> Iterator[tuple[str, str]]:
    """Yield (path, key) of every citation in a profile."""
    open_parts: list[tuple[str, object]] = [(key, part) for key, part in raw.items() if key != "sources"]
    while open_parts:
        path, part = open_parts.pop(0)
        if isinstance(part, Mapping):
            if isinstance(part.get("source"), str):
                yield f"{path}.source", part["source"]
            open_parts += [(f"{path}.{key}", value) for key, value in part.items()]
        elif isinstance(part, list):
            open_parts += [(f"{path}[{i}]", value) for i, value in enumerate(part)]


def _tables(raw: Raw, key: str) -> list[tuple[int, Raw]]:
    """Return the well-formed tables of the array ``key`` with their positions."""
    entries = raw.get(key)
    if not isinstance(entries, list):
        return []
    return [(i, entry) for i, entry in enumerate(entries) if isinstance(entry, Mapping)]


def _classes(rate: Raw) -> list[str]:
    """Return the operator classes a rate names; none for a general rate."""
    names = rate.get("op_classes")
    return [name for name in names if name in OP_CLASSES] if isinstance(names, list) else []


def _name_faults(raw: Raw, stem: str | None) -> Iterator[str]:
    name = raw.get("name")
    if stem is not None and isinstance(name, str) and name != stem:
        yield f"name: expected the file's name ({stem}), got {name!r}; rename one of them"


def _source_faults(raw: Raw) -> Iterator[str]:
    sources = raw.get("sources")
    known = list(sources) if isinstance(sources, Mapping) else []
    for path, key in cited(raw) if known else ():
        if key not in known:
            yield f"{path}: expected a key of [sources], got {key!r}; {closest(key, known)}"


def _rate_faults(raw: Raw) -> Iterator[str]:
    seen: dict[tuple[str, str, str, str], int] = {}
    for i, rate in _tables(raw, "rates"):
        weights, activations = rate.get("weights"), rate.get("activations")
        if not isinstance(weights, str) or not isinstance(activations, str):
            continue
        for pair in _pairs(rate, weights, activations):
            for op_class in _classes(rate) or ["every class"]:
                for kernel in _kernels(rate):
                    first = seen.setdefault((*pair, op_class, kernel), i)
                    if first != i:
                        again = f"{' x '.join(pair)} for {op_class}{f' {kernel}' if kernel else ''}"
                        yield f"rates[{i}]: expected one rate per pair and class, got {again} as in rates[{first}]"
    clocked = [f"rates[{i}].{key}" for i, rate in _tables(raw, "rates") for key in _CLOCKED if key in rate]
    if clocked and "clock_mhz" not in raw:
        yield f"{clocked[0]}: expected clock_mhz beside it, got none; add it or use gmac_per_s"


def _pairs(rate: Raw, weights: str, activations: str) -> list[tuple[str, str]]:
    """Return the pairs of formats that a rate stands for."""
    scaling = rate.get("scaling")
    if not isinstance(scaling, Mapping):
        return [(weights, activations)]
    widths = [scaling.get(key) for key in ("weights", "activations")]
    named = [[name for name in names if isinstance(name, str)] for names in widths if isinstance(names, list)]
    return [(w, a) for w in named[0] for a in named[1]] if len(named) == len(widths) else []


def _kernels(rate: Raw) -> list[str]:
    """Return the kernels that a rate names; an empty one for a rate of any kernel."""
    names = rate.get("kernels")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else [""]


def _handover_faults(raw: Raw) -> Iterator[str]:
    units = [i for i, rate in _tables(raw, "rates") if "unit" in rate]
    if "handover" in raw and not units and _tables(raw, "rates"):
        yield "handover: expected a rate with a unit of its own, got none; add unit to a rate or remove it"
    other = next((key for key in ("conversions", "nodes") if key in raw), None)
    for key in ("handover", "switch"):
        if key in raw and other is not None and (key, other) != ("switch", "conversions"):
            yield f"{key}: expected either [{key}] or [[{other}]], got both; remove one"


def _overhead_faults(raw: Raw) -> Iterator[str]:
    overhead = raw.get("overhead")
    if isinstance(overhead, Mapping) and overhead.get("counts_nodes") is True and "nodes" in raw:
        yield "overhead.counts_nodes: expected either it or [[nodes]], got both; remove one"


def _efficiency_faults(raw: Raw) -> Iterator[str]:
    efficiency = raw.get("efficiency")
    if not isinstance(efficiency, Mapping):
        return
    said: set[str] = set()
    for i, rate in _tables(raw, "rates"):
        missing = [name for name in _classes(rate) if name not in efficiency and name not in said]
        if missing and "efficiency" not in rate:
            said.update(missing)
            yield f"rates[{i}].op_classes: expected an [efficiency] of {', '.join(missing)}, got none; add it"


def _memory_faults(raw: Raw) -> Iterator[str]:
    seen: dict[str, int] = {}
    for i, memory in _tables(raw, "memories"):
        name = memory.get("name")
        if isinstance(name, str) and seen.setdefault(name, i) != i:
            yield f"memories[{i}].name: expected unique names, got {name!r} as in memories[{seen[name]}]"


def _energy_faults(raw: Raw) -> Iterator[str]:
    rates = _tables(raw, "rates")
    priced = [i for i, rate in rates if "pj_per_mac" in rate]
    section = raw.get("power")
    power = section if isinstance(section, Mapping) else {}
    if priced and len(priced) < len(rates) and "pj_per_mac" not in power:
        free = next(i for i, _ in rates if i not in priced)
        yield f"rates[{free}].pj_per_mac: expected an energy for all rates or none, got none here"
    moved = any("pj_per_byte" in memory for _, memory in _tables(raw, "memories"))
    if "active_mw" in power and (priced or moved or "pj_per_mac" in power):
        yield "power.active_mw: expected the whole power alone, got pj_per_mac or pj_per_byte too; use static_mw"


def _stored_formats(raw: Raw) -> set[str]:
    """Return the activation formats that tensors are stored in: those of the rates, or their containers, and fp32."""
    named = (rate.get("container", rate.get("activations")) for _, rate in _tables(raw, "rates"))
    return {name for name in named if isinstance(name, str)} | {"fp32"}


def _conversion_faults(raw: Raw, stored: Collection[str] | None) -> Iterator[str]:
    seen: dict[tuple[str, str, str], int] = {}
    for i, entry in _tables(raw, "conversions"):
        ends = {key: entry.get(key) for key in ("from", "to")}
        for key, name in ends.items():
            if isinstance(name, str) and stored is not None and name not in stored:
                yield f"conversions[{i}].{key}: {_not_stored(name, stored)}"
        if not all(isinstance(name, str) for name in ends.values()):
            continue
        for op_class in _classes(entry) or ["every class"]:
            first = seen.setdefault((str(ends["from"]), str(ends["to"]), op_class), i)
            if first != i:
                again = f"{ends['from']} to {ends['to']} for {op_class}"
                yield f"conversions[{i}]: expected one entry per pair and class, got {again} as in conversions[{first}]"
    if "switch" in raw and "conversions" in raw:
        yield "switch: expected either [switch] or [[conversions]], got both; remove one"


def _node_faults(raw: Raw, stored: Collection[str] | None) -> Iterator[str]:
    seen: dict[tuple[str, str], int] = {}
    for i, entry in _tables(raw, "nodes"):
        operator, name = entry.get("operator"), entry.get("activations")
        if not isinstance(operator, str) or not isinstance(name, str):
            continue
        if stored is not None and name not in stored:
            yield f"nodes[{i}].activations: {_not_stored(name, stored)}"
        if seen.setdefault((operator, name), i) != i:
            first = f"nodes[{seen[operator, name]}]"
            yield f"nodes[{i}]: expected one entry per operator and format, got {operator} in {name} as in {first}"


def _not_stored(name: str, stored: Collection[str]) -> str:
    return f"expected a format that a rate stores activations in ({', '.join(sorted(stored))}), got {name!r}"


def _table_faults(raw: Raw, folder: Path | None) -> Iterator[str]:
    table = raw.get("table")
    if isinstance(table, str) and table_file(raw, folder) is None:
        yield f"table: expected a file beside the profile, got {table!r}, which does not exist"
