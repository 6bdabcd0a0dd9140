"""Files that are whole or absent: written to a temporary file, then renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from hwdse.errors import RunFolderError

__all__ = ["read_json", "write_bytes", "write_csv", "write_json", "write_text"]


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
        raise RunFolderError(f"expected a run folder with {path.name}, got none in {path.parent}") from error
    except (OSError, ValueError) as error:
        raise RunFolderError(f"expected JSON in {path}, got {error}; explore again into another folder") from error
    if not isinstance(value, dict):
        raise RunFolderError(f"expected an object in {path}, got {type(value).__name__}")
    return value
