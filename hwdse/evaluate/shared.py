"""A study's own pool before one that others share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from hwdse.evaluate.evaluator import Scores
from hwdse.evaluate.pool import Key, Pool

__all__ = ["Evaluations", "SharedPool"]


class Evaluations(Protocol):
    """Where finished evaluations are kept."""

    def get(self, key: Key) -> Scores | None:
        """Return the scores kept under ``key``, if there are any."""

    def get_many(self, keys: Iterable[Key]) -> dict[Key, Scores]:
        """Return the scores kept under each of ``keys`` that there are any under."""

    def put(self, key: Key, scores: Scores) -> None:
        """Keep a finished evaluation."""


class SharedPool:
    """A study's own pool, which goes to a shared one for what it does not have and passes on what it gets.

    All that a study saw is in its own pool: its folder says everything without the server, a resumed run repeats its
    choices whatever others have measured since, and nothing is lost while the server is away.

    Parameters
    ----------
    own
        What it holds that the shared one does not is passed on at once.
    shared
        Only asked, if it is read-only.
    """

    def __init__(self, own: Pool, shared: Pool) -> None:
        self._own = own
        self._shared = shared
        if not shared.is_read_only:
            own.share(shared)

    def get(self, key: Key) -> Scores | None:
        """Return the scores kept under ``key`` in either pool, if there are any."""
        return self.get_many([key]).get(key)

    def get_many(self, keys: Iterable[Key]) -> dict[Key, Scores]:
        """Return the scores kept under each of ``keys`` in either pool; those of other studies are kept here, too."""
        wanted = list(keys)
        found = self._own.get_many(wanted)
        theirs = self._shared.get_many([key for key in wanted if key not in found])
        for key, scores in theirs.items():
            self._own.put(key, scores)
        return found | theirs

    def put(self, key: Key, scores: Scores) -> None:
        """Keep a finished evaluation in both pools, in the study's own one first."""
        self._own.put(key, scores)
        if not self._shared.is_read_only:
            self._shared.put(key, scores)
