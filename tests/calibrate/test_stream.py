"""What one pass collects against what numpy finds in all batches together."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hwdse.calibrate.histogram import Histogram
from hwdse.calibrate.moments import Moments
from hwdse.calibrate.stream import Stream
from hwdse.errors import InputError

HISTOGRAM = ("count", "zeros", "minimum", "maximum", "counts", "edges")
EXACT = ("count", "zeros", "minimum", "maximum")
SUMS = ("mean", "m2", "m3", "m4", "magnitude_sum")


def filled(*batches: torch.Tensor, channel_axis: int | None = None) -> Stream:
    stream = Stream(channel_axis)
    for batch in batches:
        stream.add(batch)
    return stream


def activations(count: int, *, seed: int = 0) -> list[torch.Tensor]:
    """Return batches ``(n, 5, 4, 3)`` of changing size, scale and sign."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([1e-3, 1.0, 2.0, 30.0, 0.0]).view(5, 1, 1)
    return [
        torch.randn(1 + i % 3, 5, 4, 3, generator=generator).relu() * scale * (1 + i) - 0.1 * i for i in range(count)
    ]


def assert_same(a: Stream, b: Stream) -> None:
    """Counts and extremes are equal; sums and averages up to rounding."""
    pairs: list[tuple[Histogram | None, Histogram | None]] = [(a.tensor, b.tensor), (a.channels, b.channels)]
    for x, y in pairs:
        assert (x is None) == (y is None)
        if x is not None:
            assert all(np.array_equal(getattr(x, name), getattr(y, name)) for name in HISTOGRAM)
    sums: list[tuple[Moments | None, Moments | None]] = [(a.moments, b.moments), (a.channel_moments, b.channel_moments)]
    for s, t in sums:
        assert (s is None) == (t is None)
        if s is not None:
            assert all(np.array_equal(getattr(s, name), getattr(t, name)) for name in EXACT)
            for name in SUMS:
                np.testing.assert_allclose(getattr(s, name), getattr(t, name), rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(a.ema, b.ema, rtol=1e-12)


@pytest.mark.parametrize("axis", [1, -3])
def test_a_stream_holds_what_numpy_finds_in_all_batches(axis: int) -> None:
    batches = activations(20)
    stream = filled(*batches, channel_axis=axis)
    x = torch.cat(batches).double().numpy()
    assert stream.tensor.counts.shape == (1, 16384)
    assert stream.channels is not None
    assert stream.channel_moments is not None
    assert stream.channels.counts.shape == (5, 2048)
    rows = np.moveaxis(x, 1, 0).reshape(5, -1)
    places = [(stream.tensor, stream.moments, x.reshape(1, -1)), (stream.channels, stream.channel_moments, rows)]
    for histogram, moments, values in places:
        for seen in (histogram, moments):
            assert seen.count.tolist() == [values.shape[1]] * len(values)
            assert seen.zeros.tolist() == (values == 0).sum(1).tolist()
            assert seen.minimum.tolist() == values.min(1).tolist()
            assert seen.maximum.tolist() == values.max(1).tolist()
        for row, line in enumerate(values):
            counts = np.histogram(line[line != 0], bins=histogram.edges[row])[0]
            assert histogram.counts[row].tolist() == counts.tolist()
        np.testing.assert_allclose(moments.mean, values.mean(1), rtol=1e-12)
        deviations = values - values.mean(1, keepdims=True)
        for sums, power in ((moments.m2, 2), (moments.m3, 3), (moments.m4, 4)):
            np.testing.assert_allclose(sums, (deviations**power).sum(1), rtol=1e-9)


def test_without_channels_the_tensor_level_is_the_same() -> None:
    batches = activations(12)
    plain, told_apart = filled(*batches), filled(*batches, channel_axis=1)
    assert plain.channels is None
    assert plain.channel_moments is None
    told_apart.channels, channel_moments = None, told_apart.moments
    for name in EXACT:
        assert getattr(plain.moments, name).tolist() == getattr(channel_moments, name).tolist()
    for name in SUMS:
        np.testing.assert_allclose(getattr(plain.moments, name), getattr(channel_moments, name), rtol=1e-9)
    assert plain.tensor.counts.tolist() == told_apart.tensor.counts.tolist()


@pytest.mark.parametrize(
    ("channels", "bins"), [(1, 2048), (128, 2048), (129, 1024), (256, 1024), (2000, 128), (4096, 64), (9000, 64)]
)
def test_bins_of_channels_are_bounded(channels: int, bins: int) -> None:
    stream = filled(torch.ones(2, channels), channel_axis=1)
    assert stream.channels is not None
    assert stream.channels.counts.shape == (channels, bins)


@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), max_size=4), max_size=30), st.integers(0, 30))
def test_moving_averages_are_those_of_a_plain_loop(batches: list[list[float]], cut: int) -> None:
    low, high = math.inf, -math.inf
    for values in batches:
        if values:
            first = low == math.inf
            low = min(values) if first else low + 0.01 * (min(values) - low)
            high = max(values) if first else high + 0.01 * (max(values) - high)
    tensors = [torch.tensor(values) for values in batches]
    whole = filled(*tensors)
    assert whole.ema == pytest.approx((low, high), rel=1e-12, abs=1e-8)
    merged = filled(*tensors[:cut])
    merged.merge(filled(*tensors[cut:]))
    assert merged.ema == pytest.approx((low, high), rel=1e-12, abs=1e-8)


def test_moving_averages_of_two_segments_are_those_of_one_pass() -> None:
    generator = torch.Generator().manual_seed(3)
    batches = [torch.rand(10, generator=generator) + 1.0 + i for i in range(300)]
    whole = filled(*batches)
    low = float(batches[0].min())
    for batch in batches[1:]:
        low += 0.01 * (float(batch.min()) - low)
    assert whole.ema[0] == pytest.approx(low, rel=1e-12)
    for cut in (0, 1, 2, 150, 299, 300):
        merged = filled(*batches[:cut])
        merged.merge(filled(*batches[cut:]))
        assert merged.ema == pytest.approx(whole.ema, rel=1e-12)
    backwards = filled(*batches[150:])
    backwards.merge(filled(*batches[:150]))
    assert backwards.ema[0] != pytest.approx(low, rel=1e-3)


@pytest.mark.parametrize("axis", [None, 1])
@pytest.mark.parametrize("cuts", [(0, 0), (7, 7), (3, 11), (20, 20), (1, 19)])
def test_merged_streams_are_one_pass(axis: int | None, cuts: tuple[int, int]) -> None:
    batches = activations(20)
    parts = [batches[: cuts[0]], batches[cuts[0] : cuts[1]], batches[cuts[1] :]]
    whole = filled(*batches, channel_axis=axis)
    left, right = Stream(axis), Stream(axis)
    for part in parts:
        left.merge(filled(*part, channel_axis=axis))
    for part in parts[1:]:
        right.merge(filled(*part, channel_axis=axis))
    nested = filled(*parts[0], channel_axis=axis)
    nested.merge(right)
    assert_same(left, whole)
    assert_same(nested, whole)


def test_a_merged_stream_goes_on() -> None:
    batches = activations(9)
    stream = filled(*batches[:3], channel_axis=1)
    later = filled(*batches[3:6], channel_axis=1)
    stream.merge(later)
    for batch in batches[6:]:
        stream.add(batch)
    assert_same(stream, filled(*batches, channel_axis=1))
    assert_same(later, filled(*batches[3:6], channel_axis=1))


def test_nothing_seen() -> None:
    stream = filled(torch.empty(0, 5), channel_axis=1)
    assert stream.channels is None
    assert stream.moments.count.tolist() == [0]
    assert stream.tensor.count.tolist() == [0]
    assert stream.ema == (math.inf, -math.inf)


@pytest.mark.parametrize("axis", [None, 1])
def test_a_bad_batch_changes_nothing(axis: int | None) -> None:
    stream, before = filled(torch.ones(2, 3), channel_axis=axis), filled(torch.ones(2, 3), channel_axis=axis)
    with pytest.raises(InputError, match="expected finite calibration data, got NaN or infinity"):
        stream.add(torch.tensor([[1.0, 2.0, math.nan]]))
    if axis is not None:
        with pytest.raises(InputError, match=r"expected 3 rows along axis 1, got a tensor of shape \(2, 4\)"):
            stream.add(torch.ones(2, 4))
        with pytest.raises(InputError, match=r"expected a tensor with a channel axis 1, got one of shape \(4,\)"):
            stream.add(torch.ones(4))
    assert_same(stream, before)


def test_only_like_streams_merge() -> None:
    stream = filled(torch.ones(2, 3), channel_axis=1)
    with pytest.raises(InputError, match="expected a stream with channel axis 1, got None"):
        stream.merge(Stream())
    with pytest.raises(InputError, match="expected a histogram of 3 rows and 2048 bins, got 4 and 2048"):
        stream.merge(filled(torch.ones(2, 4), channel_axis=1))
    assert_same(stream, filled(torch.ones(2, 3), channel_axis=1))


def test_a_stream_travels_between_processes() -> None:
    stream = filled(*activations(4), channel_axis=1)
    assert_same(pickle.loads(pickle.dumps(stream)), stream)
