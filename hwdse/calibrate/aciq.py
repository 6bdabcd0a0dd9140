"""The range with the least squared error if the values had the density of Gauss or Laplace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import erfc, ndtr

from hwdse.calibrate.distribution import Distribution
from hwdse.formats import Levels

__all__ = ["GAUSS", "LAPLACE", "Density", "best_clip", "best_range", "calibrate_gauss", "calibrate_laplace"]

Values = NDArray[np.float64]

_WIDEST_CLIP = 60.0
_QUARTERS = np.arange(-24, 41) / 4


@dataclass(frozen=True)
class Density:
    """A density of unit spread: standard deviation 1 for Gauss, mean magnitude 1 for Laplace.

    Attributes
    ----------
    mean_square
        Second moment.
    clipping
        Mean square of what is clipped at ``a``.
    below
        Mass and first moment below ``x``, shaped as it is.
    """

    mean_square: float
    clipping: Callable[[float], float]
    below: Callable[[Values], tuple[Values, Values]]

    def error(self, clip: float, bits: int) -> float:
        """Return the mean squared error of ``2^bits`` steps up to ``clip`` on either side ([Banner2019]_, eq. 3)."""
        return self.clipping(clip) + clip**2 / (3.0 * 4.0**bits)

    def error_of_levels(self, values: Values) -> float:
        """Return the mean squared distance from the nearest of ``values``, ascending; exact."""
        mass, moment = self.below((values[:-1] + values[1:]) / 2)
        masses = np.diff(mass, prepend=0.0, append=1.0)
        moments = np.diff(moment, prepend=0.0, append=0.0)
        return self.mean_square + float(values @ (values * masses - 2.0 * moments))


def _gauss_clipping(clip: float) -> float:
    beyond = (1.0 + clip**2) * erfc(clip / np.sqrt(2.0))
    return float(beyond - np.sqrt(2.0 / np.pi) * clip * np.exp(-(clip**2) / 2.0))


def _gauss_below(x: Values) -> tuple[Values, Values]:
    return ndtr(x), -np.exp(-(x**2) / 2.0) / np.sqrt(2.0 * np.pi)


def _laplace_clipping(clip: float) -> float:
    return float(2.0 * np.exp(-clip))


def _laplace_below(x: Values) -> tuple[Values, Values]:
    tail = np.exp(-np.abs(x)) / 2.0
    return np.where(x < 0.0, tail, 1.0 - tail), -(np.abs(x) + 1.0) * tail


GAUSS = Density(1.0, _gauss_clipping, _gauss_below)
LAPLACE = Density(2.0, _laplace_clipping, _laplace_below)


@lru_cache
def best_clip(density: Density, bits: int) -> float:
    """Return the clip with the least :meth:`Density.error`, in units of the spread.

    >>> round(best_clip(GAUSS, 4), 3), round(best_clip(LAPLACE, 4), 3)
    (2.559, 5.029)
    """
    return float(minimize_scalar(density.error, args=(bits,), bounds=(0.0, _WIDEST_CLIP), method="bounded").x)


@lru_cache
def best_range(density: Density, levels: Levels) -> float:
    """Return where the anchor of ``levels`` stands for the least error, in units of the spread.

    >>> from hwdse.formats import parse
    >>> round(best_range(GAUSS, Levels(parse("binary"))), 4)  # the mean magnitude
    0.7979
    """

    def error(octaves: float) -> float:
        return density.error_of_levels(levels.values * (2.0**octaves / levels.anchor))

    start = min(_QUARTERS, key=error)
    found = minimize_scalar(error, bounds=(start - 0.25, start + 0.25), method="bounded")
    return float(2.0**found.x)


def calibrate_gauss(distribution: Distribution, levels: Levels) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the best range for a Gauss density with the standard deviation of each row ([Banner2019]_).

    An affine grid for both signs is centred on the mean. All others are centred on 0 and take the moments of the values
    that are not 0, which costs them nothing; a grid for a single sign has a bit more for a magnitude. Lists of values
    have the error of their own levels integrated. No range is wider than seen, except where the anchor of a list is not
    its largest level: it may well stand beyond the values.
    """
    spread = np.sqrt(distribution.mean_square / _kept(distribution, levels))
    return _range(distribution, levels, GAUSS, spread, np.sqrt(distribution.moments.m2 / distribution.count))


def calibrate_laplace(distribution: Distribution, levels: Levels) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the best range for a Laplace density with the mean deviation of each row ([Banner2019]_).

    Centred and limited as with :func:`calibrate_gauss`.
    """
    spread = distribution.mean_magnitude / _kept(distribution, levels)
    return _range(distribution, levels, LAPLACE, spread, distribution.mean_deviation)


def _kept(distribution: Distribution, levels: Levels) -> Values:
    """Return the share of the values that are not 0, or 1 if 0 is no level and costs something, ``(rows,)``."""
    kept = np.maximum(distribution.count - distribution.zeros, 1.0) / distribution.count
    is_listed = levels.number_format.has_scale and not levels.is_uniform
    return np.ones_like(kept) if is_listed and 0.0 not in levels.values else kept


def _range(
    distribution: Distribution, levels: Levels, density: Density, spread: Values, about_mean: Values
) -> tuple[Values, Values]:
    """Return the range of each row; ``spread`` is the one about 0."""
    number_format = levels.number_format
    if not number_format.has_scale:
        return distribution.limited(distribution.minimum, distribution.maximum)
    if not levels.is_uniform:
        clip = best_range(density, levels) * spread
        return (-clip, clip) if levels.anchor < levels.values[-1] else distribution.limited(-clip, clip)
    ratios = [best_clip(density, number_format.bits + more) for more in (0, 1)]
    if not levels.is_affine:
        clip = ratios[levels.lowest == 0] * spread
        return distribution.limited(-clip, clip)
    one_sided = distribution.is_one_sided
    clip = np.where(one_sided, ratios[1] * spread, ratios[0] * about_mean)
    centre = np.where(one_sided, 0.0, distribution.mean)
    return distribution.limited(centre - clip, centre + clip)
