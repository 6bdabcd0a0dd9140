"""Number formats, precisions and schemes: what a number may be, and how a device maps tensors onto it.

A number format is a *value*: its name, its bits and the grid it spans. A family is one entry of :data:`FAMILIES`,
a function from a name to a format; adding a family adds an entry and touches nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from hwdse.errors import InputError

__all__ = [
    "FAMILIES",
    "FP32",
    "Granularity",
    "NumberFormat",
    "Precision",
    "Scheme",
    "Symmetry",
    "activation_grid",
    "parse",
]


@dataclass(frozen=True)
class NumberFormat:
    """A finite set of values with a bit-width.

    Attributes
    ----------
    name
        Canonical name, for example ``int4`` or ``uint8``.
    bits
        Bits that one value occupies.
    lowest, highest
        Smallest and largest code of a uniform integer grid; ``None`` for a floating-point format.
    """

    name: str
    bits: int
    lowest: int | None = None
    highest: int | None = None

    @property
    def is_integer(self) -> bool:
        """True for a uniform grid of integer codes (quantized by scale and zero point).

        >>> parse("uint4").is_integer, FP32.is_integer
        (True, False)
        """
        return self.lowest is not None

    @property
    def is_signed(self) -> bool:
        """True if the format holds negative values."""
        return self.lowest is None or self.lowest < 0

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """All finite values at scale 1, ascending.

        Raises
        ------
        InputError
            If the format has too many values to list (fp32).

        >>> parse("int2").values.tolist()
        [-2.0, -1.0, 0.0, 1.0]
        """
        if self.lowest is None or self.highest is None:
            raise InputError(f"expected a format of at most 2**16 values to list, got {self.name} with 2**{self.bits}")
        values = np.arange(self.lowest, self.highest + 1, dtype=np.float64)
        values.flags.writeable = False  # shared by everyone who parses the name
        return values

    def unsigned(self) -> NumberFormat:
        """Return the unsigned format of the same width; a format without one is returned as it is.

        >>> parse("int8").unsigned().name
        'uint8'
        """
        if not self.is_integer:
            return self
        return parse(f"uint{self.bits}")

    def __str__(self) -> str:
        return self.name


FP32 = NumberFormat("fp32", 32)
INTEGER_BITS = (2, 3, 4, 5, 6, 7, 8, 16)


def _integer(name: str) -> NumberFormat | None:
    """Return the integer format called ``name``: ``int2`` to ``int8``, ``int16``, and the same with ``u``."""
    match = re.fullmatch(r"(u?)int([1-9]\d?)", name)
    if match is None or int(match[2]) not in INTEGER_BITS:
        return None
    bits = int(match[2])
    if match[1]:
        return NumberFormat(name, bits, 0, 2**bits - 1)
    return NumberFormat(name, bits, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _ieee(name: str) -> NumberFormat | None:
    """Return the IEEE 754 format called ``name``."""
    return FP32 if name == "fp32" else None


FAMILIES: dict[str, Callable[[str], NumberFormat | None]] = {"integer": _integer, "ieee": _ieee}


@cache
def parse(name: str) -> NumberFormat:
    """Return the number format called ``name``.

    Raises
    ------
    InputError
        If no family knows the name.

    >>> parse("int4").bits
    4
    """
    for family in FAMILIES.values():
        number_format = family(name)
        if number_format is not None:
            return number_format
    known = ", ".join(f"int{b}" for b in INTEGER_BITS)
    raise InputError(f"expected a number format ({known}, each also as uint, or fp32), got {name!r}")


@dataclass(frozen=True)
class Precision:
    """A weight format with an activation format.

    ``W4A8`` stands for int4 weights with 8-bit integer activations; whether those are signed is the device's scheme
    and the tensor's range, not a choice. Other families are written out: ``Wnf4A8``. ``fp32`` is both in fp32.
    For a matrix product of two activations the second operand takes the place of the weights.
    """

    weights: NumberFormat
    activations: NumberFormat

    def __post_init__(self) -> None:
        for number_format in (self.weights, self.activations):
            if not number_format.is_signed:
                raise InputError(
                    f"expected formats such as int8, got {number_format.name}; leave the sign out, it follows from the "
                    "device's scheme and the tensor's range"
                )

    @classmethod
    def parse(cls, text: str) -> Precision:
        """Return the precision written as ``text``; ``str()`` gives the same text back.

        Raises
        ------
        InputError
            If ``text`` is not a precision in canonical spelling.

        >>> str(Precision.parse("W4A8")), Precision.parse("W2A8").weights.name
        ('W4A8', 'int2')
        """
        if text == "fp32":
            return FP32_PRECISION
        match = re.fullmatch(r"W([a-z0-9_]+)A([a-z0-9_]+)", text) if isinstance(text, str) else None
        if match is None:
            raise InputError(f"expected a precision such as W4A8 or fp32, got {text!r}")
        weights, activations = (parse(f"int{part}" if part.isdigit() else part) for part in match.groups())
        precision = cls(weights, activations)
        if str(precision) != text:
            raise InputError(f"expected a precision in canonical spelling ({precision}), got {text!r}")
        return precision

    def __str__(self) -> str:
        if self.weights == self.activations == FP32:
            return "fp32"
        return f"W{_short(self.weights)}A{_short(self.activations)}"


def _short(number_format: NumberFormat) -> str:
    """Return the name of a format inside a precision: the bits alone for a signed integer."""
    return str(number_format.bits) if number_format.is_integer else number_format.name


FP32_PRECISION = Precision(FP32, FP32)


class Symmetry(StrEnum):
    """How a range is centred: ``symmetric`` around zero (zero point 0), or ``affine`` with a zero point."""

    SYMMETRIC = "symmetric"
    AFFINE = "affine"


class Granularity(StrEnum):
    """How many values share one scale."""

    PER_TENSOR = "per_tensor"
    PER_CHANNEL = "per_channel"


@dataclass(frozen=True)
class Scheme:
    """How a device represents numbers; accuracy depends on (configuration, scheme) and on nothing else of a device.

    Attributes
    ----------
    weights, activations
        Symmetric or affine grids.
    weight_granularity
        One scale per tensor or per output channel. Activations always have one scale per tensor.
    full_range
        Weights use the lowest code (-8 for int4) too; the usual choice on silicon is the restricted, symmetric range.
    unsigned_activations
        A tensor that is never negative is stored unsigned.

    Rounding is to nearest, ties to even.
    """

    weights: Symmetry = Symmetry.SYMMETRIC
    activations: Symmetry = Symmetry.SYMMETRIC
    weight_granularity: Granularity = Granularity.PER_CHANNEL
    full_range: bool = False
    unsigned_activations: bool = True

    @property
    def key(self) -> str:
        """Text that is equal for equal schemes, for fingerprints and tables.

        >>> Scheme().key
        'w-symmetric-per_channel-restricted.a-symmetric-unsigned'
        """
        extent = "full" if self.full_range else "restricted"
        sign = "unsigned" if self.unsigned_activations else "signed"
        return f"w-{self.weights}-{self.weight_granularity}-{extent}.a-{self.activations}-{sign}"


def activation_grid(
    low: float, high: float, *, number_format: NumberFormat, scheme: Scheme
) -> tuple[NumberFormat, float, int]:
    """Return stored format, scale and zero point of an activation tensor with values in ``[low, high]``.

    The range is widened to hold 0, which every grid represents exactly. An all-zero tensor gets scale 1.

    Parameters
    ----------
    low, high
        Range that calibration found.
    number_format
        Signed integer format of the wanted width; the scheme decides whether the tensor is stored unsigned.
    scheme
        The device's scheme.

    Raises
    ------
    InputError
        If the format has no integer codes.

    >>> activation_grid(-1.0, 2.0, number_format=parse("int8"), scheme=Scheme(activations=Symmetry.AFFINE))[2]
    85
    """
    low, high = min(low, 0.0), max(high, 0.0)
    affine = scheme.activations is Symmetry.AFFINE
    if affine or (low == 0.0 and scheme.unsigned_activations):
        number_format = number_format.unsigned()
    if number_format.lowest is None or number_format.highest is None:
        raise InputError(f"expected an integer format to quantize to, got {number_format.name}")
    levels = number_format.highest - number_format.lowest if affine else number_format.highest
    scale = (high - low if affine else max(-low, high)) / levels
    # Below the smallest normal float32 the inverse of the scale would be infinite.
    scale = max(scale, 2.0**-126) if scale > 0.0 else 1.0
    return number_format, scale, min(round(-low / scale), levels) if affine else 0
