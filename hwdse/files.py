"""Files that are whole or absent: written to a temporary file, then renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hwdse.errors import RunFolderError
from hwdse.reason import reason_of

__all__ = ["is_left_over", "read_csv", "read_json", "write_bytes", "write_csv", "write_json", "write_text"]


def write_bytes(path: Path, content: bytes) -> Path:
    """Write ``content`` to ``path``, whole or not at all, and return ``path``; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def is_left_over(path: Path) -> bool:
    """Return True if ``path`` is a temporary file of a process that was killed while it wrote.

    >>> is_left_over(Path("run/.front.csv.4711.tmp")), is_left_over(Path("run/front.csv"))
    (True, False)
    """
    return path.name.startswith(".") and path.suffix == ".tmp"


def write_text(path: Path, text: str) -> Path:
    """Write ``text`` to ``path`` in UTF-8, whole or not at all."""
    return write_bytes(path, text.encode())


def write_csv(path: Path, table: pd.DataFrame) -> Path:
    """Write ``table`` to ``path``, whole or not at all; floats with all their digits."""
    return write_text(path, table.to_csv(index=False))


def write_json(path: Path, value: Mapping[str, Any]) -> Path:
    """Write ``value`` to ``path``, whole or not at all."""
    return write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a run's JSON file.

    Raises
    ------
    RunFolderError
        If it is missing or damaged.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunFolderError(
            f"expected a run folder with {path.name}, got none in {path.parent}; name another folder, or explore to "
            "make one"
        ) from error
    except (OSError, ValueError) as error:
        raise RunFolderError(f"expected JSON in {path}, got {error}; explore again into another folder") from error
    if not isinstance(value, dict):
        raise RunFolderError(f"expected an object in {path}, got {type(value).__name__}")
    return value


def read_csv(path: Path, *, text: Sequence[str]) -> pd.DataFrame:
    """Return a run's table: columns ``text`` as they stand, all others as the numbers that were written, bit for bit.

    Raises
    ------
    RunFolderError
        If it is missing or damaged.
    """
    try:
        # As text first: float() gives back the exact number, and "NA" may be a name.
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        numbers = {name: list(map(float, table[name])) for name in table.columns if name not in text}
        return pd.DataFrame({name: numbers.get(name, table[name]) for name in table.columns}, columns=table.columns)
    except FileNotFoundError as error:
        raise RunFolderError(f"expected a table {path}, got none; explore again into another folder") from error
    except (ValueError, TypeError) as error:
        raise RunFolderError(f"expected a CSV table in {path}, got {reason_of(error)}; restore the file") from error
