"""One optimum under several limits: a one-hot integer program over additive metrics, solved by HiGHS."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, milp
from scipy.sparse import csr_array

from hwdse.errors import InputError
from hwdse.infeasible import Limit
from hwdse.search.limits import within
from hwdse.space import DesignSpace

__all__ = ["cheapest", "metric_span", "require_additive"]

SPAN = 1e4  # every row is scaled to this range, so that the solver's absolute tolerance of 1e-6 is 1e-10 of it
CUTS = 8  # configurations refused one by one before the limits are tightened instead
OPTIMAL, INFEASIBLE = 0, 2


def require_additive(space: DesignSpace, metrics: Sequence[str]) -> None:
    """Check that every metric is a plain sum over groups.

    Raises
    ------
    InputError
        If one is not, or is unknown.
    """
    for name in metrics:
        if not space.is_additive(name):
            kind = "a maximum over sets" if name in space.peaks else "costs between pairs of groups"
            raise InputError(f"expected metrics that add up over groups, got {name} with {kind}; use nsga2")


def cheapest(space: DesignSpace, metric: str, limits: Sequence[Limit] = ()) -> NDArray[np.uint8] | None:
    """Return genes ``(groups,)`` of the smallest ``metric`` within upper limits; ``None`` if nothing is within.

    The solver works to about 1e-10 of the range of a metric. A solution that exceeds a limit by less than that is cut
    off and the program solved again, so that limits are hard. Where there are many such (equal sums that rounding
    splits), the limits are tightened instead, from 1e-9 of the range on, until the solution meets them.

    Raises
    ------
    InputError
        If a metric does not add up over groups, or the solver stops without an answer.
    """
    require_additive(space, [metric, *(limit.column for limit in limits)])
    groups, candidates = np.nonzero(space.allowed)
    one_each = csr_array((np.ones(len(groups)), (groups, np.arange(len(groups)))))
    rows = [_scaled_row(space, limit) for limit in limits]
    objective, _ = _scaled(space, metric)
    refused: list[NDArray[np.float64]] = []
    while True:
        constraints = [LinearConstraint(one_each, 1, 1)]
        tighter = 0.0 if len(refused) <= CUTS else 1e-9 * SPAN * 10.0 ** (len(refused) - CUTS - 1)
        constraints += [LinearConstraint(row, -np.inf, bound - tighter) for row, bound in rows]
        constraints += [LinearConstraint(cut[None], -np.inf, len(space.groups) - 1) for cut in refused[:CUTS]]
        result = _solve(objective, constraints)
        if result.status == INFEASIBLE:
            return None
        if result.status != OPTIMAL:
            raise InputError(f"expected the integer program over {metric} to be solved, got: {result.message}")
        chosen = np.asarray(result.x) > 0.5
        genes = candidates[chosen].astype(np.uint8)  # entries are sorted by group, one per group is chosen
        if within(space, limits, space.evaluate(genes[None]))[0]:
            return genes
        refused.append(chosen.astype(np.float64))


def _solve(objective: NDArray[np.float64], constraints: list[LinearConstraint]) -> OptimizeResult:
    """Return the solver's result.

    Presolve is the second choice only: with it HiGHS called 16 of 6,000 programs infeasible that enumeration solved,
    those with a limit 1e-8 of the range beside a solution; without it none, in about 1.5 times the time.
    """
    for presolve in (False, True):
        result = milp(
            objective,
            integrality=np.ones(len(objective), dtype=np.int64),
            bounds=Bounds(0, 1),
            constraints=constraints,
            options={"mip_rel_gap": 0.0, "presolve": presolve},
        )
        if result.status in (OPTIMAL, INFEASIBLE):
            break
    return result


def metric_span(space: DesignSpace, metric: str) -> float:
    """Return the largest value of an additive metric less the smallest."""
    costs = space.unary[..., space.column(metric)]
    high, low = (np.where(space.allowed, costs, bound) for bound in (-np.inf, np.inf))
    return float((high.max(axis=1) - low.min(axis=1)).sum())


def _scaled(space: DesignSpace, metric: str) -> tuple[NDArray[np.float64], float]:
    """Return the coefficients of allowed entries above each group's minimum, scaled to SPAN in all, and that scale."""
    costs = np.where(space.allowed, space.unary[..., space.column(metric)], np.inf)
    costs -= costs.min(axis=1, keepdims=True)
    span = metric_span(space, metric)
    scale = SPAN / span if span > 0 else 1.0
    return costs[space.allowed] * scale, scale


def _scaled_row(space: DesignSpace, limit: Limit) -> tuple[NDArray[np.float64], float]:
    """Return the scaled coefficients of a limit and their scaled bound."""
    row, scale = _scaled(space, limit.column)
    bound = (limit.value - space.reach()[limit.column]) * scale
    # At the smallest value itself, rounding must not make the bound negative.
    return row[None], 0.0 if -1e-9 * SPAN < bound < 0 else min(bound, 2 * SPAN)
