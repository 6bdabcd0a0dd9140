"""The range whose quantization error has the smallest mean square."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwdse.calibrate.histogram import Histogram
from hwdse.formats import NumberFormat, Scheme, activation_grid

__all__ = ["estimate"]

_FRACTIONS = np.linspace(0.02, 1.0, 99)


def estimate(histogram: Histogram, number_format: NumberFormat, scheme: Scheme) -> tuple[float, float]:
    """Return the fraction of the seen range that minimises the mean square of rounding and clipping errors.

    The error is integrated over the histogram, values spread evenly in their bins, for 99 fractions of the range, both
    ends shrunk alike. The widest of equally good ranges wins.
    """
    low, high = min(histogram.minimum, 0.0), max(histogram.maximum, 0.0)
    if low == high or not number_format.is_integer:
        return low, high
    edges, counts = histogram.edges, histogram.counts
    errors = np.array(
        [
            _error(edges, counts, *activation_grid(low * f, high * f, number_format=number_format, scheme=scheme))
            for f in _FRACTIONS
        ]
    )
    best = float(_FRACTIONS[errors.size - 1 - int(np.argmin(errors[::-1]))])
    return low * best, high * best


def _error(
    edges: NDArray[np.float64],
    counts: NDArray[np.float64],
    number_format: NumberFormat,
    scale: float,
    zero_point: int,
) -> float:
    """Return the mean squared error of a grid times the number of values, for values spread evenly in their bins.

    In units of the scale, the squared error integrated from 0 to ``x`` is 1/12 for each code passed and a third of a
    cube for the rest, which clipping makes long.
    """
    assert number_format.lowest is not None
    assert number_format.highest is not None
    x = edges / scale
    code = np.clip(np.round(x), number_format.lowest - zero_point, number_format.highest - zero_point)
    rest = x - code
    integral = code / 12 + rest * rest * rest / 3
    return float(np.diff(integral) @ counts) * scale**2 / float(x[1] - x[0])
