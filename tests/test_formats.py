"""Number formats, precisions and schemes against their definitions written out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwdse.errors import InputError
from hwdse.formats import (
    FAMILIES,
    FP32,
    Granularity,
    NumberFormat,
    Precision,
    Scheme,
    Symmetry,
    activation_grid,
    parse,
)

WIDTHS = (2, 3, 4, 5, 6, 7, 8, 16)
RANGES = {
    "int2": (-2, 1), "int3": (-4, 3), "int4": (-8, 7), "int5": (-16, 15), "int6": (-32, 31), "int7": (-64, 63),
    "int8": (-128, 127), "int16": (-32768, 32767), "uint2": (0, 3), "uint3": (0, 7), "uint4": (0, 15),
    "uint5": (0, 31), "uint6": (0, 63), "uint7": (0, 127), "uint8": (0, 255), "uint16": (0, 65535),
}  # fmt: skip
NOT_FORMATS = (
    "", "int", "int0", "int1", "int9", "int04", "int32", "int128", "Int8", "INT8", " int8", "int8 ", "int8\n", "8",
    "uint", "uint1", "u8", "sint8", "fp16", "fp", "FP32", "float32", "int-8", "int8_0",
)  # fmt: skip
NOT_PRECISIONS = (
    "", "w4a8", "W4a8", "w4A8", "W4A8 ", " W4A8", "W4 A8", "W4A8\n", "W04A8", "W4A08", "W1A8", "W9A8", "W4A32", "W4A",
    "WA8", "W4", "A8", "4A8", "A8W4", "W4A8A8", "Wint4A8", "W4Aint8", "W4.0A8", "W-4A8", "FP32", "fp32 ", "fp16",
    "Wfp32Afp32", "W٤A8", "int8",
)  # fmt: skip


@pytest.mark.parametrize("name", RANGES)
def test_an_integer_format_is_its_twos_complement_or_natural_range(name: str) -> None:
    number_format = parse(name)
    lowest, highest = RANGES[name]
    assert (number_format.name, str(number_format)) == (name, name)
    assert number_format.bits == int(name.removeprefix("u").removeprefix("int"))
    assert (number_format.is_integer, number_format.is_signed) == (True, lowest < 0)
    assert number_format.values.tolist() == list(range(lowest, highest + 1))
    assert number_format.values.dtype == np.float64
    assert len(number_format.values) == 2**number_format.bits


def test_fp32_is_no_grid_of_codes() -> None:
    assert parse("fp32") is FP32
    assert (FP32.bits, FP32.is_integer, FP32.is_signed) == (32, False, True)
    assert FP32.unsigned() is FP32
    with pytest.raises(InputError, match=r"expected a format of at most 2\*\*16 values to list, got fp32 with 2\*\*32"):
        _ = FP32.values


def test_nobody_can_change_the_values_of_a_shared_format() -> None:
    with pytest.raises(ValueError, match="read-only"):
        parse("int4").values[0] = 1.0
    assert parse("int4").values[0] == -8.0


@pytest.mark.parametrize("bits", WIDTHS)
def test_the_unsigned_format_has_the_same_width(bits: int) -> None:
    for name in (f"int{bits}", f"uint{bits}"):
        assert parse(name).unsigned() == parse(f"uint{bits}")


@pytest.mark.parametrize("name", NOT_FORMATS)
def test_other_names_are_refused_with_what_is_known(name: str) -> None:
    with pytest.raises(
        InputError, match=r"expected a number format \(int2, .*int16, each also as uint, or fp32\), got"
    ):
        parse(name)


def test_a_family_is_one_entry_of_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    bipolar = NumberFormat("bipolar", 1, -1, 1)
    with pytest.raises(InputError, match="'bipolar'"):
        parse("bipolar")
    monkeypatch.setitem(FAMILIES, "bipolar", lambda name: bipolar if name == "bipolar" else None)
    try:
        assert parse("bipolar") is bipolar
        assert parse("int8").bits == 8
    finally:
        parse.cache_clear()


@pytest.mark.parametrize(("weights", "activations"), list(itertools.product(WIDTHS, WIDTHS)))
def test_a_precision_is_printed_by_its_widths(weights: int, activations: int) -> None:
    text = f"W{weights}A{activations}"
    precision = Precision.parse(text)
    assert (precision.weights.name, precision.activations.name) == (f"int{weights}", f"int{activations}")
    assert str(precision) == text


@given(st.sampled_from([*map(str, WIDTHS), "fp32"]), st.sampled_from([*map(str, WIDTHS), "fp32"]))
def test_printing_and_parsing_are_inverse(weights: str, activations: str) -> None:
    made = Precision(*(parse(f"int{part}" if part.isdigit() else part) for part in (weights, activations)))
    expected = "fp32" if weights == activations == "fp32" else f"W{weights}A{activations}"
    assert str(made) == expected
    assert Precision.parse(expected) == made


@given(st.text(alphabet="WAwafpiunt0123468_ ", max_size=9))
def test_text_is_either_refused_or_given_back(text: str) -> None:
    try:
        precision = Precision.parse(text)
    except InputError:
        return
    assert str(precision) == text


@pytest.mark.parametrize("text", NOT_PRECISIONS)
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"expected a (precision|number format)"):
        Precision.parse(text)


@pytest.mark.parametrize("value", [8, None, 4.8, b"W4A8", ("W4", "A8")])
def test_what_is_not_text_is_refused(value: object) -> None:
    with pytest.raises(InputError, match="expected a precision such as W4A8 or fp32, got"):
        Precision.parse(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["Wuint4A8", "W4Auint8", "Wuint8Auint8"])
def test_the_sign_is_no_choice(text: str) -> None:
    with pytest.raises(InputError, match=r"expected formats such as int8, got uint\d; leave the sign out"):
        Precision.parse(text)


def test_the_canonical_spelling_is_named() -> None:
    with pytest.raises(InputError, match=r"expected a precision in canonical spelling \(W4A8\), got 'Wint4A8'"):
        Precision.parse("Wint4A8")


def test_schemes_have_different_keys_unless_they_are_equal() -> None:
    choices = itertools.product(Symmetry, Symmetry, Granularity, (False, True), (False, True))
    schemes = [Scheme(*choice) for choice in choices]
    assert len({scheme.key for scheme in schemes}) == len(schemes) == 32
    assert Scheme(full_range=True).key == "w-symmetric-per_channel-full.a-symmetric-unsigned"
    assert (
        Scheme(
            Symmetry.AFFINE, Symmetry.AFFINE, weight_granularity=Granularity.PER_TENSOR, unsigned_activations=False
        ).key
        == "w-affine-per_tensor-restricted.a-affine-signed"
    )


SIGNED = Scheme(unsigned_activations=False)
AFFINE = Scheme(activations=Symmetry.AFFINE)


@pytest.mark.parametrize(
    ("low", "high", "scheme", "expected"),
    [
        (-2.0, 12.7, Scheme(), ("int8", 0.1, 0)),
        (-12.7, 2.0, Scheme(), ("int8", 0.1, 0)),
        (0.0, 25.5, Scheme(), ("uint8", 0.1, 0)),
        (3.0, 25.5, Scheme(), ("uint8", 0.1, 0)),  # widened to hold 0
        (0.0, 12.7, SIGNED, ("int8", 0.1, 0)),
        (-12.7, -3.0, Scheme(), ("int8", 0.1, 0)),
        (-10.0, 15.5, AFFINE, ("uint8", 0.1, 100)),
        (3.0, 25.5, AFFINE, ("uint8", 0.1, 0)),
        (-25.5, -3.0, AFFINE, ("uint8", 0.1, 255)),
        (-0.25, 127.25, AFFINE, ("uint8", 0.5, 0)),  # 0.5 is rounded to even
        (-0.75, 126.75, AFFINE, ("uint8", 0.5, 2)),  # and so is 1.5
        (0.0, 0.0, Scheme(), ("uint8", 1.0, 0)),
        (0.0, 0.0, AFFINE, ("uint8", 1.0, 0)),
        (0.0, 1e-45, Scheme(), ("uint8", 2.0**-126, 0)),  # the inverse stays finite in float32
    ],
)
def test_the_grid_of_an_activation(low: float, high: float, scheme: Scheme, expected: tuple[str, float, int]) -> None:
    number_format, scale, zero_point = activation_grid(low, high, number_format=parse("int8"), scheme=scheme)
    assert (number_format.name, zero_point) == (expected[0], expected[2])
    assert scale == pytest.approx(expected[1], rel=1e-12)


@given(
    st.floats(-1e30, 1e30), st.floats(-1e30, 1e30), st.sampled_from(WIDTHS), st.sampled_from([Scheme(), SIGNED, AFFINE])
)
def test_every_grid_holds_zero_and_reaches_its_range(a: float, b: float, bits: int, scheme: Scheme) -> None:
    low, high = min(a, b), max(a, b)
    number_format, scale, zero_point = activation_grid(low, high, number_format=parse(f"int{bits}"), scheme=scheme)
    assert number_format.lowest is not None
    assert number_format.highest is not None
    assert number_format.lowest <= zero_point <= number_format.highest
    ends = ((number_format.lowest - zero_point) * scale, (number_format.highest - zero_point) * scale)
    # Rounding the zero point moves both ends by at most half a step.
    slack = scale * (0.5 + 1e-9)
    assert ends[0] <= min(low, 0.0) + slack
    assert ends[1] >= max(high, 0.0) - slack
    assert low >= 0.0 or ends[0] < 0.0 or -low <= slack


def test_a_grid_needs_integer_codes() -> None:
    with pytest.raises(InputError, match="expected an integer format to quantize to, got fp32"):
        activation_grid(0.0, 1.0, number_format=FP32, scheme=Scheme())
