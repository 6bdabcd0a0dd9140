"""The Lagrangian hull: configurations that are optimal for some price of harm in cost.

Each group walks down the lower convex hull of its own candidates; all steps together, sorted by harm per cost saved,
are the corners of the lower convex hull of the whole front. [Everett1963]_, [Shoham1988]_
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise
from math import comb

import numpy as np
from numpy.typing import NDArray

from hwdse.search.collect import collect
from hwdse.search.limits import as_columns, as_limits
from hwdse.search.protocol import Measure, SearchResult, refuse_measure
from hwdse.space import DesignSpace

__all__ = ["additive_part", "hull_genes", "search"]

WEIGHTS = 300  # largest number of weight vectors for three objectives or more


def search(
    space: DesignSpace,
    objectives: Sequence[str],
    *,
    limits: Mapping[str, float] | None = None,
    evaluations: int = 0,
    rng: np.random.Generator | None = None,
    initial: NDArray[np.integer] | None = None,
    measure: Measure | None = None,
) -> SearchResult:
    """Return the corners of the front's convex hull; see :class:`~hwdse.search.protocol.Searcher`.

    Exact for these corners where the objectives add up; where they do not, their additive part decides the corners
    and the whole metric is reported. ``evaluations``, ``rng`` and ``initial`` are not needed.

    Raises
    ------
    InputError
        If a metric is unknown, or a measure is given.
    """
    del evaluations, rng, initial  # part of every searcher's signature; the hull follows from the tables
    refuse_measure(measure, "hull")
    bounds = as_limits(space, limits)
    genes = hull_genes(space, objectives)
    return collect(space, objectives, genes, limits=bounds, evaluations=len(genes))


def hull_genes(space: DesignSpace, objectives: Sequence[str]) -> NDArray[np.uint8]:
    """Return unique genes ``(n, groups)`` of the hull: the corners for two objectives, a sample of them for more."""
    costs = additive_part(space, as_columns(space, objectives))
    m = costs.shape[2]
    if m == 1:
        return np.asarray(costs[..., 0].argmin(axis=1), dtype=np.uint8)[None]
    walks = [_walk(costs[..., list(pair)]) for pair in combinations(range(m), 2)]
    if m > 2:
        walks.append(_weighted(costs, _simplex(m)))
    return np.unique(np.concatenate(walks), axis=0) if len(walks) > 1 else walks[0]


def additive_part(space: DesignSpace, columns: Sequence[int]) -> NDArray[np.float64]:
    """Return costs ``(groups, candidates, objectives)``, infinite where not allowed.

    A term of two groups counts for either one with its mean over what the other may choose; of a maximum over sets,
    every group counts with its largest term.
    """
    costs = space.unary[..., list(columns)].copy()
    for (a, b), pair in zip(space.edges, space.pairwise[..., list(columns)], strict=True):
        costs[a] += pair[:, space.allowed[b]].mean(axis=1)
        costs[b] += pair[space.allowed[a]].mean(axis=0)
    for k, column in enumerate(columns):
        if space.columns[column] in space.peaks:
            costs[..., k] += space.peaks[space.columns[column]].terms.max(axis=0)
    return np.where(space.allowed[..., None], costs, np.inf)


def _walk(costs: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return genes ``(n, groups)`` from the least harm to the least cost, given ``(groups, candidates, 2)``."""
    corners = [_lower_hull(points) for points in costs]
    steps = []
    for g, path in enumerate(corners):
        for source, target in pairwise(path):
            harm, saved = costs[g, target, 0] - costs[g, source, 0], costs[g, source, 1] - costs[g, target, 1]
            steps.append((harm / saved, g, target))
    steps.sort(key=lambda step: step[0])  # stable, and each group's steps are already in this order
    genes = np.empty((len(steps) + 1, len(costs)), dtype=np.uint8)
    genes[0] = [path[0] for path in corners]
    for row, (_, g, target) in enumerate(steps, 1):
        genes[row] = genes[row - 1]
        genes[row, g] = target
    return genes


def _lower_hull(points: NDArray[np.float64]) -> list[int]:
    """Return the candidates on the lower convex hull of ``(candidates, 2)``, from the least harm to the least cost."""
    path: list[int] = []
    for c in np.lexsort((points[:, 1], points[:, 0])):
        harm, cost = points[c]
        if not np.isfinite(harm) or (path and cost >= points[path[-1], 1]):
            continue
        while len(path) > 1 and _is_above(points[path[-2]], points[path[-1]], points[c]):
            path.pop()
        path.append(int(c))
    return path


def _is_above(a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64]) -> bool:
    """Return whether ``b`` lies on or above the line from ``a`` to ``c``."""
    return bool((b[0] - a[0]) * (a[1] - c[1]) >= (c[0] - a[0]) * (a[1] - b[1]))


def _weighted(costs: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the optimal genes ``(weights, groups)`` for every row of ``weights``, objectives scaled to their range."""
    finite = np.where(np.isfinite(costs), costs, np.nan)
    span = (np.nanmax(finite, axis=1) - np.nanmin(finite, axis=1)).sum(axis=0)
    scaled = np.where(np.isfinite(costs), costs, 0.0) / np.where(span > 0, span, 1.0)
    total = np.where(np.isfinite(costs[None, ..., 0]), np.einsum("wm,gcm->wgc", weights, scaled), np.inf)
    return np.asarray(total.argmin(axis=2), dtype=np.uint8)


def _simplex(m: int) -> NDArray[np.float64]:
    """Return weight vectors ``(n, m)`` on a regular lattice of the simplex [Das1998]_, none of them 0 anywhere."""
    parts = m
    while comb(parts + 1 + m - 1, m - 1) <= WEIGHTS:
        parts += 1
    bars = np.array(list(combinations(range(parts + m - 1), m - 1)))
    ends = np.hstack([np.full((len(bars), 1), -1), bars, np.full((len(bars), 1), parts + m - 1)])
    counts = np.diff(ends, axis=1) - 1
    return np.asarray((counts + 1e-3) / (parts + m * 1e-3))
