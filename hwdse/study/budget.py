"""How much may be measured, and how much was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

from hwdse.errors import InputError

__all__ = ["Budget", "Meter", "steady"]


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


def steady(clock: Callable[[], float]) -> Callable[[], float]:
    """Return ``clock`` as it goes on where it jumps back: seconds since the first call.

    >>> times = iter([100.0, 103.0, 40.0, 42.0])
    >>> now = steady(lambda: next(times))
    >>> now(), now(), now()
    (3.0, 3.0, 5.0)
    """
    last, passed = clock(), 0.0

    def now() -> float:
        nonlocal last, passed
        time = clock()
        passed += max(time - last, 0.0)
        last = time
        return passed

    return now


class Meter:
    """Keeps account of a budget.

    Parameters
    ----------
    budget
        What may be spent.
    clock
        Seconds.
    workers
        How many evaluations went on at once in earlier sessions, as far as is known: as many as now.

    Attributes
    ----------
    begun, evaluations
        How many evaluations were begun, and how many of them are finished.
    earlier
        How many of these were finished in earlier sessions.
    """

    def __init__(self, budget: Budget, clock: Callable[[], float], *, workers: int = 1) -> None:
        self.budget = budget
        self.evaluations = self.earlier = 0
        self.begun = 0
        self._clock, self._workers = clock, workers
        self._started = clock()
        self._stopped: float | None = None
        self._earlier_seconds = 0.0
        self._longest_seconds = 0.0

    def begin(self) -> None:
        """Count one evaluation that is under way from now on."""
        self.begun += 1

    def add(self, seconds: float, *, is_earlier: bool) -> None:
        """Count one evaluation that took ``seconds``, in this session or in an earlier one."""
        self.evaluations += 1
        self._longest_seconds = max(self._longest_seconds, seconds)
        if is_earlier:
            self.earlier += 1
            self._earlier_seconds += seconds / self._workers

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
        return max(self.begun, self.evaluations) >= self.budget.evaluations or self.is_late

    @property
    def is_late(self) -> bool:
        """True if another evaluation would exceed the budget's seconds."""
        return self.budget.seconds is not None and self.seconds + self._longest_seconds > self.budget.seconds
