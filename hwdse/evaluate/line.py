"""A connection to PostgreSQL that is given up where no answer comes: a dead line may acknowledge what is sent."""

from __future__ import annotations

from collections.abc import Generator
from time import monotonic
from typing import Any, TypeVar

import psycopg

__all__ = ["ANSWER_SECONDS", "Line"]

Result = TypeVar("Result")

ANSWER_SECONDS = 20.0
"""Within which an answer comes, or the connection counts as lost."""


class Line(psycopg.Connection[Any]):
    """A connection on which nothing is waited for longer than :data:`ANSWER_SECONDS`."""

    def wait(self, gen: Generator[Any, Any, Result], *arguments: Any, **options: Any) -> Result:
        """Return what an exchange with the server gives.

        Raises
        ------
        psycopg.OperationalError
            If it gives nothing in time; the connection is closed then.
        """
        return super().wait(self._in_time(gen), *arguments, **options)

    def _in_time(self, gen: Generator[Any, Any, Result]) -> Generator[Any, Any, Result]:
        """Pass everything on between an exchange and who waits for the socket, and look at the clock where it idles."""
        deadline = monotonic() + ANSWER_SECONDS
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and monotonic() > deadline:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"no answer within {ANSWER_SECONDS:g} s")
                wanted = gen.send(ready)
        except StopIteration as end:
            result: Result = end.value
            return result
