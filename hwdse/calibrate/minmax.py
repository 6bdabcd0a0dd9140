"""The range of everything seen."""

from __future__ import annotations

from hwdse.calibrate.histogram import Histogram
from hwdse.formats import NumberFormat, Scheme

__all__ = ["estimate"]


def estimate(histogram: Histogram, number_format: NumberFormat, scheme: Scheme) -> tuple[float, float]:
    """Return the smallest and largest value seen."""
    del number_format, scheme
    return histogram.minimum, histogram.maximum
