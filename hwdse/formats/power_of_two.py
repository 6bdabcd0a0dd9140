"""Powers of two, and sums of them: multiplication by shifts."""

from __future__ import annotations

import itertools
import re
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hwdse.formats.number_format import Kind, NumberFormat

__all__ = ["SPELLING", "additive_power_of_two_values", "power_of_two", "power_of_two_values"]

SPELLING = "pot2 to pot8, apot2 to apot8"


def power_of_two_values(bits: int) -> NDArray[np.float64]:
    """Return zero and the powers of two from 1 down, of both signs: ``2^(bits - 1) - 1`` magnitudes.

    >>> power_of_two_values(3).tolist()
    [-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0]
    """
    return _mirrored(np.ldexp(1.0, -np.arange(2 ** (bits - 1) - 1)[::-1]))


def additive_power_of_two_values(bits: int) -> NDArray[np.float64]:
    """Return all sums of one value from each of several sets of powers of two, of both signs, the largest at 1.

    The magnitude's ``bits - 1`` bits are divided into sets of two bits (zero and three powers) and, if one bit is left,
    one of a single bit (zero and one power); the powers are dealt to the sets in turn ([Li2020]_, equation 4).

    >>> additive_power_of_two_values(4)[7:].tolist()
    [0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0]
    """
    pairs, single = divmod(bits - 1, 2)
    sets = [[0.0] for _ in range(pairs + single)]
    exponents = itertools.count(1)
    for turn in range(3):
        # A set of one bit has room for one power, which it gets in the last turn (the only one if it stands alone).
        chosen = sets if turn == (2 if pairs else 0) else sets[:pairs]
        order = chosen[pairs:] + chosen[:pairs]
        for powers in order:
            powers.append(2.0 ** -next(exponents))
    magnitudes = np.unique([sum(terms) for terms in itertools.product(*sets)])
    return _mirrored(magnitudes[1:] / magnitudes[-1])


def _mirrored(magnitudes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return positive values with zero and their negatives, ascending."""
    return np.concatenate([-magnitudes[::-1], [0.0], magnitudes])


def power_of_two(name: str) -> NumberFormat | None:
    """Return the format of (additive) powers of two called ``name``; ``None`` if it is of another family."""
    match = re.fullmatch(r"(a?)pot([2-8])", name, flags=re.ASCII)
    if match is None:
        return None
    bits = int(match[2])
    make = additive_power_of_two_values if match[1] else power_of_two_values
    return NumberFormat(name, bits, Kind.CODEBOOK, listed=partial(make, bits))
