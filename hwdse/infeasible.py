"""Infeasible limits as a result: which limit, how far away, and what would have to change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN
from enum import StrEnum
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from hwdse.units import beside, rounded, with_unit

__all__ = ["Infeasible", "Limit", "Reason", "explain"]

GAP_DIGITS = 3


class Reason(StrEnum):
    """Why no configuration qualifies. The values say what was found."""

    EMPTY = "no configuration was measured"
    UNREACHABLE = "no configuration of the whole design space reaches it"
    UNMEASURED = "no configuration that is known reaches it"
    CONFLICT = "it can be reached alone, but not together with the other limits"


@dataclass(frozen=True)
class Limit:
    """A hard limit on one metric; meeting it exactly is enough.

    Attributes
    ----------
    name
        The user's word for the metric.
    column
        Column that holds it.
    sign
        1 for an upper limit, -1 for a lower one.
    value
        The bound.
    """

    name: str
    column: str
    sign: int
    value: float

    def is_met(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return a mask of the values that meet the limit; NaN does not.

        >>> Limit("latency_ms", "latency_ms", 1, 3.0).is_met(np.array([2.9, 3.0, 3.1])).tolist()
        [True, True, False]
        """
        return np.asarray(values <= self.value if self.sign > 0 else values >= self.value)

    def best(self, values: NDArray[np.float64]) -> float | None:
        """Return the value that is farthest on the allowed side; ``None`` of none."""
        finite = values[~np.isnan(values)]
        if finite.size == 0:
            return None
        return float(finite.min() if self.sign > 0 else finite.max())

    def __str__(self) -> str:
        return f"{self.name} {'<=' if self.sign > 0 else '>='} {with_unit(self.name, self.value)}"


@dataclass(frozen=True)
class Infeasible:
    """No configuration meets the limits: a result, not an error.

    Attributes
    ----------
    reason
        Which kind of infeasible.
    limit
        Name of the limit that cannot be met; ``None`` if there was no configuration at all.
    requested
        The bound asked for.
    best
        Best value that is reached without the other limits.
    best_with_others
        Best value that is reached while all other limits hold; ``None`` if those already exclude each other.
    gap
        How far ``best_with_others`` (or ``best``) is from the bound, positive.
    conflict
        Names of the smallest set of limits that exclude each other; one name if a limit fails alone.
    relaxations
        Limit name to the bound that makes everything feasible when only that limit is changed.
    levers
        Sentences: what would have to change.
    origin
        Where the bound comes from, as the end of "the bound ...".
    """

    reason: Reason
    limit: str | None = None
    requested: float | None = None
    best: float | None = None
    best_with_others: float | None = None
    gap: float | None = None
    conflict: tuple[str, ...] = ()
    relaxations: Mapping[str, float] = field(default_factory=dict)
    levers: tuple[str, ...] = ()
    origin: str = "was requested"

    def __str__(self) -> str:
        if self.limit is None or self.requested is None:
            return f"infeasible: {self.reason}. {self._advice()}".rstrip()
        head = f"infeasible: {self.limit} {with_unit(self.limit, self.requested)} {self.origin}; {self.reason}"
        if self.reason is Reason.CONFLICT:
            head += f" ({' and '.join(self.conflict)} exclude each other)"
        alone, joint = (
            None if value is None else with_unit(self.limit, beside(value, self.requested))
            for value in (self.best, self.best_with_others)
        )
        facts = [f"best alone {alone}"] if alone is not None else []
        if joint not in {None, alone}:
            facts.append(f"best under the other limits {joint}")
        if self.gap is not None:
            facts.append(f"gap {with_unit(self.limit, rounded(self.gap, GAP_DIGITS))}")
        return f"{head}: {', '.join(facts)}. {self._advice()}".rstrip()

    def _advice(self) -> str:
        """Return the levers as one sentence."""
        return f"To change that: {'; or '.join(self.levers)}." if self.levers else ""


def explain(
    limits: Sequence[Limit],
    values: NDArray[np.float64],
    *,
    reach: Mapping[str, float],
    labels: Sequence[str] = (),
) -> Infeasible:
    """Return why no row of ``values`` meets all ``limits``.

    Parameters
    ----------
    limits
        At least one, and no row meets all of them.
    values
        ``(n, limits)`` values of the limited metrics for every configuration that is known.
    reach
        Column to a bound that no configuration of the whole design space is better than.
    labels
        Name of each row, for the sentences; ``()`` leaves them out.
    """
    met = np.stack([limit.is_met(column) for limit, column in zip(limits, values.T, strict=True)], axis=1)
    beyond = [i for i, limit in enumerate(limits) if limit.column in reach and not _meets(limit, reach[limit.column])]
    alone = beyond or [i for i in range(len(limits)) if not met[:, i].any()]
    conflict = (alone[0],) if alone else _smallest_conflict(met)
    relaxed = {i: _relaxation(i, limits, values, met) for i in range(len(limits))}
    possible = {i: found for i, found in relaxed.items() if found is not None}
    # Of several limits in conflict, name the one that needs the smallest step.
    worst = (
        alone[0]
        if alone
        else min(conflict, key=lambda i: _step(limits[i], possible[i][0]) if i in possible else np.inf)
    )
    limit = limits[worst]
    known_best = limit.best(values[:, worst])
    best = reach[limit.column] if worst in beyond else known_best
    with_others = possible[worst][0] if worst in possible else None
    nearest = with_others if with_others is not None else best
    return Infeasible(
        reason=Reason.UNREACHABLE if beyond else Reason.UNMEASURED if alone else Reason.CONFLICT,
        limit=limit.name,
        requested=limit.value,
        best=best,
        best_with_others=with_others,
        gap=None if nearest is None else abs(nearest - limit.value),
        conflict=tuple(limits[i].name for i in conflict),
        relaxations={limits[i].name: found[0] for i, found in possible.items()},
        levers=_levers(
            limits, values, possible, labels, unmeasured=bool(alone) and not beyond, reach=reach, worst=worst
        ),
    )


def _meets(limit: Limit, value: float) -> bool:
    """Return whether one value meets the limit."""
    return bool(limit.is_met(np.array(value)))


def _step(limit: Limit, value: float) -> float:
    """Return how far the bound must move to ``value``, relative to the bound."""
    return abs(value - limit.value) / (abs(limit.value) or 1.0)


def _smallest_conflict(met: NDArray[np.bool_]) -> tuple[int, ...]:
    """Return the smallest set of limits (columns) that no row meets together."""
    every = range(met.shape[1])
    subsets = (subset for size in range(1, met.shape[1] + 1) for subset in combinations(every, size))
    return next(subset for subset in subsets if not met[:, subset].all(axis=1).any())


def _relaxation(
    which: int, limits: Sequence[Limit], values: NDArray[np.float64], met: NDArray[np.bool_]
) -> tuple[float, int] | None:
    """Return the bound that one limit needs while all others hold, and the row that has it; ``None`` if none does."""
    rows = np.flatnonzero(np.delete(met, which, axis=1).all(axis=1) & ~np.isnan(values[:, which]))
    if rows.size == 0:
        return None
    row = rows[(limits[which].sign * values[rows, which]).argmin()]
    return float(values[row, which]), int(row)


def _levers(
    limits: Sequence[Limit],
    values: NDArray[np.float64],
    possible: Mapping[int, tuple[float, int]],
    labels: Sequence[str],
    *,
    unmeasured: bool,
    reach: Mapping[str, float],
    worst: int,
) -> tuple[str, ...]:
    """Return the sentences that say what would have to change."""
    order = sorted(possible, key=lambda i: _step(limits[i], possible[i][0]))
    levers = [f"{_move(limits[i], possible[i][0])}{_by(labels, possible[i][1])}" for i in order]
    if not levers:
        levers = _joint_lever(limits, values, labels)
    bound = reach.get(limits[worst].column)
    if unmeasured:
        until = "" if bound is None else f", the design space does not go beyond {_text(limits[worst], bound)}"
        levers.append(f"measure more configurations (raise the budget){until}")
    elif bound is not None and not _meets(limits[worst], bound):
        levers.append("let more layers choose from more precisions, or use another device")
    return tuple(levers)


def _joint_lever(limits: Sequence[Limit], values: NDArray[np.float64], labels: Sequence[str]) -> list[str]:
    """Return the lever that moves several limits at once, to the row whose largest relative violation is smallest."""
    bounds = np.array([limit.value for limit in limits])
    signs = np.array([limit.sign for limit in limits])
    excess = np.maximum(signs * (values - bounds), 0.0) / np.where(bounds == 0, 1.0, np.abs(bounds))
    worst = np.where(np.isnan(excess), np.inf, excess).max(axis=1, initial=0.0)
    if not np.isfinite(worst).any():
        return []
    row = int(worst.argmin())
    moves = [_move(limits[i], float(values[row, i])) for i in range(len(limits)) if excess[row, i] > 0]
    return [f"{' and '.join(moves)} together{_by(labels, row)}"]


def _move(limit: Limit, value: float) -> str:
    """Return a sentence that moves a bound to ``value``, rounded to the side that still admits it."""
    rounding = ROUND_CEILING if limit.sign > 0 else ROUND_FLOOR
    verb = "raise" if value > limit.value else "lower"
    return f"{verb} {limit.name} from {with_unit('', limit.value)} to {_text(limit, value, rounding)}"


def _text(limit: Limit, value: float, rounding: str = ROUND_HALF_EVEN) -> str:
    """Return a value of the limited metric beside the bound, with its unit."""
    return with_unit(limit.name, beside(value, limit.value, rounding))


def _by(labels: Sequence[str], row: int) -> str:
    """Return the name of the row in brackets, where rows have names."""
    return f" (configuration {labels[row]})" if labels else ""
