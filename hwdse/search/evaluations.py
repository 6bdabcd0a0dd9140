"""The configurations that a search evaluated, each once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwdse.errors import InputError
from hwdse.infeasible import Limit
from hwdse.search.collect import collect
from hwdse.search.integer_program import cheapest
from hwdse.search.limits import as_columns, as_limits, limited
from hwdse.search.protocol import Measure, SearchResult
from hwdse.space import DesignSpace

__all__ = ["Evaluations", "every_configuration"]


class Evaluations:
    """What is known of a space within a budget: genes, metrics, and the measured harm among these.

    Parameters
    ----------
    space, objectives, limits, measure
        As in :class:`~hwdse.search.protocol.Searcher`.
    budget
        Largest number of different configurations to evaluate.

    Attributes
    ----------
    columns
        Columns of the objectives.
    limits
        The limits, checked.

    Raises
    ------
    InputError
        If ``budget`` is not positive, or a metric is unknown.
    """

    def __init__(
        self,
        space: DesignSpace,
        objectives: Sequence[str],
        *,
        limits: Mapping[str, float] | None,
        budget: int,
        measure: Measure | None,
    ) -> None:
        self.columns = as_columns(space, objectives)
        self.limits = as_limits(space, limits)
        if budget < 1:
            raise InputError(f"expected at least 1 evaluation, got {budget}; set the budget")
        self._space, self._objectives, self._measure = space, tuple(objectives), measure
        self._budget = min(budget, space.size)
        self._known: dict[bytes, NDArray[np.float64]] = {}  # genes as bytes to their metrics, in order of evaluation

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, genes: NDArray[np.uint8]) -> bool:
        """Return whether the configuration ``(groups,)`` was evaluated."""
        return genes.tobytes() in self._known

    @property
    def left(self) -> int:
        """How many more configurations may be evaluated."""
        return self._budget - len(self)

    @property
    def genes(self) -> NDArray[np.uint8]:
        """What was evaluated, in order, ``(n, groups)``."""
        return np.frombuffer(b"".join(self._known), dtype=np.uint8).reshape(-1, len(self._space.groups))

    def fresh(self, genes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the configurations ``(n, groups)`` that were not evaluated, each once, in order."""
        first = {row.tobytes(): i for i, row in reversed(list(enumerate(genes)))}
        return genes[sorted(i for key, i in first.items() if key not in self._known)]

    def metrics(self, genes: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the metrics ``(n, metrics)`` of configurations ``(n, groups)``, evaluating those that are new.

        Raises
        ------
        InputError
            If the measure does not give one finite number for each.
        """
        new = self.fresh(genes)
        if len(new):
            assert len(new) <= self.left, "a search asked for more than its budget"
            values = self._space.evaluate(new)
            if self._measure is not None:
                values[:, self.columns[0]] = self._measured(self._measure, new)
            self._known.update(zip((row.tobytes() for row in new), values, strict=True))
        return np.array([self._known[row.tobytes()] for row in genes]).reshape(-1, len(self._space.metrics))

    def _measured(self, measure: Measure, genes: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the measured harm ``(n,)``, checked."""
        harm = np.asarray(measure(genes.copy()), dtype=np.float64)
        if harm.shape != (len(genes),) or not np.isfinite(harm).all():
            found = f"shape {harm.shape}" if harm.shape != (len(genes),) else f"{harm[~np.isfinite(harm)][0]}"
            raise InputError(
                f"expected a measure that gives {len(genes)} finite numbers for as many configurations, got {found}; "
                "give what cannot be measured a large harm"
            )
        return harm

    def excess(self, metrics: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return by what share of it metrics ``(n, metrics)`` exceed each limit ``(n, limits)``; negative within."""
        bounds = np.array([limit.value for limit in self.limits])
        excess = limited(self._space, self.limits, metrics) - bounds
        return np.asarray(excess / np.where(bounds == 0, 1.0, np.abs(bounds)))

    def without_search(self) -> SearchResult | None:
        """Return the result that needs no search, if there is one.

        That is all of a space that is no larger than the budget; and, before anything is measured, the proof that no
        configuration meets the limits on tables that add up.
        """
        if self._budget == self._space.size:
            self.metrics(every_configuration(self._space))
            return self.result(exact=True)
        if self._table_limits and self._inside is None:
            bounds = as_limits(self._space, {limit.column: limit.value for limit in self._table_limits})
            nothing = np.empty((0, len(self._space.groups)), dtype=np.uint8)
            return collect(self._space, self._objectives, nothing, limits=bounds, exact=True)
        return None

    @cached_property
    def _table_limits(self) -> tuple[Limit, ...]:
        """For a search that measures, the limits on other metrics that add up."""
        if self._measure is None:
            return ()
        others = [limit for limit in self.limits if limit.column != self._objectives[0]]
        return tuple(limit for limit in others if self._space.is_additive(limit.column))

    @cached_property
    def _inside(self) -> NDArray[np.uint8] | None:
        """A configuration ``(groups,)`` within the table limits, ``None`` if there is none or nothing is limited."""
        return cheapest(self._space, self._table_limits[0].column, self._table_limits) if self._table_limits else None

    def start(self, initial: NDArray[np.integer] | None) -> NDArray[np.uint8]:
        """Return unique genes ``(n, groups)`` to start from: ``initial``, and before a measure one within table limits.

        Raises
        ------
        InputError
            If ``initial`` does not belong to the space.
        """
        given = np.empty((0, len(self._space.groups)), dtype=np.uint8) if initial is None else np.asarray(initial)
        self._space.evaluate(given)  # names what is out of range or not allowed
        inside = [] if self._inside is None else [self._inside[None]]
        return self.fresh(np.concatenate([*inside, given]).astype(np.uint8))[: self.left]

    def result(self, *, exact: bool = False) -> SearchResult:
        """Return the front of everything that was evaluated."""
        return collect(
            self._space,
            self._objectives,
            self.genes,
            metrics=None if self._measure is None else self.metrics(self.genes),
            limits=self.limits,
            evaluations=len(self),
            exact=exact,
        )


def every_configuration(space: DesignSpace) -> NDArray[np.uint8]:
    """Return all configurations ``(size, groups)`` of a space that is small enough to hold."""
    genes = np.empty((space.size, len(space.groups)), dtype=np.uint8)
    run = space.size  # rows that share one choice of the group before
    for g, row in enumerate(space.allowed):
        choices = np.flatnonzero(row)
        block = run
        run //= len(choices)
        genes[:, g] = np.tile(np.repeat(choices, run), space.size // block)
    return genes
