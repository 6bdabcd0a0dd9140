"""Who evaluates configurations: this process, or workers."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import inf
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hwdse.evaluate.evaluator import Evaluator, Scores
from hwdse.evaluate.interval import paired_interval
from hwdse.graph import BitConfig
from hwdse.quantize.network import QuantizedNetwork

__all__ = ["Enough", "Executor", "Here", "Request"]

_FEWEST_SAMPLES = 64
_NO_DOUBT = 4.0
"""Standard errors: a configuration is looked at after every batch, and is hardly ever given up by mistake."""


@dataclass(frozen=True)
class Enough:
    """Says when so many samples were seen that a configuration is known to be hopeless.

    Attributes
    ----------
    reference
        Scores of full precision, ``(samples,)``.
    ceiling
        Harm from which on it is hopeless.
    may_count
        As in :func:`hwdse.evaluate.paired_interval`.
    """

    reference: NDArray[np.float32]
    ceiling: float
    may_count: bool

    def __call__(self, per_sample: NDArray[np.float32]) -> bool:
        """Return True if all samples were seen, or enough to know that the harm is above the ceiling."""
        if per_sample.size >= self.reference.size:
            return True
        if per_sample.size < _FEWEST_SAMPLES or self.ceiling == inf:
            return False
        drop = paired_interval(per_sample, self.reference[: per_sample.size], may_count=self.may_count)
        return drop.mean - _NO_DOUBT * drop.standard_error > self.ceiling


@dataclass(frozen=True)
class Request:
    """An evaluation that is wanted.

    Attributes
    ----------
    network
        A calibrated network.
    config
        Precision of every layer; ``None`` for full precision.
    is_enough
        Sees all scores so far after each batch and says whether the rest of the samples may be spared; ``None`` if not.
    """

    network: QuantizedNetwork
    config: BitConfig | None
    is_enough: Enough | None = None


class Executor(Protocol):
    """Evaluates what is requested, in whatever order."""

    @property
    def workers(self) -> int:
        """How many evaluations go on at once."""

    def expect(self, seconds: float) -> None:
        """Say how long an evaluation takes: who takes very much longer is stuck."""

    def begin(self, request: Request) -> int:
        """Have something evaluated, and return the number that its result will have."""

    def next_result(self) -> tuple[int, Scores]:
        """Return the number and the scores of an evaluation that is done; wait for one.

        Raises
        ------
        InputError
            As :meth:`hwdse.evaluate.Evaluator.score`.
        WorkerError
            If no worker can finish one.
        """

    def withdraw(self) -> list[int]:
        """Give up what was not begun, and return its numbers."""


class Here:
    """Evaluates in this process, one after another, each when its result is asked for.

    Parameters
    ----------
    evaluator
        Scores configurations.
    """

    workers = 1

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._waiting: deque[tuple[int, Request]] = deque()
        self._begun = 0

    def expect(self, seconds: float) -> None:
        """Nobody waits for this process but itself."""

    def begin(self, request: Request) -> int:
        """Keep a request until its result is asked for, and return its number."""
        self._begun += 1
        self._waiting.append((self._begun, request))
        return self._begun

    def next_result(self) -> tuple[int, Scores]:
        """Evaluate what waits longest."""
        number, request = self._waiting.popleft()
        return number, self._evaluator.score(request.network, request.config, is_enough=request.is_enough)

    def withdraw(self) -> list[int]:
        """Forget what waits, and return its numbers."""
        numbers = [number for number, _ in self._waiting]
        self._waiting.clear()
        return numbers
