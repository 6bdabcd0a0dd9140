"""``hwdse profiles``: what is known of chips, and where it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import typer
from pydantic import BaseModel
from rich.table import Table

from hwdse.commands.screen import CONSOLE, fail, print_json
from hwdse.errors import InputError
from hwdse.hardware import HardwareProfile, load_profile, profile_paths
from hwdse.hardware import check as faults_of
from hwdse.hardware.quantity import Quantity
from hwdse.hardware.schema import Conversion, NodeTime

__all__ = ["check", "show", "show_list"]

BAD_INPUT = 2


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
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("name", "kind", "what", "precisions", "figures"):
        table.add_column(heading, no_wrap=heading == "name")
    for row in rows:
        table.add_row(row["name"], row["kind"], row["title"], row["precisions"], row["figures"])
    for row in damaged:
        table.add_row(row["name"], "damaged", "see hwdse profiles check", "", "")
    CONSOLE.print(table)


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
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("figure", "value", "interval", "kind", "source"):
        table.add_column(heading, justify="right" if heading == "value" else "left")
    for path, quantity in _quantities(profile.spec, ""):
        interval = "" if quantity.low is None or quantity.high is None else f"{quantity.low:g} to {quantity.high:g}"
        table.add_row(path, f"{quantity.value:g}", interval, str(quantity.kind), quantity.source)
    CONSOLE.print(table)
    if len(profile.table):
        CONSOLE.print(f"\n{len(profile.table)} latencies by layer shape in {profile.spec.table}", markup=False)
    CONSOLE.print("\nsources", style="bold")
    for key, citation in profile.spec.sources.items():
        CONSOLE.print(f"  {key}: {citation}", markup=False)


def check(names: Sequence[str]) -> None:
    """Check profiles; exit 2 if one has faults, after all were looked at."""
    paths = {name: _path(name) for name in names} if names else dict(profile_paths())
    bad = 0
    for name, path in paths.items():
        faults = faults_of(path)
        bad += bool(faults)
        CONSOLE.print(f"{name}: {'ok' if not faults else f'{len(faults)} fault(s)'}", markup=False)
        for fault in faults:
            fail(f"{name}: {fault}")
    if bad:
        raise typer.Exit(BAD_INPUT)


def _path(name: str) -> Path:
    """Return the file of a profile given by name or file."""
    if name in profile_paths():
        return profile_paths()[name]
    path = Path(name)
    if not path.is_file():
        known = ", ".join(profile_paths())
        raise InputError(f"expected the name of a profile ({known}) or a file, got {name!r}")
    return path


def _summary(profile: HardwareProfile) -> dict[str, str]:
    return {
        "name": profile.name,
        "kind": profile.spec.kind,
        "title": profile.title,
        "precisions": " ".join(map(str, profile.precisions)),
        "figures": "measured" if profile.has_measured_table else "order of magnitude",
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
        elif isinstance(value, tuple):
            for i, item in enumerate(value):
                if isinstance(item, BaseModel):
                    words = f" ({item.words})" if isinstance(item, Conversion | NodeTime) else ""
                    yield from _quantities(item, f"{here}[{i}]{words}")
