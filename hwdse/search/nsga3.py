"""NSGA-III [Deb2014]_ over candidate indices, whose survivors spread along reference directions."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga3 import NSGA3
from pymoo.core.population import Population
from pymoo.operators.selection.tournament import TournamentSelection
from pymoo.util.ref_dirs import get_reference_directions

from hwdse.errors import InputError
from hwdse.search.genetic import evolve
from hwdse.search.protocol import Measure, SearchResult
from hwdse.space import DesignSpace

__all__ = ["search"]

MOST = 5  # objectives; with more, a lattice of directions leaves its inside empty


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
    """Return all non-dominated configurations that NSGA-III met; see :class:`~hwdse.search.protocol.Searcher`.

    Seeds, operators and what is evaluated are those of :mod:`hwdse.search.nsga2`. The reference directions are the
    largest regular lattice [Das1998]_ that is no larger than the population.

    Raises
    ------
    InputError
        If there are not two to five objectives, ``evaluations`` is not positive, a metric is unknown, or the measure
        gives no finite numbers.
    """
    if not 2 <= len(objectives) <= MOST:
        raise InputError(f"expected 2 to {MOST} objectives, got {len(objectives)}; use nsga2")
    with warnings.catch_warnings():  # pymoo switches all warnings off for good
        return evolve(
            partial(_algorithm, len(objectives)),
            space,
            objectives,
            limits=limits,
            evaluations=evaluations,
            rng=rng,
            initial=initial,
            measure=measure,
        )


def _algorithm(objectives: int, pop_size: int, **operators: Any) -> NSGA3:
    """Return the algorithm with one reference direction per member of its population, or a few less."""
    parts = 1
    while comb(parts + objectives, objectives - 1) <= pop_size:
        parts += 1
    directions = get_reference_directions("das-dennis", objectives, n_partitions=parts)
    return NSGA3(directions, pop_size=pop_size, selection=TournamentSelection(func_comp=_least_violating), **operators)


def _least_violating(
    population: Population, pairs: NDArray[np.intp], *, random_state: np.random.Generator, **_: Any
) -> NDArray[np.intp]:
    """Return the winners ``(n, 1)`` of ``pairs`` ``(n, 2)``: whichever exceeds its limits less, else either."""
    violation = population.get("CV")[:, 0][pairs]
    either = random_state.integers(0, 2, len(pairs))
    winner = np.where(violation[:, 0] == violation[:, 1], either, violation.argmin(axis=1))
    return pairs[np.arange(len(pairs)), winner][:, None]
