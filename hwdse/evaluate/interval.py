"""95 % confidence intervals of means over samples, single and paired."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from hwdse.errors import InputError

__all__ = ["Interval", "mean_interval", "mean_intervals", "paired_interval", "paired_intervals"]

_Z = float(stats.norm.ppf(0.975))


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % confidence interval.

    Attributes
    ----------
    mean, low, high
        Estimate and bounds, in the unit of the scores.
    samples
        Number of samples.
    """

    mean: float
    low: float
    high: float
    samples: int

    @property
    def standard_error(self) -> float:
        """Half of the interval over the normal quantile that it stands for."""
        return (self.high - self.low) / (2.0 * _Z)


def mean_interval(scores: NDArray[np.floating], *, may_count: bool = True) -> Interval:
    """Return the mean of ``scores`` ``(samples,)`` with its 95 % interval.

    Scores of 0 and 1 get Wilson's interval [Wilson1927]_, others Student's t [Student1908]_.

    Parameters
    ----------
    scores
        One per sample.
    may_count
        False for a quantity that is no count of right answers even where all scores happen to be 0 or 1.

    Raises
    ------
    InputError
        If there is no score, or a single one that is not 0 or 1: it says nothing about how much scores differ.

    >>> interval = mean_interval(np.array([1.0] * 9 + [0.0]))
    >>> round(interval.low, 3), round(interval.high, 3)
    (0.596, 0.982)
    """
    return mean_intervals(_checked(scores)[None], may_count=may_count)[0]


def mean_intervals(scores: NDArray[np.floating], *, may_count: bool = True) -> list[Interval]:
    """Return :func:`mean_interval` of every row of ``scores`` ``(n, samples)``."""
    values = np.asarray(scores, dtype=np.float64)
    n, mean = values.shape[1], values.mean(axis=1)
    low, high = _student(values, counted := may_count & _are_binary(values))
    centre = (mean + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * np.sqrt(np.where(counted, mean * (1 - mean), 0.0) / n + _Z**2 / (4 * n**2))
    low = np.where(counted, np.maximum(0.0, centre - half), low)
    high = np.where(counted, np.minimum(1.0, centre + half), high)
    return [Interval(*row, n) for row in zip(mean.tolist(), low.tolist(), high.tolist(), strict=True)]


def paired_interval(
    scores: NDArray[np.floating], reference: NDArray[np.floating], *, may_count: bool = True
) -> Interval:
    """Return the mean of ``reference - scores`` with its 95 % interval: positive where the reference is better.

    Scores of 0 and 1 get the interval of Agresti and Min with half a sample added to each cell of the paired table
    [Agresti2005]_, which stays honest when few samples differ; others Student's t of the differences.

    Parameters
    ----------
    scores, reference
        One per sample, of the same samples.
    may_count
        As in :func:`mean_interval`.

    Raises
    ------
    InputError
        If the two do not hold the same samples, or a single one whose scores are not 0 or 1.

    >>> paired_interval(np.array([1.0, 0.0, 1.0, 1.0]), np.array([1.0, 1.0, 1.0, 1.0])).mean
    0.25
    """
    ours, theirs = _checked(scores), _checked(reference)
    if ours.size != theirs.size:
        raise InputError(f"expected scores of the same samples, got {ours.size} and {theirs.size}")
    return paired_intervals(ours[None], theirs, may_count=may_count)[0]


def paired_intervals(
    scores: NDArray[np.floating], reference: NDArray[np.floating], *, may_count: bool = True
) -> list[Interval]:
    """Return :func:`paired_interval` of every row of ``scores`` ``(n, samples)`` with ``reference`` ``(samples,)``."""
    ours, theirs = np.asarray(scores, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    difference = theirs - ours
    n, mean = ours.shape[1], difference.mean(axis=1)
    low, high = _student(difference, counted := may_count & _are_binary(ours) & _are_binary(theirs[None]))
    lost, won = (difference > 0).sum(axis=1) + 0.5, (difference < 0).sum(axis=1) + 0.5
    centre = (lost - won) / (n + 2)
    half = _Z * np.sqrt((lost + won) - (lost - won) ** 2 / (n + 2)) / (n + 2)
    low = np.where(counted, np.maximum(-1.0, centre - half), low)
    high = np.where(counted, np.minimum(1.0, centre + half), high)
    return [Interval(*row, n) for row in zip(mean.tolist(), low.tolist(), high.tolist(), strict=True)]


def _student(values: NDArray[np.float64], spared: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the bounds of each row's mean, ``(n,)`` each; NaN where ``spared``."""
    n = values.shape[1]
    low, high = np.full((2, len(values)), np.nan)
    if not spared.all():
        if n == 1:
            raise InputError("expected at least 2 samples for an interval, got 1; evaluate on more samples")
        some = values[~spared]
        mean, half = some.mean(axis=1), float(stats.t.ppf(0.975, n - 1)) * some.std(axis=1, ddof=1) / sqrt(n)
        low[~spared], high[~spared] = mean - half, mean + half
    return low, high


def _checked(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    values = np.asarray(scores, dtype=np.float64).reshape(-1)
    if values.size == 0:
        raise InputError("expected at least one score, got none; check the evaluation data")
    return values


def _are_binary(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return True for each row that holds nothing but 0 and 1, ``(n,)``."""
    return np.asarray(((values == 0.0) | (values == 1.0)).all(axis=1))
