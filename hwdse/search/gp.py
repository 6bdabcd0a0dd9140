"""Gaussian processes and expected hypervolume improvement [Daulton2020]_, from Optuna."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.samplers import GPSampler

from hwdse.search.protocol import Measure, SearchResult
from hwdse.search.suggestions import follow
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
    """Return all non-dominated configurations that the processes chose; see :class:`~hwdse.search.protocol.Searcher`.

    One process per objective and limit is fitted for every suggestion, which takes a second for tens of groups and more
    as results add up: for a hundred measured configurations or so. Configurations are not repeated, and a space no
    larger than the budget is evaluated whole.

    Raises
    ------
    InputError
        If ``evaluations`` is not positive, a metric is unknown, or the measure gives no finite numbers.
    """
    return follow(
        lambda seed: GPSampler(seed=seed),
        space,
        objectives,
        limits=limits,
        evaluations=evaluations,
        rng=rng,
        initial=initial,
        measure=measure,
    )
