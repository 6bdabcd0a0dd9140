"""Simulated annealing [Kirkpatrick1983]_ over random weights of the objectives: a baseline that knows no front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hwdse.search.evaluations import Evaluations
from hwdse.search.neighbours import random_neighbours
from hwdse.search.protocol import Measure, SearchResult
from hwdse.space import DesignSpace

__all__ = ["search"]

STEPS = 100  # of each chain, with its own weights: the budget decides how many chains there are
LARGEST = 100  # chains; beyond it they take more steps
SCALE = 10  # configurations at least that the range of the objectives is taken from
HOT, COLD = 0.1, 1e-3  # temperatures at both ends, in ranges of the weighted sum
PENALTY = 10.0  # for exceeding a limit by all of it, in the same ranges


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
    """Return all non-dominated configurations that annealing met; see :class:`~hwdse.search.protocol.Searcher`.

    Every chain minimises the objectives under its own random weights, each objective in units of its range at the
    start; a step changes one group. A configuration met again is not evaluated again; what that leaves of the budget
    goes to further rounds, from random configurations and with new weights. A space no larger than the budget is
    evaluated whole.

    Raises
    ------
    InputError
        If ``evaluations`` is not positive, a metric is unknown, or the measure gives no finite numbers.
    """
    known = Evaluations(space, objectives, limits=limits, budget=evaluations, measure=measure)
    if (result := known.without_search()) is not None:
        return result
    chains = min(max(evaluations // STEPS, 1), LARGEST)
    begin = np.concatenate([known.start(initial), space.random(max(chains, SCALE), rng)])
    begin = known.fresh(begin)[: known.left]
    values = known.metrics(begin)[:, known.columns]
    low, span = values.min(axis=0), np.ptp(values, axis=0)
    span[span == 0] = 1.0
    here = begin[:chains]
    while known.left:
        weights = rng.dirichlet(np.ones(len(known.columns)), size=len(here)) / span
        _anneal(space, known, here, low, weights, rng)
        here = space.random(min(chains, known.left), rng)
    return known.result()


def _anneal(
    space: DesignSpace,
    known: Evaluations,
    here: NDArray[np.uint8],
    low: NDArray[np.float64],
    weights: NDArray[np.float64],
    rng: np.random.Generator,
) -> None:
    """Move the chains ``here`` ``(chains, groups)`` from hot to cold, one step for each of the budget's rest."""

    def energy(genes: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the weighted sums ``(n,)`` of the first ``n`` chains at ``genes``, with what they exceed."""
        metrics = known.metrics(genes)
        weighted = weights[: len(genes)] * (metrics[:, known.columns] - low)
        return np.asarray(weighted.sum(axis=1) + PENALTY * np.maximum(known.excess(metrics), 0.0).sum(axis=1))

    now = energy(here)
    steps = -(-known.left // len(here))
    for temperature in np.geomspace(HOT, COLD, steps):
        moving = slice(min(len(here), known.left))
        there = random_neighbours(space, here[moving], rng)
        new = energy(there)
        worse = np.maximum(new - now[moving], 0.0)
        accepted = np.flatnonzero(rng.random(len(there)) < np.exp(-worse / temperature))
        here[accepted], now[accepted] = there[accepted], new[accepted]
