"""Random configurations: the baseline that every other searcher has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hwdse.errors import InputError
from hwdse.pareto import non_dominated
from hwdse.search.collect import collect
from hwdse.search.limits import as_columns, as_limits, limited, within
from hwdse.search.protocol import SearchResult
from hwdse.space import DesignSpace

__all__ = ["search"]

BLOCK = 100_000


def search(
    space: DesignSpace,
    objectives: Sequence[str],
    *,
    limits: Mapping[str, float] | None = None,
    evaluations: int = 0,
    rng: np.random.Generator,
    initial: NDArray[np.integer] | None = None,
) -> SearchResult:
    """Return the front of uniformly drawn configurations; see :class:`~hwdse.search.protocol.Searcher`.

    Raises
    ------
    InputError
        If ``evaluations`` is not positive, or a metric is unknown.
    """
    columns, bounds = as_columns(space, objectives), as_limits(space, limits)
    if evaluations < 1:
        raise InputError(f"expected at least 1 evaluation, got {evaluations}; set the budget")
    start = space.random(0, rng) if initial is None else np.asarray(initial)[:evaluations]
    best = start
    for done in range(len(start), evaluations, BLOCK):
        best = np.concatenate([best, space.random(min(BLOCK, evaluations - done), rng)])
        metrics = space.evaluate(best)
        met = within(space, bounds, metrics)
        if met.any():
            best, metrics = best[met], metrics[met]
            best = best[non_dominated(metrics[:, columns])]
        else:  # what comes nearest to the limits tells how far away they are
            best = best[non_dominated(limited(space, bounds, metrics))]
    return collect(space, objectives, best, limits=bounds, evaluations=evaluations)
