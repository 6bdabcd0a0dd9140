"""A pool on PostgreSQL, which people and machines share; connections get lost, and passwords stay secret."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote, quote_plus

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from hwdse.errors import PoolError
from hwdse.evaluate.database import Database
from hwdse.reason import reason_of

__all__ = ["PAUSES_SECONDS", "PostgresDatabase"]

Result = TypeVar("Result")

PAUSES_SECONDS = (0.1, 0.5, 2.0, 5.0, 10.0)
"""How long one waits before each further attempt on a lost connection."""

_CONNECT = {
    "connect_timeout": "5",
    "tcp_user_timeout": "10000",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "application_name": "hwdse",
}
# What is acknowledged is on the server's disk, whatever its default; no lock is waited for longer than an answer.
_SETTINGS = {"synchronous_commit": "on", "statement_timeout": "15s", "idle_in_transaction_session_timeout": "15s"}
_OPENING = 0x6877647365
"""Key of the lock that one holds who looks for tables and creates them: no two may at once."""
_LOST = ("08", "57P")
"""SQLSTATE classes of lost connections, and of servers that stop or start."""
_FORM = "postgresql://user:password@host/database"


class PostgresDatabase(Database):
    """A database on a PostgreSQL server.

    Parameters
    ----------
    url
        ``postgresql://user:password@host:port/database``; what is left out, libpq finds in its environment and in its
        password file.
    is_read_only
        True to write nothing, not even tables.
    warn
        Told when a connection was lost and is tried again.

    Raises
    ------
    PoolError
        If the URL is none, or the driver is not installed.
    """

    def __init__(self, url: str, *, is_read_only: bool, warn: Callable[[str], None]) -> None:
        address = _address(url)
        self._secrets = _secrets(address)
        self._warn = warn
        self._was_reached = False
        settings = _SETTINGS | ({"default_transaction_read_only": "on"} if is_read_only else {})
        options = {"options": " ".join(f"-c {name}={value}" for name, value in settings.items())}
        arguments = {name: value for name, value in (_CONNECT | options).items() if name not in address.query}
        # Each statement commits by itself: no lock outlives a connection that is lost between two of them.
        engine = sa.create_engine(
            address, isolation_level="AUTOCOMMIT", hide_parameters=True, connect_args=arguments, pool_use_lifo=True
        )
        sa.event.listen(engine, "do_connect", _connect)
        place = f"{address.host or 'localhost'}{f':{address.port}' if address.port else ''}/{address.database or ''}"
        super().__init__(engine, place, is_read_only=is_read_only)

    def read(self, work: Callable[[sa.Connection], Result]) -> Result:
        """Return what ``work`` reads, tried again where a connection was lost.

        Raises
        ------
        PoolError
            If the server does not answer, or cannot do what is asked.
        """
        for pause in (*PAUSES_SECONDS, None):
            try:
                return self._attempt(work)
            except sa.exc.DBAPIError as error:
                # Without what the driver raised: it may hold the password.
                if not _is_lost(error):
                    raise self.fault("a pool of evaluations", self._reason(error)) from None
                if pause is None or not self._was_reached:
                    raise self._unreachable(error) from None
                self._warn(f"the pool {self.name} does not answer ({self._reason(error)}); trying again in {pause:g} s")
                time.sleep(pause)
        raise AssertionError

    def write(self, work: Callable[[sa.Connection], object]) -> None:
        """Do ``work``, tried again where a connection was lost: it may have been done although no answer came.

        Raises
        ------
        PoolError
            If the server does not answer, or cannot do what is asked.
        """
        self.read(work)

    def open(self, work: Callable[[sa.Connection], Result]) -> Result:
        """Return what ``work`` makes of the first connection, in a transaction that waits for others that open.

        A server that cannot be reached now is not waited for; no connection stays open until the next piece of work.
        """

        def alone(connection: sa.Connection) -> Result:
            connection.execution_options(isolation_level="READ COMMITTED")
            with connection.begin():
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_OPENING)))
                return work(connection)

        found = self.read(alone)
        self._was_reached = True
        self.close()
        return found

    def insert(self, table: sa.Table) -> postgresql.Insert:
        """Return an insertion that can say what happens where a row is there already."""
        return postgresql.insert(table)

    def fault(self, expected: str, got: str) -> PoolError:
        """Return the error of a database that answers, but not as a pool does."""
        return PoolError(
            f"expected {expected} in {self.name}, got {got}; name another database, or ask whoever looks after it"
        )

    def _attempt(self, work: Callable[[sa.Connection], Result]) -> Result:
        with self.engine.connect() as connection:
            return work(connection)

    def _unreachable(self, error: sa.exc.DBAPIError) -> PoolError:
        return PoolError(
            f"expected the pool {self.name} to answer, got: {self._reason(error)}; see to the server, the network and "
            "the URL, and go on with --resume"
        )

    def _reason(self, error: sa.exc.DBAPIError) -> str:
        """Return what the driver says on one line, without the password."""
        said = getattr(getattr(error.orig, "diag", None), "message_primary", None)
        text = said or reason_of(error.orig or error).partition(": ")[2] or type(error).__name__
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _address(url: str) -> sa.URL:
    """Return the parsed URL; one that cannot be parsed is not repeated, for it may hold a password."""
    try:
        address = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise PoolError(f"expected the URL of a pool as {_FORM}, got another text; correct it") from None
    if address.get_backend_name() not in {"postgresql", "postgres"}:
        raise PoolError(
            f"expected the URL of a pool as {_FORM}, got one of {address.get_backend_name()}; without a URL, the run "
            "folder keeps its own pool"
        )
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise PoolError(
            "expected the package psycopg for a pool on PostgreSQL, got none; pip install 'hwdse[postgres]'"
        ) from error
    return address.set(drivername="postgresql+psycopg")


def _secrets(address: sa.URL) -> list[str]:
    """Return every spelling of the passwords in a URL, the longest first."""
    hidden = [value for name, value in address.query.items() if "password" in name]
    plain = [text for text in (address.password, *hidden) if isinstance(text, str) and text]
    return sorted({f(text) for text in plain for f in (str, quote, quote_plus)}, key=len, reverse=True)


def _is_lost(error: sa.exc.DBAPIError) -> bool:
    """Return True if there was no connection, or there is none any more."""
    state = getattr(error.orig, "sqlstate", None)
    if error.connection_invalidated or (state is not None and state.startswith(_LOST)):
        return True
    return isinstance(error, sa.exc.OperationalError) and state is None


def _connect(_dialect: object, _record: object, arguments: Any, options: Any) -> Any:
    from hwdse.evaluate.line import Line

    return Line.connect(*arguments, **options)
