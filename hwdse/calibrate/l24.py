"""The range whose quantization error has the smallest mean of its 2.4th power."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwdse.calibrate.distribution import Distribution
from hwdse.calibrate.search import least_error_range
from hwdse.formats import Levels

__all__ = ["POWER", "calibrate"]

POWER = 2.4
"""As in the public code of [Li2021]_: large errors, of what is clipped, weigh more than in the mean square."""


def calibrate(distribution: Distribution, levels: Levels) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the range of each row with the least sum of ``|error|^2.4``."""
    return least_error_range(distribution, levels, power=POWER)
