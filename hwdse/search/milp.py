"""Optima and fronts under several limits by integer programming, for every kind of metric that a space has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

from hwdse.errors import InputError
from hwdse.infeasible import Limit
from hwdse.search.collect import collect
from hwdse.search.integer_program import cheapest, metric_span
from hwdse.search.limits import as_columns, as_limits
from hwdse.search.protocol import Measure, SearchResult, refuse_measure
from hwdse.space import DesignSpace

__all__ = ["search"]

PROGRAMS = 2000  # integer programs of one front, unless the caller says otherwise; over plain sums about 10 ms each
STEP = 1e-8  # costs this near, relative to their range, count as equal


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
    """Return the optimum of one objective, or the front over two; see :class:`~hwdse.search.protocol.Searcher`.

    The front is found box by box [Hamacher2007]_: between two neighbouring points the largest box is split until
    none is left, or ``evaluations`` integer programs (0 for 2000) are solved; the largest box left is the tolerance.
    Costs of pairs and largest sums make programs larger and slower. ``rng`` and ``initial`` are not needed.

    Raises
    ------
    InputError
        If there are more than two objectives, a metric is unknown, or a measure is given.
    """
    del rng, initial  # part of every searcher's signature; an optimum needs neither
    refuse_measure(measure, "milp")
    bounds = as_limits(space, limits)
    if len(as_columns(space, objectives)) > 2:
        raise InputError(f"expected 1 or 2 objectives, got {len(objectives)} ({', '.join(objectives)}); use nsga2")
    if len(objectives) == 1:
        genes = cheapest(space, objectives[0], bounds)
        found = [] if genes is None else [genes]
        return collect(space, objectives, _stack(found, space), limits=bounds, evaluations=1, exact=True)
    boxes = _Boxes(space, objectives[0], objectives[1], bounds, evaluations or PROGRAMS)
    found, gap = boxes.explore()
    return collect(
        space, objectives, _stack(found, space), limits=bounds, evaluations=boxes.solved, exact=gap == 0, tolerance=gap
    )


def _stack(found: Sequence[NDArray[np.uint8]], space: DesignSpace) -> NDArray[np.uint8]:
    """Return genes as ``(n, groups)``, also if there are none."""
    return np.array(found, dtype=np.uint8).reshape(-1, len(space.groups))


@dataclass(frozen=True, eq=False)
class _Point:
    """A configuration with its harm and cost."""

    genes: NDArray[np.uint8]
    harm: float
    cost: float


@dataclass(frozen=True)
class _Step:
    """Differences in cost and harm that count as none."""

    cost: float
    harm: float


@dataclass(eq=False)
class _Boxes:
    """The search for a front, box by box; ``solved`` counts integer programs."""

    space: DesignSpace
    harm: str
    cost: str
    limits: tuple[Limit, ...]
    budget: int
    solved: int = field(default=0, init=False)
    open: list[tuple[float, int, _Point, _Point]] = field(default_factory=list, init=False)

    def explore(self) -> tuple[list[NDArray[np.uint8]], float]:
        """Return the genes of the points found, and the cost width of the largest box left open."""
        least_cost = self._lowest(self.cost, self.harm)
        if least_cost is None:
            return [], 0.0
        least_harm = self._lowest(self.harm, self.cost)
        assert least_harm is not None  # the same limits as above
        points = [least_cost, least_harm]
        step = _Step(*(STEP * metric_span(self.space, metric) for metric in (self.cost, self.harm)))
        self._push(least_cost, least_harm, step)
        while self.open and self.solved + 4 <= self.budget:
            _, _, left, right = heappop(self.open)
            middle = Limit(self.harm, self.harm, 1, (left.harm + right.harm) / 2)
            lower = self._lowest(self.cost, self.harm, middle) or right
            # Whatever else the box holds is cheaper than `lower`, and more harmful than the best of those.
            below = Limit(self.cost, self.cost, 1, lower.cost - step.cost)
            upper = self._lowest(self.harm, self.cost, below) or left
            points += [lower, upper]
            self._push(left, upper, step)
            self._push(lower, right, step)
        gap = max((right.cost - left.cost for _, _, left, right in self.open), default=0.0)
        return [point.genes for point in points], gap

    def _push(self, left: _Point, right: _Point, step: _Step) -> None:
        """Open the box between two points, unless it can hold no other."""
        width, height = right.cost - left.cost, left.harm - right.harm
        if width > step.cost and height > step.harm:
            heappush(self.open, (-width * height, self.solved + len(self.open), left, right))

    def _lowest(self, first: str, second: str, *extra: Limit) -> _Point | None:
        """Return the point lowest in ``first``, of those the lowest in ``second``; ``None`` without any."""
        limits = (*self.limits, *extra)
        self.solved += 2
        genes = cheapest(self.space, first, limits)
        if genes is None:
            return None
        reached = self._value(genes, first)
        best = cheapest(self.space, second, (*limits, Limit(first, first, 1, reached)))
        genes = genes if best is None else best
        return _Point(genes, harm=self._value(genes, self.harm), cost=self._value(genes, self.cost))

    def _value(self, genes: NDArray[np.uint8], metric: str) -> float:
        """Return one metric of one configuration."""
        return float(self.space.evaluate(genes[None])[0, self.space.column(metric)])
