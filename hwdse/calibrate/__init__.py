"""Range estimators for activations, one short file each.

An estimator is a function ``(histogram, number_format, scheme) -> (low, high)``, registered under the entry-point group
``hwdse.calibrators``; built-in and foreign ones are found the same way.
"""

from __future__ import annotations

from collections.abc import Callable

from hwdse.calibrate.histogram import Histogram
from hwdse.formats import NumberFormat, Scheme
from hwdse.plugins import load_plugin

__all__ = ["Histogram", "RangeEstimator", "range_estimator"]

RangeEstimator = Callable[[Histogram, NumberFormat, Scheme], tuple[float, float]]


def range_estimator(name: str) -> RangeEstimator:
    """Return the range estimator called ``name``.

    Raises
    ------
    InputError
        If no such estimator is installed.
    """
    estimator: RangeEstimator = load_plugin("hwdse.calibrators", name)
    return estimator
