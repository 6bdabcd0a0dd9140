"""``hwdse profiles``: what is known of chips, and where it comes from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel
from rich.table import Table

from hwdse.commands.screen import CONSOLE, fail, note, print_json
from hwdse.errors import InputError
from hwdse.hardware import HardwareProfile, load_profile, locate, profile_paths
from hwdse.hardware import check as faults_of
from hwdse.hardware.quantity import Quantity
from hwdse.hardware.rate import OP_CLASSES, Rate
from hwdse.hardware.schema import Conversion, NodeTime

__all__ = ["check", "show", "show_list"]

BAD_INPUT = 2
SHOWN = 2
"""Precisions that the list names."""
NAME_WIDTH = 30


def show_list(*, as_json: bool) -> None:
    """Print all profiles that are found; one that is damaged is listed as such."""
    rows, damaged = [], []
    for name, path in profile_paths().items():
        try:
            rows.append(_summary(load_profile(path)) | {"file": str(path)})
        except InputError as error:
            damaged.append({"name": name, "file": str(path), "error": str(error)})
    if as_json:
        print_json({"profiles": rows, "damaged": damaged})
        return
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("name", no_wrap=True, min_width=NAME_WIDTH)
    for heading, width in (("kind", 11), ("precisions", 18), ("90 %", 4), ("nets", 4), ("basis", 8)):
        table.add_column(heading, no_wrap=True, max_width=width, justify="right" if width == 4 else "left")
    for row in rows:
        factor = f"{row['latency_factor']:.2g}" if row["latency_factor"] is not None else ""
        nets = str(row["networks"] or "")
        table.add_row(row["name"], row["kind"], _few(row["precisions"].split()), factor, nets, row["basis"])
    for row in damaged:
        table.add_row(row["name"], "damaged", "profiles check", "", "", "")
    CONSOLE.print(table)
    words = (
        "90 %: nine of ten latencies lie within this factor of the predicted one. Basis: published networks, each left "
        "out of the fit that predicts it; or the fit saw them, or there were too few to fit; or devices like it."
    )
    CONSOLE.print(f"\n{words}", markup=False)


def show(name: str, *, as_json: bool) -> None:
    """Print one profile: every figure with its kind and source."""
    profile = load_profile(name)
    if as_json:
        print_json(profile.spec.model_dump(mode="json", exclude_none=True))
        return
    CONSOLE.print(f"{profile.name}: {profile.title}", style="bold", markup=False)
    CONSOLE.print(f"{profile.spec.note}", markup=False)
    CONSOLE.print(f"stack: {profile.spec.software_stack}; scheme: {profile.scheme.key}", markup=False)
    CONSOLE.print(f"accuracy: {profile.accuracy_note or 'measured table'}\n", markup=False)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for heading in ("figure", "value", "interval", "kind", "source"):
        table.add_column(heading, justify="right" if heading == "value" else "left", overflow="fold")
    for path, quantity in _quantities(profile.spec, ""):
        interval = "" if quantity.low is None or quantity.high is None else f"{quantity.low:g} to {quantity.high:g}"
        table.add_row(path, f"{quantity.value:g}", interval, str(quantity.kind), quantity.source)
    CONSOLE.print(table)
    if len(profile.table):
        CONSOLE.print(f"\n{len(profile.table)} latencies by layer shape in {profile.spec.table}", markup=False)
    CONSOLE.print("\nsources", style="bold")
    for key, citation in profile.spec.sources.items():
        CONSOLE.print(f"  {key}: {citation}", markup=False)


def check(names: Sequence[str], *, as_json: bool) -> None:
    """Check profiles; exit 2 if one has faults, after all were looked at."""
    paths = {name: _path(name) for name in names} if names else dict(profile_paths())
    found = {name: faults_of(path) for name, path in paths.items()}
    notes = {name: _notes(path) if not found[name] else () for name, path in paths.items()}
    if as_json:
        rows = [
            {"name": name, "file": str(paths[name]), "faults": list(faults), "notes": list(notes[name])}
            for name, faults in found.items()
        ]
        print_json({"profiles": rows})
    for name, faults in found.items() if not as_json else ():
        noun = "fault" if len(faults) == 1 else "faults"
        CONSOLE.print(f"{name}: {f'{len(faults)} {noun}' if faults else 'ok'}", markup=False, soft_wrap=True)
        for fault in faults:
            fail(f"{name}: {fault}")
        for sentence in notes[name] if names else ():
            note(sentence)
    if any(found.values()):
        raise typer.Exit(BAD_INPUT)


def _notes(path: Path) -> tuple[str, ...]:
    """Return what is no fault of a profile, but may be meant otherwise."""
    profile = load_profile(path)
    return profile.unnamed_notes(OP_CLASSES, profile.precisions)


def _path(name: str) -> Path:
    """Return the file of a profile given by name or file."""
    path = Path(name)
    return path if name not in profile_paths() and path.is_file() else locate(name)


def _few(precisions: Sequence[str]) -> str:
    """Return the first of several precisions, and how many more there are."""
    short = [re.sub(r"^W(\D\w*)A\1$", r"\1", text) for text in precisions]  # fp16 for Wfp16Afp16
    more = f" +{len(short) - SHOWN}" if len(short) > SHOWN else ""
    return " ".join(short[:SHOWN]) + more


def _basis(profile: HardwareProfile) -> str:
    """Return in a word or two what the interval of a profile's latencies rests on."""
    accuracy = profile.spec.accuracy
    if accuracy is None:
        return "measured" if profile.has_measured_table else "none"
    return "left out" if accuracy.basis == "leave_one_network_out" else accuracy.basis


def _summary(profile: HardwareProfile) -> dict[str, Any]:
    networks = profile.spec.accuracy.networks if profile.spec.accuracy is not None else None
    return {
        "name": profile.name,
        "kind": profile.spec.kind,
        "title": profile.title,
        "precisions": " ".join(map(str, profile.precisions)),
        "figures": "measured" if profile.has_measured_table else "order of magnitude",
        "basis": _basis(profile),
        "networks": networks.value if networks is not None else None,
        "latency_factor": profile.uncertainty("latency_ms_predicted"),
        "energy_factor": profile.uncertainty("energy_mj_predicted"),
        "scheme": profile.scheme.key,
    }


def _quantities(model: BaseModel, path: str) -> Iterator[tuple[str, Quantity]]:
    """Yield every number of a profile with its path in the file."""
    for key in type(model).model_fields:
        value = getattr(model, key)
        here = f"{path}.{key}" if path else key
        if isinstance(value, Quantity):
            yield here, value
        elif isinstance(value, BaseModel):
            yield from _quantities(value, here)
        elif isinstance(value, dict):
            yield from ((f"{here}.{name}", item) for name, item in value.items() if isinstance(item, Quantity))
        elif isinstance(value, tuple):
            for i, item in enumerate(value):
                if isinstance(item, BaseModel):
                    words = f" ({item.words})" if isinstance(item, Conversion | NodeTime | Rate) else ""
                    yield from _quantities(item, f"{here}[{i}]{words}")
