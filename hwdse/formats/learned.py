"""Codebooks that are found for each tensor; :mod:`hwdse.calibrate.codebook` finds them."""

from __future__ import annotations

import re

from hwdse.formats.number_format import Kind, NumberFormat

__all__ = ["SPELLING", "learned"]

SPELLING = "codebook1 to codebook8, quantile2 to quantile8"


def learned(name: str) -> NumberFormat | None:
    """Return the learned format called ``name``; ``None`` if it is of another family.

    ``codebook4``: the 16 values with the least squared error (Lloyd-Max). ``quantile4``: 15 quantiles of the negative
    and the positive values apart, with zero, rescaled as a whole.
    """
    match = re.fullmatch(r"codebook([1-8])|quantile([2-8])", name, flags=re.ASCII)
    if match is None:
        return None
    return NumberFormat(name, int(match[1] or match[2]), Kind.LEARNED)
