"""95 % confidence intervals of means over samples, single and paired."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from hwdse.errors import InputError

__all__ = ["Interval", "mean_interval", "paired_interval"]

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
    values = _checked(scores)
    n, mean = values.size, float(values.mean())
    if not (may_count and _is_binary(values)):
        return _student(values)
    centre = (mean + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * sqrt(mean * (1 - mean) / n + _Z**2 / (4 * n**2))
    return Interval(mean, max(0.0, centre - half), min(1.0, centre + half), n)


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
    difference = theirs - ours
    if not (may_count and _is_binary(ours) and _is_binary(theirs)):
        return _student(difference)
    n = ours.size
    lost, won = float((difference > 0).sum()) + 0.5, float((difference < 0).sum()) + 0.5
    centre = (lost - won) / (n + 2)
    half = _Z * sqrt((lost + won) - (lost - won) ** 2 / (n + 2)) / (n + 2)
    return Interval(float(difference.mean()), max(-1.0, centre - half), min(1.0, centre + half), n)


def _student(values: NDArray[np.float64]) -> Interval:
    n, mean = values.size, float(values.mean())
    if n == 1:
        raise InputError("expected at least 2 samples for an interval, got 1; evaluate on more samples")
    half = float(stats.t.ppf(0.975, n - 1)) * float(values.std(ddof=1)) / sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def _checked(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    values = np.asarray(scores, dtype=np.float64).reshape(-1)
    if values.size == 0:
        raise InputError("expected at least one score, got none; check the evaluation data")
    return values


def _is_binary(values: NDArray[np.float64]) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())
