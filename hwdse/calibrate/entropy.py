"""The range whose grid loses the least information about the distribution."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hwdse.calibrate.distribution import Distribution
from hwdse.formats import Levels

__all__ = ["calibrate"]

Values = NDArray[np.float64]

BINS = 2048
FEWEST_BINS = 128
PIECE = 2**15
"""Group masses that are worked on at once: few enough for a cache."""

SMALLEST = float(np.finfo(np.float64).tiny)
TIE = 1e-12
"""Divergences this close to each other differ by rounding."""


def calibrate(distribution: Distribution, levels: Levels) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the range with the least Kullback-Leibler divergence between the clipped values and their grid.

    The algorithm of [Migacz2017]_ on 2,048 bins of ``|x|``: the first ``i`` bins, with everything beyond added to the
    last of them, against the same bins without that, in as many groups as there are magnitudes on the grid, each spread
    evenly over its bins that are not empty. ``i`` runs from 128 to 2,048, or from ``2^bits`` for fewer than 7 bits; of
    equally good ones the widest is taken. The first bin counts as many as the second, whatever the zeros.

    A grid for both signs has ``2^(bits - 1)`` magnitudes, one for a single sign has ``2^bits``. A list of values gets
    the range of the integers with as many bits. What has no fewer magnitudes than there are bins keeps its extremes.
    Several rows are too short for 2,048 bins each: all of them, divided by their largest magnitudes, find one share of
    these.
    """
    bits = levels.number_format.bits
    one_sided = distribution.is_one_sided.all() if levels.is_affine else levels.lowest == 0
    groups = 2**bits if one_sided else 2 ** (bits - 1)
    share = 1.0
    if groups < BINS:
        share = _fewest_lost(distribution.magnitudes(BINS), groups, min(FEWEST_BINS, 2**bits)) / BINS
    return distribution.limited(-share * distribution.largest, share * distribution.largest)


def _fewest_lost(bins: Values, groups: int, start: int) -> int:
    """Return how many of the ``bins`` have the least divergence."""
    bins = np.concatenate([bins[1:2], bins[1:]])
    if not bins.any():
        return bins.size
    divergences = _divergences(bins, groups, start)
    return start + int(np.flatnonzero(divergences <= divergences.min() + TIE)[-1])


def _divergences(bins: Values, groups: int, start: int) -> Values:
    """Return the divergence in nats of each number of bins from ``start`` on; infinite where the last one is empty.

    With ``p`` the counts, ``m`` those of a group and ``n`` its bins that are not empty, the sum of ``p log(p / q)``
    is that of ``p log p`` over bins less that of ``m log(m / n)`` over groups, but for the last bin. Both are
    differences of cumulative sums.
    """
    counts = np.arange(start, bins.size + 1)
    mass, filled, own = (_below(values) for values in (bins, bins > 0.0, _x_log_x(bins)))
    kept, total, last = mass[counts], mass[-1], bins[counts - 1]
    clipped = total - kept
    within, last_level = np.empty(counts.size), np.empty(counts.size)
    bounds = _bounds(groups, start, bins.size)
    rows = max(1, PIECE // groups)
    for piece in (slice(first, first + rows) for first in range(0, counts.size, rows)):
        in_group, level = np.diff(mass[bounds[piece]]), np.diff(filled[bounds[piece]])
        np.divide(in_group, np.maximum(level, 1.0, out=level), out=level)
        last_level[piece] = level[:, -1]
        # A group without counts adds 0, whatever its logarithm.
        np.log(np.maximum(level, SMALLEST, out=level), out=level)
        within[piece] = np.einsum("ij,ij->i", in_group, level)
    # With fewer bins than groups each bin is a group.
    last_level = np.where(counts < groups, last, last_level)
    lost = own[counts - 1] + _x_log_x(last + clipped) - within - clipped * np.log(np.maximum(last_level, SMALLEST))
    divergences = lost / total + np.log(np.maximum(kept, SMALLEST) / total)
    return np.where((last > 0.0) | (clipped == 0.0), divergences, np.inf)


def _below(values: NDArray[np.generic]) -> Values:
    """Return the sum of all values before each and of all of them."""
    return np.concatenate([[0.0], np.cumsum(values)])


def _x_log_x(x: Values) -> Values:
    product: Values = x * np.log(np.maximum(x, SMALLEST))
    return product


@lru_cache(maxsize=8)
def _bounds(groups: int, start: int, bins: int) -> NDArray[np.intp]:
    """Return the first bin of each group, and the end, ``(bins - start + 1, groups + 1)``."""
    counts = np.arange(start, bins + 1)[:, None]
    return -(-counts * np.arange(groups + 1) // groups)
