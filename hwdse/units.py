"""Units that names of metrics end in, and numbers with no more digits than a reader needs."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context

__all__ = ["TIERS", "UNITS", "beside", "rounded", "with_unit"]

UNITS = {
    "db": "dB",
    "g": "G",
    "kib": "KiB",
    "mib": "MiB",
    "mj": "mJ",
    "ms": "ms",
    "mw": "mW",
    "s": "s",
    "uj": "µJ",
    "us": "µs",
}
"""How to write the unit that a name ends in."""

TIERS = ("predicted", "measured")
"""What the name of a figure ends in where it was not counted."""

FEWEST, MOST = 4, 17
"""Significant digits: of a rounded number, and what any double can be told apart by."""


def rounded(value: float, digits: int, rounding: str = ROUND_HALF_EVEN) -> float:
    """Return ``value`` with ``digits`` significant digits.

    >>> rounded(10.33333, 4), rounded(123456.0, 3)
    (10.33, 123000.0)
    """
    return float(Context(prec=digits, rounding=rounding).create_decimal(repr(value)))


def beside(value: float, bound: float, rounding: str = ROUND_HALF_EVEN) -> float:
    """Return ``value`` with as few digits, four at least, as leave it on its side of ``bound``.

    >>> beside(0.94712685, 0.01), beside(33.000012, 33.0), beside(0.94714, 0.947136), beside(2.0, 2.0)
    (0.9471, 33.00001, 0.94714, 2.0)
    """
    few = (rounded(value, digits, rounding) for digits in range(FEWEST, MOST))
    return next((short for short in few if (short > bound, short < bound) == (value > bound, value < bound)), value)


def with_unit(name: str, value: float) -> str:
    """Return ``value``, all its digits, with the unit that ``name`` ends in.

    >>> with_unit("latency_ms", 0.95), with_unit("accuracy", 0.9), with_unit("size_kib", 1234567.0)
    ('0.95 ms', '0.9', '1234567 KiB')
    """
    stem, _, last = name.removesuffix("_predicted").removesuffix("_measured").rpartition("_")
    text = repr(float(value)).removesuffix(".0")
    return f"{text} {UNITS[last]}" if stem and last in UNITS else text
