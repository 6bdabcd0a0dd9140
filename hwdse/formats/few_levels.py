"""Two and three levels with a scale."""

from __future__ import annotations

from functools import partial

import numpy as np

from hwdse.formats.number_format import Kind, NumberFormat

__all__ = ["SPELLING", "few_levels"]

FORMATS = {
    "binary": NumberFormat("binary", 1, Kind.CODEBOOK, listed=partial(np.array, [-1.0, 1.0])),
    "ternary": NumberFormat("ternary", 2, Kind.CODEBOOK, listed=partial(np.array, [-1.0, 0.0, 1.0])),
}
SPELLING = ", ".join(FORMATS)


def few_levels(name: str) -> NumberFormat | None:
    """Return ``binary`` ([Rastegari2016]_) or ``ternary`` ([Li2016]_, stored in 2 bits); ``None`` for another name."""
    return FORMATS.get(name)
