"""Steps of the loop that spends the budget: what was measured earlier, the next result, and writing it down."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from hwdse.parts import parts
from hwdse.progress import Progress
from hwdse.study.chosen import Chosen
from hwdse.study.fleet import FleetPlan
from hwdse.study.measure import Laboratory
from hwdse.study.noise import within_noise
from hwdse.study.record import Recorder
from hwdse.study.schedule import MOST_AHEAD

if TYPE_CHECKING:
    from hwdse.study import Study

__all__ = ["Writer", "settle", "take_over"]

_WRITE_EVERY_SECONDS = 2.0
_WRITING_SHARE = 0.05
"""Of the time, at most, that goes into writing."""


def take_over(
    study: Study, laboratory: Laboratory, earlier: Sequence[Chosen], plan: FleetPlan, progress: Progress
) -> int:
    """Take over what earlier sessions chose and measured, all at once, and return how much.

    The last ones are left: they go the usual way, after which as much is under way as was then.
    """
    taken = 0
    for some in parts(earlier[: max(len(earlier) - MOST_AHEAD, 0)], laboratory.at_once):
        asked = []
        for row in some:
            state = study.prepared.states.get(row.scheme)
            if state is None or plan.holds(state, row.bits):
                break
            asked.append((state, row.bits, row.ceiling))
        for seconds in (found := laboratory.take_over(asked)):
            study.meter.begin()
            study.meter.add(seconds, is_earlier=True)
            progress.advance()
        taken += len(found)
        if len(found) < len(some):
            break
    return taken


def settle(study: Study, laboratory: Laboratory, writer: Writer, progress: Progress) -> None:
    """Take over the next result; once time is up, only what is being computed."""
    if study.meter.is_late:
        laboratory.withdraw()
    if laboratory.under_way:
        seconds, was_there = laboratory.settle()
        study.meter.add(seconds, is_earlier=was_there)
        progress.advance()
        if not was_there:
            writer.write_at_times()


class Writer:
    """Writes what was found: at the first new evaluation, every other second, and when told to.

    A run that goes on has tables: its first new evaluation only starts the clock.
    """

    def __init__(
        self,
        study: Study,
        laboratory: Laboratory,
        recorder: Recorder,
        clock: Callable[[], float],
        *,
        goes_on: bool = False,
    ) -> None:
        self._study, self._laboratory, self._recorder, self._clock = study, laboratory, recorder, clock
        self._next = math.inf if goes_on else -math.inf
        self._beaten_by: dict[str, dict[str, str]] = {name: {} for name in study.problems}

    def write_at_times(self) -> None:
        """Write if that was long ago, and to a folder."""
        if not self._recorder.keeps:
            return
        if self._next == math.inf:
            self._next = self._clock() + _WRITE_EVERY_SECONDS
        elif self._clock() > self._next:
            started = time.perf_counter()
            self.write()
            took = time.perf_counter() - started
            self._next = self._clock() + max(_WRITE_EVERY_SECONDS, took / _WRITING_SHARE)

    def write(self) -> None:
        """Mark what is within noise of the fronts, and write everything."""
        study, laboratory = self._study, self._laboratory
        tables = {}
        for name, problem in study.problems.items():
            measured, state = study.measured(name), study.state(problem)
            near = within_noise(
                measured,
                partial(laboratory.scores, state),
                quality=study.prepared.quality,
                costs=problem.objectives,
                may_count=laboratory.may_count,
                beaten_by=self._beaten_by[name],
            )
            study.near_front[name] = frozenset(measured.loc[near, "bits"])
            tables[name] = measured.assign(within_noise=np.where(near, "yes", ""))
        self._recorder.write(study, tables)
