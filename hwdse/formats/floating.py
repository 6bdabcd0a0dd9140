"""Floating point: sign, exponent, mantissa. The small ones carry a scale, the 16-bit ones stand as they are."""

from __future__ import annotations

from enum import StrEnum
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hwdse.formats.number_format import FP32, Kind, NumberFormat

__all__ = ["SPELLING", "floating", "minifloat_values"]


class Top(StrEnum):
    """What the largest exponent means.

    ``finite``: numbers like the others ([OCPMX2023]_). ``one_nan``: numbers, but all ones is NaN ([OCPFP8]_, E4M3).
    ``ieee``: infinity and NaN only ([IEEE754]_).
    """

    FINITE = "finite"
    ONE_NAN = "one_nan"
    IEEE = "ieee"


SCALED = {
    "fp4_e2m1": (2, 1, Top.FINITE),
    "fp6_e2m3": (2, 3, Top.FINITE),
    "fp6_e3m2": (3, 2, Top.FINITE),
    "fp8_e4m3": (4, 3, Top.ONE_NAN),
    "fp8_e5m2": (5, 2, Top.IEEE),
}
PLAIN = {"fp16": (5, 10, Top.IEEE), "bf16": (8, 7, Top.IEEE)}
SPELLING = ", ".join([*SCALED, *PLAIN, FP32.name])


def minifloat_values(exponent_bits: int, mantissa_bits: int, top: Top) -> NDArray[np.float64]:
    """Return all finite values of a binary floating-point format, ascending, with subnormals; zero stands once.

    The bias is ``2^(exponent_bits - 1) - 1``.

    >>> minifloat_values(2, 1, Top.FINITE)[7:].tolist()
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    """
    codes = np.arange(2 ** (exponent_bits + mantissa_bits))
    exponent, mantissa = codes >> mantissa_bits, codes & (2**mantissa_bits - 1)
    bias = 2 ** (exponent_bits - 1) - 1
    significand = (exponent > 0) + mantissa / 2**mantissa_bits
    magnitudes = np.ldexp(significand, np.maximum(exponent, 1) - bias)
    if top is Top.IEEE:
        magnitudes = magnitudes[exponent < 2**exponent_bits - 1]
    elif top is Top.ONE_NAN:
        magnitudes = magnitudes[:-1]
    return np.concatenate([-magnitudes[:0:-1], magnitudes])


def floating(name: str) -> NumberFormat | None:
    """Return the floating-point format called ``name``; ``None`` if it is of another family."""
    if name == FP32.name:
        return FP32
    kind, shape = (Kind.CODEBOOK, SCALED.get(name)) if name in SCALED else (Kind.PLAIN, PLAIN.get(name))
    if shape is None:
        return None
    return NumberFormat(name, 1 + shape[0] + shape[1], kind, listed=partial(minifloat_values, *shape))
