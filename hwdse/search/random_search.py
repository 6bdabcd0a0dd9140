"""Random configurations: the baseline that every other searcher has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hwdse.pareto import non_dominated
from hwdse.search.collect import collect
from hwdse.search.evaluations import Evaluations
from hwdse.search.limits import limited, within
from hwdse.search.protocol import Measure, SearchResult
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
    measure: Measure | None = None,
) -> SearchResult:
    """Return the front of uniformly drawn configurations; see :class:`~hwdse.search.protocol.Searcher`.

    A space no larger than the budget is evaluated whole. Otherwise look-ups count draws, which may repeat, and
    measurements different configurations.

    Raises
    ------
    InputError
        If ``evaluations`` is not positive, a metric is unknown, or the measure gives no finite numbers.
    """
    known = Evaluations(space, objectives, limits=limits, budget=evaluations, measure=measure)
    if (result := known.without_search()) is not None:
        return result
    if measure is None:
        return _looked_up(space, objectives, known, evaluations, rng, initial)
    known.metrics(known.start(initial))
    while known.left:
        known.metrics(known.fresh(space.random(known.left, rng)))
    return known.result()


def _looked_up(
    space: DesignSpace,
    objectives: Sequence[str],
    known: Evaluations,
    evaluations: int,
    rng: np.random.Generator,
    initial: NDArray[np.integer] | None,
) -> SearchResult:
    """Return the front of ``evaluations`` draws, block by block, so that only what is still of use is held."""
    best = space.random(0, rng) if initial is None else np.asarray(initial)[:evaluations]
    for done in range(len(best), evaluations, BLOCK):
        best = np.concatenate([best, space.random(min(BLOCK, evaluations - done), rng)])
        metrics = space.evaluate(best)
        met = within(space, known.limits, metrics)
        if met.any():
            best, metrics = best[met], metrics[met]
            best = best[non_dominated(metrics[:, known.columns])]
        else:  # what comes nearest to the limits tells how far away they are
            best = best[non_dominated(limited(space, known.limits, metrics))]
    return collect(space, objectives, best, limits=known.limits, evaluations=evaluations)
