"""Every name of a format, and distributions whose error on any list of levels is exact."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from hwdse.errors import InputError
from hwdse.formats import Levels, Scheme, Symmetry, parse

DISTRIBUTIONS = {"uniform": stats.uniform(-1, 2), "gauss": stats.norm(), "laplace": stats.laplace(), "t5": stats.t(5)}


def _names():
    """The names of all formats, family by family, as the spellings promise them."""
    posits = [
        f"posit{n}_{es}" for n in range(3, 17) for es in range(10) if (n - 2) * 2**es <= 126
    ]  # from 2^-126 to 2^126
    return {
        "integer": [f"{sign}int{bits}" for sign in ("", "u") for bits in range(1, 17)],
        "floating point": "fp4_e2m1 fp6_e2m3 fp6_e3m2 fp8_e4m3 fp8_e5m2 fp16 bf16 fp32".split(),
        "normal float": [f"nf{bits}" for bits in range(2, 9)],
        "powers of two": [f"{kind}{bits}" for kind in ("pot", "apot") for bits in range(2, 9)],
        "posit": posits,
        "few levels": ["binary", "ternary"],
        "learned": [*(f"codebook{bits}" for bits in range(1, 9)), *(f"quantile{bits}" for bits in range(2, 9))],
    }


NAMES = _names()
SCHEMES = {
    "restricted": Scheme(),
    "full": Scheme(full_range=True),
    "affine": Scheme(weights=Symmetry.AFFINE, activations=Symmetry.AFFINE),
}


def _all_levels():
    """The levels that weights and activations may have, by the name of the format and the scheme."""
    found = {}
    for name in (name for family, names in NAMES.items() if family != "learned" for name in names if name != "fp32"):
        number_format = parse(name)
        for word, scheme in SCHEMES.items() if number_format.is_integer else {"": Scheme()}.items():
            try:
                found[f"{name} {word}".strip()] = Levels.of_weights(number_format, scheme)
            except InputError:
                activations = Levels.of_activations(number_format, scheme, nonnegative=True)
                found[f"{name} {word}".strip()] = activations
    return found


@pytest.fixture(scope="session")
def names():
    return NAMES


@pytest.fixture(scope="session")
def all_levels():
    return _all_levels()


class Quantiles:
    """Equally likely values, ascending, of unit rms, with their sums: the error of levels needs no loop over them."""

    def __init__(self, values):
        self.values = values / np.sqrt(np.mean(values**2))
        self.moment, self.square = (np.concatenate([[0.0], np.cumsum(self.values**p)]) for p in (1, 2))

    def sqnr_db(self, levels):
        """SQNR of rounding to ``levels``, ascending, ``(..., levels)``."""
        levels = np.asarray(levels)
        inner = np.searchsorted(self.values, (levels[..., :-1] + levels[..., 1:]) / 2)
        ends = np.concatenate(
            [np.zeros_like(inner[..., :1]), inner, np.full_like(inner[..., :1], self.values.size)], -1
        )
        count, moment = np.diff(ends), np.diff(self.moment[ends])
        error = self.square[-1] - (2.0 * levels * moment - levels**2 * count).sum(-1)
        return 10.0 * np.log10(self.square[-1] / error)

    def best_sqnr_db(self, levels, anchor):
        """SQNR of ``levels`` at the best of 1,500 scales, with ``anchor`` at 0.05 to 40 times the rms."""
        scales = np.geomspace(0.05, 40.0, 1500) / anchor
        return self.sqnr_db(scales[:, None] * levels).max()


@cache
def _quantiles(count):
    # Middles of equal shares of the upper half, mirrored.
    shares = 0.5 + (np.arange(count // 2) + 0.5) / count
    halves = {name: distribution.ppf(shares) for name, distribution in DISTRIBUTIONS.items()}
    return {name: Quantiles(np.concatenate([-half[::-1], half])) for name, half in halves.items()}


@pytest.fixture(scope="session")
def quantiles():
    """Return a function from a number of values to :class:`Quantiles` of the four distributions."""
    return _quantiles


@pytest.fixture(scope="session")
def rounding():
    """Ways to round, to compare: by the thresholds of levels, and by looking at all of them."""

    def by_thresholds(levels, x):
        return levels.values[np.searchsorted(levels.thresholds, np.asarray(x, dtype=np.float32), side="right")]

    def least_distance(levels, x):
        return np.abs(np.asarray(x, dtype=np.float64)[:, None] - levels.values).min(1)

    return SimpleNamespace(by_thresholds=by_thresholds, least_distance=least_distance)
