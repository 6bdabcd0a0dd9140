"""Streaming moments against numpy and scipy on everything they were shown."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from hwdse.calibrate import histogram as histogram_module
from hwdse.calibrate.moments import Moments
from hwdse.errors import InputError

NUMBERS = st.one_of(st.floats(-1e3, 1e3, width=32), st.sampled_from([0.0, -0.0, 1e-45, 1e30, -1e-30, 1.0]))
TABLES = st.lists(st.lists(NUMBERS, min_size=2, max_size=2), max_size=20)
POWERS = ("mean", "m2", "m3", "m4", "magnitude_sum", "mean_square", "mean_magnitude")


def filled(*batches: torch.Tensor, rows: int = 1) -> Moments:
    moments = Moments(rows)
    for batch in batches:
        moments.add(batch)
    return moments


def table(columns: list[list[float]]) -> torch.Tensor:
    return torch.tensor(columns).reshape(-1, 2).T


def assert_moments(moments: Moments, row: int, values: np.ndarray, *, rel: float) -> None:
    """Compare one row with exact sums of what the definitions say."""
    x = [float(v) for v in values]
    n = len(x)
    mean = math.fsum(x) / n
    largest = max(abs(v) for v in x)
    widest = max(abs(v - mean) for v in x)
    assert (moments.count[row], moments.zeros[row]) == (n, x.count(0.0))
    assert (moments.minimum[row], moments.maximum[row]) == (min(x), max(x))
    assert moments.mean[row] == pytest.approx(mean, rel=0, abs=rel * largest)
    for power, sums in ((2, moments.m2), (3, moments.m3), (4, moments.m4)):
        exact = math.fsum((v - mean) ** power for v in x)
        scale = math.fsum(abs(v - mean) ** power for v in x) + n * (1e-16 * largest) * widest ** (power - 1)
        assert sums[row] == pytest.approx(exact, rel=0, abs=rel * scale + 1e-300)
    assert moments.magnitude_sum[row] == pytest.approx(math.fsum(map(abs, x)), rel=rel)
    assert moments.mean_square[row] == pytest.approx(math.fsum(v * v for v in x) / n, rel=rel)
    assert moments.mean_magnitude[row] == pytest.approx(math.fsum(map(abs, x)) / n, rel=rel)


@given(st.lists(NUMBERS, min_size=1, max_size=50), st.integers(0, 50), st.integers(0, 50))
def test_any_grouping_gives_the_definitions(values: list[float], first: int, second: int) -> None:
    tensor = torch.tensor(values)
    a, b, c = (filled(part) for part in torch.tensor_split(tensor, sorted((first, second))))
    b.merge(c)
    a.merge(b)
    assert_moments(a, 0, tensor.numpy(), rel=1e-11)
    assert_moments(filled(*tensor.split(7)), 0, tensor.numpy(), rel=1e-11)


@given(TABLES, TABLES, TABLES)
def test_merging_is_associative_and_commutative(
    x: list[list[float]], y: list[list[float]], z: list[list[float]]
) -> None:
    def merged(*parts: Moments) -> Moments:
        result = Moments(2)
        for part in parts:
            result.merge(part)
        return result

    a, b, c = (filled(table(columns), rows=2) for columns in (x, y, z))
    assume(len(x) + len(y) + len(z) > 0)
    seen = torch.cat([table(columns) for columns in (x, y, z)], 1).numpy()
    for result in (merged(merged(a, b), c), merged(a, merged(b, c)), merged(c, b, a)):
        for row in range(2):
            assert_moments(result, row, seen[row], rel=1e-11)
        assert_moments(result.pooled(), 0, seen.ravel(), rel=1e-11)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6, -1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_large_mean_costs_no_accuracy(monkeypatch: pytest.MonkeyPatch, offset: float, dtype: torch.dtype) -> None:
    monkeypatch.setattr(histogram_module, "PIECE", 1000)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(20_000, dtype=torch.float64, generator=generator)
    values = (noise.exp() + offset).to(dtype)
    moments = filled(*values.split(3333))
    # numpy and scipy on values that are shifted exactly: what is left of 1e6 in the sum would be their error, not ours.
    x = values.double().numpy() - offset
    variance = moments.m2[0] / len(x)
    assert moments.mean[0] - offset == pytest.approx(x.mean(), rel=1e-9)
    assert variance == pytest.approx(x.var(), rel=1e-9)
    assert moments.m3[0] / len(x) / variance**1.5 == pytest.approx(scipy.stats.skew(x), rel=1e-9)
    assert moments.m4[0] / len(x) / variance**2 == pytest.approx(scipy.stats.kurtosis(x, fisher=False), rel=1e-9)


def test_batches_of_different_means_are_pooled_exactly() -> None:
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randn(n, generator=generator) * n + 100 * n for n in (3, 1, 500, 40)]
    x = torch.cat(batches).double().numpy()
    moments = filled(*batches)
    assert moments.m2[0] == pytest.approx(((x - x.mean()) ** 2).sum(), rel=1e-12)
    assert moments.m3[0] == pytest.approx(((x - x.mean()) ** 3).sum(), rel=1e-12)
    assert moments.m4[0] == pytest.approx(((x - x.mean()) ** 4).sum(), rel=1e-12)


@pytest.mark.parametrize("constant", [0.1, -3.0, 1e-45, 3.4e38, 0.0])
def test_a_constant_has_no_deviations_at_all(monkeypatch: pytest.MonkeyPatch, constant: float) -> None:
    monkeypatch.setattr(histogram_module, "PIECE", 64)
    value = torch.tensor(constant)
    moments = filled(*(value.expand(n) for n in (1000, 7, 1)))
    moments.merge(filled(value.expand(333)))
    for seen in (moments, filled(value.expand(3, 50), rows=3).pooled()):
        assert (seen.mean[0], seen.m2[0], seen.m3[0], seen.m4[0]) == (float(value), 0.0, 0.0, 0.0)


@pytest.mark.parametrize("size", [1e-45, 1e-30, 1e-20, 1e20, 1e38])
def test_powers_neither_vanish_nor_overflow(size: float) -> None:
    values = torch.tensor([-1.0, 1.0, 2.0, 0.0]) * size
    assert_moments(filled(values), 0, values.numpy(), rel=1e-14)
    assert filled(values).m4[0] > 0.0


@pytest.mark.parametrize("shape", [(4, 3, 5, 6), (3, 100), (100, 3)])
def test_rows_are_numpys_rows(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]) -> None:
    monkeypatch.setattr(histogram_module, "PIECE", 40)
    axis = shape.index(3)
    values = torch.randn(shape, generator=torch.Generator().manual_seed(2)).relu()
    moments = Moments(3)
    moments.add(values, axis=axis)
    rows = values.movedim(axis, 0).reshape(3, -1).numpy()
    for row in range(3):
        assert_moments(moments, row, rows[row], rel=1e-12)
    assert_moments(moments.pooled(), 0, values.numpy().ravel(), rel=1e-12)


def test_nothing_seen() -> None:
    nothing = filled(torch.empty(3, 0), rows=3)
    for name in POWERS:
        assert getattr(nothing, name).tolist() == [0.0, 0.0, 0.0]
    assert (nothing.minimum[0], nothing.maximum[0]) == (math.inf, -math.inf)
    merged = filled(torch.tensor([5.0, 7.0]))
    merged.merge(nothing.pooled())
    assert (merged.count[0], merged.mean[0], merged.m2[0], merged.minimum[0]) == (2, 6.0, 2.0, 5.0)


def test_bad_values_and_shapes_add_nothing() -> None:
    moments = filled(torch.ones(2, 5), rows=2)
    with pytest.raises(InputError, match="expected finite calibration data, got NaN or infinity"):
        moments.add(torch.tensor([[1.0], [math.nan]]))
    with pytest.raises(InputError, match=r"expected 2 rows along axis 0, got a tensor of shape \(3, 2\)"):
        moments.add(torch.ones(3, 2))
    with pytest.raises(InputError, match="expected moments of 2 rows, got 3"):
        moments.merge(Moments(3))
    with pytest.raises(InputError, match="expected moments of 1 row at least, got 0"):
        Moments(0)
    assert moments.count.tolist() == [5, 5]


def test_the_values_are_not_changed() -> None:
    values = torch.randn(100, dtype=torch.float64)
    before = values.clone()
    filled(values)
    assert torch.equal(values, before)


def test_merging_leaves_the_other_alone() -> None:
    a, b = filled(torch.tensor([1.0, 2.0])), filled(torch.tensor([5.0]))
    a.merge(b)
    a.add(torch.tensor([9.0]))
    assert (b.count[0], b.mean[0], b.maximum[0]) == (1, 5.0, 5.0)
