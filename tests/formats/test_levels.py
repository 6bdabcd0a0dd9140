"""Rounding to the levels of every format against looking at all of them, and the tie rule at every middle."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwdse.errors import InputError
from hwdse.formats import Granularity, Levels, Scheme, Symmetry, parse

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
LARGEST = float(np.finfo(np.float32).max)
AFFINE = Scheme(weights=Symmetry.AFFINE, activations=Symmetry.AFFINE)


def draw_levels(data: st.DataObject, all_levels: dict[str, Levels]) -> Levels:
    """Draw the levels of a fixed format, or teach a learned one."""
    name = data.draw(st.sampled_from(["codebook4", "quantile3", *all_levels]))
    if name in all_levels:
        return all_levels[name]
    ends = st.floats(-1.0, 1.0, width=32)
    values = data.draw(st.lists(ends, min_size=1, max_size=16, unique_by=lambda v: v + 0.0))
    return Levels(parse(name)).taught(sorted(values))


def draw_numbers(data: st.DataObject, levels: Levels) -> np.ndarray:
    """Draw float32 numbers: any, and near the levels and the middles between them."""
    places = st.floats(-2.0, levels.values.size + 1.0)
    near = np.interp(data.draw(st.lists(places, min_size=1, max_size=20)), np.arange(levels.values.size), levels.values)
    anywhere = data.draw(st.lists(FLOATS, max_size=10))
    middles = data.draw(st.lists(st.sampled_from(levels.midpoints.tolist() or [0.0]), max_size=5))
    return np.array([*near, *anywhere, *middles]).astype(np.float32)


@given(st.data())
def test_the_level_is_the_nearest(all_levels, rounding: SimpleNamespace, data: st.DataObject) -> None:
    levels = draw_levels(data, all_levels)
    x = draw_numbers(data, levels)
    rounded = rounding.by_thresholds(levels, x)
    assert np.isin(rounded, levels.values).all()
    least = rounding.least_distance(levels, x)
    # Differences are rounded to float64; one float32 number beyond a middle is much more than that.
    np.testing.assert_allclose(np.abs(x - rounded), least, rtol=1e-13, atol=0.0)


@given(st.data())
def test_an_error_is_at_most_half_of_the_cell_and_what_is_outside_saturates(
    all_levels, rounding: SimpleNamespace, data: st.DataObject
) -> None:
    levels = draw_levels(data, all_levels)
    x = draw_numbers(data, levels)
    rounded = rounding.by_thresholds(levels, x)
    values = levels.values
    above = np.searchsorted(values, x)
    inside = (above > 0) & (above < values.size)
    lower, upper = values[above[inside] - 1], values[above[inside]]
    assert (np.abs(x[inside] - rounded[inside]) <= (upper - lower) / 2 * (1 + 1e-15)).all()
    assert (rounded[x >= values[-1]] == values[-1]).all()
    assert (rounded[x <= values[0]] == values[0]).all()


@given(st.data())
def test_rounding_keeps_the_order(all_levels, rounding: SimpleNamespace, data: st.DataObject) -> None:
    levels = draw_levels(data, all_levels)
    x = np.sort(draw_numbers(data, levels))
    assert (np.diff(rounding.by_thresholds(levels, x)) >= 0.0).all()


@given(st.data())
def test_levels_that_are_symmetric_round_odd(all_levels, rounding: SimpleNamespace, data: st.DataObject) -> None:
    symmetric = {
        name: levels for name, levels in all_levels.items() if np.array_equal(levels.values, -levels.values[::-1])
    }
    levels = draw_levels(data, symmetric)
    if not np.array_equal(levels.values, -levels.values[::-1]):
        values = np.unique(np.abs(levels.values))
        levels = Levels(levels.number_format).taught(np.concatenate([-values[values > 0][::-1], values]))
    x = draw_numbers(data, levels)
    x = x[~np.isin(x, levels.midpoints)]
    assert rounding.by_thresholds(levels, -x).tolist() == (-rounding.by_thresholds(levels, x)).tolist()


def test_nearly_all_formats_are_symmetric(all_levels) -> None:
    # Otherwise the test above would show nothing.
    symmetric = [name for name, levels in all_levels.items() if np.array_equal(levels.values, -levels.values[::-1])]
    uneven = {name.split()[0] for name in all_levels} - {name.split()[0] for name in symmetric}
    assert uneven == {"int1", *(f"uint{bits}" for bits in range(1, 17)), *(f"nf{bits}" for bits in range(2, 9))}


def test_a_level_rounds_to_itself(all_levels, rounding: SimpleNamespace) -> None:
    for name, levels in all_levels.items():
        assert rounding.by_thresholds(levels, levels.values).tolist() == levels.values.tolist(), name


def test_a_tie_goes_to_the_even_place_counted_from_zero(all_levels, rounding: SimpleNamespace) -> None:
    ties = 0
    for name, levels in all_levels.items():
        values, middles = levels.values, levels.midpoints
        met = middles.astype(np.float32) == middles
        assert met.any() or name.startswith(("nf", "apot", "uint1 ", "int1 ")) or values.size < 3, name
        places = np.arange(values.size) - np.flatnonzero(values >= 0.0)[0]
        lower_is_even = places[:-1] % 2 == 0
        expected = np.where(lower_is_even, values[:-1], values[1:])
        rounded = rounding.by_thresholds(levels, middles[met])
        assert rounded.tolist() == expected[met].tolist(), name
        # One float32 number further there is no tie.
        for end, neighbours in ((np.inf, values[1:]), (-np.inf, values[:-1])):
            beyond = np.nextafter(middles[met].astype(np.float32), np.float32(end))
            assert rounding.by_thresholds(levels, beyond).tolist() == neighbours[met].tolist(), name
        ties += met.sum()
    assert ties > 1_000_000


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_integers_round_as_numpy_does(bits: int, rounding: SimpleNamespace) -> None:
    levels = Levels.of_weights(parse(f"int{bits}"), Scheme(full_range=True))
    x = np.arange(-(2**bits), 2**bits + 1) / 2  # every other one is a tie, to be rounded half to even
    expected = np.clip(np.round(x), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    assert rounding.by_thresholds(levels, x).tolist() == expected.tolist()


def test_a_threshold_is_the_smallest_float32_of_its_level(all_levels, rounding: SimpleNamespace) -> None:
    for name, levels in all_levels.items():
        thresholds = levels.thresholds
        assert thresholds.dtype == np.float32
        assert thresholds.size == levels.values.size - 1
        assert rounding.by_thresholds(levels, thresholds).tolist() == levels.values[1:].tolist(), name
        below = np.nextafter(thresholds, np.float32(-np.inf))
        assert rounding.by_thresholds(levels, below).tolist() == levels.values[:-1].tolist(), name


@pytest.mark.parametrize(
    ("name", "scheme", "lowest", "highest", "is_affine"),
    [
        ("int4", Scheme(), -7, 7, False),
        ("int4", Scheme(full_range=True), -8, 7, False),
        ("int4", AFFINE, -8, 7, True),
        ("uint4", AFFINE, 0, 15, True),
        ("int1", Scheme(full_range=True), -1, 0, False),
        ("int1", AFFINE, -1, 0, True),
        ("int16", Scheme(), -32767, 32767, False),
        ("nf4", AFFINE, None, None, False),
        ("fp16", Scheme(full_range=True), None, None, False),
        ("codebook4", Scheme(), None, None, False),
    ],
)
def test_the_codes_of_weights(
    name: str, scheme: Scheme, lowest: int | None, highest: int | None, is_affine: bool
) -> None:
    levels = Levels.of_weights(parse(name), scheme)
    assert (levels.lowest, levels.highest, levels.is_affine) == (lowest, highest, is_affine)
    assert levels.is_uniform == (lowest is not None)
    assert levels.number_format.name == name
    if lowest is not None and highest is not None:
        assert levels.values.tolist() == list(range(lowest, highest + 1))


@pytest.mark.parametrize("granularity", [Granularity.PER_TENSOR, Granularity.PER_CHANNEL])
def test_the_codes_do_not_depend_on_what_shares_a_scale(granularity: Granularity) -> None:
    blocks = Scheme(weight_granularity=Granularity.PER_BLOCK, block_size=8)
    others = Scheme(weight_granularity=granularity)
    assert Levels.of_weights(parse("int4"), blocks) == Levels.of_weights(parse("int4"), others)


@pytest.mark.parametrize(
    ("name", "scheme", "nonnegative", "expected"),
    [
        ("int8", Scheme(), True, ("uint8", 0, 255, False)),
        ("int8", Scheme(), False, ("int8", -128, 127, False)),
        ("int8", Scheme(unsigned_activations=False), True, ("int8", -128, 127, False)),
        ("int8", AFFINE, True, ("uint8", 0, 255, True)),
        ("int8", AFFINE, False, ("uint8", 0, 255, True)),
        ("int1", Scheme(), True, ("uint1", 0, 1, False)),
        ("int1", AFFINE, False, ("uint1", 0, 1, True)),
        ("nf4", AFFINE, True, ("nf4", None, None, False)),
        ("posit8_0", Scheme(), False, ("posit8_0", None, None, False)),
        ("codebook2", AFFINE, True, ("codebook2", None, None, False)),
    ],
)
def test_the_codes_of_activations(
    name: str, scheme: Scheme, nonnegative: bool, expected: tuple[str, int | None, int | None, bool]
) -> None:
    levels = Levels.of_activations(parse(name), scheme, nonnegative=nonnegative)
    assert (levels.number_format.name, levels.lowest, levels.highest, levels.is_affine) == expected


def test_a_sign_that_cannot_be_held_is_refused() -> None:
    with pytest.raises(
        InputError, match="expected a signed format for symmetric weights, got uint4; use int or affine"
    ):
        Levels.of_weights(parse("uint4"), Scheme())
    with pytest.raises(InputError, match="expected a format with a symmetric grid, got int1; use binary, or a scheme"):
        Levels.of_weights(parse("int1"), Scheme())
    with pytest.raises(InputError, match="expected a format with positive codes for signed activations, got int1; use"):
        Levels.of_activations(parse("int1"), Scheme(), nonnegative=False)


def test_a_learned_format_has_no_levels_until_it_is_taught() -> None:
    levels = Levels.of_weights(parse("codebook2"), Scheme())
    assert (levels.is_known, levels.is_uniform) == (False, False)
    with pytest.raises(InputError, match="expected a format whose values are fixed, got codebook2, which is learned"):
        _ = levels.values
    taught = levels.taught([-0.5, 0.0, 2.0])
    assert (taught.is_known, taught.values.tolist(), taught.anchor) == (True, [-0.5, 0.0, 2.0], 1.0)
    assert taught.midpoints.tolist() == [-0.25, 1.0]
    assert levels.is_known is False
    assert taught == levels.taught(np.array([-0.5, 0.0, 2.0]))
    assert hash(taught) == hash(levels.taught([-0.5, 0.0, 2.0]))
