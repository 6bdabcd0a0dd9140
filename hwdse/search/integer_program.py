"""One optimum under several limits: a one-hot integer program over the tables, solved by HiGHS.

A choice is a binary variable. What two groups cost together has a variable per pair of their choices, tied to both
by its row and column sums, so that it is 0 or 1 wherever the choices are [Sherali1990]_. A largest of several sums is
limited by limiting every one of them, and minimised as a further variable that none of them exceeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, milp
from scipy.sparse import csr_array, vstack

from hwdse.errors import InputError
from hwdse.infeasible import Limit
from hwdse.search.limits import within
from hwdse.space import DesignSpace

__all__ = ["cheapest", "least_largest", "metric_span"]

SPAN = 1e4  # every metric is scaled to this range, so that the solver's absolute tolerance of 1e-6 is 1e-10 of it
CUTS = 8  # configurations refused one by one before the limits are tightened instead
OPTIMAL, INFEASIBLE = 0, 2

Vector = NDArray[np.float64]


def cheapest(space: DesignSpace, metric: str, limits: Sequence[Limit] = ()) -> NDArray[np.uint8] | None:
    """Return genes ``(groups,)`` of the smallest ``metric`` within upper limits; ``None`` if nothing is within.

    Raises
    ------
    InputError
        If a metric is unknown, or the solver stops without an answer.
    """

    def meets(genes: NDArray[np.uint8]) -> bool:
        return bool(within(space, limits, space.evaluate(genes[None]))[0])

    return least_largest(space, [metric], limits, meets=meets)


def least_largest(
    space: DesignSpace, metrics: Sequence[str], limits: Sequence[Limit], *, meets: Callable[[NDArray[np.uint8]], bool]
) -> NDArray[np.uint8] | None:
    """Return genes ``(groups,)`` whose largest of several metrics is smallest; ``None`` if nothing is within limits.

    The solver works to about 1e-10 of the range of a metric. A solution that exceeds a limit by less than that, which
    ``meets`` says, is cut off and the program solved again, so that limits are hard. Where there are many such (equal
    sums that rounding splits), the limits are tightened instead, from 1e-9 of the range on, until the solution meets
    them.

    Raises
    ------
    InputError
        If a metric is unknown, or the solver stops without an answer.
    """
    choices = _Choices.of(space, metrics, [limit.column for limit in limits])
    objective, largest = choices.objective(_Sums.largest([_Sums.of(choices, metric) for metric in metrics]))
    rows = [_Sums.of(choices, limit.column).within(limit.value) for limit in limits]
    refused: list[Vector] = []
    while True:
        tighter = 0.0 if len(refused) <= CUTS else 1e-9 * SPAN * 10.0 ** (len(refused) - CUTS - 1)
        constraints = [*choices.constraints(), *largest]
        constraints += [LinearConstraint(row, -np.inf, bound - tighter) for row, bound in rows]
        constraints += [LinearConstraint(cut[None], -np.inf, len(space.groups) - 1) for cut in refused[:CUTS]]
        result = _solve(objective, choices.integrality, choices.bounds, constraints)
        if result.status == INFEASIBLE:
            return None
        if result.status != OPTIMAL:
            named = " and ".join(metrics)
            raise InputError(f"expected the integer program over {named} to be solved, got: {result.message}")
        chosen = np.asarray(result.x)[: len(choices.candidates)] > 0.5
        genes = choices.candidates[chosen].astype(np.uint8)  # entries are sorted by group, one per group is chosen
        if meets(genes):
            return genes
        cut = np.zeros(len(objective))
        cut[: len(chosen)] = chosen
        refused.append(cut)


def metric_span(space: DesignSpace, metric: str) -> float:
    """Return the largest value of a metric less the smallest, every term for itself: at least the true range."""
    return _Sums.of(_Choices.of(space, [metric]), metric).span


def _solve(
    objective: Vector, integrality: NDArray[np.int64], bounds: Bounds, constraints: list[LinearConstraint]
) -> OptimizeResult:
    """Return the solver's result.

    Presolve is the second choice only: with it HiGHS called 16 of 6,000 programs infeasible that enumeration solved,
    those with a limit 1e-8 of the range beside a solution; without it none, in about 1.5 times the time.
    """
    for presolve in (False, True):
        result = milp(
            objective,
            integrality=integrality,
            bounds=bounds,
            constraints=constraints,
            options={"mip_rel_gap": 0.0, "presolve": presolve},
        )
        if result.status in (OPTIMAL, INFEASIBLE):
            break
    return result


@dataclass(frozen=True, eq=False)
class _Choices:
    """The variables: allowed entries, then allowed pairs of the edges that matter, then a largest sum to minimise.

    ``groups`` and ``candidates`` are ``(entries,)``; ``edges`` are row numbers of the space's edges, each with its
    pairs of candidates ``(pairs, 2)``; ``peak`` says whether there is a largest sum.
    """

    space: DesignSpace
    groups: NDArray[np.intp]
    candidates: NDArray[np.intp]
    edges: tuple[int, ...]
    pairs: tuple[NDArray[np.intp], ...]
    peak: bool

    @classmethod
    def of(cls, space: DesignSpace, metrics: Sequence[str], limited: Sequence[str] = ()) -> _Choices:
        """Return the variables that decide the metrics to minimise the largest of, and those that are limited."""
        columns = [space.column(name) for name in (*metrics, *limited)]
        groups, candidates = np.nonzero(space.allowed)
        edges = tuple(int(e) for e in np.flatnonzero(space.pairwise[..., columns].any(axis=(1, 2, 3))))
        pairs = tuple(
            np.argwhere(space.allowed[a][:, None] & space.allowed[b][None]) for a, b in space.edges[list(edges)]
        )
        peak = len(metrics) > 1 or metrics[0] in space.peaks
        return cls(space, groups, candidates, edges, pairs, peak)

    @property
    def size(self) -> int:
        """Number of variables."""
        return len(self.groups) + sum(map(len, self.pairs)) + self.peak

    @property
    def integrality(self) -> NDArray[np.int64]:
        """1 for choices and pairs.

        Pairs follow from the choices, but told so, HiGHS solves a linear program after the fact, prints that it does,
        and loses solutions whose limit is 1e-9 of the range away.
        """
        kinds = np.ones(self.size, dtype=np.int64)
        if self.peak:
            kinds[-1] = 0
        return kinds

    @property
    def bounds(self) -> Bounds:
        """Choices and pairs are 0 to 1, the largest sum is free."""
        low, high = np.zeros(self.size), np.ones(self.size)
        if self.peak:
            low[-1], high[-1] = -np.inf, np.inf
        return Bounds(low, high)

    def constraints(self) -> list[LinearConstraint]:
        """Return that every group chooses once, and that pairs agree with the choices at both ends."""
        entries = len(self.groups)
        row_of = np.full(self.space.allowed.shape, -1)
        row_of[self.groups, self.candidates] = np.arange(entries)
        one_each = csr_array((np.ones(entries), (self.groups, np.arange(entries))), shape=(len(row_of), self.size))
        agree = []
        start = entries
        for (a, b), pairs in zip(self.space.edges[list(self.edges)], self.pairs, strict=True):
            variables = np.arange(start, start + len(pairs))
            for group, own in ((a, pairs[:, 0]), (b, pairs[:, 1])):
                chosen, row = np.unique(own, return_inverse=True)
                sums = csr_array((np.ones(len(pairs)), (row, variables)), shape=(len(chosen), self.size))
                column = row_of[group, chosen]
                agree.append(
                    sums - csr_array((np.ones(len(chosen)), (np.arange(len(chosen)), column)), shape=sums.shape)
                )
            start += len(pairs)
        ties = [LinearConstraint(vstack(agree, format="csr"), 0, 0)] if agree else []
        return [LinearConstraint(one_each, 1, 1), *ties]

    def objective(self, sums: _Sums) -> tuple[Vector, list[LinearConstraint]]:
        """Return coefficients to minimise, and the constraints that make the last variable the largest of several."""
        if not self.peak:
            return sums.rows[0], []
        largest = np.zeros(self.size)
        largest[-1] = 1.0
        beyond = (sums.low.max() - sums.low) * sums.scale
        return largest, [LinearConstraint(csr_array(sums.rows - largest), -np.inf, beyond)]


@dataclass(frozen=True, eq=False)
class _Sums:
    """A metric as the largest of sums, one where it is a plain sum.

    ``rows`` ``(sums, variables)`` are scaled and count from each term's minimum; ``low`` ``(sums,)`` is what these
    minima add up to, and ``scale`` makes SPAN of ``span``, the widest sum's range.
    """

    rows: NDArray[np.float64]
    low: Vector
    span: float
    scale: float

    @classmethod
    def of(cls, choices: _Choices, metric: str) -> _Sums:
        """Return the sums of a metric."""
        space, column = choices.space, choices.space.column(metric)
        terms, constant = space.unary[None, ..., column], np.zeros(1)
        if metric in space.peaks:
            terms, constant = terms + space.peaks[metric].terms, space.peaks[metric].constant
        least = np.where(space.allowed, terms, np.inf).min(axis=2)
        most = np.where(space.allowed, terms, -np.inf).max(axis=2)
        low, span = constant + least.sum(axis=1) + space.constant[column], (most - least).sum(axis=1)
        parts = [terms[:, choices.groups, choices.candidates] - least[:, choices.groups]]
        for edge, pairs in zip(choices.edges, choices.pairs, strict=True):
            costs = space.pairwise[edge, pairs[:, 0], pairs[:, 1], column]
            parts.append(np.tile(costs - costs.min(), (len(terms), 1)))
            low, span = low + costs.min(), span + np.ptp(costs)
        widest = float(span.max())
        scale = SPAN / widest if widest > 0 else 1.0
        rows = np.concatenate([*parts, np.zeros((len(terms), int(choices.peak)))], axis=1) * scale
        return cls(rows, low, widest, scale)

    @classmethod
    def largest(cls, sums: Sequence[_Sums]) -> _Sums:
        """Return the sums of several metrics as those of one, whose value is the largest of them."""
        span = max(each.span for each in sums)
        scale = SPAN / span if span > 0 else 1.0
        rows = np.concatenate([each.rows * (scale / each.scale) for each in sums])
        return cls(rows, np.concatenate([each.low for each in sums]), span, scale)

    def within(self, limit: float) -> tuple[csr_array, Vector]:
        """Return the rows and bounds ``(sums,)`` of an upper limit."""
        bounds = (limit - self.low) * self.scale
        # At the smallest value itself, rounding must not make a bound negative.
        rounding = (bounds < 0) & (bounds > -1e-9 * SPAN)
        return csr_array(self.rows), np.where(rounding, 0.0, np.minimum(bounds, 2 * SPAN))
