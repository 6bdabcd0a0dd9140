"""Straight lines through measured times: by elements for tensors, by MACs for layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from hwdse.formats import Precision

__all__ = ["Group", "Line", "RateFit", "fit_line", "fit_rates", "in_words"]

FOLDS = 5

Group = tuple[str, Precision]
"""What shares a rate: a class of operators and a precision."""


@dataclass(frozen=True)
class Line:
    """``us + us_per_melement * elements / 1e6``.

    Attributes
    ----------
    us, us_per_melement
        Both at least 0.
    residual
        Largest relative error at the measured sizes.
    """

    us: float
    us_per_melement: float
    residual: float

    def time_us(self, elements: int) -> float:
        """Return the microseconds for ``elements`` values."""
        return self.us + self.us_per_melement * elements * 1e-6

    def __add__(self, other: Line) -> Line:
        return Line(
            self.us + other.us,
            self.us_per_melement + other.us_per_melement,
            max(self.residual, other.residual),
        )


def fit_line(elements: Sequence[int], times_us: Sequence[float]) -> Line:
    """Return the line whose largest relative errors are small: least squares of the relative errors, no term below 0.

    >>> line = fit_line([1_000_000, 2_000_000, 4_000_000], [105.0, 205.0, 405.0])
    >>> round(line.us, 6), round(line.us_per_melement, 6)
    (5.0, 100.0)
    """
    times = np.asarray(times_us, dtype=np.float64)
    design = np.stack([np.ones(len(times)), np.asarray(elements, dtype=np.float64) * 1e-6], 1)
    solution = nnls(design / times[:, None], np.ones(len(times)))[0]
    return Line(float(solution[0]), float(solution[1]), float(np.abs(design @ solution / times - 1).max()))


@dataclass(frozen=True)
class RateFit:
    """Times of layers as ``us_per_layer + MACs / rate``, one rate per group.

    Attributes
    ----------
    us_per_layer
        Microseconds that every layer takes.
    gmac_per_s
        1e9 MACs per second of each group.
    counts
        Shapes in each group.
    errors
        Relative errors of each group's shapes, each predicted by a fit that did not see it.
    """

    us_per_layer: float
    gmac_per_s: Mapping[Group, float]
    counts: Mapping[Group, int]
    errors: Mapping[Group, NDArray[np.float64]]


def fit_rates(groups: Sequence[Group], macs: Sequence[int], times_us: Sequence[float]) -> RateFit:
    """Return the fit with the smallest sum of squared relative errors.

    Parameters
    ----------
    groups
        What shares a rate, one entry per shape.
    macs, times_us
        Work and time of each shape; times above 0.

    Errors are those of a cross-validation over five folds; a shape that is alone in its group has none.
    """
    names = list(dict.fromkeys(groups))
    columns = np.array([names.index(group) for group in groups])
    work, times = np.asarray(macs, dtype=np.float64), np.asarray(times_us, dtype=np.float64)
    us, per_mac = _solve(columns, work, times, len(names))
    errors = np.full(len(times), np.nan)
    # Every group has shapes in every fold as far as it has enough of them.
    rank = np.array([int(np.sum(columns[:i] == columns[i])) for i in range(len(columns))])
    for fold in range(FOLDS):
        test = rank % FOLDS == fold
        known = np.isin(columns, columns[~test])
        if not test.any() or test.all():
            continue
        own_us, own_per_mac = _solve(columns[~test], work[~test], times[~test], len(names))
        seen = test & known
        errors[seen] = (own_us + own_per_mac[columns[seen]] * work[seen]) / times[seen] - 1
    members = {name: columns == i for i, name in enumerate(names)}
    return RateFit(
        us_per_layer=us,
        gmac_per_s={name: 1e-3 / per_mac[i] for i, name in enumerate(names)},
        counts={name: int(own.sum()) for name, own in members.items()},
        errors={name: errors[own & ~np.isnan(errors)] for name, own in members.items()},
    )


def _solve(
    columns: NDArray[np.int64], work: NDArray[np.float64], times: NDArray[np.float64], groups: int
) -> tuple[float, NDArray[np.float64]]:
    """Return the time per layer and the time per MAC of each group, in microseconds."""
    design = np.zeros((len(times), groups + 1))
    design[:, 0] = 1
    design[np.arange(len(times)), columns + 1] = work
    scale = work.mean()  # so that both sorts of unknowns are of one size
    design[:, 1:] /= scale
    solution = nnls(design / times[:, None], np.ones(len(times)))[0]
    per_mac = solution[1:] / scale
    for group in range(groups):
        own = columns == group
        if own.any() and per_mac[group] == 0:  # the constant explains it all: a rate must still be above 0
            per_mac[group] = float(np.median(times[own] / work[own]))
    return float(solution[0]), per_mac


def in_words(errors: NDArray[np.float64]) -> str:
    """Return how good a fit is.

    >>> in_words(np.array([0.1, -0.3, 0.2])), in_words(np.empty(0))
    ('cross-validated: median error 20%, worst 30%', 'from too few shapes to say how good it is')
    """
    if not errors.size:
        return "from too few shapes to say how good it is"
    sizes = np.abs(errors)
    return f"cross-validated: median error {np.median(sizes):.0%}, worst {sizes.max():.0%}"
