"""Integer formats against the ranges of two's complement and natural numbers."""

import numpy as np
import pytest

from hwdse.formats import parse

WIDTHS = range(1, 17)
RANGES = {
    "int1": (-1, 0), "int2": (-2, 1), "int3": (-4, 3), "int4": (-8, 7), "int5": (-16, 15), "int6": (-32, 31),
    "int7": (-64, 63), "int8": (-128, 127), "int12": (-2048, 2047), "int16": (-32768, 32767), "uint1": (0, 1),
    "uint2": (0, 3), "uint3": (0, 7), "uint4": (0, 15), "uint5": (0, 31), "uint6": (0, 63), "uint7": (0, 127),
    "uint8": (0, 255), "uint12": (0, 4095), "uint16": (0, 65535),
}  # fmt: skip


@pytest.mark.parametrize("name", RANGES)
def test_an_integer_format_is_its_twos_complement_or_natural_range(name: str) -> None:
    number_format = parse(name)
    lowest, highest = RANGES[name]
    assert (number_format.lowest, number_format.highest) == (lowest, highest)
    assert (number_format.is_integer, number_format.is_signed, number_format.has_scale) == (True, lowest < 0, True)
    assert number_format.values.tolist() == list(range(lowest, highest + 1))
    assert number_format.values.dtype == np.float64


@pytest.mark.parametrize("bits", WIDTHS)
def test_every_width_has_all_its_codes(bits: int) -> None:
    for name in (f"int{bits}", f"uint{bits}"):
        assert parse(name).bits == bits
        assert len(parse(name).values) == 2**bits


@pytest.mark.parametrize("bits", WIDTHS)
def test_the_unsigned_format_has_the_same_width(bits: int) -> None:
    for name in (f"int{bits}", f"uint{bits}"):
        assert parse(name).unsigned() == parse(f"uint{bits}")
