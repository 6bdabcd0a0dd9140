"""The range that leaves out a fixed share of the values at each end."""

from __future__ import annotations

import numpy as np

from hwdse.calibrate.histogram import Histogram
from hwdse.formats import NumberFormat, Scheme

__all__ = ["ONE_IN", "estimate"]

ONE_IN = 10_000
"""One value in so many is left out at each end: the 99.99th percentile, as in pytorch-quantization."""


def estimate(histogram: Histogram, number_format: NumberFormat, scheme: Scheme) -> tuple[float, float]:
    """Return the range between the 0.01th and the 99.99th percentile, to the resolution of the histogram.

    A side with fewer values than that keeps its extreme: a tensor that is never negative starts at its minimum.
    """
    del number_format, scheme
    counts, edges = histogram.counts, histogram.edges
    left_out = histogram.count // ONE_IN
    below = int(np.searchsorted(np.cumsum(counts), left_out, side="right"))
    above = int(np.searchsorted(np.cumsum(counts[::-1]), left_out, side="right"))
    low, high = float(edges[below]), float(edges[edges.size - 1 - above])
    return max(low, histogram.minimum), min(high, histogram.maximum)
