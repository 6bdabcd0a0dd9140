"""NSGA-II [Deb2002]_ over candidate indices, seeded from the Lagrangian hull and the uniform configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga2 import NSGA2

from hwdse.search.genetic import evolve
from hwdse.search.protocol import Measure, SearchResult
from hwdse.space import DesignSpace

__all__ = ["search"]


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
    """Return all non-dominated configurations that NSGA-II met; see :class:`~hwdse.search.protocol.Searcher`.

    No configuration is evaluated twice, and a space no larger than the budget is evaluated whole. Limits are
    constraints; only configurations within them are returned.

    Raises
    ------
    InputError
        If ``evaluations`` is not positive, a metric is unknown, or the measure gives no finite numbers.
    """
    return evolve(
        NSGA2,
        space,
        objectives,
        limits=limits,
        evaluations=evaluations,
        rng=rng,
        initial=initial,
        measure=measure,
    )
