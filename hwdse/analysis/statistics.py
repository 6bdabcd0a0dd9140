"""The feature vector of a tensor or of its channels: what its distribution says about how hard it is to quantize."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_ndtr

from hwdse.calibrate.histogram import Histogram
from hwdse.calibrate.moments import Moments
from hwdse.calibrate.stream import Stream
from hwdse.errors import InputError

__all__ = ["Statistics", "statistics_of", "statistics_of_weight"]

Floats = NDArray[np.float64]

NEAR_ZERO = 1e-2  # of the root mean square
OUTLIER = 3.0  # standard deviations
QUANTILE = 0.999
CELLS = 256
BISECTIONS = 64


@dataclass(frozen=True)
class Statistics:
    """Features of each row, ``(rows,)``; none is ever NaN or infinite.

    What follows from moments and extremes is exact. What follows from the histogram (marked h) takes the values to be
    spread evenly in their bins, between the extremes, and exact zeros to be at 0: a spread far below the largest
    magnitude looks even. Entropy and divergences compare masses in 256 equal cells between the extremes, with an
    average too large by about (occupied cells) / (2 count) nats where values are few.

    ==================  ================================================  ========  ========
    feature             meaning                                           constant  all zero
    ==================  ================================================  ========  ========
    ``count``           values, zeros included                            n         n
    ``mean``                                                              c         0
    ``variance``        of the population                                 0         0
    ``std``             root of the variance                              0         0
    ``minimum``                                                           c         0
    ``maximum``                                                           c         0
    ``skewness``        third standardised moment                         0         0
    ``kurtosis``        fourth; 3 of Gauss, 1.8 of uniform values         1         1
    ``sparsity``        share of exact zeros                              0         1
    ``near_zero``       h share with ``|x|`` below 1 % of ``l2``, or 0    0         1
    ``l1``              mean of ``|x|``                                   abs(c)    0
    ``l2``              root mean square                                  abs(c)    0
    ``l1_over_l2``      at most 1                                         1         1
    ``crest``           largest ``|x|`` over ``l2``, at least 1           1         1
    ``q999_over_rms``   h 99.9 % quantile of ``|x|`` over ``l2``          1         1
    ``outlier_ratio``   h share more than 3 ``std`` from the mean         0         0
    ``entropy_bits``    h of the cells, at most 8                         0         0
    ``kl_uniform``      h divergence in nats from equal cells             0         0
    ``kl_gauss``        h from the Gauss of this mean and ``std``         0         0
    ``kl_laplace``      h from the Laplace of this median and mean        0         0
                        absolute deviation from it
    ==================  ================================================  ========  ========

    The last columns are the values where a quotient has none. A constant is the limit of two equally frequent values
    that meet, which gives its kurtosis, the least there is; a row of zeros is the limit of constants; either is its own
    fitted distribution. A variance whose square vanishes in float64 (a ``std`` below 1e-80) counts as 0. One value is a
    constant. A row without values has 0 everywhere.

    The mass that a fitted distribution has beyond the extremes is not added to the outer cells, so it counts as
    divergence; ``kl_uniform`` is ``ln 2 (8 - entropy_bits)``.
    """

    count: NDArray[np.int64]
    mean: Floats
    variance: Floats
    std: Floats
    minimum: Floats
    maximum: Floats
    skewness: Floats
    kurtosis: Floats
    sparsity: Floats
    near_zero: Floats
    l1: Floats
    l2: Floats
    l1_over_l2: Floats
    crest: Floats
    q999_over_rms: Floats
    outlier_ratio: Floats
    entropy_bits: Floats
    kl_uniform: Floats
    kl_gauss: Floats
    kl_laplace: Floats


def statistics_of(histogram: Histogram, moments: Moments) -> Statistics:
    """Return the features of each row of a tensor, from what one pass over it collected.

    Raises
    ------
    InputError
        If histogram and moments have not seen the same number of values in each row.
    """
    if not np.array_equal(histogram.count, moments.count):
        raise InputError("expected the histogram and the moments of the same values, got other counts")
    seen, n = moments.count > 0, np.maximum(moments.count, 1)
    mean, variance, mean_square = moments.mean, moments.m2 / n, moments.mean_square
    std, rms = np.sqrt(variance), np.sqrt(mean_square)
    minimum, maximum = np.where(seen, moments.minimum, 0.0), np.where(seen, moments.maximum, 0.0)
    largest = np.maximum(-minimum, maximum)
    varies, is_nonzero = variance**2 > 0.0, mean_square > 0.0

    boxes = _Boxes(histogram)
    steps = np.where(varies, maximum - minimum, 1.0)[:, None] * np.linspace(0.0, 1.0, CELLS + 1)
    mass = boxes.between(minimum[:, None] + steps) / n[:, None]
    negative_entropy = _divergence(mass, np.zeros_like(mass))
    median = boxes.median()
    # Differences first: a spread far below the mean would be lost in the grid.
    from_mean = ((minimum - mean)[:, None] + steps) / np.where(varies, std, 1.0)[:, None]
    from_median = ((minimum - median)[:, None] + steps) / np.where(varies, boxes.deviation(median) / n, 1.0)[:, None]
    return Statistics(
        count=moments.count.copy(),
        mean=mean.copy(),
        variance=variance,
        std=std,
        minimum=minimum,
        maximum=maximum,
        skewness=_quotient(moments.m3 / n, variance * std, where=varies, otherwise=np.zeros(len(n))),
        kurtosis=_quotient(moments.m4 / n, variance**2, where=varies, otherwise=seen),
        sparsity=moments.zeros / n,
        near_zero=boxes.within(np.zeros(len(n)), NEAR_ZERO * rms) / n,
        l1=moments.mean_magnitude,
        l2=rms,
        l1_over_l2=_quotient(moments.mean_magnitude, rms, where=is_nonzero, otherwise=seen),
        crest=_quotient(largest, rms, where=is_nonzero, otherwise=seen),
        q999_over_rms=_quotient(boxes.magnitude(QUANTILE), rms, where=is_nonzero, otherwise=seen),
        outlier_ratio=np.where(varies, 1.0 - boxes.within(mean, OUTLIER * std) / n, 0.0),
        entropy_bits=np.where(varies, -negative_entropy / np.log(2.0), 0.0),
        kl_uniform=np.where(varies, negative_entropy + np.log(CELLS), 0.0),
        kl_gauss=np.where(varies, _divergence(mass, _log_gauss(from_mean)), 0.0),
        kl_laplace=np.where(varies, _divergence(mass, _log_laplace(from_median)), 0.0),
    )


def statistics_of_weight(weight: torch.Tensor, axis: int) -> tuple[Statistics, Statistics]:
    """Return the features of a weight as a whole, ``(1,)``, and of its channels along ``axis``, ``(channels,)``.

    Raises
    ------
    InputError
        If the weight has no value, one that is not finite, or no such axis.
    """
    stream = Stream(axis)
    stream.add(weight)
    if stream.channels is None or stream.channel_moments is None:
        raise InputError(f"expected a weight with values, got one of shape {tuple(weight.shape)}")
    return (
        statistics_of(stream.tensor, stream.moments),
        statistics_of(stream.channels, stream.channel_moments),
    )


class _Boxes:
    """A histogram's values: exact zeros, and others spread evenly in their bins, between the extremes."""

    def __init__(self, histogram: Histogram) -> None:
        seen = histogram.count > 0
        self.count, self.zeros = histogram.count, histogram.zeros
        self.low, self.high = np.where(seen, histogram.minimum, 0.0), np.where(seen, histogram.maximum, 0.0)
        edges = histogram.edges
        self._start, self._widths = edges[:, :1], histogram.widths[:, None]
        self._edges = np.clip(edges, self.low[:, None], self.high[:, None])
        self._counts = histogram.counts
        self._below = np.pad(np.cumsum(self._counts, axis=1), ((0, 0), (1, 0)))

    def nonzero_up_to(self, points: Floats) -> Floats:
        """Return how many values other than 0 are at most ``points``, ``(rows, k)``."""
        place = np.clip((points - self._start) // self._widths, 0, self._counts.shape[1] - 1).astype(np.int64)
        left, right = (np.take_along_axis(self._edges, place + i, axis=1) for i in (0, 1))
        # A box without width holds equal values.
        share = _quotient(
            np.clip(points, left, right) - left, right - left, where=right > left, otherwise=points >= left
        )
        inside: Floats = share * np.take_along_axis(self._counts, place, axis=1)
        return inside + np.take_along_axis(self._below, place, axis=1)

    def up_to(self, points: Floats) -> Floats:
        """Return how many values are at most ``points``, ``(rows,)``."""
        return self.nonzero_up_to(points[:, None])[:, 0] + self.zeros * (points >= 0.0)

    def within(self, centre: Floats, radius: Floats) -> Floats:
        """Return how many values are no further than ``radius`` from ``centre``, ``(rows,)``."""
        ends = self.nonzero_up_to(np.stack([centre - radius, centre + radius], axis=1))
        return ends[:, 1] - ends[:, 0] + self.zeros * (np.abs(centre) <= radius)

    def between(self, grid: Floats) -> Floats:
        """Return how many values are in each cell of ``grid``, ``(rows, cells + 1)``, which spans the extremes."""
        below = self.nonzero_up_to(grid)
        below[:, -1] = self._below[:, -1]  # whatever the last point was rounded to
        cells = np.diff(below, axis=1)
        place = np.sum(grid[:, 1:-1] <= 0.0, axis=1)
        cells[np.arange(len(cells)), place] += self.zeros
        return cells

    def median(self) -> Floats:
        """Return the value that half of the values do not exceed, ``(rows,)``."""
        return _first(lambda t: self.up_to(t) >= 0.5 * self.count, np.nextafter(self.low, -np.inf), self.high)

    def magnitude(self, share: float) -> Floats:
        """Return the magnitude that a ``share`` of the values does not exceed, ``(rows,)``."""
        zero = np.zeros(len(self.low))
        return _first(lambda t: self.within(zero, t) >= share * self.count, zero, np.maximum(-self.low, self.high))

    def deviation(self, centre: Floats) -> Floats:
        """Return the sum of ``|x - centre|`` over all values, ``(rows,)``."""
        from_centre = self._edges - centre[:, None]
        left, right = from_centre[:, :-1], from_centre[:, 1:]
        # The mean over a box is at its middle, unless the centre is inside.
        middle = np.abs(left + right) / 2
        mean = _quotient(left**2 + right**2, 2 * (right - left), where=(left < 0.0) & (right > 0.0), otherwise=middle)
        total: Floats = (mean * self._counts).sum(axis=1)
        return total + self.zeros * np.abs(centre)


def _first(holds: Callable[[Floats], NDArray[np.bool_]], low: Floats, high: Floats) -> Floats:
    """Return the least value up to ``high`` for which a monotone condition holds, ``(rows,)``, by bisection."""
    for _ in range(BISECTIONS):
        middle = low + (high - low) / 2
        reached = holds(middle)
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    return high


def _quotient(
    numerator: Floats, denominator: Floats, *, where: NDArray[np.bool_], otherwise: NDArray[np.generic]
) -> Floats:
    """Return a quotient where it has a meaning, and another number elsewhere."""
    quotient: Floats = np.divide(numerator, denominator, out=otherwise.astype(np.float64), where=where)
    return quotient


def _divergence(mass: Floats, log_other: Floats) -> Floats:
    """Return ``sum(p log(p / q))`` over the cells, ``(rows,)``, in nats."""
    log_mass = np.log(mass, out=np.zeros_like(mass), where=mass > 0.0)
    divergence: Floats = (mass * (log_mass - log_other)).sum(axis=1)
    return divergence


def _log_gauss(z: Floats) -> Floats:
    """Return the logarithm of a standard Gauss' mass in each cell of ``z``, ``(rows, cells + 1)``."""
    # Far tails too: mirrored into the left tail, where differences of the distribution function keep their digits.
    mirrored = z[:, :-1] + z[:, 1:] > 0.0
    low, high = log_ndtr(np.where(mirrored, -z[:, 1:], z[:, :-1])), log_ndtr(np.where(mirrored, -z[:, :-1], z[:, 1:]))
    mass: Floats = high + np.log1p(-np.exp(low - high))
    return mass


def _log_laplace(z: Floats) -> Floats:
    """Return the logarithm of a standard Laplace's mass in each cell of ``z``, ``(rows, cells + 1)``."""
    low, high = z[:, :-1], z[:, 1:]
    width, near = high - low, np.maximum(np.maximum(low, -high), 0.0)  # near: distance from 0, if outside the cell
    outside = -near + np.log(-np.expm1(-width))
    around = np.log(-np.expm1(-np.abs(low)) - np.expm1(-np.abs(high)), out=np.zeros_like(low), where=width > 0.0)
    mass: Floats = np.where((low < 0.0) & (high > 0.0), around, outside) - np.log(2.0)
    return mass
