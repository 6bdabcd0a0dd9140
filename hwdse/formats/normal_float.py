"""Normal floats: quantiles of the Gauss distribution."""

from __future__ import annotations

import re
from functools import partial
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from hwdse.formats.number_format import Kind, NumberFormat

__all__ = ["SPELLING", "normal_float", "normal_float_values"]

SPELLING = "nf2 to nf8"


def normal_float_values(bits: int, offset: float | None = None) -> NDArray[np.float64]:
    """Return the values of a normal float, ascending, the outermost at -1 and 1.

    Quantiles of the Gauss distribution at equally spaced probabilities, ``2^(bits - 1)`` above zero and one fewer
    below, so that zero is among them ([Dettmers2023]_, equation 4).

    Parameters
    ----------
    bits
        Bits of a code.
    offset
        Probability of the outermost quantile; by default the mean of the outermost probabilities of ``2^(bits + 1)``
        and ``2^(bits + 1) - 2`` equal cells, which is .9677 at 4 bits.

    >>> normal_float_values(2).round(4).tolist()
    [-1.0, 0.0, 0.4358, 1.0]
    """
    if offset is None:
        offset = 1.0 - 0.25 * (1 / 2**bits + 1 / (2**bits - 1))
    half = 2 ** (bits - 1)
    above, below = (_quantiles(np.linspace(offset, 0.5, count + 1)[:-1]) for count in (half, half - 1))
    values = np.concatenate([-below, [0.0], above[::-1]])
    scaled: NDArray[np.float64] = values / above[0]
    return scaled


def _quantiles(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([NormalDist().inv_cdf(p) for p in probabilities.tolist()])


def normal_float(name: str) -> NumberFormat | None:
    """Return the normal float called ``name``; ``None`` if it is of another family."""
    match = re.fullmatch(r"nf([2-8])", name, flags=re.ASCII)
    if match is None:
        return None
    return NumberFormat(name, int(match[1]), Kind.CODEBOOK, listed=partial(normal_float_values, int(match[1])))
