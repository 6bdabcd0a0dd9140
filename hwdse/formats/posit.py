"""Posits: dense around one, sparse towards both ends."""

from __future__ import annotations

import re
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hwdse.formats.number_format import Kind, NumberFormat

__all__ = ["SPELLING", "posit", "posit_values"]

SPELLING = "posit{n}_{es} with n of 3 to 16 and a largest value of at most 2^126"
LARGEST_EXPONENT = 126  # of the largest value and, negated, of the smallest: both are normal float32


def posit_values(bits: int, exponent_bits: int) -> NDArray[np.float64]:
    """Return the ``2^bits - 1`` finite values of a posit format, ascending.

    A positive code is a regime (``m`` equal bits and their opposite), up to ``exponent_bits`` of exponent, which is
    filled up with zeros where it is cut off, and a fraction: ``useed^k 2^e (1 + f)`` with ``useed = 2^(2^es)`` and
    ``k`` of ``m - 1`` for ones, ``-m`` for zeros ([Gustafson2017]_). A negative code is the two's complement.

    >>> posit_values(4, 1)[8:].tolist()
    [0.0625, 0.25, 0.5, 1.0, 2.0, 4.0, 16.0]
    """
    positive = np.array([_decode(code, bits - 1, exponent_bits) for code in range(1, 2 ** (bits - 1))])
    return np.concatenate([-positive[::-1], [0.0], positive])


def _decode(code: int, width: int, exponent_bits: int) -> float:
    """Return the value of the ``width`` bits behind the sign."""
    text = f"{code:0{width}b}"
    run = len(text) - len(text.lstrip(text[0]))
    regime = run - 1 if text[0] == "1" else -run
    rest = text[run + 1 :]
    exponent = int(rest[:exponent_bits].ljust(exponent_bits, "0") or "0", 2)
    fraction = rest[exponent_bits:]
    significand = 1.0 + (int(fraction, 2) / 2 ** len(fraction) if fraction else 0.0)
    return float(np.ldexp(significand, regime * 2**exponent_bits + exponent))


def posit(name: str) -> NumberFormat | None:
    """Return the posit format called ``name``; ``None`` if it is of another family.

    Its anchor is 1: the largest value is so far out that a range which ended there would leave nothing of the precision
    around one.
    """
    match = re.fullmatch(r"posit([1-9]\d?)_(\d)", name, flags=re.ASCII)
    if match is None:
        return None
    bits, exponent_bits = int(match[1]), int(match[2])
    if not 3 <= bits <= 16 or (bits - 2) * 2**exponent_bits > LARGEST_EXPONENT:
        return None
    return NumberFormat(name, bits, Kind.CODEBOOK, listed=partial(posit_values, bits, exponent_bits), anchor=1.0)
