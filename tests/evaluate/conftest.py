"""Pools in files and on a server."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hwdse.errors import HwdseError, PoolError, RunFolderError


@dataclass(frozen=True)
class Place:
    """Where a pool may be, and how to reach its tables behind its back."""

    place: Path | str
    name: str
    error: type[HwdseError]
    execute: Callable[[str], list[Any]]


@pytest.fixture(params=["file", "postgres"])
def somewhere(request, tmp_path) -> Place:
    if request.param == "file":
        path = tmp_path / "pool.db"

        def execute(statement: str) -> list[Any]:
            with closing(sqlite3.connect(path)) as database, database:
                return database.execute(statement).fetchall()

        return Place(path, str(path), RunFolderError, execute)
    lab = request.getfixturevalue("lab")
    return Place(lab.url(), f"127.0.0.1:{lab.server.port}/{lab.name}", PoolError, lab.execute)
