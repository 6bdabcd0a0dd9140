"""Names and families: who knows which name, and what is said of one that nobody knows."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwdse.errors import InputError
from hwdse.formats import FAMILIES, Family, Kind, NumberFormat, parse

NOT_FORMATS = (
    "", "int", "int0", "int17", "int1٤", "int04", "int32", "int128", "Int8", "INT8", " int8", "int8 ", "int8\n", "8",
    "uint", "uint0", "u8", "sint8", "fp", "FP32", "fp64", "fp32 ", "float32", "float16", "int-8", "int8_0", "int٤",
    "nf1", "nf9", "nf٤", "nf4 ", "fp4", "fp8", "fp8_e4m3fn", "fp8_e3m4", "pot1", "pot9", "apot1", "apot9", "aapot4",
    "posit4", "posit2_0", "posit8_7", "posit10_4", "posit8_٤", "posit17_0", "posit8_-1", "codebook0", "codebook9",
    "codebook", "quantile1", "quantile9", "Binary", "ternary2", "codebook4quantile4",
)  # fmt: skip


@given(st.data())
def test_every_name_is_known_to_one_family_alone(names: dict[str, list[str]], data: st.DataObject) -> None:
    family = data.draw(st.sampled_from(list(names)))
    name = data.draw(st.sampled_from(names[family]))
    assert [known for known, entry in FAMILIES.items() if entry.make(name) is not None] == [family]


def test_every_name_gives_itself_back(names: dict[str, list[str]]) -> None:
    assert list(names) == list(FAMILIES)
    for name in (name for family in names.values() for name in family):
        number_format = parse(name)
        assert (number_format.name, str(number_format)) == (name, name)
        assert parse(name) is number_format


def test_every_list_of_values_is_as_long_as_its_codes_allow(names: dict[str, list[str]]) -> None:
    for name in (name for family, found in names.items() if family != "learned" for name in found if name != "fp32"):
        values = parse(name).values
        assert 2 ** parse(name).bits / 2 <= values.size <= 2 ** parse(name).bits, name
        assert (values[1:] > values[:-1]).all(), name


def test_nobody_can_change_the_values_of_a_shared_format() -> None:
    for name in ("int4", "nf4", "binary"):
        first = parse(name).values[0]
        with pytest.raises(ValueError, match="read-only"):
            parse(name).values[0] = 17.0
        assert parse(name).values[0] == first


@given(st.text(alphabet="intufpbosaredkqlcy0123456789_ e", max_size=10) | st.from_regex(r"[a-z]{2,8}\d{1,2}(_\d)?"))
def test_text_is_either_refused_or_given_back(text: str) -> None:
    try:
        number_format = parse(text)
    except InputError:
        return
    assert number_format.name == text


@pytest.mark.parametrize("name", NOT_FORMATS)
def test_other_names_are_refused_with_what_every_family_knows(name: str) -> None:
    with pytest.raises(InputError, match="expected a number format") as caught:
        parse(name)
    for family in FAMILIES.values():
        assert family.spelling in str(caught.value)
    assert str(caught.value).endswith(f"got {name!r}")


def test_the_spellings_name_what_is_known(names: dict[str, list[str]]) -> None:
    # "int1 to int16, uint1 to uint16" names the first and the last of a row, other spellings every name.
    for family, entry in FAMILIES.items():
        if family == "posit":
            continue
        for name in re.findall(r"[a-z]+\w*\d\w*|binary|ternary", entry.spelling):
            assert name in names[family]
    assert FAMILIES["posit"].spelling == "posit{n}_{es} with n of 3 to 16 and a largest value of at most 2^126"


def test_a_family_is_one_entry_of_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    bipolar = NumberFormat("bipolar", 1, Kind.CODEBOOK, listed=lambda: parse("binary").values * 3)
    with pytest.raises(InputError, match="'bipolar'"):
        parse("bipolar")
    monkeypatch.setitem(FAMILIES, "bipolar", Family(lambda name: bipolar if name == "bipolar" else None, "two poles"))
    try:
        assert parse("bipolar").values.tolist() == [-3.0, 3.0]
        assert parse("int8").bits == 8
        with pytest.raises(InputError, match="two poles"):
            parse("tripolar")
    finally:
        parse.cache_clear()
