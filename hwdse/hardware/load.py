"""Finds, reads and checks hardware profiles."""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hwdse.errors import InputError, ProfileError
from hwdse.files import parse_toml
from hwdse.hardware.checks import cited, cross_faults, table_file
from hwdse.hardware.faults import closest, respelt, sentences
from hwdse.hardware.lut import LatencyTable, read_table
from hwdse.hardware.profile import HardwareProfile
from hwdse.hardware.schema import SCHEMA_VERSION, ProfileFile

__all__ = ["check", "list_profiles", "load_profile", "locate", "parse_profile", "profile_paths", "search_path"]

VARIABLE = "HWDSE_PROFILES"


def search_path() -> tuple[Path, ...]:
    """Return the folders that are searched for profiles, first found wins.

    Those of ``$HWDSE_PROFILES``, then those inside the installed package, then the repository's.
    """
    own = [Path(part) for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]
    package = Path(__file__).parent.parent
    return (*own, package / "hardware_profiles", package.parent / "hardware_profiles")


def profile_paths() -> dict[str, Path]:
    """Return the file of every profile on the search path by name, sorted by name."""
    found: dict[str, Path] = {}
    for folder in search_path():
        for path in sorted(folder.glob("*.toml")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def list_profiles() -> list[str]:
    """Return the names of the profiles on the search path, sorted."""
    return list(profile_paths())


def load_profile(name_or_path: str | Path) -> HardwareProfile:
    """Return a hardware profile by name, or from a file.

    Parameters
    ----------
    name_or_path
        A name from :func:`list_profiles`, or a file: anything that ends in ``.toml`` or has a path separator.

    Raises
    ------
    InputError
        If no profile has that name; the nearest ones are named.
    ProfileError
        If it has faults; all of them are listed.
    """
    path = locate(name_or_path)
    profile, faults = _read(path)
    if profile is None:
        raise ProfileError(str(path), faults)
    return profile


def check(path: str | Path) -> tuple[str, ...]:
    """Return every fault of the profile in the file ``path``, each starting with its path in the file; none if good."""
    return _read(Path(path))[1]


def parse_profile(raw: Mapping[str, Any], *, source: str = "given as a table") -> HardwareProfile:
    """Return the profile given as the mapping that TOML gives; it cannot have a table of latencies.

    Raises
    ------
    ProfileError
        If it has faults; all of them are listed.
    """
    profile, faults = _validate(raw, path=None)
    if profile is None:
        raise ProfileError(source, faults)
    return profile


def locate(name_or_path: str | Path) -> Path:
    """Return the file of a profile, given by name or as a file.

    Raises
    ------
    InputError
        If no profile has that name.
    """
    text = str(name_or_path)
    separators = [separator for separator in (os.sep, os.altsep, "/") if separator]
    if isinstance(name_or_path, Path) or text.endswith(".toml") or any(mark in text for mark in separators):
        return Path(name_or_path)
    known = profile_paths()
    if text not in known:
        nearest = closest(text, list(known), most=3)
        raise InputError(f"expected the name of a hardware profile, got {text!r}, which is unknown; {nearest}")
    return known[text]


def _read(path: Path) -> tuple[HardwareProfile | None, tuple[str, ...]]:
    """Return the profile in ``path`` or its faults."""
    try:
        raw = parse_toml(path.read_text(encoding="utf-8"))
    except OSError as error:
        return None, (f"expected a readable file, got: {error.strerror}",)
    except UnicodeDecodeError as error:
        return None, (f"expected text in UTF-8, got byte {error.object[error.start]:#x} at position {error.start}",)
    except ValueError as error:
        return None, (f"expected TOML, got: {error}",)
    return _validate(raw, path=path)


def _validate(raw: Mapping[str, Any], *, path: Path | None) -> tuple[HardwareProfile | None, tuple[str, ...]]:
    """Return the profile that ``raw`` describes, or every fault in it; what follows from another fault is none."""
    version, said = raw.get("schema_version"), []
    if version != SCHEMA_VERSION or isinstance(version, bool):
        shown = "nothing" if version is None else repr(version)
        said = [f"schema_version: expected {SCHEMA_VERSION}, got {shown}; see the README beside the profiles"]
        raw = {**raw, "schema_version": SCHEMA_VERSION}
    folder = path.parent if path is not None else None
    spec, faults, raw = _against_schema(raw)
    faulty = frozenset(fault.partition(":")[0] for fault in faults)
    faults += cross_faults(raw, stem=path.stem if path is not None else None, folder=folder, faulty=faulty)
    table, table_faults = _table(raw, folder)
    faults += table_faults
    if not table_faults and "table" not in faulty and not any(place.endswith(".source") for place in faulty):
        faults += _unused(raw, table)
    if spec is None or said or faults:
        return None, (*said, *faults)
    return HardwareProfile(spec, table), ()


def _against_schema(raw: Mapping[str, Any]) -> tuple[ProfileFile | None, list[str], Mapping[str, Any]]:
    """Return what the schema makes of ``raw``, its faults, and ``raw`` with misspelt keys put right."""
    try:
        return ProfileFile.model_validate(dict(raw)), [], raw
    except ValidationError as error:
        respelling, said = respelt(raw, error, ProfileFile)
        if not said:
            return None, sentences(error, ProfileFile), raw
    _, faults, mended = _against_schema(respelling)
    return None, said + faults, mended


def _table(raw: Mapping[str, Any], folder: Path | None) -> tuple[LatencyTable, tuple[str, ...]]:
    """Return the latency table that ``raw`` names; what is missing is a fault found elsewhere."""
    path, batch, sources = table_file(raw, folder), raw.get("batch"), raw.get("sources")
    if path is None or not isinstance(batch, int) or not isinstance(sources, Mapping) or not sources:
        return LatencyTable({}), ()
    return read_table(path, batch=batch, sources=list(sources))


def _unused(raw: Mapping[str, Any], table: LatencyTable) -> list[str]:
    """Return a fault for every source that nothing cites; one that a misspelt citation may mean is cited."""
    used = {key for _, key in cited(raw)} | {entry.source for entry in table.entries.values()}
    sources = raw.get("sources")
    known = list(sources) if isinstance(sources, Mapping) else []
    meant = {key: get_close_matches(key, known, n=1) for key in used.difference(known)}
    if not all(meant.values()):
        return []
    used.update(key for keys in meant.values() for key in keys)
    return [f"sources.{key}: expected a figure that cites it, got none; remove it" for key in known if key not in used]
