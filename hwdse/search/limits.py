"""Hard upper limits on metrics of a design space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from hwdse.errors import InputError
from hwdse.infeasible import Limit
from hwdse.space import DesignSpace

__all__ = ["as_columns", "as_limits", "limited", "within"]


def as_columns(space: DesignSpace, objectives: Sequence[str]) -> list[int]:
    """Return the columns of the objectives.

    Raises
    ------
    InputError
        If there is none, one is unknown, or one is named twice.
    """
    columns = [space.column(name) for name in objectives]
    if not columns or len(set(columns)) < len(columns):
        raise InputError(f"expected at least 1 objective, each named once, got {list(objectives)}")
    return columns


def as_limits(space: DesignSpace, limits: Mapping[str, float] | None) -> tuple[Limit, ...]:
    """Return upper limits by metric column, checked.

    Raises
    ------
    InputError
        If a metric is unknown or a bound is not finite.
    """
    for name, value in (limits or {}).items():
        space.column(name)
        if not isfinite(value):
            raise InputError(f"expected a finite limit on {name}, got {value}; leave it out for none")
    return tuple(Limit(name, name, 1, float(value)) for name, value in (limits or {}).items())


def limited(space: DesignSpace, limits: Sequence[Limit], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the values of the limited metrics, ``(n, limits)``, out of all metrics ``(n, metrics)``."""
    return values[:, [space.column(limit.column) for limit in limits]]


def within(space: DesignSpace, limits: Sequence[Limit], values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return a mask ``(n,)`` of the rows of ``values`` ``(n, metrics)`` that meet every limit."""
    mask = np.ones(len(values), dtype=bool)
    for limit in limits:
        mask &= limit.is_met(values[:, space.column(limit.column)])
    return mask
