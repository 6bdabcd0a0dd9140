"""What a measurement promises: the hypervolume that it is expected to add to a measured front."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hwdse.pareto import non_dominated
from hwdse.search.surrogate import Expectation

__all__ = ["expected_improvement", "improvement"]

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
