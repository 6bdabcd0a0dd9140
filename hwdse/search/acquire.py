"""What a measurement promises: the hypervolume that it is expected to add to a measured front [Emmerich2006]_."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hwdse.pareto import non_dominated
from hwdse.search.surrogate import Expectation

__all__ = ["expected_improvement", "expected_joint_improvement", "improvement", "spread_points"]

Floats = NDArray[np.float64]


def improvement(points: Floats, front: Floats, reference: Floats) -> Floats:
    """Return the area that each of ``points`` ``(n, 2)`` would add to what ``front`` ``(m, 2)`` dominates.

    Both objectives are minimised; only the area below ``reference`` ``(2,)`` counts.

    >>> improvement(np.array([[0.5, 0.5]]), np.zeros((0, 2)), np.array([1.0, 1.0])).tolist()
    [0.25]
    """
    return _area(points[:, 0], lambda ceilings: np.clip(ceilings - points[:, 1:], 0.0, None), front, reference)


def expected_improvement(costs: Floats, harms: Expectation, front: Floats, reference: Floats) -> Floats:
    """Return the area that configurations are expected to add to what ``front`` dominates, ``(n,)``; exact.

    Parameters
    ----------
    costs
        First objective, known, ``(n,)``.
    harms
        Second objective, uncertain.
    front
        Measured ``(m, 2)``: cost and harm.
    reference
        ``(2,)``: only the area below it counts.
    """
    return _area(costs, harms.shortfall, front, reference)


def expected_joint_improvement(
    costs: Floats, harms: Expectation, known: Floats, known_harms: Floats, *, reference: float, places: Floats
) -> Floats:
    """Return the hypervolume that configurations are expected to add over several costs, ``(n,)``, in units of harm.

    At every place among the costs a front has a ceiling, the least harm that was measured for no more; a configuration
    that costs no more than the place lowers it by the expected shortfall. The mean over places that fill a box is the
    hypervolume as a share of the box of the costs, exact in harm.

    Parameters
    ----------
    costs
        ``(n, k)``, known.
    harms
        Uncertain, of the same configurations.
    known, known_harms
        What was measured: ``(m, k)`` and ``(m,)``.
    reference
        Harm beyond which nothing counts.
    places
        ``(p, k)``, for instance from :func:`spread_points`.
    """
    best = non_dominated(np.column_stack([known_harms, known])) if len(known) else np.zeros(0, dtype=bool)
    known, known_harms = known[best], known_harms[best]
    reached = (known[None] <= places[:, None]).all(axis=2)
    ceilings = np.where(reached, np.minimum(known_harms, reference), reference).min(axis=1, initial=reference)
    levels = np.unique(ceilings)
    at_level = (ceilings[:, None] == levels).astype(np.float64)
    inside = (costs[:, None] <= places[None]).all(axis=2)
    counts = inside.astype(np.float64) @ at_level
    lowered: Floats = (harms.shortfall(levels) * counts).sum(axis=1) / len(places)
    return lowered


def spread_points(count: int, dimensions: int, rng: np.random.Generator) -> Floats:
    """Return ``(count, dimensions)`` points that fill the unit cube evenly, shifted at random.

    A Kronecker sequence: the multiples of the powers of the root of ``x^(d+1) = x + 1``, less their whole parts.
    """
    root = 2.0
    for _ in range(60):
        root = (1.0 + root) ** (1.0 / (dimensions + 1))
    steps = root ** -np.arange(1.0, dimensions + 1)
    points: Floats = (rng.random(dimensions) + np.arange(count)[:, None] * steps) % 1.0
    return points


def _area(costs: Floats, heights: Callable[[Floats], Floats], front: Floats, reference: Floats) -> Floats:
    """Return the sum over the front's strips of a strip's width right of ``costs`` times the ``heights`` below it."""
    front = front[(front < reference).all(axis=1)]
    front = front[non_dominated(front)] if len(front) else front
    front = front[np.argsort(front[:, 0])]
    starts = np.concatenate([[-np.inf], front[:, 0]])
    ends = np.concatenate([front[:, 0], [reference[0]]])
    ceilings = np.minimum(np.concatenate([[reference[1]], front[:, 1]]), reference[1])
    width = np.clip(ends - np.maximum(starts, costs[:, None]), 0.0, None)
    area: Floats = (width * heights(ceilings)).sum(axis=1)
    return area
