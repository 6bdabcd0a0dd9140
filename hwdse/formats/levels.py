"""Levels: the values that the numbers of one tensor may take, before they are scaled."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwdse.errors import InputError
from hwdse.formats.number_format import NumberFormat
from hwdse.formats.scheme import Scheme, Symmetry

__all__ = ["SMALLEST_SCALE", "Levels"]

SMALLEST_SCALE = 2.0**-126
"""The smallest normal float32: the inverse of anything smaller would be infinite."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Levels:
    """What a tensor may be rounded to, at scale 1.

    Attributes
    ----------
    number_format
        Format that is stored.
    lowest, highest
        Codes in use of a uniform grid; ``None`` for a list of values.
    is_affine
        True if a uniform grid has a zero point.
    learned
        Values of a learned format, ascending; empty for the others.

    Rounding is to the nearest level. A tie goes to the level whose place, counted from the level at zero, is even: the
    even code of an integer, the even mantissa of a floating-point number, the even bit pattern of a posit. Of levels
    without a zero those from the first positive one are counted.
    """

    number_format: NumberFormat
    lowest: int | None = None
    highest: int | None = None
    is_affine: bool = False
    learned: tuple[float, ...] = field(default=(), repr=False)

    @classmethod
    def of_weights(cls, number_format: NumberFormat, scheme: Scheme) -> Levels:
        """Return the levels of weights under ``scheme``; a learned format has none until it is learned.

        Raises
        ------
        InputError
            If the format cannot hold the weights' sign, or a symmetric grid of it would hold nothing but zero.

        >>> from hwdse.formats import parse
        >>> Levels.of_weights(parse("int4"), Scheme()).lowest
        -7
        """
        lowest, highest = number_format.lowest, number_format.highest
        if lowest is None or highest is None:
            return cls(number_format)
        if scheme.weights is Symmetry.AFFINE:
            return cls(number_format, lowest, highest, is_affine=True)
        if not number_format.is_signed:
            raise InputError(
                f"expected a signed format for symmetric weights, got {number_format.name}; use int or affine"
            )
        if highest == 0 and not scheme.full_range:
            raise InputError(
                f"expected a format with a symmetric grid, got {number_format.name}; use binary, or a scheme with the "
                "full range or affine weights"
            )
        return cls(number_format, lowest if scheme.full_range else -highest, highest)

    @classmethod
    def of_activations(cls, number_format: NumberFormat, scheme: Scheme, *, nonnegative: bool) -> Levels:
        """Return the levels of an activation tensor; integers are stored unsigned where affine or ``nonnegative``.

        Raises
        ------
        InputError
            If the grid would hold nothing above zero.
        """
        affine = scheme.activations is Symmetry.AFFINE
        if affine or (nonnegative and scheme.unsigned_activations):
            number_format = number_format.unsigned()
        if number_format.highest == 0:
            raise InputError(
                f"expected a format with positive codes for signed activations, got {number_format.name}; use binary "
                "or more bits"
            )
        return cls(
            number_format, number_format.lowest, number_format.highest, is_affine=affine and number_format.is_integer
        )

    def taught(self, values: ArrayLike) -> Levels:
        """Return these levels with the learned ``values``."""
        return replace(self, learned=tuple(np.asarray(values, dtype=np.float64).tolist()))

    @property
    def is_uniform(self) -> bool:
        """True for a uniform grid of codes."""
        return self.lowest is not None

    @property
    def is_known(self) -> bool:
        """False for a learned format that has not been learned."""
        return not self.number_format.is_learned or bool(self.learned)

    @cached_property
    def values(self) -> Values:
        """All levels, ascending, ``(levels,)``.

        >>> from hwdse.formats import parse
        >>> Levels.of_weights(parse("int2"), Scheme()).values.tolist()
        [-1.0, 0.0, 1.0]
        """
        if self.lowest is not None and self.highest is not None:
            return np.arange(self.lowest, self.highest + 1, dtype=np.float64)
        return np.array(self.learned) if self.learned else self.number_format.values

    @cached_property
    def midpoints(self) -> Values:
        """Middles between neighbouring levels, ``(levels - 1,)``: a tie lies exactly there."""
        middles: Values = (self.values[:-1] + self.values[1:]) / 2
        return middles

    @cached_property
    def thresholds(self) -> NDArray[np.float32]:
        """Smallest float32 of each level but the first, ``(levels - 1,)``: ``x`` has as many thresholds ``<= x`` as
        levels below its own. Ties are decided here, so that rounding is one search.

        >>> from hwdse.formats import parse
        >>> Levels(parse("ternary")).thresholds.tolist() == [-0.5, float(np.nextafter(np.float32(0.5), np.float32(1)))]
        True
        """  # noqa: D205
        zero = int(np.searchsorted(self.values, 0.0))
        goes_up = (np.arange(1, self.values.size) - zero) % 2 == 0
        nearest = self.midpoints.astype(np.float32)
        above = nearest > self.midpoints
        exact = nearest == self.midpoints
        enough = above | (exact & goes_up)
        return np.where(enough, nearest, np.nextafter(nearest, np.float32(np.inf)))

    @property
    def anchor(self) -> float:
        """Level at which the end of a symmetric range is placed."""
        if self.learned:
            return 1.0
        return self.number_format.anchor or float(self.values[-1])

    def grid(self, low: ArrayLike, high: ArrayLike) -> tuple[Values, Values]:
        """Return scales and zero points of ranges ``[low, high]``, each shaped as they are; both ends must hold 0.

        A range of zeros gets scale 1, or the smallest one if no level is zero, so that zeros stay zeros. Scales are
        float32 values and at least 2^-126. A format without a scale gets 1.

        >>> from hwdse.formats import parse
        >>> scale, zero_point = Levels(parse("uint8"), 0, 255, is_affine=True).grid(-1.0, 2.0)
        >>> int(zero_point)
        85
        """
        low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
        none = np.zeros(np.shape(low))
        if not self.number_format.has_scale:
            return none + 1.0, none
        if self.lowest is None or self.highest is None:
            of_zeros = 1.0 if 0.0 in self.values else SMALLEST_SCALE
            return _usable(np.maximum(-low, high) / self.anchor, of_zeros), none
        if self.is_affine:
            scale = _usable((high - low) / (self.highest - self.lowest))
            return scale, np.clip(np.round(self.lowest - low / scale), self.lowest, self.highest)
        ends = [end / code for end, code in ((low, self.lowest), (high, self.highest)) if code]
        return _usable(np.maximum.reduce(ends)), none


def _usable(scale: Values, of_zeros: float = 1.0) -> Values:
    """Return scales as float32 values whose inverses are finite; ``of_zeros`` where they are 0."""
    rounded = np.minimum(scale, float(np.finfo(np.float32).max)).astype(np.float32).astype(np.float64)
    return np.where(scale > 0.0, np.maximum(rounded, SMALLEST_SCALE), of_zeros)
