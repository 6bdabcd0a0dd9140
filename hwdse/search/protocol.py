"""What a searcher is given and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hwdse.errors import InputError
from hwdse.infeasible import Infeasible
from hwdse.space import DesignSpace

__all__ = ["GROUP", "Measure", "SearchResult", "Searcher", "refuse_measure"]

GROUP = "hwdse.searchers"  # entry points: name = module:function

Measure = Callable[[NDArray[np.uint8]], NDArray[np.float64]]
"""Measures configurations: genes ``(n, groups)`` to one number each, ``(n,)``."""


def refuse_measure(measure: Measure | None, method: str) -> None:
    """Check that a method that works on tables alone was given no ``measure``.

    Raises
    ------
    InputError
        If it was.
    """
    if measure is not None:
        raise InputError(
            f"expected no measure for {method}, which works on tables alone, got one; "
            "use nsga2, nsga3, annealing, tpe, gp or random"
        )


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The best configurations that a search found.

    Attributes
    ----------
    genes
        ``(n, groups)`` uint8: unique, within the limits, none dominated by another; cheapest last objective first.
    values
        ``(n, objectives)``, as :meth:`DesignSpace.evaluate` gives them; with a measure, its harm is the first column.
    evaluations
        Configurations that were evaluated, with a measure those that were measured; an exact method that works on the
        tables alone says 0.
    exact
        True if no configuration is missing from the front.
    tolerance
        For every configuration within the limits there is a found one that is no worse in the other objectives and
        at most this much larger in the last one. 0 where exact, infinite where nothing is known.
    infeasible
        What stands in the way, if no configuration within the limits was found.
    """

    genes: NDArray[np.uint8]
    values: NDArray[np.float64]
    evaluations: int = 0
    exact: bool = False
    tolerance: float = inf
    infeasible: Infeasible | None = None


class Searcher(Protocol):
    """Arrays in, genes out. Same arguments and generator state, same result."""

    def __call__(
        self,
        space: DesignSpace,
        objectives: Sequence[str],
        *,
        limits: Mapping[str, float] | None = None,
        evaluations: int = 0,
        rng: np.random.Generator,
        initial: NDArray[np.integer] | None = None,
        measure: Measure | None = None,
    ) -> SearchResult:
        """Return the front over ``objectives`` within ``limits``.

        Parameters
        ----------
        space
            The design space.
        objectives
            Metric columns, all minimised: the harm first, then the costs.
        limits
            Metric column to its largest admissible value; meeting it exactly is enough.
        evaluations
            Largest number of configurations to evaluate; methods that need none ignore it.
        rng
            Source of every random choice.
        initial
            Genes ``(n, groups)`` to start from, for methods that can.
        measure
            Measured harm, which replaces the first objective's table wherever configurations are compared, limits
            included; the table still says where to start. Every configuration is measured at most once.

        Raises
        ------
        InputError
            If a metric is unknown, the method cannot handle the objectives or limits, it works on tables alone and
            was given a ``measure``, or the measure gives no finite numbers.
        """
        ...
