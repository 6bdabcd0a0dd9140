"""Times of single calls on a machine that others load too: many short samples, separated passes, the best of them.

One call per sample, because a sample of many calls spans slices of the scheduler; the minimum and the tenth
percentile, because the mean and the median follow the load; and a reference kernel before every entry, because a
processor that changed its clock makes all entries slower at once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from hwdse.errors import InputError

__all__ = ["Call", "Harness", "Timing", "pinned", "reference_kernel"]

Call = Callable[[], object]
"""One call of what is timed."""

FEWEST_SAMPLES = 5
REFERENCE_SAMPLES = 20
REFERENCE_VALUES = 4096


@dataclass(frozen=True)
class Timing:
    """How long one call takes.

    Attributes
    ----------
    minimum_us, p10_us
        Smallest sample of all passes, and the smallest tenth percentile of a pass.
    count, passes
        Samples of all passes, and how many passes there were.
    spread
        How far the minima of the two fastest passes lie apart, as a share of the faster one.
    drift
        How much slower the reference kernel was than its best in the run when the fastest pass was taken, as a share.
    is_stable
        True if both are within the tolerance.
    """

    minimum_us: float
    p10_us: float
    count: int
    passes: int
    spread: float
    drift: float
    is_stable: bool


@dataclass(frozen=True)
class _Pass:
    minimum_us: float
    p10_us: float
    count: int
    reference_us: float


def reference_kernel() -> Call:
    """Return a fixed piece of work of some tens of microseconds on one core, which never leaves its cache."""
    source = np.linspace(-1.0, 1.0, REFERENCE_VALUES)
    result = np.empty_like(source)

    def call() -> None:
        np.exp(source, out=result)
        np.sqrt(result, out=result)

    return call


@dataclass
class Harness:
    """Times calls in separated passes and repeats those that do not agree.

    Attributes
    ----------
    seconds_per_pass
        How long one entry is sampled in one pass.
    passes, most_passes
        Passes over all entries, and at most for an entry whose passes disagree.
    tolerance
        Largest spread and drift of a stable entry.
    clock
        Nanoseconds that only grow.
    reference
        Work that shows whether the whole machine became slower.
    """

    seconds_per_pass: float = 0.05
    passes: int = 2
    most_passes: int = 6
    tolerance: float = 0.03
    clock: Callable[[], int] = time.perf_counter_ns
    reference: Call = field(default_factory=reference_kernel)
    _best_reference_us: float = field(default=float("inf"), init=False)

    def time(self, calls: Sequence[Call], *, on_pass: Callable[[], None] = lambda: None) -> list[Timing]:
        """Return the timing of each call.

        Parameters
        ----------
        calls
            Are timed one after the other in every pass, so that the passes of one call lie apart.
        on_pass
            Called after each of the first ``passes`` passes of each call.
        """
        taken: list[list[_Pass]] = [[] for _ in calls]
        for _ in range(self.passes):
            for call, own in zip(calls, taken, strict=True):
                own.append(self._pass(call))
                on_pass()
        for _ in range(self.most_passes - self.passes):
            unstable = [i for i, own in enumerate(taken) if not self._timing(own).is_stable]
            for i in unstable:
                taken[i].append(self._pass(calls[i]))
        return [self._timing(own) for own in taken]

    def _pass(self, call: Call) -> _Pass:
        """Return one pass: the reference, one call to warm up, then samples until the time is over."""
        reference = [self._sample(self.reference) for _ in range(REFERENCE_SAMPLES)]
        self._best_reference_us = min(self._best_reference_us, *reference)
        call()
        end = self.clock() + round(self.seconds_per_pass * 1e9)
        samples: list[float] = []
        while len(samples) < FEWEST_SAMPLES or self.clock() < end:
            samples.append(self._sample(call))
        return _Pass(min(samples), float(np.percentile(samples, 10)), len(samples), min(reference))

    def _sample(self, call: Call) -> float:
        """Return the microseconds of one call."""
        start = self.clock()
        call()
        return (self.clock() - start) * 1e-3

    def _timing(self, passes: Sequence[_Pass]) -> Timing:
        """Return what the passes of one call say together."""
        ranked = sorted(passes, key=lambda one: one.minimum_us)
        fastest = ranked[0]
        second = ranked[1] if len(ranked) > 1 else fastest
        spread = second.minimum_us / fastest.minimum_us - 1 if fastest.minimum_us > 0 else 0.0
        drift = fastest.reference_us / self._best_reference_us - 1
        return Timing(
            minimum_us=fastest.minimum_us,
            p10_us=min(one.p10_us for one in passes),
            count=sum(one.count for one in passes),
            passes=len(passes),
            spread=spread,
            drift=drift,
            is_stable=spread <= self.tolerance and drift <= self.tolerance,
        )


@contextmanager
def pinned(threads: int) -> Iterator[tuple[int, ...]]:
    """Keep this thread, and those it starts, on ``threads`` cores while the context lasts; yield their numbers.

    Where the system cannot do that, nothing happens and no number is given.

    Raises
    ------
    InputError
        If ``threads`` is below 1, or the process may use fewer cores.
    """
    if threads < 1:
        raise InputError(f"expected at least 1 thread, got {threads}; correct --threads")
    if not hasattr(os, "sched_setaffinity"):
        yield ()
        return
    before = os.sched_getaffinity(0)
    if threads > len(before):
        raise InputError(f"expected at most {len(before)} threads (cores of this process), got {threads}")
    cores = tuple(sorted(before)[-threads:])  # the first cores serve most interrupts
    os.sched_setaffinity(0, cores)
    try:
        yield cores
    finally:
        os.sched_setaffinity(0, before)
