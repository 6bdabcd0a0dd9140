"""The range whose quantization error has the smallest mean square."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwdse.calibrate.distribution import Distribution
from hwdse.calibrate.search import least_error_range
from hwdse.formats import Levels

__all__ = ["calibrate"]


def calibrate(distribution: Distribution, levels: Levels) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the range of each row with the least sum of squared rounding and clipping errors."""
    return least_error_range(distribution, levels, power=2.0)
