"""How much may be measured, and how much was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

from hwdse.errors import InputError

__all__ = ["Budget", "Meter"]


@dataclass(frozen=True)
class Budget:
    """Limits of an exploration; whichever is reached first ends it.

    Attributes
    ----------
    evaluations
        Measured configurations, over all devices together.
    seconds
        Time from the start of the exploration, with what earlier sessions of a resumed run spent on evaluations;
        ``None`` for no limit.
    tolerance
        A device is done once no configuration is expected to add more than this share of the box below the reference
        to its front of quality and any one cost; 0 to spend the whole budget.
    """

    evaluations: int = 100
    seconds: float | None = None
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if self.evaluations < 1:
            raise InputError(f"expected a budget of at least 1 evaluation, got {self.evaluations}")
        if self.seconds is not None and not (self.seconds > 0 and isfinite(self.seconds)):
            raise InputError(f"expected a budget of more than 0 seconds, a finite number, got {self.seconds}")
        if not 0.0 <= self.tolerance < 1.0:
            raise InputError(f"expected a tolerance from 0 to 1, got {self.tolerance}")


class Meter:
    """Keeps account of a budget.

    Parameters
    ----------
    budget
        What may be spent.
    clock
        Seconds.
    """

    def __init__(self, budget: Budget, clock: Callable[[], float]) -> None:
        self.budget = budget
        self.evaluations = 0
        self._clock = clock
        self._started = clock()
        self._stopped: float | None = None
        self._earlier_seconds = 0.0
        self._longest_seconds = 0.0

    def add(self, seconds: float, *, is_earlier: bool) -> None:
        """Count one evaluation that took ``seconds``, in this session or in an earlier one."""
        self.evaluations += 1
        self._longest_seconds = max(self._longest_seconds, seconds)
        if is_earlier:
            self._earlier_seconds += seconds

    def stop(self) -> None:
        """Stop the clock: what comes now is not measuring."""
        self._stopped = self._clock()

    @property
    def seconds(self) -> float:
        """Seconds spent, until the clock was stopped."""
        now = self._clock() if self._stopped is None else self._stopped
        return now - self._started + self._earlier_seconds

    @property
    def is_spent(self) -> bool:
        """True if another evaluation would exceed the budget."""
        if self.evaluations >= self.budget.evaluations:
            return True
        return self.budget.seconds is not None and self.seconds + self._longest_seconds > self.budget.seconds
