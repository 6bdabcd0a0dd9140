"""The range that the batches have on average, the last ones most."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwdse.calibrate.distribution import Distribution
from hwdse.formats import Levels

__all__ = ["calibrate"]


def calibrate(distribution: Distribution, levels: Levels) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the exponential moving averages of each batch's smallest and largest value ([Jacob2018]_, section 3.1).

    Weights are one batch: their extremes.
    """
    del levels
    return distribution.ema
