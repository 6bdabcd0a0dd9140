"""How long each measured configuration took to evaluate, from the run's database of evaluations."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from hwdse.errors import RunFolderError
from hwdse.report.tables import DeviceTables, RunTables

__all__ = ["evaluation_seconds"]

_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table'"


def evaluation_seconds(tables: RunTables, device: DeviceTables) -> NDArray[np.float64]:
    """Return the seconds ``(n,)`` that each row of the measured table took to evaluate; NaN where nothing says so.

    Raises
    ------
    RunFolderError
        If the database is damaged.
    """
    path = tables.run / "evaluations.db"
    known = _read(path, device.scheme, tables.recipe) if path.exists() else {}
    return np.array([known.get(bits, np.nan) for bits in device.measured["bits"]], dtype=np.float64)


def _read(path: Path, scheme: str, recipe: str) -> dict[str, float]:
    """Return seconds by the configuration's bits."""
    query = "SELECT bits, seconds FROM evaluations WHERE scheme = ? AND recipe = ?"
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)) as database:
            # Not a view, which may count without end.
            if not database.execute(f"{_TABLES} AND name = 'evaluations'").fetchall():
                raise ValueError("no table evaluations")  # noqa: TRY301  (told like all else that is wrong)
            return {str(bits): float(seconds) for bits, seconds in database.execute(query, (scheme, recipe))}
    except (sqlite3.DatabaseError, ValueError, TypeError) as error:
        raise RunFolderError(
            f"expected a database of evaluations in {path}, got: {error}; restore the file, or remove it to report "
            "without seconds"
        ) from error
