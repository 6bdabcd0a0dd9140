"""The streaming histogram against numpy on everything it was shown."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hwdse.calibrate import Histogram
from hwdse.errors import InputError

BINS = 2048
NUMBERS = st.floats(-(2.0**127), 2.0**127, width=32)
SCALED = st.tuples(
    st.floats(-2.0, 2.0, width=32), st.sampled_from([0.0, 1e-38, 1e-30, 1e-6, 1.0, 1e3, 1e30, 1e38])
).map(lambda pair: float(np.float32(pair[0]) * np.float32(pair[1])))
BATCHES = st.lists(st.lists(st.one_of(NUMBERS, SCALED), min_size=1, max_size=30), min_size=1, max_size=8)


def filled(*batches: torch.Tensor) -> Histogram:
    histogram = Histogram()
    for batch in batches:
        histogram.add(batch)
    return histogram


def expected_counts(histogram: Histogram, values: np.ndarray) -> np.ndarray:
    """Return numpy's counts on the same edges, each bin holding its left edge only."""
    places = np.searchsorted(histogram.edges, values.astype(np.float64), side="right") - 1
    return np.bincount(places, minlength=BINS)


@given(BATCHES)
@settings(deadline=None)
def test_no_value_is_lost_or_in_a_wrong_bin(batches: list[list[float]]) -> None:
    histogram = filled(*(torch.tensor(batch) for batch in batches))
    values = np.concatenate([np.array(batch, np.float32) for batch in batches])
    assert histogram.count == values.size == histogram.counts.sum()
    assert (histogram.minimum, histogram.maximum) == (values.min(), values.max())
    edges = histogram.edges
    assert edges.shape == (BINS + 1,)
    assert 0.0 in edges
    assert edges[0] <= min(values.min(), 0.0)
    assert max(values.max(), 0.0) < edges[-1]
    assert (np.diff(edges) == edges[1] - edges[0]).all()
    vanishing = (values < 0.0) & (values > -(2.0**-140) * (edges[1] - edges[0]))
    assume(not vanishing.any())  # counted as 0, or as negative if the range was small at first
    assert histogram.counts.tolist() == expected_counts(histogram, values).tolist()


@given(st.integers(0, 2**31), st.lists(st.floats(-12.0, 12.0), min_size=1, max_size=6))
@settings(deadline=None)
def test_growing_ranges_merge_as_numpy_bins_them(seed: int, magnitudes: list[float]) -> None:
    generator = torch.Generator().manual_seed(seed)
    batches = [torch.randn(500, generator=generator) * 10.0**m for m in magnitudes]
    histogram = filled(*batches)
    assert histogram.counts.tolist() == expected_counts(histogram, torch.cat(batches).numpy()).tolist()
    # The range is not wasted: after zeros alone it would be; here a quarter of it is in use at least.
    span = max(histogram.maximum, 0.0) - min(histogram.minimum, 0.0)
    assert span >= 0.2 * (histogram.edges[-1] - histogram.edges[0])


@given(st.integers(0, 2**31), st.permutations(range(5)))
@settings(deadline=None)
def test_moments_and_extremes_do_not_depend_on_the_order(seed: int, order: list[int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    batches = [torch.randn(100, generator=generator) * 10.0**i for i in range(5)]
    histogram = filled(*(batches[i] for i in order))
    values = torch.cat(batches).double()
    assert histogram.total == pytest.approx(float(values.sum()), rel=1e-9)
    assert histogram.total_squares == pytest.approx(float(values.square().sum()), rel=1e-9)


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e20, 1e30])
def test_squares_neither_vanish_nor_overflow(size: float) -> None:
    histogram = filled(torch.full((10,), size))
    assert histogram.total_squares == pytest.approx(10 * size**2, rel=1e-6)


def test_zeros_alone_and_then_values() -> None:
    histogram = filled(torch.zeros(7))
    assert (histogram.minimum, histogram.maximum, histogram.counts[0]) == (0.0, 0.0, 7.0)
    histogram.add(torch.tensor([-1.0, 2.0]))
    zero_bin = histogram.edges.tolist().index(0.0)
    assert histogram.counts[zero_bin] == 7.0
    assert histogram.counts.sum() == 9.0


@pytest.mark.parametrize("value", [3.5, -3.5, 1e-45, -1e-45, 3.4e38, -3.4e38])
def test_one_value(value: float) -> None:
    single = torch.tensor(value)
    histogram = filled(single)
    assert histogram.count == histogram.counts.sum() == 1
    assert histogram.minimum == histogram.maximum == float(single)
    bin_ = int(np.flatnonzero(histogram.counts)[0])
    assert histogram.edges[bin_] <= float(single) < histogram.edges[bin_ + 1]


def test_a_value_on_an_edge_belongs_to_the_bin_above() -> None:
    histogram = filled(torch.arange(-8, 9).float())
    used = histogram.edges[:-1][histogram.counts > 0]
    assert used.tolist() == list(range(-8, 9))


def test_nothing_to_count() -> None:
    histogram = filled(torch.empty(0))
    assert histogram.count == 0
    assert histogram.counts.sum() == 0.0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool])
def test_other_types_are_counted_too(dtype: torch.dtype) -> None:
    histogram = filled(torch.tensor([[0, 1], [1, 1]]).to(dtype))
    assert (histogram.count, histogram.minimum, histogram.maximum, histogram.total) == (4, 0.0, 1.0, 3.0)


def test_a_double_keeps_its_extremes() -> None:
    values = torch.tensor([0.1, -0.7], dtype=torch.float64)
    histogram = filled(values)
    assert (histogram.minimum, histogram.maximum) == (-0.7, 0.1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_must_be_finite(value: float) -> None:
    histogram = filled(torch.tensor([1.0]))
    with pytest.raises(InputError, match="expected finite calibration data, got NaN or infinity"):
        histogram.add(torch.tensor([0.0, value, 1.0]))
    assert histogram.count == histogram.counts.sum() == 1


def test_memory_does_not_grow_with_the_batches() -> None:
    histogram = filled(torch.randn(1000))
    tracemalloc.start()
    for i in range(200):
        histogram.add(torch.randn(1000) * (1 + i))
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 100_000  # one batch's counts are 16 KiB, two hundred would be 3 MiB


def test_the_values_are_not_changed() -> None:
    values = torch.randn(100)
    before = values.clone()
    filled(values)
    assert torch.equal(values, before)
