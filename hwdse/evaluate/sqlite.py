"""A pool in a file, or in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.pool import QueuePool, StaticPool

from hwdse.errors import RunFolderError
from hwdse.evaluate.database import Database
from hwdse.evaluate.mounts import check_local

__all__ = ["SqliteDatabase"]

Result = TypeVar("Result")

_BUSY_SECONDS = 30.0
"""How long one waits for another connection's commit."""
_NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)


class SqliteDatabase(Database):
    """An SQLite database.

    Parameters
    ----------
    path
        File; ``None`` keeps everything in memory.
    is_read_only
        True to leave the file as it is.

    Raises
    ------
    RunFolderError
        If the file is to be written on a network file system.
    """

    def __init__(self, path: Path | None, *, is_read_only: bool) -> None:
        if path is not None and not is_read_only:
            check_local(path.parent)
        self._path = path
        self._logs_ahead = False
        super().__init__(_engine(path, is_read_only=is_read_only), str(path), is_read_only=is_read_only)

    def read(self, work: Callable[[sa.Connection], Result]) -> Result:
        """Return what ``work`` reads; what the database cannot do becomes one sentence."""
        try:
            with self.engine.begin() as connection:
                return work(connection)
        except (sa.exc.DatabaseError, UnicodeDecodeError) as error:  # a damaged schema is quoted as it is
            reason = getattr(error, "orig", error)
            code = getattr(reason, "sqlite_errorcode", None)
            if code in _NO_ROOM:
                raise RunFolderError(
                    f"expected room to write to {self.name}, got: {reason}; free some, and go on with --resume"
                ) from error
            if code == sqlite3.SQLITE_BUSY:
                raise RunFolderError(
                    f"expected one process that writes to {self.name}, got another one at it for {_BUSY_SECONDS:g} s; "
                    "wait for it, and share evaluations with --pool postgresql://..."
                ) from error
            raise RunFolderError(
                f"expected a pool of evaluations in {self.name}, got: {reason}; restore the file, or explore again "
                "into another folder"
            ) from error

    def write(self, work: Callable[[sa.Connection], object]) -> None:
        """Do ``work``.

        From the first time on, the file has a log beside it, which readers need not wait for, and which makes a commit
        a quarter as long. It goes when the database is closed; what it holds of a killed process is found there.
        """
        if not self._logs_ahead and not self.is_read_only and self._path is not None:
            self.read(lambda connection: connection.exec_driver_sql("PRAGMA journal_mode = WAL"))
            self._logs_ahead = True
        self.read(work)

    def close(self) -> None:
        """Close all connections, and leave nothing but the file."""
        super().close()
        if self._logs_ahead and self._path is not None:
            # Somebody who reads now keeps the log; whoever opens the file next sees to it.
            with suppress(sqlite3.OperationalError), closing(sqlite3.connect(self._path, timeout=0.5)) as database:
                database.execute("PRAGMA journal_mode = DELETE")
            self._logs_ahead = False

    def open(self, work: Callable[[sa.Connection], Result]) -> Result:
        """Return what ``work`` makes of the first connection; a run folder has one process that writes.

        A file of somebody else's may hold views and triggers, which are programs: reading them could take forever.
        """

        def checked(connection: sa.Connection) -> Result:
            made = connection.exec_driver_sql("SELECT type, name FROM sqlite_master WHERE type IN ('view', 'trigger')")
            for kind, name in made:
                raise self.fault("tables alone", f"the {kind} {name!a:.40}")
            return work(connection)

        return self.read(checked)

    def insert(self, table: sa.Table) -> sqlite.Insert:
        """Return an insertion that can say what happens where a row is there already."""
        return sqlite.insert(table)

    def fault(self, expected: str, got: str) -> RunFolderError:
        """Return the error of a file that can be read, but holds something else than expected."""
        return RunFolderError(f"expected {expected} in {self.name}, got {got}; explore again into another folder")


def _engine(path: Path | None, *, is_read_only: bool) -> sa.Engine:
    if path is None:
        return sa.create_engine("sqlite://", poolclass=StaticPool)
    # Not from text: a folder's name may hold characters that mean something in a URL.
    if is_read_only:
        place = f"file:{quote(str(path.absolute()))}"
        url = sa.URL.create("sqlite", database=place, query={"mode": "ro", "uri": "true"})
    else:
        url = sa.URL.create("sqlite", database=str(path))
    return sa.create_engine(url, poolclass=QueuePool, connect_args={"timeout": _BUSY_SECONDS})
