"""The streaming histogram against numpy on everything it was shown."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hwdse.calibrate import histogram as module
from hwdse.calibrate.histogram import Histogram, pieces
from hwdse.errors import InputError

LARGEST = float(torch.finfo(torch.float32).max)
NUMBERS = st.floats(-LARGEST, LARGEST, width=32)
SCALED = st.tuples(
    st.floats(-2.0, 2.0, width=32), st.sampled_from([0.0, 1e-45, 1e-38, 1e-30, 1e-6, 1.0, 1e3, 1e30, 1e38])
).map(lambda pair: float(np.float32(pair[0]) * np.float32(pair[1])))
VALUES = st.one_of(NUMBERS, SCALED, st.sampled_from([0.0, -0.0, 1.0, -1.0, 64.0, 1e-45, -1e-45]))
BATCHES = st.lists(st.lists(VALUES, max_size=30), min_size=1, max_size=8)
BINS = st.sampled_from([4, 5, 64, 100, 2048, 16384])


def filled(*batches: torch.Tensor, rows: int = 1, bins: int = 16384) -> Histogram:
    histogram = Histogram(rows, bins)
    for batch in batches:
        histogram.add(batch)
    return histogram


def expected_counts(histogram: Histogram, row: int, values: np.ndarray) -> np.ndarray:
    """Return numpy's counts of what is not 0 on the same edges, each bin holding its left edge only."""
    edges, values = histogram.edges[row], values[values != 0].astype(np.float64)
    counts = np.histogram(values, bins=edges)[0]
    assert (values < edges[-1]).all()  # numpy's last bin would hold its right edge too
    return counts


def state(histogram: Histogram) -> list[list[float]]:
    """Return everything that a histogram tells."""
    return [
        v.ravel().tolist()
        for v in (
            histogram.count,
            histogram.zeros,
            histogram.minimum,
            histogram.maximum,
            histogram.widths,
            histogram.edges,
            histogram.counts,
        )
    ]


@given(BATCHES, BINS)
def test_no_value_is_lost_or_in_a_wrong_bin(batches: list[list[float]], bins: int) -> None:
    histogram = filled(*(torch.tensor(batch) for batch in batches), bins=bins)
    values = np.concatenate([np.array(batch, np.float32) for batch in batches])
    assert histogram.count.tolist() == [values.size]
    assert histogram.zeros.tolist() == [(values == 0).sum()]
    assert histogram.counts.shape == (1, bins)
    assert histogram.counts.dtype == histogram.count.dtype == np.int64
    assert histogram.counts[0].tolist() == expected_counts(histogram, 0, values).tolist()
    if values.size:
        assert (histogram.minimum[0], histogram.maximum[0]) == (values.min(), values.max())


@given(BATCHES, BINS)
def test_edges_are_powers_of_two_apart_with_0_among_them(batches: list[list[float]], bins: int) -> None:
    histogram = filled(*(torch.tensor(batch) for batch in batches), bins=bins)
    edges, width = histogram.edges[0], histogram.widths[0]
    assert edges.shape == (bins + 1,)
    assert 0.0 in edges
    assert np.frexp(width)[0] == 0.5
    assert (np.diff(edges) == width).all()
    low, high = min(histogram.minimum[0], 0.0), max(histogram.maximum[0], 0.0)
    if high > low:
        assert edges[0] <= low
        assert high < edges[-1]
        # No narrower bins would do.
        assert np.floor(high / (width / 2)) - np.floor(low / (width / 2)) >= bins


@given(BATCHES, st.permutations(range(8)), st.integers(0, 8))
def test_neither_order_nor_grouping_of_batches_matters(batches: list[list[float]], order: list[int], cut: int) -> None:
    tensors = [torch.tensor(batch) for batch in batches]
    mixed = [tensors[i] for i in order if i < len(tensors)]
    first, second = filled(*mixed[:cut], bins=64), filled(*mixed[cut:], bins=64)
    before = state(second)
    first.merge(second)
    assert state(first) == state(filled(*tensors, bins=64))
    assert state(second) == before


@given(BATCHES, BATCHES, BATCHES)
def test_merging_is_associative_and_commutative(
    a: list[list[float]], b: list[list[float]], c: list[list[float]]
) -> None:
    def merged(*parts: Histogram) -> Histogram:
        result = Histogram(1, 64)
        for part in parts:
            result.merge(part)
        return result

    x, y, z = (filled(*(torch.tensor(batch) for batch in batches), bins=64) for batches in (a, b, c))
    assert state(merged(merged(x, y), z)) == state(merged(x, merged(y, z))) == state(merged(z, y, x))


@given(BATCHES, st.sampled_from([4, 7, 32, 100, 4096]))
def test_coarse_is_the_histogram_with_fewer_bins(batches: list[list[float]], bins: int) -> None:
    tensors = [torch.tensor(batch) for batch in batches]
    assert state(filled(*tensors, bins=256).coarse(bins)) == state(filled(*tensors, bins=min(bins, 256)))


@given(st.lists(st.lists(VALUES, min_size=6, max_size=6), min_size=1, max_size=6), st.permutations(range(3)))
def test_rows_are_histograms_of_their_own(batches: list[list[float]], order: list[int]) -> None:
    tables = [torch.tensor(batch).view(3, 2) for batch in batches]
    histogram = filled(*tables, rows=3, bins=64)
    singles = [filled(*(table[row] for table in tables), bins=64) for row in range(3)]
    for row, single in enumerate(singles):
        for name in ("count", "zeros", "minimum", "maximum", "widths", "edges", "counts"):
            assert getattr(histogram, name)[row].tolist() == getattr(single, name)[0].tolist()
    # Pooled, they are the histogram of all values, whatever the order of the rows.
    assert state(histogram.pooled()) == state(filled(*tables, bins=64))
    assert state(filled(*(table[order] for table in tables), rows=3, bins=64).pooled()) == state(histogram.pooled())


@pytest.mark.parametrize("batches", [(1e-30, 1e30), (1e30, 1e-30), (-1e-30, 1e30), (1e-45, -3.4e38), (-1e-45, 3.4e38)])
def test_a_range_may_grow_by_all_of_float32(batches: tuple[float, float]) -> None:
    parts = [torch.tensor([value, 0.0, value]) for value in batches]
    histogram = filled(*parts)
    assert histogram.counts[0].tolist() == expected_counts(histogram, 0, torch.cat(parts).numpy()).tolist()
    zero = histogram.edges[0].tolist().index(0.0)
    tiny = min(batches, key=abs)
    assert histogram.counts[0, zero if tiny > 0 else zero - 1] == 2
    assert histogram.zeros.tolist() == [2]
    assert histogram.count.tolist() == [6]


def test_zeros_are_no_part_of_the_counts() -> None:
    histogram = filled(torch.zeros(7))
    assert (histogram.minimum[0], histogram.maximum[0], histogram.widths[0]) == (0.0, 0.0, 1.0)
    assert (histogram.zeros[0], histogram.counts.sum()) == (7, 0)
    histogram.add(torch.tensor([-1.0, -0.0, 2.0, 1e-6]))
    assert (histogram.zeros[0], histogram.counts.sum(), histogram.count[0]) == (8, 3, 11)
    zero = histogram.edges[0].tolist().index(0.0)
    assert histogram.counts[0, zero] == 1


@pytest.mark.parametrize("value", [3.5, -3.5, 1e-45, -1e-45, 3.4e38, -3.4e38])
def test_one_value(value: float) -> None:
    single = torch.tensor(value)
    histogram = filled(single)
    assert histogram.count[0] == histogram.counts.sum() == 1
    assert histogram.minimum[0] == histogram.maximum[0] == float(single)
    place = int(np.flatnonzero(histogram.counts[0])[0])
    assert histogram.edges[0, place] <= float(single) < histogram.edges[0, place + 1]


def test_a_value_on_an_edge_belongs_to_the_bin_above() -> None:
    histogram = filled(torch.arange(-8, 9).float())
    used = histogram.edges[0, :-1][histogram.counts[0] > 0]
    assert used.tolist() == [i for i in range(-8, 9) if i != 0]


def test_an_empty_tensor_adds_nothing() -> None:
    histogram = filled(torch.ones(3))
    before = state(histogram)
    histogram.add(torch.empty(0))
    assert state(histogram) == before
    nothing = filled(torch.empty(2, 0), rows=2)
    assert (nothing.count.tolist(), nothing.counts.sum()) == ([0, 0], 0)
    assert (nothing.minimum.tolist(), nothing.maximum.tolist()) == ([np.inf] * 2, [-np.inf] * 2)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8, torch.bool]
)
def test_other_types_are_counted_too(dtype: torch.dtype) -> None:
    histogram = filled(torch.tensor([[0, 1], [1, 1]]).to(dtype))
    assert (histogram.count[0], histogram.zeros[0], histogram.minimum[0], histogram.maximum[0]) == (4, 1, 0.0, 1.0)


def test_a_double_keeps_its_extremes() -> None:
    histogram = filled(torch.tensor([0.1, -0.7], dtype=torch.float64))
    assert (histogram.minimum[0], histogram.maximum[0]) == (-0.7, 0.1)


@given(st.lists(st.floats(-1e38, 1e38), min_size=1, max_size=20), st.integers(0, 20))
def test_doubles_of_any_smallness_are_kept(values: list[float], cut: int) -> None:
    tensor = torch.tensor(values, dtype=torch.float64)
    histogram = filled(tensor[:cut], tensor[cut:])
    assert histogram.count[0] == histogram.counts.sum() + histogram.zeros[0] == len(values)
    assert (histogram.counts >= 0).all()


@pytest.mark.parametrize("smallest", [5e-324, 1e-310])
@pytest.mark.parametrize("larger", [1e-300, 1e-250, 1e-30, 1.0])
def test_the_smallest_doubles_are_merged_in_either_order(smallest: float, larger: float) -> None:
    tiny, other = (torch.tensor([v], dtype=torch.float64) for v in (smallest, larger))
    whole = filled(torch.cat([tiny, other]))
    assert state(filled(tiny, other)) == state(filled(other, tiny)) == state(whole)
    assert whole.counts[0, 0] >= 1
    assert whole.edges[0, -1] > larger


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 1, -1])
def test_values_must_be_finite_and_none_is_counted_otherwise(
    monkeypatch: pytest.MonkeyPatch, value: float, place: int
) -> None:
    monkeypatch.setattr(module, "PIECE", 4)
    histogram = filled(torch.tensor([1.0]))
    before = state(histogram)
    batch = torch.ones(50)
    batch[place] = value
    with pytest.raises(
        InputError, match="expected finite calibration data, got NaN or infinity; check the calibration"
    ):
        histogram.add(batch)
    assert state(histogram) == before


@pytest.mark.parametrize("value", [1e39, -1e300])
def test_values_must_fit_into_float32(value: float) -> None:
    with pytest.raises(InputError, match=r"expected finite calibration data in float32, got -?1e\+(39|300); check"):
        filled(torch.tensor([0.0, value], dtype=torch.float64))


def test_rows_must_match() -> None:
    histogram = Histogram(3, 64)
    with pytest.raises(InputError, match=r"expected 3 rows along axis 0, got a tensor of shape \(2, 3\)"):
        histogram.add(torch.ones(2, 3))
    with pytest.raises(InputError, match=r"expected 3 rows along axis 2, got a tensor of shape \(2, 3\)"):
        histogram.add(torch.ones(2, 3), axis=2)
    with pytest.raises(InputError, match=r"expected 3 rows along axis 0, got a tensor of shape \(\)"):
        histogram.add(torch.tensor(1.0))
    for other in (Histogram(2, 64), Histogram(3, 32)):
        with pytest.raises(InputError, match=rf"expected a histogram of 3 rows and 64 bins, got {other.rows} and"):
            histogram.merge(other)
    assert histogram.count.tolist() == [0, 0, 0]


@pytest.mark.parametrize(("rows", "bins"), [(0, 64), (1, 3), (-1, 64)])
def test_a_histogram_has_rows_and_bins(rows: int, bins: int) -> None:
    with pytest.raises(InputError, match=f"expected a histogram with 1 row and 4 bins at least, got {rows} and {bins}"):
        Histogram(rows, bins)


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 3, 40), (40, 3), (3, 40), (3,), (5, 3, 1)])
@pytest.mark.parametrize("size", [1, 4, 25, 1000])
@pytest.mark.parametrize("layout", ["plain", "swapped", "strided"])
def test_pieces_hold_every_value_in_its_row_once(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], size: int, layout: str
) -> None:
    monkeypatch.setattr(module, "PIECE", size)
    axis = shape.index(3)
    values = torch.randperm(int(np.prod(shape))).float().view(shape)
    if layout == "swapped":
        values, axis = values.movedim(0, -1).contiguous().movedim(-1, 0), axis - len(shape)
    if layout == "strided":
        values = torch.stack([values, values + 0.5], -1)[..., 0]
    tables = [piece.clone() for piece in pieces(values, rows=3, axis=axis)]
    assert all(table.dtype == torch.float64 and table.shape[0] == 3 for table in tables)
    assert all(table.numel() <= max(size, 3) for table in tables)
    found = torch.cat(tables, 1).sort(1).values
    assert torch.equal(found, values.movedim(axis, 0).reshape(3, -1).double().sort(1).values)


def test_large_tensors_are_counted_piece_by_piece() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(3 * module.PIECE + 17, generator=generator) * torch.linspace(1, 50, 3 * module.PIECE + 17)
    histogram = filled(values.relu())
    assert histogram.counts[0].tolist() == expected_counts(histogram, 0, values.relu().numpy()).tolist()
    assert histogram.zeros[0] == int((values <= 0).sum())


def test_memory_does_not_grow_with_the_batches() -> None:
    histogram = filled(torch.randn(1000))
    tracemalloc.start()
    for i in range(100):
        histogram.add(torch.randn(1000) * (1 + i))
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 200_000  # one batch's counts are 128 KiB, a hundred would be 13 MiB


def test_the_values_are_not_changed() -> None:
    values = torch.randn(100, dtype=torch.float64)
    before = values.clone()
    filled(values)
    filled(values.view(4, 25), rows=4)
    assert torch.equal(values, before)


def test_gradients_and_inference_tensors_are_taken() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    with torch.inference_mode():
        x = torch.tensor([3.0, 0.0])
    histogram = filled(weight, x)
    with torch.inference_mode():
        histogram.add(x)
    assert (histogram.count[0], histogram.zeros[0], histogram.maximum[0]) == (6, 2, 3.0)
