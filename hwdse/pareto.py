"""Pure functions on sets of points, every objective minimised: dominance, hypervolume, knee, epsilon, spread.

Points are ``(n, m)`` float arrays: ``n`` configurations, ``m`` objectives. A point dominates another if it is nowhere
larger and somewhere smaller. Negate an objective that is maximised.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwdse.errors import InputError

__all__ = [
    "additive_epsilon",
    "crowding",
    "epsilon_non_dominated",
    "hypervolume",
    "knee",
    "non_dominated",
    "select_spread",
]

BLOCK = 512  # points compared at once: keeps the comparison matrix in cache


def non_dominated(points: ArrayLike) -> NDArray[np.bool_]:
    """Return a mask ``(n,)`` of the points that no other point dominates; of equal points the first is kept.

    Two objectives take ``O(n log n)``; more take ``O(n f)`` with ``f`` the size of the front.

    Raises
    ------
    InputError
        If ``points`` is not an ``(n, m)`` array of numbers, or holds NaN.

    >>> non_dominated([[1, 2], [2, 1], [2, 2], [1, 2]]).tolist()
    [True, True, False, False]
    """
    p = _as_points(points)
    # Lexicographic order is stable and puts every point behind the points that dominate it and its first copy.
    order = np.lexsort(p.T[::-1])
    ordered = p[order]
    keep = _first_front_2d(ordered[:, 1]) if p.shape[1] == 2 else _first_front(ordered)
    mask = np.zeros(len(p), dtype=bool)
    mask[order[keep]] = True
    return mask


def _first_front_2d(second: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return a mask ``(n,)`` of the front, given the second objective in lexicographic order of both."""
    keep = np.ones(len(second), dtype=bool)
    keep[1:] = second[1:] < np.minimum.accumulate(second)[:-1]
    return keep


def _first_front(ordered: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return a mask ``(n,)`` of the front of points in lexicographic order, block by block against the front so far."""
    n, m = ordered.shape
    keep = np.zeros(n, dtype=bool)
    columns = np.empty((m, 0))  # the front so far, one row per objective
    for start in range(0, n, BLOCK):
        block = ordered[start : start + BLOCK].T
        alive = ~_weakly_dominated(block, columns)
        candidates = block[:, alive]
        # A point is covered by an earlier one of the block, never by a later one: only the lower triangle counts.
        covered = np.ones((candidates.shape[1],) * 2, dtype=bool)
        for row in candidates[1:]:
            covered &= row[None, :] <= row[:, None]
        fresh = ~np.tril(covered, -1).any(axis=1)
        keep[start : start + BLOCK][alive] = fresh
        columns = np.concatenate([columns, candidates[:, fresh]], axis=1)
    return keep


def _weakly_dominated(block: NDArray[np.float64], front: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return a mask ``(b,)`` of columns of ``block`` that a column of ``front`` equals or dominates.

    Every column of ``front`` comes before those of ``block`` in lexicographic order, so objective 0 is known to hold.
    """
    covered = np.ones((block.shape[1], front.shape[1]), dtype=bool)
    for ours, theirs in zip(block[1:], front[1:], strict=True):
        covered &= theirs[None, :] <= ours[:, None]
    return np.asarray(covered.any(axis=1))


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Return the volume that ``points`` dominate below ``reference``, exactly, in any dimension.

    Points that are not below the reference in every objective contribute nothing. One and two objectives are closed
    forms; more go by the exclusive volumes of [While2012]_, one dimension less at a time.

    Raises
    ------
    InputError
        If ``points`` is not ``(n, m)``, holds NaN or minus infinity, or ``reference`` is not ``(m,)`` and finite.

    >>> round(hypervolume([[0.2, 0.8], [0.5, 0.4], [0.9, 0.1]], (1, 1)), 12)
    0.39
    """
    p = _as_points(points)
    if np.isneginf(p).any():
        raise InputError("expected points bounded below, got minus infinity, whose hypervolume is infinite; remove it")
    r = np.asarray(reference, dtype=np.float64)
    if r.shape != (p.shape[1],):
        raise InputError(
            f"expected a reference of shape ({p.shape[1]},) (i.e. (objectives,)), got shape {r.shape}; "
            "give one number per objective"
        )
    if not np.isfinite(r).all():
        raise InputError(f"expected a finite reference, got {r.tolist()}; use the nadir times 1.05 or so")
    return _volume(r - p[(p < r).all(axis=1)])


def _volume(sides: NDArray[np.float64]) -> float:
    """Return the volume of a union of boxes ``(n, m)`` that share the corner 0, given by their positive sides."""
    n, m = sides.shape
    if n == 0:
        return 0.0
    if m == 1:
        return float(sides.max())
    if m == 2:
        longest_first = sides[np.argsort(-sides[:, 0], kind="stable")]
        heights = np.maximum.accumulate(longest_first[:, 1])
        return float(longest_first[:, 0] @ np.diff(heights, prepend=0.0))
    total = 0.0
    ordered = sides[np.argsort(-sides[:, -1], kind="stable")]
    for k, box in enumerate(ordered):
        # All boxes before this one are at least as long in the last dimension: there, the overlap is this box's side.
        overlap = np.minimum(ordered[:k, :-1], box[:-1])
        exclusive = float(box[:-1].prod()) - _volume(overlap[non_dominated(-overlap)])
        total += float(box[-1]) * exclusive
    return total


def knee(points: ArrayLike) -> int:
    """Return the index of the knee: the smallest sum of objectives, each scaled to 0..1 over the front.

    Scaled to the front's own ideal and nadir, this is the point that lies farthest below the hyperplane through the
    extreme points, the knee of [Das1999]_. Dominated points are ignored; ties go to the first.

    Raises
    ------
    InputError
        If there is no point, or ``points`` is not ``(n, m)`` and finite.

    >>> knee([[0, 10], [1, 2], [5, 1], [9, 0]])
    1
    """
    p = _as_points(points, finite=True)
    if len(p) == 0:
        raise InputError("expected at least 1 point (n) to find a knee in, got 0")
    front = np.flatnonzero(non_dominated(p))
    return int(front[_scaled(p[front]).sum(axis=1).argmin()])


def additive_epsilon(points: ArrayLike, targets: ArrayLike) -> float:
    """Return the smallest shift that lets ``points`` cover ``targets``, the additive epsilon of [Zitzler2003]_.

    After subtracting it from every objective of ``points``, each target is equalled or dominated by some point; 0 or
    less means that it is already. Scale the objectives first where their units differ.

    Raises
    ------
    InputError
        If a set is empty, not finite, or the two have different numbers of objectives.

    >>> additive_epsilon([[1, 3], [3, 1]], [[1, 2], [2, 1]])
    1.0
    """
    p, q = _as_points(points, finite=True), _as_points(targets, finite=True)
    if p.shape[1] != q.shape[1] or len(p) == 0 or len(q) == 0:
        raise InputError(
            f"expected two non-empty sets with the same number of objectives (m), got shapes {p.shape} and {q.shape}"
        )
    return float(max((p - target).max(axis=1).min() for target in q))


def epsilon_non_dominated(points: ArrayLike, epsilon: ArrayLike) -> NDArray[np.bool_]:
    """Return a mask ``(n,)`` of a thinned front: one point per box of side ``epsilon``, as in [Laumanns2002]_.

    Boxes start at the smallest value of each objective. Of the points of a box the one nearest its best corner stays;
    a box that another dominates keeps none. So every point is within one ``epsilon`` per objective of a kept one.

    Parameters
    ----------
    points
        ``(n, m)``.
    epsilon
        Positive side of a box: one number, or one per objective.

    Raises
    ------
    InputError
        If ``points`` is not ``(n, m)`` and finite, or ``epsilon`` is not positive or of another length.

    >>> epsilon_non_dominated([[0.0, 0.9], [0.1, 0.6], [0.9, 0.0]], 0.5).tolist()
    [False, True, True]
    """
    p = _as_points(points, finite=True)
    side = np.asarray(epsilon, dtype=np.float64)
    if side.shape not in ((), (p.shape[1],)) or not (np.isfinite(side) & (side > 0)).all():
        raise InputError(f"expected a positive epsilon, 1 number or {p.shape[1]} (objectives), got {side.tolist()}")
    if len(p) == 0:
        return np.zeros(0, dtype=bool)
    place = (p - p.min(axis=0)) / side
    box = np.floor(place)
    order = np.argsort((place - box).sum(axis=1), kind="stable")
    mask = np.zeros(len(p), dtype=bool)
    mask[order[non_dominated(box[order])]] = True
    return mask


def crowding(points: ArrayLike) -> NDArray[np.float64]:
    """Return the crowding distance ``(n,)`` of each point of a front [Deb2002]_; infinite at the extremes.

    Raises
    ------
    InputError
        If ``points`` is not ``(n, m)`` and finite.

    >>> crowding([[0, 4], [1, 2], [4, 0]]).tolist()
    [inf, 2.0, inf]
    """
    p = _scaled(_as_points(points, finite=True))
    distance = np.zeros(len(p))
    for column in p.T:
        order = np.argsort(column, kind="stable")
        gaps = np.diff(column[order])
        distance[order[1:-1]] += gaps[1:] + gaps[:-1]
        distance[order[:1]] = distance[order[-1:]] = np.inf
    return distance


def select_spread(points: ArrayLike, k: int) -> NDArray[np.int64]:
    """Return the ascending indices of ``k`` points spread over a front: the extremes, then the farthest from those.

    Objectives are scaled to 0..1. With fewer than ``k`` points all are returned.

    Raises
    ------
    InputError
        If ``k`` is negative, or ``points`` is not ``(n, m)`` and finite.

    >>> select_spread([[0, 4], [0.1, 3.9], [2, 2], [4, 0]], 3).tolist()
    [0, 2, 3]
    """
    if k < 0:
        raise InputError(f"expected k >= 0 points to select, got {k}")
    p = _scaled(_as_points(points, finite=True))
    if k >= len(p):
        return np.arange(len(p))
    chosen = list(dict.fromkeys(int(i) for i in p.argmin(axis=0)))[:k]
    gap = np.full(len(p), np.inf)
    for i in chosen:
        gap = np.minimum(gap, np.linalg.norm(p - p[i], axis=1))
    while len(chosen) < k:
        gap[chosen] = -1.0  # so that a copy of a chosen point is still taken before the point itself
        farthest = int(gap.argmax())
        chosen.append(farthest)
        gap = np.minimum(gap, np.linalg.norm(p - p[farthest], axis=1))
    return np.sort(np.array(chosen, dtype=np.int64))


def _scaled(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``points`` with every objective scaled to 0..1; a constant objective becomes 0."""
    if len(points) == 0:
        return points
    low, high = points.min(axis=0), points.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    return np.asarray((points - low) / span)


def _as_points(points: ArrayLike, *, finite: bool = False) -> NDArray[np.float64]:
    """Return ``points`` as ``(n, m)`` float64, checked."""
    try:
        p = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"expected points of shape (n, m) of numbers, got {type(points).__name__}: {error}") from error
    if p.ndim != 2 or p.shape[1] == 0:
        raise InputError(f"expected points of shape (n, m) with m >= 1 objectives, got shape {p.shape}")
    bad = ~np.isfinite(p) if finite else np.isnan(p)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise InputError(
            f"expected points that are {'finite' if finite else 'numbers'}, got {p[row, column]} for point {row}, "
            f"objective {column} ({int(bad.sum())} of {p.size} values are so); drop those points"
        )
    return p
