"""Precisions: what is read is written back, and everything else is refused."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwdse.errors import InputError
from hwdse.formats import FP32, Precision, parse

WIDTHS = range(1, 17)
NOT_PRECISIONS = (
    "", "w4a8", "W4a8", "w4A8", "W4A8 ", " W4A8", "W4 A8", "W4A8\n", "W04A8", "W4A08", "W0A8", "W17A8", "W4A32", "W4A",
    "WA8", "W4", "A8", "4A8", "A8W4", "W4A8A8", "Wint4A8", "W4Aint8", "W4.0A8", "W-4A8", "FP32", "fp32 ", "fp16",
    "bf16", "Wfp32Afp32", "W٤A8", "int8", "nf4", "Wnf4", "WNF4A8", "Wnf4A", "Wnf4Anf4 ", "Wnf04A8", "Wposit8A8",
    "Wfp8A8", "Wint4Anf4", "Wnf4Aint8", "Wnf4Auint8", "W4Auint8", "Wuint4A8",
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "weights", "activations"),
    [
        ("W4A8", "int4", "int8"),
        ("W1A8", "int1", "int8"),
        ("W16A16", "int16", "int16"),
        ("Wnf4A8", "nf4", "int8"),
        ("W4Anf4", "int4", "nf4"),
        ("Wposit8_0Aposit8_0", "posit8_0", "posit8_0"),
        ("Wfp8_e4m3Afp8_e4m3", "fp8_e4m3", "fp8_e4m3"),
        ("Wfp4_e2m1Afp8_e5m2", "fp4_e2m1", "fp8_e5m2"),
        ("Wcodebook4A8", "codebook4", "int8"),
        ("Wquantile4Acodebook2", "quantile4", "codebook2"),
        ("Wpot4Aapot4", "pot4", "apot4"),
        ("WbinaryA8", "binary", "int8"),
        ("WternaryAternary", "ternary", "ternary"),
        ("Wbf16Abf16", "bf16", "bf16"),
        ("Wfp16Abf16", "fp16", "bf16"),
        ("W4Afp32", "int4", "fp32"),
        ("Wfp32A8", "fp32", "int8"),
        ("fp32", "fp32", "fp32"),
    ],
)
def test_families_may_be_mixed(text: str, weights: str, activations: str) -> None:
    precision = Precision.parse(text)
    assert (precision.weights.name, precision.activations.name) == (weights, activations)
    assert str(precision) == text


@pytest.mark.parametrize(("weights", "activations"), list(itertools.product(WIDTHS, WIDTHS)))
def test_integers_are_printed_by_their_widths(weights: int, activations: int) -> None:
    text = f"W{weights}A{activations}"
    assert Precision.parse(text) == Precision(parse(f"int{weights}"), parse(f"int{activations}"))
    assert str(Precision.parse(text)) == text


@given(st.data())
def test_printing_and_parsing_are_inverse(names: dict[str, list[str]], data: st.DataObject) -> None:
    signed = st.sampled_from(list(names)).flatmap(lambda family: st.sampled_from(names[family]))
    signed = signed.filter(lambda name: not name.startswith("uint"))
    made = Precision(parse(data.draw(signed)), parse(data.draw(signed)))
    assert Precision.parse(str(made)) == made
    assert str(Precision.parse(str(made))) == str(made)


@given(st.text(alphabet="WAwafpiunt0123468_ ", max_size=9))
def test_text_is_either_refused_or_given_back(text: str) -> None:
    try:
        precision = Precision.parse(text)
    except InputError:
        return
    assert str(precision) == text


@pytest.mark.parametrize("text", NOT_PRECISIONS)
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"expected (a precision|a number format|formats such as int8)"):
        Precision.parse(text)


@pytest.mark.parametrize("value", [8, None, 4.8, b"W4A8", ("W4", "A8")])
def test_what_is_not_text_is_refused(value: object) -> None:
    with pytest.raises(InputError, match="expected a precision such as W4A8 or fp32, got"):
        Precision.parse(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["Wuint4A8", "W4Auint8", "Wuint8Auint8", "Wnf4Auint8"])
def test_the_sign_is_no_choice(text: str) -> None:
    with pytest.raises(InputError, match=r"expected formats such as int8, got uint\d; leave the sign out"):
        Precision.parse(text)


@pytest.mark.parametrize(("text", "canonical"), [("Wint4A8", "W4A8"), ("Wnf4Aint8", "Wnf4A8"), ("Wfp32Afp32", "fp32")])
def test_the_canonical_spelling_is_named(text: str, canonical: str) -> None:
    with pytest.raises(InputError, match=rf"expected a precision in canonical spelling \({canonical}\), got '{text}'"):
        Precision.parse(text)


def test_fp32_is_one_precision() -> None:
    assert Precision.parse("fp32") == Precision(FP32, FP32)
