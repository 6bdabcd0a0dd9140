"""The range whose quantization error has the smallest mean square."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwdse.calibrate.histogram import Histogram
from hwdse.formats import NumberFormat, Scheme, Symmetry

__all__ = ["estimate"]

_FRACTIONS = np.linspace(0.02, 1.0, 99)


def estimate(histogram: Histogram, number_format: NumberFormat, scheme: Scheme) -> tuple[float, float]:
    """Return the fraction of the seen range that minimises the mean square of rounding and clipping errors.

    The error is integrated over the histogram for 99 fractions of the range, both ends shrunk alike. The widest of
    equally good ranges wins.
    """
    low, high = min(histogram.minimum, 0.0), max(histogram.maximum, 0.0)
    if low == high or number_format.lowest is None or number_format.highest is None:
        return low, high
    centers, counts = histogram.centers, histogram.counts
    used = counts > 0
    centers, counts = centers[used], counts[used]
    width = histogram.edges[1] - histogram.edges[0]
    steps = _steps(low, high, number_format, scheme)
    errors = np.array(
        [_error(centers, counts, low * f, high * f, step=(high - low) * f / steps, width=width) for f in _FRACTIONS]
    )
    best = _FRACTIONS[errors.size - 1 - int(np.argmin(errors[::-1]))]
    return low * best, high * best


def _steps(low: float, high: float, number_format: NumberFormat, scheme: Scheme) -> float:
    """Return into how many steps the scheme divides ``[low, high]``."""
    assert number_format.highest is not None
    if scheme.activations is Symmetry.AFFINE or (low == 0.0 and scheme.unsigned_activations):
        return float(2**number_format.bits - 1)
    return number_format.highest * (high - low) / max(-low, high)


def _error(
    centers: NDArray[np.float64],
    counts: NDArray[np.float64],
    low: float,
    high: float,
    *,
    step: float,
    width: float,
) -> float:
    """Return the summed squared error of a grid from ``low`` to ``high``, for values spread evenly in their bins."""
    rounded = np.clip(np.round(centers / step) * step, low, high)
    # Within a bin much wider than the step the value is anywhere between two levels.
    within = np.where((centers > low) & (centers < high) & (width > step), step**2 / 12, (centers - rounded) ** 2)
    return float(within @ counts)
