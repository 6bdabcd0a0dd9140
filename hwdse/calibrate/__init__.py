"""Calibration: where the range of a grid should end, one short file per method.

A calibrator is a function ``(distribution, levels) -> (low, high)``, arrays with one entry per row (what shares a
scale), registered under the entry-point group ``hwdse.calibrators``; built-in and foreign ones are found the same way.
Weights and activations are calibrated alike.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hwdse.calibrate.distribution import Boxes, Distribution, Points
from hwdse.calibrate.histogram import Histogram
from hwdse.calibrate.stream import Stream
from hwdse.formats import Levels
from hwdse.plugins import load_plugin

__all__ = ["GROUP", "Boxes", "Calibrator", "Distribution", "Histogram", "Points", "Stream", "calibrator"]

GROUP = "hwdse.calibrators"

Calibrator = Callable[[Distribution, Levels], tuple[NDArray[np.float64], NDArray[np.float64]]]


def calibrator(name: str) -> Calibrator:
    """Return the calibrator called ``name``.

    Raises
    ------
    InputError
        If no such calibrator is installed.
    """
    found: Calibrator = load_plugin(GROUP, name)
    return found
