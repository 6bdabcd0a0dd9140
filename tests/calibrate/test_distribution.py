"""Points and boxes against numpy and against rounding the values themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hwdse.calibrate import Boxes, Distribution, Histogram, Points, Stream
from hwdse.calibrate.distribution import nearest
from hwdse.calibrate.moments import Moments
from hwdse.errors import InputError
from hwdse.formats import Levels, Scheme, Symmetry, parse

RESTRICTED, FULL, AFFINE = Scheme(), Scheme(full_range=True), Scheme(weights=Symmetry.AFFINE)
UNIFORM = ["int2", "int3", "int4", "int8"]
LISTED = ["binary", "ternary", "nf4", "apot4", "pot4", "fp4_e2m1", "fp8_e4m3", "fp8_e5m2", "posit4_0", "posit8_2"]
LEARNED = Levels(parse("codebook3")).taught([-0.9, -0.41, -0.13, 0.02, 0.2, 0.41, 0.7, 1.0])
GRIDS = {
    **{f"{name}-restricted": Levels.of_weights(parse(name), RESTRICTED) for name in UNIFORM},
    **{f"{name}-full": Levels.of_weights(parse(name), FULL) for name in UNIFORM},
    **{f"{name}-affine": Levels.of_weights(parse(name), AFFINE) for name in UNIFORM},
    **{name: Levels(parse(name)) for name in LISTED},
    "learned": LEARNED,
}


def values_of(name: str, count: int, seed: int = 0) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal(count)
    return {
        "gauss": normal,
        "laplace": rng.laplace(size=count),
        "shifted": normal + 1.3,
        "relu": np.maximum(normal, 0.0),
        "pixels": (rng.integers(0, 256, count) / 255.0 - 0.449) / 0.226,
    }[name]


def boxes(*batches: NDArray[np.float64]) -> Boxes:
    stream = Stream()
    for batch in batches:
        stream.add(torch.tensor(batch, dtype=torch.float32))
    return Boxes.of_stream(stream)


def points(*rows: NDArray[np.float64]) -> Points:
    return Points(torch.tensor(np.stack(rows), dtype=torch.float32))


def error_of(values: NDArray[np.float64], levels: Levels, scale: float, zero_point: float, power: float) -> float:
    """Return the error by looking at every level for every value."""
    grid = (levels.values - zero_point) * scale
    parts = np.array_split(values, max(1, values.size * grid.size // 2**20))
    return float(sum((np.abs(part[:, None] - grid).min(1) ** power).sum() for part in parts))


@pytest.mark.parametrize("power", [2.0, 2.4])
@pytest.mark.parametrize("grid", GRIDS)
def test_the_error_of_points_is_that_of_the_nearest_levels(grid: str, power: float) -> None:
    levels = GRIDS[grid]
    rows = [(values_of("shifted", 300, seed) * 10.0**seed).astype(np.float32).astype(np.float64) for seed in range(3)]
    ends = np.array([[1.0], [0.7], [0.1], [3.0]])
    low, high = (ends * [end(row) for row in rows] for end in (np.min, np.max))
    scale, zero_point = levels.grid(low, high)
    found = points(*rows).error(levels, scale, zero_point, power=power)
    expected = [
        [error_of(row, levels, s, z, power) for row, s, z in zip(rows, *pair, strict=True)]
        for pair in zip(scale, zero_point, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=2e-4)
    # Ranges of one candidate and of many give the same.
    np.testing.assert_array_equal(points(*rows).error(levels, scale[1], zero_point[1], power=power), found[1])


@pytest.mark.parametrize("power", [2.0, 2.4])
def test_a_large_table_is_summed_in_pieces(power: float) -> None:
    levels = GRIDS["nf4"]
    rows = [values_of("gauss", 40_000, seed).astype(np.float32).astype(np.float64) for seed in range(3)]
    found = points(*rows).error(levels, np.array([2.0, 3.0, 0.5]), np.zeros(3), power=power)
    expected = [error_of(row, levels, s, 0.0, power) for row, s in zip(rows, (2.0, 3.0, 0.5), strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("power", [2.0, 2.4])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", ["gauss", "laplace", "relu", "shifted"])
def test_the_error_of_boxes_is_that_of_the_values(name: str, grid: str, power: float) -> None:
    """Within 0.05 dB; the few values beyond the last level of a wide range are a sample of their own."""
    levels, values = GRIDS[grid], values_of(name, 60_000)
    distribution = boxes(*np.array_split(values, 7))
    share = np.array([[1.0], [0.6], [0.15]])
    scale, zero_point = levels.grid(share * distribution.minimum, share * distribution.maximum)
    found = distribution.error(levels, scale, zero_point, power=power)
    expected = [
        [error_of(values, levels, float(s[0]), float(z[0]), power)] for s, z in zip(scale, zero_point, strict=True)
    ]
    assert np.abs(10 * np.log10(found / expected)).max() < 0.05
    rough = distribution.rough_error(levels, scale, zero_point, power=power)
    assert np.abs(10 * np.log10(rough / expected)).max() < 0.1


@pytest.mark.parametrize("grid", ["int2-affine", "int4-restricted", "int4-affine", "nf4", "posit4_0"])
def test_boxes_smooth_a_lattice(grid: str) -> None:
    """Levels of 8-bit pixels are 26 bins apart: grids of fewer levels see no difference."""
    levels, values = GRIDS[grid], values_of("pixels", 60_000)
    distribution = boxes(values)
    scale, zero_point = levels.grid(distribution.minimum, distribution.maximum)
    found = distribution.error(levels, scale, zero_point)
    assert found == pytest.approx(error_of(values, levels, float(scale[0]), float(zero_point[0]), 2.0), rel=0.01)


@pytest.mark.parametrize("constant", [0.0, 0.3, -0.3, 1.0, -1.0])
@pytest.mark.parametrize("grid", ["int4-restricted", "int4-affine", "binary", "nf4"])
def test_boxes_hold_constants_and_zeros_exactly(constant: float, grid: str) -> None:
    levels = GRIDS[grid]
    values = np.array([constant] * 5 + [0.0] * 3, dtype=np.float32).astype(np.float64)
    for scale in (0.25, 1.0):
        found = boxes(values[:5]).error(levels, np.array([scale]), np.zeros(1))
        assert found[0] == pytest.approx(error_of(values[:5], levels, scale, 0.0, 2.0), rel=1e-9, abs=1e-15)
        # With zeros the range is not a point: the constant is anywhere in its box.
        found = boxes(values).error(levels, np.array([scale]), np.zeros(1))
        assert found[0] == pytest.approx(error_of(values, levels, scale, 0.0, 2.0), rel=2e-3, abs=3e-8)


def test_the_largest_value_may_lie_on_an_edge() -> None:
    values = np.array([0.5] * 10 + [1.0] * 7)
    levels = GRIDS["int2-full"]
    found = boxes(values).error(levels, np.array([0.8]), np.zeros(1))
    # 0.5 lies in a box of 1/16384, 1.0 in none.
    assert found[0] == pytest.approx(10 * 0.3**2 + 7 * 0.2**2, rel=1e-3)


def test_far_cells_of_a_wide_format_do_not_drown_the_near_ones() -> None:
    """The cells of posit8_2 reach from 2**-24 to 2**24; what is near 0 is integrated all the same."""
    levels, values = GRIDS["posit8_2"], values_of("gauss", 50_000)
    found = boxes(values).error(levels, np.array([2.0**10]), np.zeros(1))[0]
    assert found == pytest.approx(error_of(values, levels, 2.0**10, 0.0, 2.0), rel=0.01)


@pytest.mark.parametrize(
    "name", [*LISTED, "posit3_0", "posit6_1", "posit8_0", "posit8_1", "posit10_1", "fp6_e2m3", "fp6_e3m2", "nf3"]
)
def test_rounding_agrees_with_a_search_among_the_thresholds(name: str) -> None:
    levels = Levels(parse(name))
    _assert_search(levels)


@pytest.mark.parametrize("count", [2, 16, 256])
def test_rounding_to_learned_levels_agrees_with_a_search(count: int) -> None:
    rng = np.random.default_rng(count)
    levels = Levels(parse("codebook8")).taught(np.sort(rng.standard_normal(count)))
    _assert_search(levels)
    _assert_search(Levels(parse("codebook8")).taught(np.linspace(-1.0, 1.0, count)))


def _assert_search(levels: Levels) -> None:
    thresholds = levels.thresholds
    largest = np.float32(np.abs(levels.values).max())
    rng = np.random.default_rng(0)
    special = np.array([0.0, -0.0, np.inf, -np.inf, 1e-45, -1e-45, 3e38, -3e38], dtype=np.float32)
    x = np.concatenate(
        [
            special,
            thresholds,
            np.nextafter(thresholds, np.float32(np.inf)),
            np.nextafter(thresholds, np.float32(-np.inf)),
            rng.uniform(-1.2, 1.2, 20_000).astype(np.float32) * largest,
            np.exp2(rng.uniform(-40, 1, 20_000)).astype(np.float32) * rng.choice([-largest, largest], 20_000),
        ]
    )
    expected = levels.values[np.searchsorted(thresholds, x, side="right")]
    np.testing.assert_array_equal(nearest(torch.tensor(x), levels).numpy(), expected.astype(np.float32))


@pytest.mark.parametrize("zero_point", [0.0, 5.0, 15.0])
def test_rounding_to_codes_is_torch_s_own(zero_point: float) -> None:
    levels = GRIDS["int4-affine"]
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 8
    x = torch.cat([x, torch.arange(-20, 20) + 0.5])
    found = nearest(x, levels, torch.tensor([zero_point - 8]))
    expected = torch.fake_quantize_per_tensor_affine(x, 1.0, int(zero_point) - 8, -8, 7)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("left_out", [0.0, 1e-4, 0.01, 0.2])
def test_inner_ranges_are_numpy_s_quantiles(rows: int, left_out: float) -> None:
    table = [values_of("laplace", 50_000, seed).astype(np.float32).astype(np.float64) for seed in range(rows)]
    low, high = points(*table).inner_range(left_out)
    for row, (a, b) in enumerate(zip(low, high, strict=True)):
        n = table[row].size
        cut = round(left_out * n)
        assert np.isclose(a, np.quantile(table[row], cut / (n - 1), method="nearest"), rtol=0, atol=0)
        assert np.isclose(b, np.quantile(table[row], 1 - cut / (n - 1), method="nearest"), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["gauss", "laplace", "relu", "shifted", "pixels"])
@pytest.mark.parametrize("left_out", [1e-4, 0.01, 0.3])
def test_inner_ranges_of_boxes_end_at_the_bins_of_the_quantiles(name: str, left_out: float) -> None:
    values = values_of(name, 50_000).astype(np.float32).astype(np.float64)
    stream = Stream()
    stream.add(torch.tensor(values))
    width = float(stream.tensor.widths[0])
    ordered = np.sort(values)
    cut = round(left_out * values.size)
    (low,), (high,) = Boxes.of_stream(stream).inner_range(left_out)
    assert ordered[cut] - width < low <= ordered[cut]
    assert ordered[-1 - cut] <= high <= ordered[-1 - cut] + width
    assert ordered[0] <= low <= high <= ordered[-1]


def test_inner_ranges_of_rows_are_those_of_each() -> None:
    table = torch.randn(4, 30_000, generator=torch.Generator().manual_seed(1)) * torch.tensor(
        [[1.0], [9.0], [0.0], [1e-3]]
    )
    histogram, moments = Histogram(4), Moments(4)
    histogram.add(table)
    moments.add(table)
    together = Boxes(histogram, moments, (histogram.minimum, histogram.maximum)).inner_range(0.01)
    alone = [boxes(row.double().numpy()).inner_range(0.01) for row in table]
    np.testing.assert_array_equal(together, np.concatenate(alone, axis=1))


@pytest.mark.parametrize("name", ["gauss", "laplace", "relu", "shifted", "pixels"])
def test_magnitudes_are_numpy_s_histogram(name: str) -> None:
    values = values_of(name, 40_000).astype(np.float32).astype(np.float64)
    expected = np.histogram(np.abs(values), bins=500, range=(0.0, np.abs(values).max()))[0]
    # Values on an edge may round to either side of it.
    assert np.abs(points(values).magnitudes(500) - expected).sum() <= 4
    found = boxes(values).magnitudes(500)
    assert found.sum() == pytest.approx(values.size)
    # Boxes of a 16,384th straddle the edges: cumulative counts differ by less than a box holds.
    largest_box = np.histogram(values, bins=4096)[0].max()
    assert np.abs(np.cumsum(found) - np.cumsum(expected)).max() <= largest_box + values.size / 500


def test_magnitudes_of_rows_are_added_up_in_units_of_the_largest() -> None:
    table = [values_of("gauss", 2_000, seed) * 5.0**seed for seed in range(3)]
    expected = sum(np.histogram(np.abs(row) / np.abs(row).max(), bins=64, range=(0.0, 1.0))[0] for row in table)
    assert np.abs(points(*table).magnitudes(64) - expected).sum() <= 4


@pytest.mark.parametrize("constant", [2.0, -2.0, 0.7, -0.7])
def test_magnitudes_of_a_constant_are_in_the_last_bin(constant: float) -> None:
    values = np.full(9, constant)
    for distribution in (points(values), boxes(values)):
        magnitudes = distribution.magnitudes(16)
        assert magnitudes[-1] == 9
        assert magnitudes.sum() == 9


def test_atoms_are_all_values_with_the_weight_of_their_errors() -> None:
    rows = [np.array([1.0, -2.0, 0.5]), np.array([0.0, 8.0, 4.0]), np.zeros(3)]
    values, masses = points(*rows).atoms()
    expected = sorted(
        [(0.5, 1 / 16), (-1.0, 1 / 16), (0.25, 1 / 16), (0.0, 1.0), (1.0, 1.0), (0.5, 1.0), *[(0.0, 1 / 64)] * 3]
    )
    np.testing.assert_array_equal(values, [value for value, _ in expected])
    assert sorted(zip(values, masses, strict=True)) == expected


@pytest.mark.parametrize("name", ["gauss", "relu", "shifted"])
def test_atoms_of_boxes_have_the_moments_of_the_values(name: str) -> None:
    values = values_of(name, 20_000)
    places, masses = boxes(values).atoms()
    top = np.abs(values).max()
    assert masses.sum() == values.size
    assert (np.diff(places) >= 0).all()
    assert masses @ places == pytest.approx(values.sum() / top, rel=1e-3, abs=values.size / 2**14)
    assert masses @ places**2 == pytest.approx((values**2).sum() / top**2, rel=1e-3)


@pytest.mark.parametrize("name", ["gauss", "relu", "shifted", "pixels"])
def test_moments_are_numpy_s(name: str) -> None:
    values = values_of(name, 20_000).astype(np.float32).astype(np.float64)
    expected = {
        "count": values.size,
        "zeros": (values == 0).sum(),
        "mean": values.mean(),
        "mean_square": (values**2).mean(),
        "mean_magnitude": np.abs(values).mean(),
        "minimum": values.min(),
        "maximum": values.max(),
        "largest": np.abs(values).max(),
    }
    distributions: Sequence[Distribution] = (points(values), boxes(*np.array_split(values, 3)))
    for distribution in distributions:
        for attribute, value in expected.items():
            np.testing.assert_allclose(getattr(distribution, attribute), [value], rtol=1e-9, atol=1e-12)
        deviation = np.abs(values - values.mean()).mean()
        np.testing.assert_allclose(distribution.mean_deviation, [deviation], rtol=1e-4)
        assert distribution.rows == 1
        assert distribution.is_nonnegative == (name == "relu")
        assert distribution.is_one_sided.tolist() == [name == "relu"]


@given(
    st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=20),
    st.floats(-20, 20),
    st.floats(-20, 20),
)
def test_a_limited_range_holds_zero_and_nothing_beyond_the_values(values: list[float], low: float, high: float) -> None:
    distribution = points(np.array(values))
    (a,), (b,) = distribution.limited(np.array([low]), np.array([high]))
    assert min(*values, 0.0) <= a <= 0.0 <= b <= max(*values, 0.0)
    assert a == np.clip(low, min(*values, 0.0), 0.0)
    assert b == np.clip(high, 0.0, max(*values, 0.0))


def test_merged_streams_are_one() -> None:
    parts = [values_of("gauss", 3_000, seed) * 3.0**seed for seed in range(4)]
    merged, all_at_once = Stream(), Stream()
    for part in parts:
        other = Stream()
        other.add(torch.tensor(part))
        merged.merge(other)
        all_at_once.add(torch.tensor(part))
    levels = GRIDS["int4-affine"]
    a, b = Boxes.of_stream(merged), Boxes.of_stream(all_at_once)
    grid = levels.grid(a.minimum, a.maximum)
    np.testing.assert_array_equal(a.error(levels, *grid), b.error(levels, *grid))
    np.testing.assert_array_equal(a.magnitudes(100), b.magnitudes(100))
    np.testing.assert_allclose(a.ema, b.ema, rtol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(InputError, match="expected finite weights, got NaN or infinity"):
        points(np.array([1.0, bad]), np.array([1.0, 2.0]))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_points_without_values_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=r"expected a tensor with values, got one of shape"):
        Points(torch.zeros(shape))


def test_boxes_without_values_are_refused() -> None:
    with pytest.raises(InputError, match="expected values in every row, got an empty one"):
        Boxes.of_stream(Stream())
    histogram, moments = Histogram(2), Moments(2)
    with pytest.raises(InputError, match="expected values in every row, got an empty one"):
        Boxes(histogram, moments, (histogram.minimum, histogram.maximum))
