"""Scales and zero points of ranges."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hwdse.formats import Levels, Scheme, Symmetry, parse

SIGNED = Scheme(unsigned_activations=False)
AFFINE = Scheme(activations=Symmetry.AFFINE)
SMALLEST = 2.0**-126
LARGEST = float(np.finfo(np.float32).max)

ENDS = st.one_of(
    st.just(0.0),
    st.sampled_from([1e-38, 1e-30, 1.0, 1e30, 1e38]),
    st.floats(-45.0, 38.0).map(lambda exponent: 10.0**exponent),
)


@pytest.mark.parametrize(
    ("low", "high", "scheme", "name", "scale", "zero_point"),
    [
        (-2.0, 12.7, Scheme(), "int8", 0.1, 0),
        (-12.8, 2.0, Scheme(), "int8", 0.1, 0),  # the lowest code is -128
        (-12.8, 12.7, Scheme(), "int8", 0.1, 0),
        (0.0, 25.5, Scheme(), "uint8", 0.1, 0),
        (3.0, 25.5, Scheme(), "uint8", 0.1, 0),  # widened to hold 0
        (0.0, 12.7, SIGNED, "int8", 0.1, 0),
        (-12.8, -3.0, Scheme(), "int8", 0.1, 0),
        (-10.0, 15.5, AFFINE, "uint8", 0.1, 100),
        (3.0, 25.5, AFFINE, "uint8", 0.1, 0),
        (-25.5, -3.0, AFFINE, "uint8", 0.1, 255),
        (-0.25, 127.25, AFFINE, "uint8", 0.5, 0),  # 0.5 is rounded to even
        (-0.75, 126.75, AFFINE, "uint8", 0.5, 2),  # and so is 1.5
        (0.0, 0.0, Scheme(), "uint8", 1.0, 0),
        (0.0, 0.0, AFFINE, "uint8", 1.0, 0),
        (0.0, 1e-45, Scheme(), "uint8", SMALLEST, 0),  # the inverse stays finite in float32
        (0.0, 1e-30, Scheme(), "uint8", 1e-30 / 255, 0),
        (-1e30, 1e30, AFFINE, "uint8", 2e30 / 255, 128),
    ],
)
def test_the_grid_of_an_activation(
    low: float, high: float, scheme: Scheme, name: str, scale: float, zero_point: int
) -> None:
    levels = Levels.of_activations(parse("int8"), scheme, nonnegative=low >= 0.0)
    found_scale, found_zero_point = levels.grid(low, high)
    assert levels.number_format.name == name
    assert float(found_scale) == pytest.approx(max(scale, SMALLEST), rel=1e-7)
    assert float(found_zero_point) == zero_point


@pytest.mark.parametrize(
    ("scheme", "low", "high", "scale", "zero_point"),
    [
        (Scheme(), -1.4, 0.7, 0.2, 0),  # codes -7 to 7
        (Scheme(full_range=True), -1.6, 0.7, 0.2, 0),  # codes -8 to 7
        (Scheme(full_range=True), -1.6, 2.1, 0.3, 0),
        (Scheme(weights=Symmetry.AFFINE), -1.0, 2.0, 0.2, -3),  # -8 - (-1 / 0.2)
    ],
)
def test_the_grid_of_a_weight(scheme: Scheme, low: float, high: float, scale: float, zero_point: int) -> None:
    found_scale, found_zero_point = Levels.of_weights(parse("int4"), scheme).grid(low, high)
    assert float(found_scale) == pytest.approx(scale, rel=1e-7)
    assert float(found_zero_point) == zero_point


@pytest.mark.parametrize(
    ("name", "anchor"),
    [("nf4", 1.0), ("fp4_e2m1", 6.0), ("fp8_e4m3", 448.0), ("pot4", 1.0), ("posit8_1", 1.0), ("ternary", 1.0)],
)
def test_the_larger_end_of_a_range_meets_the_anchor(name: str, anchor: float) -> None:
    levels = Levels(parse(name))
    assert levels.anchor == anchor
    scale, zero_point = levels.grid([-3.0, -0.5], [0.75, 1.5])
    np.testing.assert_allclose(scale, [3.0 / anchor, 1.5 / anchor], rtol=1e-7)
    assert zero_point.tolist() == [0.0, 0.0]


@given(ENDS, ENDS, st.data())
@example(0.0, 0.0, None)
def test_every_scale_has_a_finite_inverse_and_every_grid_holds_zero(
    all_levels, below: float, above: float, data: st.DataObject | None
) -> None:
    chosen = list(all_levels) if data is None else [data.draw(st.sampled_from(list(all_levels)))]
    for levels in (all_levels[name] for name in chosen):
        scale, zero_point = (float(part) for part in levels.grid(-below, above))
        assert SMALLEST <= scale <= LARGEST
        assert scale == float(np.float32(scale))
        assert np.isfinite(np.float32(1.0) / np.float32(scale))
        if levels.is_uniform:
            # Zero is a code.
            assert levels.lowest <= zero_point <= levels.highest
            assert zero_point == round(zero_point)
            assert levels.is_affine or zero_point == 0.0
            assert 0.0 in (levels.values - zero_point) * scale


@given(ENDS, ENDS, st.data())
def test_every_grid_reaches_its_range(all_levels, below: float, above: float, data: st.DataObject) -> None:
    levels = all_levels[data.draw(st.sampled_from([name for name in all_levels if not name.endswith("16")]))]
    if not levels.number_format.has_scale:
        return
    scale, zero_point = (float(part) for part in levels.grid(-below, above))
    if not levels.is_uniform:
        reach = levels.anchor * scale
        assert reach >= max(below, above) * (1 - 1e-7)
        assert scale in (1.0, SMALLEST) or reach <= max(below, above) * (1 + 1e-7)
        return
    low, high = (float(end - zero_point) * scale for end in (levels.lowest, levels.highest))
    # Rounding the zero point moves both ends by at most half a step; a code that is missing is missing.
    slack = scale * (0.5 if levels.is_affine else 0.0) + 1e-6 * max(below, above)
    assert (levels.lowest == 0 and not levels.is_affine) or low <= -below + slack
    assert (levels.highest == 0 and not levels.is_affine) or high >= above - slack
    # And is no coarser than it must be.
    ends = (
        ((below + above) / (levels.highest - levels.lowest),)
        if levels.is_affine
        else (
            below / -levels.lowest if levels.lowest else 0.0,
            above / levels.highest if levels.highest else 0.0,
        )
    )
    assert scale in (1.0, SMALLEST) or scale <= max(ends) * (1 + 1e-7)


def test_grids_of_many_ranges_are_those_of_each(all_levels) -> None:
    rng = np.random.default_rng(0)
    low, high = -rng.lognormal(0, 5, (3, 4)), rng.lognormal(0, 5, (3, 4))
    low[0, 0] = high[0, 0] = high[1, 1] = low[2, 2] = 0.0
    for levels in all_levels.values():
        scale, zero_point = levels.grid(low, high)
        assert scale.shape == zero_point.shape == (3, 4)
        one_by_one = [levels.grid(a, b) for a, b in zip(low.ravel(), high.ravel(), strict=True)]
        assert scale.ravel().tolist() == [float(pair[0]) for pair in one_by_one]
        assert zero_point.ravel().tolist() == [float(pair[1]) for pair in one_by_one]
