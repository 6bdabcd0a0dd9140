"""From genes to a search result: limits, dominance, and why nothing is left."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import inf

import numpy as np
from numpy.typing import NDArray

from hwdse.infeasible import Infeasible, Limit, explain
from hwdse.pareto import non_dominated
from hwdse.search.integer_program import cheapest
from hwdse.search.limits import as_columns, limited, within
from hwdse.search.protocol import SearchResult
from hwdse.space import DesignSpace

__all__ = ["collect", "explain_limits"]


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

    Raises
    ------
    InputError
        If an objective is unknown or a gene is not allowed.
    """
    columns = as_columns(space, objectives)
    metrics = space.evaluate(genes)
    kept = np.flatnonzero(within(space, limits, metrics))
    infeasible = None if len(kept) else explain_limits(space, limits, tried=limited(space, limits, metrics))
    values = metrics[kept][:, columns]
    front = np.flatnonzero(non_dominated(values)) if len(kept) else np.empty(0, dtype=np.int64)
    front = front[np.lexsort(values[front].T)]
    return SearchResult(
        genes=np.asarray(genes)[kept[front]].astype(np.uint8),
        values=values[front],
        evaluations=evaluations,
        exact=exact,
        tolerance=0.0 if exact else tolerance,
        infeasible=infeasible,
    )


def explain_limits(
    space: DesignSpace, limits: Sequence[Limit], *, tried: NDArray[np.float64] | None = None
) -> Infeasible:
    """Return why no configuration meets ``limits``.

    Where the limited metrics add up, the best values and relaxations are optima of integer programs. Otherwise they
    are the best among ``tried``, the limited metrics ``(n, limits)`` of the configurations that were evaluated.
    """
    known = np.empty((0, len(limits))) if tried is None else tried
    if all(space.is_additive(limit.column) for limit in limits):
        genes = _extremes(space, limits)
        known = np.concatenate([known, limited(space, limits, space.evaluate(genes))])
    return explain(limits, known, reach=space.reach())


def _extremes(space: DesignSpace, limits: Sequence[Limit]) -> NDArray[np.uint8]:
    """Return configurations ``(n, groups)``: the lowest in each limited metric within every set of the others."""
    found = []
    for i, limit in enumerate(limits):
        others = [*limits[:i], *limits[i + 1 :]]
        for size in range(len(limits)):
            optima = (cheapest(space, limit.column, subset) for subset in combinations(others, size))
            found += [genes for genes in optima if genes is not None]
    return np.array(found, dtype=np.uint8).reshape(-1, len(space.groups))
