"""Posits against lists written out, published codes, and the construction that Gustafson gives."""

import csv
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from hwdse.errors import InputError
from hwdse.formats import Levels, parse
from hwdse.formats.posit import posit_values

GOLDEN = Path(__file__).parents[1] / "golden" / "posit.csv"
ROWS = list(csv.DictReader(line for line in GOLDEN.read_text().splitlines() if not line.startswith("#")))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['bits']}-{row['exponent_bits']}")
def test_small_posits_written_out(row: dict[str, str]) -> None:
    expected = [float(value) for value in row["values"].split()]
    values = parse(f"posit{row['bits']}_{row['exponent_bits']}").values
    assert values.tolist() == [*(-v for v in expected[::-1]), 0.0, *expected]


@pytest.mark.parametrize(
    ("name", "largest"),
    [("posit6_1", 256.0), ("posit8_0", 64.0), ("posit8_1", 4096.0), ("posit8_2", 2.0**24), ("posit16_1", 2.0**28)],
)
def test_the_largest_value(name: str, largest: float) -> None:
    values = parse(name).values
    assert values[-1] == largest
    assert values[values > 0.0][0] == 1.0 / largest


@pytest.mark.parametrize(
    ("code", "value"),
    [(0x20, 1 / 16), (0x38, 0.5), (0x40, 1.0), (0x44, 1.5), (0x48, 2.0), (0x50, 4.0), (0x60, 16.0), (0x7F, 2.0**24)],
)
def test_codes_of_the_standard_posit_of_8_bits(code: int, value: float) -> None:
    # A positive code is the place above zero; the code of -value is its two's complement.
    values = posit_values(8, 2)
    assert values[values.size // 2 + code] == value
    assert values[values.size // 2 - code] == -value


def inserted(values: list[float], useed: float) -> list[float]:
    """The posit of one bit more, by the construction of Gustafson and Yonemoto, 2017.

    Beyond the largest value stands useed times it, below the smallest its inverse. Between two powers of two that are
    more than a factor of two apart stands their geometric mean, elsewhere the arithmetic one.
    """
    middles = [np.sqrt(a * b) if b > 2 * a else (a + b) / 2 for a, b in pairwise(values)]
    middles = [values[0] / useed, *middles, values[-1] * useed]
    return sorted([*values, *middles])


@pytest.mark.parametrize("exponent_bits", range(5))
def test_every_posit_is_constructed_from_the_one_of_three_bits(exponent_bits: int) -> None:
    useed = 2.0 ** (2**exponent_bits)
    positive = [1 / useed, 1.0, useed]
    for bits in range(3, 9 if exponent_bits == 4 else 12):
        expected = [*(-v for v in positive[::-1]), 0.0, *positive]
        assert posit_values(bits, exponent_bits).tolist() == expected
        positive = inserted(positive, useed)


def test_a_range_ends_at_one() -> None:
    assert Levels(parse("posit8_2")).anchor == 1.0
    scale, _ = Levels(parse("posit8_2")).grid(-3.0, 2.0)
    assert float(scale) == 3.0


@pytest.mark.parametrize("name", ["posit2_0", "posit17_1", "posit8", "posit8_", "posit8_10", "posit16_4", "posit08_1"])
def test_other_sizes_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"expected a number format .*posit.*, got '{name}'"):
        parse(name)
