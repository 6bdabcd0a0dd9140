"""What to measure next, from what was measured before.

Several configurations are under way at once, however many workers there are: which ones depends on the order of
choosing alone, so one worker or sixty find the same front.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwdse.search.propose import CARED_FOR
from hwdse.study.budget import Meter
from hwdse.study.chosen import Chosen
from hwdse.study.device import DeviceProblem, Genes
from hwdse.study.measure import SchemeState
from hwdse.threads import small_algebra

if TYPE_CHECKING:
    from hwdse.study import Study

__all__ = ["MOST_AHEAD", "Choice", "ahead", "choices"]

MOST_AHEAD = 8
_LEAST_AHEAD, _AHEAD_SHARE = 2, 8


@dataclass(frozen=True)
class Choice:
    """A configuration to measure under a scheme; with ``ceiling``, harm from which on it is hopeless.

    ``device`` chose it in its ``turn``; empty for a uniform precision. ``is_new`` unless an earlier session chose it.
    """

    state: SchemeState
    bits: str
    ceiling: float
    device: str = ""
    turn: int = 0
    is_new: bool = True

    def chosen(self, meter: Meter) -> Chosen:
        """Return what the run's record says of the choice."""
        tolerance = meter.budget.tolerance
        return Chosen(self.state.key, self.bits, self.device, self.turn, self.ceiling, meter.evaluations, tolerance)


def ahead(chosen: int) -> int:
    """Return how many configurations may be under way once ``chosen`` have been chosen before.

    The more is known, the less the next result changes what is asked after it.

    >>> [ahead(n) for n in (0, 16, 40, 1000)]
    [2, 2, 5, 8]
    """
    return min(MOST_AHEAD, max(_LEAST_AHEAD, chosen // _AHEAD_SHARE))


def choices(study: Study, earlier: Sequence[Chosen] = (), taken: int = 0) -> Iterator[Choice | None]:
    """Yield what to measure next: uniform precisions first, then each device's best proposal in turn.

    ``None`` asks for the next result before anything else can be chosen. What ``earlier`` sessions chose comes first,
    less the ``taken`` that are taken over already; what follows is as if there had been one session.
    """
    problems = {name: p for name, p in study.problems.items() if p.infeasible is None}
    yield from _again(study, earlier, taken)
    for problem in problems.values():
        state = study.state(problem)
        for genes in problem.uniforms().values():
            bits = problem.bits(genes)
            if bits not in state.measured and bits not in state.under_way:
                yield Choice(state, bits, math.inf)
    last = next((row for row in reversed(earlier) if row.device), None)
    while last is None and any(state.under_way for state in study.prepared.states.values()):
        yield None
    for name, problem in problems.items():
        _remember(study, name, problem, earlier)
    turn = 0 if last is None else last.turn
    active, waiting = _at_turn(list(problems), earlier, study.meter.budget.tolerance)
    while active:
        for name in waiting:
            problem = problems[name]
            state = study.state(problem)
            proposed = _proposal(study, problem, turn)
            while proposed is None and state.under_way:
                yield None
                proposed = _proposal(study, problem, turn)
            if proposed is None:
                active.remove(name)
            else:
                bits = problem.bits(proposed)
                yield Choice(state, bits, _ceiling(study, state, bits), name, turn)
        turn += 1
        waiting = list(active)


def _again(study: Study, earlier: Sequence[Chosen], taken: int) -> Iterator[Choice | None]:
    """Yield what earlier sessions chose and is not taken over, each when as much was known as then."""
    for row in earlier[taken:]:
        state = study.prepared.states[row.scheme]
        while study.meter.evaluations < row.settled and any(s.under_way for s in study.prepared.states.values()):
            yield None
        if row.bits not in state.measured and row.bits not in state.under_way:
            yield Choice(state, row.bits, row.ceiling, row.device, row.turn, is_new=False)


def _at_turn(names: list[str], earlier: Sequence[Chosen], tolerance: float) -> tuple[list[str], list[str]]:
    """Return the devices that are not done, and those of them that have not had their turn, after ``earlier`` choices.

    A device is done once it let a turn pass; with less tolerance than then none is.
    """
    last = next((row for row in reversed(earlier) if row.device), None)
    if last is None:
        return list(names), list(names)
    had = {row.device for row in earlier[-2 * len(names) :] if row.device and row.turn == last.turn}
    before = {row.device for row in earlier[-2 * len(names) :] if row.device and row.turn == last.turn - 1}
    place = names.index(last.device) + 1
    to_come = [name for name in names[place:] if last.turn == 0 or name in before or tolerance < last.tolerance]
    gone = [name for name in names[:place] if name in had or tolerance < last.tolerance]
    return gone + to_come, to_come


def _remember(study: Study, name: str, problem: DeviceProblem, earlier: Sequence[Chosen]) -> None:
    """Have the device's proposer know what it had learned when it last looked, in ``earlier`` sessions."""
    state = study.state(problem)
    key = state.key
    problem.learn(row.bits for row in earlier if row.scheme == key)
    begun: list[str] = []
    runnable = fresh_from = settled = at = 0
    for row in earlier:
        if row.scheme != key:
            continue
        if row.device == name and runnable and problem.proposer.is_stale(runnable, fresh_from):
            fresh_from, settled, at = runnable, row.settled, len(begun)
        begun.append(row.bits)
        runnable += problem.known(row.bits) is not None
    if fresh_from:
        measured = sum(row.scheme == key for row in earlier[:settled])
        with small_algebra():
            model, harms = state.past(measured, begun[measured:at]).expected()
            problem.proposer.refresh(problem.belief(model, harms))


def _ceiling(study: Study, state: SchemeState, bits: str) -> float:
    """Return the harm above which a configuration is on no front, from what was measured that costs no more."""
    ceiling = -math.inf
    drops = state.drops
    for problem in study.problems.values():
        known = problem.known(bits) if study.state(problem) is state else None
        if known is not None:
            columns = [problem.space.column(c) for c in problem.objectives]
            rows, metrics = problem.runnable(state.measured)
            cheaper = rows[(metrics[:, columns] <= known.metrics[columns]).all(axis=1)]
            ceiling = max(ceiling, float(drops[cheaper].min(initial=math.inf)))
    return ceiling


def _proposal(study: Study, problem: DeviceProblem, turn: int) -> Genes | None:
    """Return what ``problem`` wants measured next; ``None`` if nothing is left or nothing more is to be gained."""
    state = study.state(problem)
    worst = float(state.drops.max()) if state.measured else 0.0
    with small_algebra():
        model, harms = state.expected()
        belief = problem.belief(model, harms)
        proposal = problem.proposer.propose(belief, turn=turn, harm_reference=max(CARED_FOR * worst, 1e-9))
    if proposal is None or proposal.gain < study.meter.budget.tolerance:
        return None
    return proposal.genes
