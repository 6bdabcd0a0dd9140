"""What a pool asks of a database; there is one file for each kind."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from hwdse.errors import HwdseError

__all__ = ["Database", "Insert"]

Result = TypeVar("Result")
Insert = sqlite.Insert | postgresql.Insert


class Database(ABC):
    """A database that pieces of work are run on, each in a transaction of its own.

    Attributes
    ----------
    name
        What sentences call it; it holds no password.
    is_read_only
        Whether nothing may be written to it.

    Parameters
    ----------
    engine
        Keeps connections open; threads have one each.
    name, is_read_only
        As above.
    """

    def __init__(self, engine: sa.Engine, name: str, *, is_read_only: bool) -> None:
        self.name = name
        self.is_read_only = is_read_only
        self._engine = engine
        self._process = os.getpid()

    @abstractmethod
    def read(self, work: Callable[[sa.Connection], Result]) -> Result:
        """Return what ``work`` reads."""

    @abstractmethod
    def write(self, work: Callable[[sa.Connection], object]) -> None:
        """Do ``work``; once this returns, what it wrote is on disk."""

    @abstractmethod
    def open(self, work: Callable[[sa.Connection], Result]) -> Result:
        """Return what ``work``, which may create tables, makes of the first connection."""

    @abstractmethod
    def insert(self, table: sa.Table) -> Insert:
        """Return an insertion that can say what happens where a row is there already."""

    @abstractmethod
    def fault(self, expected: str, got: str) -> HwdseError:
        """Return the error of a database that answers, but not as a pool does."""

    @property
    def engine(self) -> sa.Engine:
        """The engine; connections that this process was forked with belong to its parent and are left alone."""
        if self._process != os.getpid():
            self._engine.dispose(close=False)
            self._process = os.getpid()
        return self._engine

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()
