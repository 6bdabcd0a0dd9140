"""Finds, reads and checks hardware profiles."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hwdse.errors import ProfileError
from hwdse.hardware.checks import cited, cross_faults
from hwdse.hardware.faults import closest, sentences
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
    ProfileError
        If there is no such profile, or it has faults; all of them are listed.
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
    ProfileError
        If no profile has that name.
    """
    text = str(name_or_path)
    separators = [separator for separator in (os.sep, os.altsep, "/") if separator]
    if isinstance(name_or_path, Path) or text.endswith(".toml") or any(mark in text for mark in separators):
        return Path(name_or_path)
    known = profile_paths()
    if text not in known:
        raise ProfileError(text, [f"expected a known profile, got {text!r}; {closest(text, list(known))}"])
    return known[text]


def _read(path: Path) -> tuple[HardwareProfile | None, tuple[str, ...]]:
    """Return the profile in ``path`` or its faults."""
    try:
        with path.open("rb") as file:
            raw = tomllib.load(file)
    except OSError as error:
        return None, (f"expected a readable file, got: {error.strerror}",)
    except UnicodeDecodeError as error:
        return None, (f"expected text in UTF-8, got byte {error.object[error.start]:#x} at position {error.start}",)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        return None, (f"expected TOML, got: {error}",)
    return _validate(raw, path=path)


def _validate(raw: Mapping[str, Any], *, path: Path | None) -> tuple[HardwareProfile | None, tuple[str, ...]]:
    """Return the profile that ``raw`` describes, or every fault in it."""
    version = raw.get("schema_version")
    if version != SCHEMA_VERSION or isinstance(version, bool):
        shown = "nothing" if version is None else repr(version)
        return None, (f"schema_version: expected {SCHEMA_VERSION}, got {shown}; see the README beside the profiles",)
    folder = path.parent if path is not None else None
    spec, faults = None, []
    try:
        spec = ProfileFile.model_validate(dict(raw))
    except ValidationError as error:
        faults += sentences(error, ProfileFile)
    faults += cross_faults(raw, stem=path.stem if path is not None else None, folder=folder)
    table, table_faults = _table(raw, folder)
    faults += table_faults
    faults += _unused(raw, table)
    if spec is None or faults:
        return None, tuple(faults)
    return HardwareProfile(spec, table), ()


def _table(raw: Mapping[str, Any], folder: Path | None) -> tuple[LatencyTable, tuple[str, ...]]:
    """Return the latency table that ``raw`` names; a missing one is a fault found elsewhere."""
    name, batch, sources = raw.get("table"), raw.get("batch"), raw.get("sources")
    if not isinstance(name, str) or folder is None or not (folder / name).is_file() or not isinstance(batch, int):
        return LatencyTable({}), ()
    return read_table(folder / name, batch=batch, sources=list(sources) if isinstance(sources, Mapping) else [])


def _unused(raw: Mapping[str, Any], table: LatencyTable) -> list[str]:
    """Return a fault for every source that nothing cites."""
    used = {key for _, key in cited(raw)} | {entry.source for entry in table.entries.values()}
    sources = raw.get("sources")
    known = list(sources) if isinstance(sources, Mapping) else []
    return [f"sources.{key}: expected a figure that cites it, got none; remove it" for key in known if key not in used]
