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
    limits: Sequence[Limit] = (),
    evaluations: int = 0,
    exact: bool = False,
    tolerance: float = inf,
) -> SearchResult:
    """Return the front of ``genes`` ``(n, groups)`` within ``limits``, cheapest last objective first.

    If none of them is within the limits, and the limited metrics add up, integer programs settle it: what they find
    is returned, and what they cannot find is explained by their optima. Otherwise the explanation is the best among
    ``genes``.

    Raises
    ------
    InputError
        If an objective is unknown or a gene is not allowed.
    """
    columns = as_columns(space, objectives)
    metrics = space.evaluate(genes)
    if not within(space, limits, metrics).any() and all(space.is_additive(limit.column) for limit in limits):
        genes = np.concatenate([genes, _extremes(space, limits)])
        metrics = space.evaluate(genes)
    kept = np.flatnonzero(within(space, limits, metrics))
    if len(kept) == 0:
        infeasible = explain(limits, limited(space, limits, metrics), reach=space.reach())
        return SearchResult(
            np.empty((0, len(space.groups)), dtype=np.uint8), np.empty((0, len(columns))), evaluations, exact,
            0.0 if exact else tolerance, infeasible,
        )  # fmt: skip
    values = metrics[kept][:, columns]
    front = np.flatnonzero(non_dominated(values))
    front = front[np.lexsort(values[front].T)]
    return SearchResult(
        genes=np.asarray(genes)[kept[front]].astype(np.uint8),
        values=values[front],
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
