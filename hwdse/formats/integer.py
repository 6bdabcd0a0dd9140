"""Two's complement and natural numbers of 1 to 16 bits."""

from __future__ import annotations

import re

from hwdse.formats.number_format import NumberFormat

__all__ = ["SPELLING", "integer"]

SPELLING = "int1 to int16, uint1 to uint16"
MOST_BITS = 16


def integer(name: str) -> NumberFormat | None:
    """Return the integer format called ``name``; ``None`` if it is of another family.

    >>> integer("int4").lowest, integer("uint1").highest
    (-8, 1)
    """
    match = re.fullmatch(r"(u?)int([1-9]\d?)", name, flags=re.ASCII)
    if match is None or int(match[2]) > MOST_BITS:
        return None
    bits = int(match[2])
    if match[1]:
        return NumberFormat(name, bits, lowest=0, highest=2**bits - 1)
    return NumberFormat(name, bits, lowest=-(2 ** (bits - 1)), highest=2 ** (bits - 1) - 1)
