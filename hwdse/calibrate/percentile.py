"""The range that leaves out a fixed share of the values at each end."""

from __future__ import annotations

import numpy as np

from hwdse.calibrate.histogram import Histogram
from hwdse.formats import NumberFormat, Scheme

__all__ = ["SHARE", "estimate"]

SHARE = 1e-4
"""Share of the values left out: the 99.99th percentile, as in pytorch-quantization."""


def estimate(histogram: Histogram, number_format: NumberFormat, scheme: Scheme) -> tuple[float, float]:
    """Return the range between the 0.01th and the 99.99th percentile, to the resolution of the histogram.

    A side with fewer values than that keeps its extreme: a tensor that is never negative starts at its minimum.
    """
    del number_format, scheme
    cumulative = np.cumsum(histogram.counts) / histogram.count
    edges = histogram.edges
    low = float(edges[np.searchsorted(cumulative, SHARE, side="right")])
    high = float(edges[min(int(np.searchsorted(cumulative, 1.0 - SHARE)) + 1, edges.size - 1)])
    return max(low, histogram.minimum), min(high, histogram.maximum)
