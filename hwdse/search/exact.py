"""The whole front of two objectives, by dynamic programming over Pareto lists where everything adds up.

Groups are added one at a time: every partial configuration on the list is extended by every candidate, and what is
dominated is dropped, since whatever completes it completes the dominating one as well. [NemhauserUllmann1969]_ Costs
between pairs of groups, largest sums and limits on further metrics go to the integer programs of
:mod:`hwdse.search.milp`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log2

import numpy as np
from numpy.typing import NDArray

from hwdse.errors import InputError
from hwdse.infeasible import Limit
from hwdse.search import milp
from hwdse.search.collect import collect
from hwdse.search.integer_program import cheapest
from hwdse.search.limits import as_columns, as_limits
from hwdse.search.protocol import Measure, SearchResult, refuse_measure
from hwdse.space import DesignSpace

__all__ = ["search"]

CELLS = 20_000  # longest list that is kept whole, and cost cells of the grid that a longer one is thinned on
GRID_BITS = 48  # costs become integers of this many bits, so that sums do not depend on their order
TIE = 2.0**8  # costs this near in those integers, 1e-12 of the range, count as equal


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
    """Return the whole front over one or two objectives; see :class:`~hwdse.search.protocol.Searcher`.

    Costs that differ by less than 1e-12 of their range count as equal (1e-8 where integer programs are needed, whose
    number is ``evaluations``). ``rng`` and ``initial`` are not needed.

    Raises
    ------
    InputError
        If there are more than two objectives, a metric is unknown, or a measure is given.
    """
    refuse_measure(measure, "exact")
    columns = as_columns(space, objectives)
    bounds = as_limits(space, limits)
    if len(columns) > 2:
        raise InputError(f"expected 1 or 2 objectives, got {len(columns)} ({', '.join(objectives)}); use nsga2")
    further = any(bound.column not in objectives for bound in bounds)
    if further or len(columns) == 1 or not all(map(space.is_additive, objectives)):
        return milp.search(space, objectives, limits=limits, evaluations=evaluations, rng=rng, initial=initial)
    harm, cost = (_Axis.of(space, column, bounds) for column in columns)
    genes, width = _front(harm, cost, space.allowed)
    if bounds:  # of costs that tie, the lists keep one, which may be on the wrong side of a limit: ask the solver too
        corners = (cheapest(space, name, bounds) for name in objectives)
        genes = np.concatenate([genes, *(corner[None] for corner in corners if corner is not None)])
    return collect(space, objectives, genes, limits=bounds, exact=width == 0, tolerance=width * cost.unit)


@dataclass(frozen=True, eq=False)
class _Axis:
    """One objective in integer units above each group's minimum: ``values`` ``(groups, candidates)``."""

    values: NDArray[np.float64]
    unit: float
    limit: float

    @classmethod
    def of(cls, space: DesignSpace, column: int, limits: Sequence[Limit]) -> _Axis:
        """Return the axis of one metric; partial sums above its ``limit`` can be dropped."""
        unary = np.where(space.allowed, space.unary[..., column], np.inf)
        low = unary.min(axis=1, keepdims=True)
        span = float((np.where(space.allowed, unary, low) - low).max(axis=1).sum())
        unit = 2.0 ** (ceil(log2(span)) - GRID_BITS) if span > 0 else 1.0
        name = space.columns[column]
        slack = min((bound.value for bound in limits if bound.column == name), default=np.inf) - space.reach()[name]
        return cls(np.rint((unary - low) / unit), unit, slack / unit + TIE)


def _front(harm: _Axis, cost: _Axis, allowed: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], float]:
    """Return the genes ``(n, groups)`` of the front and the sum of the grid cells' widths, 0 if nothing was thinned."""
    costs, harms = np.zeros(1), np.zeros(1)
    steps: list[tuple[NDArray[np.intp], NDArray[np.intp]]] = []
    thinned = 0.0
    for g, row in enumerate(allowed):
        choices = np.flatnonzero(row)
        all_costs = (cost.values[g, choices, None] + costs).ravel()
        all_harms = (harm.values[g, choices, None] + harms).ravel()
        kept = _prune(all_costs, all_harms, (all_costs <= cost.limit) & (all_harms <= harm.limit))
        if len(kept) > CELLS:
            kept, width = _thin(all_costs, kept)
            thinned += width
        choice, parent = np.divmod(kept, max(len(costs), 1))
        steps.append((choices[choice], parent))
        costs, harms = all_costs[kept], all_harms[kept]
    return _trace(steps), thinned


def _prune(costs: NDArray[np.float64], harms: NDArray[np.float64], within: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the indices of the non-dominated entries, by ascending cost; of entries that tie, one is kept."""
    # The input is a few sorted lists one after another, which this sort merges in linear time.
    order = np.argsort(costs, kind="stable")
    order = order[within[order]]
    h = harms[order]
    lower = np.ones(len(h), dtype=bool)
    lower[1:] = h[1:] < np.minimum.accumulate(h)[:-1] - TIE
    order = order[lower]
    c = costs[order]
    last_of_tie = np.ones(len(c), dtype=bool)
    last_of_tie[:-1] = c[1:] > c[:-1] + TIE
    return order[last_of_tie]


def _thin(costs: NDArray[np.float64], kept: NDArray[np.intp]) -> tuple[NDArray[np.intp], float]:
    """Return the least harmful (costliest) entry of every cost cell and the cheapest of all, and a cell's width."""
    c = costs[kept]
    width = float(c[-1] - c[0]) / CELLS
    cell = np.minimum(np.floor((c - c[0]) / width), CELLS - 1)
    last = np.ones(len(cell), dtype=bool)
    last[:-1] = cell[1:] != cell[:-1]
    last[0] = True
    return kept[last], width


def _trace(steps: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]) -> NDArray[np.uint8]:
    """Return the genes ``(n, groups)``, following each final entry back through its parents."""
    entry = np.arange(len(steps[-1][0]))
    genes = np.empty((len(entry), len(steps)), dtype=np.uint8)
    for g in range(len(steps) - 1, -1, -1):
        choice, parent = steps[g]
        genes[:, g] = choice[entry]
        entry = parent[entry]
    return genes
