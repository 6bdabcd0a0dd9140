"""The range that leaves out a fixed share of the values at each end."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwdse.calibrate.distribution import Distribution
from hwdse.formats import Levels

__all__ = ["ONE_IN", "calibrate"]

ONE_IN = 10_000
"""One value in so many is left out at each end: the 99.99th percentile, as in pytorch-quantization."""


def calibrate(distribution: Distribution, levels: Levels) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the range of each row between its 0.01th and 99.99th percentile.

    A row with fewer than 10,000 values keeps its extremes.
    """
    del levels
    return distribution.inner_range(1 / ONE_IN)
