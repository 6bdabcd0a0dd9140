"""Greedy walks from the least harm to the least cost, one group at a time.

The published list [Pandey2023]_ sorts all (group, candidate) pairs by harm alone and applies them in that order. The
walk by harm per cost saved looks at the costs too, and at what has been chosen so far.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hwdse.errors import InputError
from hwdse.search.collect import collect
from hwdse.search.hull import additive_part
from hwdse.search.limits import as_columns, as_limits
from hwdse.search.protocol import Measure, SearchResult, refuse_measure
from hwdse.space import DesignSpace

__all__ = ["Order", "last_meeting", "search", "search_by_sensitivity", "walk"]

Order = Literal["harm_per_cost", "sensitivity"]


def search(
    space: DesignSpace,
    objectives: Sequence[str],
    *,
    limits: Mapping[str, float] | None = None,
    evaluations: int = 0,
    rng: np.random.Generator | None = None,
    initial: NDArray[np.integer] | None = None,
    measure: Measure | None = None,
    order: Order = "harm_per_cost",
) -> SearchResult:
    """Return the non-dominated points of a greedy walk; see :class:`~hwdse.search.protocol.Searcher`.

    The first objective is the harm, the others are costs. ``evaluations``, ``rng`` and ``initial`` are not needed.

    Parameters
    ----------
    order
        ``harm_per_cost`` takes the step with the least harm per cost saved from where it stands, all terms
        counted; ``sensitivity`` is the published list, which ignores cost.

    Raises
    ------
    InputError
        If there are fewer than two objectives, a metric or the order is unknown, or a measure is given.
    """
    del evaluations, rng, initial  # part of every searcher's signature; the walk follows from the tables
    refuse_measure(measure, "greedy")
    bounds = as_limits(space, limits)
    genes, evaluated = walk(space, objectives, order=order)
    return collect(space, objectives, genes, limits=bounds, evaluations=evaluated)


def search_by_sensitivity(
    space: DesignSpace,
    objectives: Sequence[str],
    *,
    limits: Mapping[str, float] | None = None,
    evaluations: int = 0,
    rng: np.random.Generator | None = None,
    initial: NDArray[np.integer] | None = None,
    measure: Measure | None = None,
) -> SearchResult:
    """Return the non-dominated points of the published list, :func:`search` with ``order="sensitivity"``."""
    return search(
        space,
        objectives,
        limits=limits,
        evaluations=evaluations,
        rng=rng,
        initial=initial,
        measure=measure,
        order="sensitivity",
    )


def walk(space: DesignSpace, objectives: Sequence[str], *, order: Order) -> tuple[NDArray[np.uint8], int]:
    """Return every point of the walk ``(points, groups)`` in order, and how many configurations were evaluated.

    Raises
    ------
    InputError
        If there are fewer than two objectives, a metric is unknown, or the order is.
    """
    columns = as_columns(space, objectives)
    if len(columns) < 2:
        raise InputError(f"expected a harm and at least 1 cost as objectives, got {', '.join(objectives)}")
    if order == "harm_per_cost":
        return _by_harm_per_cost(space, columns)
    if order == "sensitivity":
        genes = _by_sensitivity(space, columns)
        return genes, len(genes)
    raise InputError(f"expected the order harm_per_cost or sensitivity, got {order!r}")


def _least_harm(space: DesignSpace, columns: Sequence[int]) -> NDArray[np.uint8]:
    """Return the genes ``(groups,)`` of the least harm, of equal ones the cheapest."""
    costs = additive_part(space, columns)
    return np.asarray(np.lexsort(costs.T[::-1], axis=0)[0], dtype=np.uint8)


def _by_harm_per_cost(space: DesignSpace, columns: Sequence[int]) -> tuple[NDArray[np.uint8], int]:
    """Return the walk that takes the cheapest step in harm per cost saved, and the configurations evaluated.

    Several costs are added up, each as a share of its largest single-group saving at the start.
    """
    here = _least_harm(space, columns)
    groups, candidates = np.nonzero(space.allowed)
    path, evaluated, scale = [here], 1, None
    values = space.evaluate(here[None])[0, list(columns)]
    while True:
        moves = np.repeat(here[None], len(groups), axis=0)
        moves[np.arange(len(groups)), groups] = candidates
        after = space.evaluate(moves)[:, list(columns)]
        evaluated += len(moves)
        if scale is None:
            scale = np.abs(after[:, 1:] - values[1:]).max(axis=0)
            scale[scale == 0] = 1.0
        saved = ((values[1:] - after[:, 1:]) / scale).sum(axis=1)
        useful = saved > 1e-12  # less is rounding, and could walk in circles
        if not useful.any():
            return np.array(path), evaluated
        price = np.full(len(moves), inf)
        price[useful] = (after[useful, 0] - values[0]) / saved[useful]
        best = int(price.argmin())
        here, values = moves[best], after[best]
        path.append(here)


def _by_sensitivity(space: DesignSpace, columns: Sequence[int]) -> NDArray[np.uint8]:
    """Return the published walk: pairs by ascending harm, then more bits first, then the earlier group first.

    A pair is skipped where its group already has fewer bits: harm that does not fall with the bits would otherwise
    raise a group again.
    """
    harms = additive_part(space, columns)[..., 0]
    bits = np.array([p.weights.bits + p.activations.bits for p in space.candidates])
    here = _least_harm(space, columns)
    groups, candidates = np.nonzero(space.allowed)
    path = [here]
    for k in np.lexsort((groups, -bits[candidates], harms[groups, candidates])):
        g, c = groups[k], candidates[k]
        if c != here[g] and bits[c] <= bits[here[g]]:
            here = here.copy()
            here[g] = c
            path.append(here)
    return np.array(path)


def last_meeting(
    quality: Callable[[int], float], count: int, target: float, *, method: Literal["binary", "interpolation"] = "binary"
) -> int | None:
    """Return the last point of a walk whose quality is at least ``target``; ``None`` if the first one is below.

    Assumes that quality falls along the walk, and measures few points: about ``log2(count)`` by ``binary`` search.
    ``interpolation`` guesses from the qualities at both ends, which is faster where they fall evenly.

    Parameters
    ----------
    quality
        Measures one point, ``0 <= k < count``; called at most once per point.
    count
        Points of the walk, at least 1.
    target
        Smallest acceptable quality.

    Raises
    ------
    InputError
        If there is no point.

    >>> last_meeting(lambda k: 90.0 - k, 60, 75.5)
    14
    """
    if count < 1:
        raise InputError(f"expected at least 1 point (count) to search, got {count}")
    low, low_quality = 0, quality(0)
    if low_quality < target:
        return None
    if count == 1:
        return low
    high, high_quality = count - 1, quality(count - 1)
    if high_quality >= target:
        return high
    while high - low > 1:
        share = 0.5 if method == "binary" else (low_quality - target) / (low_quality - high_quality)
        middle = min(max(low + int((high - low) * share), low + 1), high - 1)
        found = quality(middle)
        if found >= target:
            low, low_quality = middle, found
        else:
            high, high_quality = middle, found
    return low
