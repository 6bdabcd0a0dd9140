"""The pool of finished evaluations, addressed by content.

One row per (network, data, scheme, recipe, configuration), inserted once the evaluation is finished and ignored where
it is there already, so writers need no coordination and a killed process loses only what was in flight.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from sqlalchemy.pool import NullPool, StaticPool

from hwdse.errors import RunFolderError
from hwdse.evaluate.evaluator import Scores
from hwdse.evaluate.fingerprint import fingerprint

__all__ = ["Key", "Pool"]

SCHEMA_VERSION = 1

_metadata = sa.MetaData()
_evaluations = sa.Table(
    "evaluations",
    _metadata,
    sa.Column("fingerprint", sa.String(32), primary_key=True),
    sa.Column("network", sa.String(32), nullable=False),
    sa.Column("data", sa.String(32), nullable=False),
    sa.Column("scheme", sa.String(120), nullable=False),
    sa.Column("recipe", sa.String(200), nullable=False),
    sa.Column("metric", sa.String(80), nullable=False),
    sa.Column("bits", sa.Text, nullable=False),
    sa.Column("quality", sa.Float, nullable=False),
    sa.Column("samples", sa.Integer, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("scores", sa.LargeBinary, nullable=False),
)
_about = sa.Table("about", _metadata, sa.Column("key", sa.String(40), primary_key=True), sa.Column("value", sa.Text))


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
    path
        SQLite file, created if absent; ``None`` keeps the pool in memory.

    Raises
    ------
    RunFolderError
        If the file is no pool, or one of another version.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        if path is None:
            self._engine = sa.create_engine("sqlite://", poolclass=StaticPool)
        else:
            # Not from text: a folder's name may hold characters that mean something in a URL.
            url = sa.URL.create("sqlite", database=str(path))
            self._engine = sa.create_engine(url, poolclass=NullPool)
        with self._connection() as connection:
            _metadata.create_all(connection)
            version = connection.execute(sa.select(_about.c.value).where(_about.c.key == "schema")).scalar()
            if version is None:
                connection.execute(_about.insert().values(key="schema", value=str(SCHEMA_VERSION)))
        if version not in (None, str(SCHEMA_VERSION)):
            raise RunFolderError(
                f"expected a pool of schema version {SCHEMA_VERSION} in {path}, got {version}; explore again into "
                "another folder"
            )

    @contextmanager
    def _connection(self) -> Iterator[sa.Connection]:
        """Yield a connection in a transaction; what the database cannot do becomes one sentence."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except sa.exc.DatabaseError as error:
            raise RunFolderError(
                f"expected a pool of evaluations in {self._path}, got: {error.orig}; restore the file, or explore "
                "again into another folder"
            ) from error

    def get(self, key: Key) -> Scores | None:
        """Return the scores kept under ``key``, if there are any.

        Raises
        ------
        RunFolderError
            If the database is damaged.
        """
        query = sa.select(_evaluations.c.scores, _evaluations.c.seconds).where(
            _evaluations.c.fingerprint == key.fingerprint
        )
        with self._connection() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        try:
            return Scores(np.frombuffer(zlib.decompress(row.scores), dtype="<f4").copy(), float(row.seconds))
        except (zlib.error, ValueError, TypeError) as error:
            raise RunFolderError(
                f"expected the scores of {key.bits} in {self._path}, got damaged ones ({error}); explore again into "
                "another folder"
            ) from error

    def put(self, key: Key, scores: Scores) -> None:
        """Keep a finished evaluation; one of as many samples or more that is there already is left as it is."""
        row: Mapping[str, object] = {
            "fingerprint": key.fingerprint,
            **vars(key),
            "quality": float(scores.per_sample.mean(dtype=np.float64)),
            "samples": int(scores.per_sample.size),
            "seconds": scores.seconds,
            "scores": zlib.compress(scores.per_sample.astype("<f4").tobytes(), 6),
        }
        with self._connection() as connection:
            fewer = (_evaluations.c.fingerprint == key.fingerprint) & (_evaluations.c.samples < row["samples"])
            connection.execute(_evaluations.delete().where(fewer))
            connection.execute(_evaluations.insert().prefix_with("OR IGNORE").values(**row))

    def __len__(self) -> int:
        with self._connection() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(_evaluations)).scalar_one())

    def close(self) -> None:
        """Close the database."""
        self._engine.dispose()
