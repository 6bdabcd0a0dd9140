"""The pool of finished evaluations, addressed by content.

One row per (network, data, scheme, recipe, configuration), inserted once the evaluation is finished and ignored where
it is there already, so writers need no coordination and a killed process loses only what was in flight. A row is one
statement that commits before it counts as kept: written twice, it is there once.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from hwdse.errors import HwdseError
from hwdse.evaluate.database import Database, Insert
from hwdse.evaluate.evaluator import Scores
from hwdse.evaluate.fingerprint import fingerprint
from hwdse.evaluate.postgres import PostgresDatabase
from hwdse.evaluate.sqlite import SqliteDatabase
from hwdse.parts import parts

__all__ = ["Key", "Pool"]

SCHEMA_VERSION = 1

_LEVEL = 2
"""Of compression: 10,000 scores of 0 and 1 take a tenth of a millisecond; higher levels ten times that."""
_ROWS = 200
"""In one statement, at most."""

_metadata = sa.MetaData()
_evaluations = sa.Table(
    "evaluations",
    _metadata,
    sa.Column("fingerprint", sa.String(32), primary_key=True),
    sa.Column("network", sa.String(32), nullable=False),
    sa.Column("data", sa.String(32), nullable=False),
    sa.Column("scheme", sa.Text, nullable=False),
    sa.Column("recipe", sa.Text, nullable=False),
    sa.Column("metric", sa.Text, nullable=False),
    sa.Column("bits", sa.Text, nullable=False),
    sa.Column("quality", sa.Float, nullable=False),
    sa.Column("samples", sa.Integer, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("scores", sa.LargeBinary, nullable=False),
)
_about = sa.Table("about", _metadata, sa.Column("key", sa.String(40), primary_key=True), sa.Column("value", sa.Text))

_KEPT = [_evaluations.c[name] for name in ("fingerprint", "samples", "seconds", "scores")]
_SIZE = [_evaluations.c[name] for name in ("fingerprint", "samples")]


@dataclass(frozen=True)
class Key:
    """What an evaluation depends on.

    Attributes
    ----------
    network, data
        Fingerprints of the network and of calibration and evaluation data.
    scheme, recipe, metric
        Their keys.
    bits
        Precision of every layer, separated by spaces; ``fp32`` for full precision.
    """

    network: str
    data: str
    scheme: str
    recipe: str
    metric: str
    bits: str

    @property
    def fingerprint(self) -> str:
        """Address of the evaluation."""
        return fingerprint(vars(self))


class Pool:
    """Finished evaluations in a database.

    Parameters
    ----------
    place
        SQLite file, created if absent; URL of a PostgreSQL database as text,
        ``postgresql://user:password@host/database``; ``None`` keeps the pool in memory.
    read_only
        True to write nothing, for readers without the right to.
    warn
        Told when the connection to a server was lost and is tried again.

    Attributes
    ----------
    name
        What sentences call it, without a password.
    is_read_only
        Whether nothing may be written to it.

    Raises
    ------
    RunFolderError
        If the file is no pool, one of another version, or on a network file system.
    PoolError
        If the URL is none, the server does not answer, or its database is no pool or one of another version.
    """

    def __init__(
        self, place: Path | str | None = None, *, read_only: bool = False, warn: Callable[[str], None] = lambda _: None
    ) -> None:
        self._database: Database = (
            PostgresDatabase(place, is_read_only=read_only, warn=warn)
            if isinstance(place, str)
            else SqliteDatabase(place, is_read_only=read_only)
        )
        self.name, self.is_read_only = self._database.name, read_only
        self._upsert = _upsert(self._database)
        try:
            version = self._database.open(_version if read_only else _create)
            if version != str(SCHEMA_VERSION):
                raise self._database.fault(f"a pool of schema version {SCHEMA_VERSION}", str(version))
        except HwdseError:
            self._database.close()
            raise

    def get(self, key: Key) -> Scores | None:
        """Return the scores kept under ``key``, if there are any.

        Raises
        ------
        HwdseError
            If the database is damaged or does not answer.
        """
        return self.get_many([key]).get(key)

    def get_many(self, keys: Iterable[Key]) -> dict[Key, Scores]:
        """Return the scores kept under each of ``keys`` that there are any under.

        One question to the database for hundreds of keys; ask for as many as fit into memory.

        Raises
        ------
        HwdseError
            If the database is damaged or does not answer.
        """
        by_address = {key.fingerprint: key for key in keys}
        rows = self._select(_KEPT, list(by_address))
        if not by_address.keys() >= {row.fingerprint for row in rows}:
            raise self._database.fault("an index of its own rows", "another one's")
        return {by_address[row.fingerprint]: self._scores(row, by_address[row.fingerprint].bits) for row in rows}

    def put(self, key: Key, scores: Scores) -> None:
        """Keep a finished evaluation; one of as many samples or more that is there already is left as it is.

        Once this returns, the evaluation is on disk.

        Raises
        ------
        HwdseError
            If the database is full, may not be written to, or does not answer.
        """
        row: dict[str, object] = {
            "fingerprint": key.fingerprint,
            **vars(key),
            "quality": float(scores.per_sample.mean(dtype=np.float64)),
            "samples": int(scores.per_sample.size),
            "seconds": float(scores.seconds),
            "scores": zlib.compress(scores.per_sample.astype("<f4").tobytes(), _LEVEL),
        }
        self._database.write(partial(_put, self._upsert, row))

    def share(self, other: Pool) -> None:
        """Put everything into ``other`` that it has fewer samples of, or nothing.

        Raises
        ------
        HwdseError
            If either database is damaged or does not answer, or ``other`` may not be written to.
        """
        ours = self._database.read(partial(_all, sa.select(*_SIZE)))
        theirs = {row.fingerprint: row.samples for row in other._select(_SIZE, [row.fingerprint for row in ours])}
        missing = [
            row.fingerprint for row in ours if row.fingerprint not in theirs or row.samples != theirs[row.fingerprint]
        ]
        for some in parts(missing, _ROWS):
            found = self._select(list(_evaluations.c), some)
            for row in found:
                self._scores(row, str(row.bits))  # what is damaged is not passed on
            rows = [dict(row._mapping) for row in found]
            other._database.write(partial(_put, _upsert(other._database, rows), None))

    def __len__(self) -> int:
        count = sa.select(sa.func.count()).select_from(_evaluations)
        return self._database.read(lambda connection: int(connection.execute(count).scalar_one()))

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _select(self, columns: Sequence[sa.Column[Any]], addresses: Sequence[str]) -> list[sa.Row[Any]]:
        """Return these columns of the rows at ``addresses`` that are there."""
        rows: list[sa.Row[Any]] = []
        for some in parts(addresses, _ROWS):
            query = sa.select(*columns).where(_evaluations.c.fingerprint.in_(some))
            rows += self._database.read(partial(_all, query))
        return rows

    def _scores(self, row: sa.Row[Any], bits: str) -> Scores:
        """Return the scores in a row, checked: others may have written it."""
        try:
            return Scores(_unpacked(row.scores, int(row.samples)), float(row.seconds))
        except (zlib.error, ValueError, TypeError, OverflowError) as error:
            raise self._database.fault(f"the scores of {bits}", f"damaged ones ({error})") from error


def _upsert(database: Database, rows: Sequence[Mapping[str, object]] = ()) -> Insert:
    """Return one statement that inserts rows, or replaces those of fewer samples; without ``rows`` it takes one."""
    insert = database.insert(_evaluations)
    insert = insert.values(rows) if rows else insert
    changed = {name: insert.excluded[name] for name in ("quality", "samples", "seconds", "scores")}
    is_more = _evaluations.c.samples < insert.excluded.samples
    return insert.on_conflict_do_update(index_elements=["fingerprint"], set_=changed, where=is_more)


def _unpacked(packed: bytes, samples: int) -> NDArray[np.float32]:
    """Return so many compressed scores; no more than that is ever unpacked."""
    stream = zlib.decompressobj()
    values = np.frombuffer(stream.decompress(packed, max(4 * samples, 1)), dtype="<f4").astype(np.float32)
    if not stream.eof or values.size != samples:
        raise ValueError(f"not {samples} of them")
    if not (samples > 0 and np.isfinite(values).all()):
        raise ValueError("none, or some that are no numbers")
    return values


def _put(upsert: Insert, row: dict[str, object] | None, connection: sa.Connection) -> None:
    connection.execute(upsert, row)


def _all(query: sa.Select[Any], connection: sa.Connection) -> Sequence[sa.Row[Any]]:
    return connection.execute(query).all()


def _version(connection: sa.Connection) -> str | None:
    """Return the schema version of the tables."""
    version: str | None = connection.execute(sa.select(_about.c.value).where(_about.c.key == "schema")).scalar()
    return version


def _create(connection: sa.Connection) -> str | None:
    """Make the tables where there are none, and return their schema version."""
    _metadata.create_all(connection)
    if (version := _version(connection)) is not None:
        return version
    connection.execute(_about.insert().values(key="schema", value=str(SCHEMA_VERSION)))
    return str(SCHEMA_VERSION)
