"""The families of number formats: one entry each, a function from a name to a format and how its names are spelt."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from hwdse.errors import InputError
from hwdse.formats.few_levels import SPELLING as FEW_LEVELS
from hwdse.formats.few_levels import few_levels
from hwdse.formats.floating import SPELLING as FLOATING
from hwdse.formats.floating import floating
from hwdse.formats.integer import SPELLING as INTEGER
from hwdse.formats.integer import integer
from hwdse.formats.learned import SPELLING as LEARNED
from hwdse.formats.learned import learned
from hwdse.formats.normal_float import SPELLING as NORMAL_FLOAT
from hwdse.formats.normal_float import normal_float
from hwdse.formats.number_format import NumberFormat
from hwdse.formats.posit import SPELLING as POSIT
from hwdse.formats.posit import posit
from hwdse.formats.power_of_two import SPELLING as POWER_OF_TWO
from hwdse.formats.power_of_two import power_of_two

__all__ = ["FAMILIES", "Family", "parse"]


class Family(NamedTuple):
    """A family: the format of a name (``None`` if the name is another family's), and the names in words."""

    make: Callable[[str], NumberFormat | None]
    spelling: str


FAMILIES: dict[str, Family] = {
    "integer": Family(integer, INTEGER),
    "floating point": Family(floating, FLOATING),
    "normal float": Family(normal_float, NORMAL_FLOAT),
    "powers of two": Family(power_of_two, POWER_OF_TWO),
    "posit": Family(posit, POSIT),
    "few levels": Family(few_levels, FEW_LEVELS),
    "learned": Family(learned, LEARNED),
}


@cache
def parse(name: str) -> NumberFormat:
    """Return the number format called ``name``.

    Raises
    ------
    InputError
        If no family knows the name.

    >>> parse("int4").bits, parse("posit8_0").bits
    (4, 8)
    """
    for family in FAMILIES.values():
        number_format = family.make(name)
        if number_format is not None:
            return number_format
    known = "; ".join(family.spelling for family in FAMILIES.values())
    raise InputError(f"expected a number format ({known}), got {name!r}")
