"""From genes to a search result: limits, dominance, and why nothing is left."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import inf

import numpy as np
from numpy.typing import NDArray

from hwdse.infeasible import Limit, explain
from hwdse.pareto import non_dominated
from hwdse.search.integer_program import cheapest
from hwdse.search.limits import as_columns, limited, within
from hwdse.search.protocol import SearchResult
from hwdse.space import DesignSpace

__all__ = ["collect"]


def collect(
    space: DesignSpace,
    objectives: Sequence[str],
    genes: NDArray[np.integer],
    *,
    metrics: NDArray[np.float64] | None = None,
    limits: Sequence[Limit] = (),
    evaluations: int = 0,
    exact: bool = False,
    tolerance: float = inf,
) -> SearchResult:
    """Return the front of ``genes`` ``(n, groups)`` within ``limits``, cheapest last objective first.

    If none of them is within the limits, and the limited metrics add up or ``exact`` is claimed, integer programs
    settle it: what they find is returned, and what they cannot find is explained by their optima. Otherwise the
    explanation is the best among ``genes``.

    Parameters
    ----------
    metrics
        ``(n, metrics)`` with a measured first objective; ``None`` looks everything up. Programs know nothing of what
        is measured, so then only ``genes`` count.

    Raises
    ------
    InputError
        If an objective is unknown or a gene is not allowed.
    """
    columns = as_columns(space, objectives)
    measured = metrics is not None
    values = space.evaluate(genes) if metrics is None else metrics
    whole = len(genes) == space.size
    solvable = not measured and (exact or all(space.is_additive(limit.column) for limit in limits))
    if solvable and not whole and not within(space, limits, values).any():
        genes = np.concatenate([genes, _extremes(space, limits)])
        values = space.evaluate(genes)
    kept = np.flatnonzero(within(space, limits, values))
    if len(kept) == 0:
        known = limited(space, limits, values)
        reach = space.reach()
        if measured:
            del reach[objectives[0]]
        if solvable or whole:  # then the best that is known is the best there is
            reach |= {limit.column: float(best) for limit, best in zip(limits, known.min(axis=0), strict=True)}
        return SearchResult(
            np.empty((0, len(space.groups)), dtype=np.uint8), np.empty((0, len(columns))), evaluations, exact,
            0.0 if exact else tolerance, explain(limits, known, reach=reach),
        )  # fmt: skip
    points = values[kept][:, columns]
    front = np.flatnonzero(non_dominated(points))
    front = front[np.lexsort(points[front].T)]
    return SearchResult(
        genes=np.asarray(genes)[kept[front]].astype(np.uint8),
        values=points[front],
        evaluations=evaluations,
        exact=exact,
        tolerance=0.0 if exact else tolerance,
    )


def _extremes(space: DesignSpace, limits: Sequence[Limit]) -> NDArray[np.uint8]:
    """Return configurations ``(n, groups)``: the lowest in each limited metric within every set of the others."""
    found = []
    for i, limit in enumerate(limits):
        others = [*limits[:i], *limits[i + 1 :]]
        for size in range(len(limits)):
            optima = (cheapest(space, limit.column, subset) for subset in combinations(others, size))
            found += [genes for genes in optima if genes is not None]
    return np.array(found, dtype=np.uint8).reshape(-1, len(space.groups))
