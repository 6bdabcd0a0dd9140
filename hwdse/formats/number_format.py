"""A number format: a finite set of values with a bit-width."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwdse.errors import InputError

__all__ = ["FP32", "Kind", "NumberFormat"]

Values = NDArray[np.float64]


class Kind(StrEnum):
    """How the values of a format come about.

    ``integer``: a uniform grid of codes with a scale and perhaps a zero point. ``codebook``: a fixed list of values
    with a scale. ``learned``: a list of values found for one tensor. ``plain``: floating point without a scale.
    """

    INTEGER = "integer"
    CODEBOOK = "codebook"
    LEARNED = "learned"
    PLAIN = "plain"


@dataclass(frozen=True)
class NumberFormat:
    """A finite set of values with a bit-width.

    Attributes
    ----------
    name
        Canonical name, for example ``int4`` or ``posit8_0``.
    bits
        Bits that one value occupies.
    kind
        How its values come about.
    lowest, highest
        Smallest and largest code of an integer format; ``None`` for the others.
    listed
        Makes the list of all finite values at scale 1, ascending; ``None`` where there is none.
    anchor
        Value at which the end of a tensor's range is placed; ``None`` for the largest one.
    """

    name: str
    bits: int
    kind: Kind = Kind.INTEGER
    lowest: int | None = None
    highest: int | None = None
    listed: Callable[[], Values] | None = field(default=None, compare=False, repr=False)
    anchor: float | None = None

    @property
    def is_integer(self) -> bool:
        """True for a uniform grid of integer codes (quantized by scale and zero point).

        >>> from hwdse.formats import parse
        >>> parse("uint4").is_integer, parse("nf4").is_integer
        (True, False)
        """
        return self.kind is Kind.INTEGER

    @property
    def is_learned(self) -> bool:
        """True if the values are found for each tensor."""
        return self.kind is Kind.LEARNED

    @property
    def has_scale(self) -> bool:
        """True if tensors are scaled to the format; fp32, fp16 and bf16 hold them as they are."""
        return self.kind is not Kind.PLAIN

    @property
    def is_signed(self) -> bool:
        """True if the format holds negative values."""
        return self.lowest is None or self.lowest < 0

    @cached_property
    def values(self) -> Values:
        """All finite values at scale 1, ascending; zero stands once.

        Raises
        ------
        InputError
            If there are too many to list (fp32), or they are learned from a tensor.

        >>> from hwdse.formats import parse
        >>> parse("int2").values.tolist(), parse("posit4_0").values[8:].tolist()
        ([-2.0, -1.0, 0.0, 1.0], [0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0])
        """
        if self.is_learned:
            raise InputError(f"expected a format whose values are fixed, got {self.name}, which is learned per tensor")
        if self.lowest is not None and self.highest is not None:
            values = np.arange(self.lowest, self.highest + 1, dtype=np.float64)
        elif self.listed is not None:
            values = self.listed()
        else:
            raise InputError(f"expected a format of at most 2**16 values to list, got {self.name} with 2**{self.bits}")
        values.flags.writeable = False  # shared by everyone who parses the name
        return values

    def unsigned(self) -> NumberFormat:
        """Return the unsigned format of the same width; a format without one is returned as it is.

        >>> from hwdse.formats import parse
        >>> parse("int8").unsigned().name, parse("nf4").unsigned().name
        ('uint8', 'nf4')
        """
        if not self.is_integer:
            return self
        return NumberFormat(f"uint{self.bits}", self.bits, lowest=0, highest=2**self.bits - 1)

    def __str__(self) -> str:
        return self.name


FP32 = NumberFormat("fp32", 32, Kind.PLAIN)
