"""A precision: the format of a layer's weights with that of its activations."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hwdse.errors import InputError
from hwdse.formats.families import parse
from hwdse.formats.number_format import FP32, NumberFormat

__all__ = ["Precision"]


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
