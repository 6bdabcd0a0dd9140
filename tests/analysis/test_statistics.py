"""The feature vector against numpy and scipy on the values themselves, and closed forms of known distributions."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from hwdse.analysis.statistics import Statistics, statistics_of, statistics_of_weight
from hwdse.calibrate.histogram import Histogram
from hwdse.calibrate.moments import Moments
from hwdse.calibrate.stream import Stream
from hwdse.errors import InputError

FIELDS = [field.name for field in dataclasses.fields(Statistics)]
LOCATED = ("count", "mean", "variance", "std", "minimum", "maximum", "l1", "l2")
SHAPE = [name for name in FIELDS if name not in LOCATED]
LARGEST = float(torch.finfo(torch.float32).max)
NUMBERS = st.one_of(st.floats(-LARGEST, LARGEST, width=32), st.sampled_from([0.0, 1e-45, -1e-45, 1.0, -2.0, 1e-3]))
SAMPLES = 400_000


def sample(name: str, count: int = SAMPLES) -> torch.Tensor:
    generator = torch.Generator().manual_seed(11)
    uniform = torch.rand(count, generator=generator, dtype=torch.float64)
    normal = torch.randn(count, generator=generator, dtype=torch.float64)
    values = {
        "gauss": 2.0 * normal,
        "uniform": 6.0 * uniform - 3.0,
        "laplace": normal.sign() * -uniform.log(),
        "relu": normal.relu(),
        "shifted": normal + 5.0,
        "exponential": -uniform.log(),
        "outlier": torch.cat([normal[:-1], torch.tensor([100.0])]),
        "sparse": torch.where(uniform < 0.9, 0.0, normal),
        "negative": -(normal.abs()) - 0.25,
    }
    return values[name].float()


NAMES = ["gauss", "uniform", "laplace", "relu", "shifted", "exponential", "outlier", "sparse", "negative"]


def features(values: torch.Tensor, *, rows: int = 1, bins: int = 16384) -> Statistics:
    histogram, moments = Histogram(rows, bins), Moments(rows)
    histogram.add(values)
    moments.add(values)
    return statistics_of(histogram, moments)


def only(statistics: Statistics) -> dict[str, float]:
    """Return the features of a single row."""
    return {name: getattr(statistics, name).item() for name in FIELDS}


@pytest.mark.parametrize("name", NAMES)
def test_moments_and_extremes_are_numpys_and_scipys(name: str) -> None:
    values = sample(name)
    x, found = values.double().numpy(), only(features(values))
    rms = math.sqrt((x**2).mean())
    assert found["count"] == x.size
    expected = {
        "mean": x.mean(),
        "variance": x.var(),
        "std": x.std(),
        "minimum": x.min(),
        "maximum": x.max(),
        "skewness": scipy.stats.skew(x),
        "kurtosis": scipy.stats.kurtosis(x, fisher=False),
        "sparsity": (x == 0).mean(),
        "l1": abs(x).mean(),
        "l2": rms,
        "l1_over_l2": abs(x).mean() / rms,
        "crest": abs(x).max() / rms,
    }
    for feature, value in expected.items():
        assert found[feature] == pytest.approx(value, rel=1e-9, abs=1e-12), feature


@pytest.mark.parametrize("name", NAMES)
def test_shares_and_quantiles_are_numpys_to_a_bin(name: str) -> None:
    values = sample(name)
    x, found = values.double().numpy(), only(features(values))
    rms, size = found["l2"], abs(x)
    histogram = Histogram()
    histogram.add(values)
    width = histogram.widths[0]

    def share(bound: float) -> tuple[float, float]:
        """Return the shares of magnitudes that are surely and possibly below ``bound``."""
        return (size < bound - width).mean(), (size < bound + width).mean()

    low, high = share(1e-2 * rms)
    assert max(low, (x == 0).mean()) <= found["near_zero"] <= high
    deviation = abs(x - x.mean())
    assert (deviation > 3 * x.std() + width).mean() <= found["outlier_ratio"] + 1e-12
    assert found["outlier_ratio"] - 1e-12 <= (deviation > 3 * x.std() - width).mean()
    assert found["q999_over_rms"] * rms == pytest.approx(np.quantile(size, 0.999), abs=2 * width)
    # Interpolated, not read off at an edge.
    assert found["near_zero"] == pytest.approx((size < 1e-2 * rms).mean(), abs=4e-4)


def aligned(seed: int, *, sparsity: float) -> np.ndarray:
    """Return values from -2 to 2 whose 256 cells are whole bins."""
    rng = np.random.default_rng(seed)
    x = np.clip(rng.normal(0.3, 0.6, 5000), -2, 2)
    x[rng.random(5000) < sparsity] = 0.0
    return np.concatenate([x, [-2.0, 2.0]]).astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.5])
def test_entropy_and_divergences_are_scipys_on_the_same_cells(sparsity: float) -> None:
    x = aligned(5, sparsity=sparsity)
    found = only(features(torch.from_numpy(x)))
    p, edges = np.histogram(x, bins=256, range=(-2.0, 2.0))
    p = p / x.size
    assert found["entropy_bits"] == pytest.approx(scipy.stats.entropy(p, base=2), rel=1e-12)
    assert found["kl_uniform"] == pytest.approx(scipy.stats.entropy(p, np.full(256, 1 / 256)), rel=1e-12)
    gauss = np.diff(scipy.stats.norm.cdf(edges, x.mean(), x.std()))
    assert found["kl_gauss"] == pytest.approx(scipy.special.rel_entr(p, gauss).sum(), rel=1e-9)
    median = np.median(x)
    laplace = np.diff(scipy.stats.laplace.cdf(edges, median, abs(x - median).mean()))
    assert found["kl_laplace"] == pytest.approx(scipy.special.rel_entr(p, laplace).sum(), rel=1e-3)


def test_the_largest_value_is_in_the_last_cell_however_the_grid_is_rounded() -> None:
    lows = -np.random.default_rng(6).random(500)
    assert any(low + (1.0 - low) < 1.0 for low in lows)
    rows = torch.from_numpy(np.stack([lows, np.ones(500)], axis=1))
    assert features(rows, rows=500, bins=512).entropy_bits == pytest.approx(np.ones(500), rel=1e-12)


# Kurtosis, |x| / rms, largest / rms, 99.9 % quantile / rms, share beyond 3 std, share below rms / 100, and divergences
# from Gauss and Laplace; for a divergence from f to g: cross entropy - differential entropy.
LN2, LNPI = math.log(2), math.log(math.pi)
CLOSED = {
    "gauss": {
        "skewness": (0.0, 0.02),
        "kurtosis": (3.0, 0.05),
        "l1_over_l2": (math.sqrt(2 / math.pi), 0.003),
        "q999_over_rms": (3.2905, 0.05),
        "outlier_ratio": (0.0026998, 0.0004),
        "near_zero": (math.erf(0.01 / math.sqrt(2)), 0.0006),
        "kl_gauss": (0.0, 0.001),
        "kl_laplace": (LN2 - LNPI + 0.5, 0.003),
        "sparsity": (0.0, 0.0),
    },
    "uniform": {
        "skewness": (0.0, 0.02),
        "kurtosis": (1.8, 0.01),
        "l1_over_l2": (math.sqrt(3) / 2, 0.003),
        "crest": (math.sqrt(3), 0.003),
        "q999_over_rms": (0.999 * math.sqrt(3), 0.003),
        "outlier_ratio": (0.0, 0.0),
        "near_zero": (0.01 / math.sqrt(3), 0.0006),
        "entropy_bits": (8.0, 0.001),
        "kl_uniform": (0.0, 0.001),
        "kl_gauss": (0.5 * (LNPI + LN2 - math.log(3)) - LN2 + 0.5, 0.003),
        "kl_laplace": (1.0 - LN2, 0.003),
        "sparsity": (0.0, 0.0),
    },
    "laplace": {
        "skewness": (0.0, 0.06),
        "kurtosis": (6.0, 0.3),
        "l1_over_l2": (math.sqrt(0.5), 0.003),
        "q999_over_rms": (math.log(1000) * math.sqrt(0.5), 0.1),
        "outlier_ratio": (math.exp(-3 * math.sqrt(2)), 0.001),
        "near_zero": (1 - math.exp(-0.01 * math.sqrt(2)), 0.0008),
        "kl_gauss": (0.5 * LNPI - 0.5, 0.005),
        "kl_laplace": (0.0, 0.002),
        "sparsity": (0.0, 0.0),
    },
}


@pytest.mark.parametrize("name", CLOSED)
def test_known_distributions_have_their_features(name: str) -> None:
    found = only(features(sample(name)))
    for feature, (value, error) in CLOSED[name].items():
        assert found[feature] == pytest.approx(value, abs=error), feature


def test_the_entropy_of_a_gauss_is_its_differential_entropy_in_cells() -> None:
    found = only(features(sample("gauss")))
    cell = (found["maximum"] - found["minimum"]) / 256
    assert found["entropy_bits"] == pytest.approx(
        0.5 * math.log2(2 * math.pi * math.e * 4.0) - math.log2(cell), abs=0.01
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([2.5] * 100, {"mean": 2.5, "minimum": 2.5, "maximum": 2.5, "l1": 2.5, "l2": 2.5}),
        ([-3.0], {"mean": -3.0, "minimum": -3.0, "maximum": -3.0, "l1": 3.0, "l2": 3.0}),
        ([0.0] * 7, {"sparsity": 1.0, "near_zero": 1.0}),
        ([0.0], {"sparsity": 1.0, "near_zero": 1.0}),
    ],
)
def test_constants_and_zeros_have_the_documented_features(values: list[float], expected: dict[str, float]) -> None:
    tensor = torch.tensor(values)
    ones = dict.fromkeys(("kurtosis", "l1_over_l2", "crest", "q999_over_rms"), 1.0)
    assert only(features(tensor)) == dict.fromkeys(FIELDS, 0.0) | ones | expected | {"count": len(values)}


@pytest.mark.parametrize("constant", [0.1, -1e-45, 3.4e38, 1e-30])
def test_a_constant_of_any_size_is_one(constant: float) -> None:
    value = torch.tensor(constant)
    found = only(features(value.expand(1000)))
    for name in ("kurtosis", "l1_over_l2", "crest", "q999_over_rms"):
        assert found[name] == pytest.approx(1.0, rel=1e-12)
    for name in ("variance", "skewness", "outlier_ratio", "entropy_bits", "kl_uniform", "kl_gauss", "kl_laplace"):
        assert found[name] == 0.0
    assert found["near_zero"] == 0.0


def test_a_row_without_values_has_zeros() -> None:
    found = only(statistics_of(Histogram(), Moments()))
    assert found == dict.fromkeys(FIELDS, 0.0)


def test_the_kurtosis_of_a_constant_is_the_limit_of_two_values_that_meet() -> None:
    for distance in (1.0, 1e-3, 1e-6):
        pair = torch.tensor([1.0 - distance, 1.0 + distance], dtype=torch.float64)
        found = only(features(pair))
        assert found["kurtosis"] == pytest.approx(1.0, rel=1e-9)
        assert found["skewness"] == pytest.approx(0.0, abs=1e-9)


@given(st.lists(NUMBERS, min_size=1, max_size=40), st.sampled_from([torch.float32, torch.float64]))
@example([1.0, 1.0, -1e-77], torch.float64)
@example([0.0, 5e-324, -17.0], torch.float64)
@example([1e-160, 1e-90, 1.0 + 2e-16, 1.0], torch.float64)
@example([1.0, 1.0, -1e-30], torch.float32)
def test_every_feature_is_a_number_within_its_bounds(values: list[float], dtype: torch.dtype) -> None:
    found = only(features(torch.tensor(values, dtype=dtype)))
    assert all(math.isfinite(value) for value in found.values()), found
    for name in ("sparsity", "near_zero", "outlier_ratio"):
        assert -1e-9 <= found[name] <= 1 + 1e-9
    assert found["near_zero"] >= found["sparsity"]
    assert 0.0 < found["l1_over_l2"] <= 1 + 1e-9
    assert 1 - 1e-9 <= found["crest"] <= math.sqrt(len(values)) + 1e-9
    assert 0.0 <= found["q999_over_rms"] <= found["crest"] + 1e-9
    assert found["kurtosis"] >= found["skewness"] ** 2 + 1 - 1e-6
    assert -1e-9 <= found["entropy_bits"] <= 8 + 1e-9
    for name in ("kl_uniform", "kl_gauss", "kl_laplace"):
        assert found[name] >= -1e-9


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=40), st.integers(-60, 60))
def test_shape_does_not_depend_on_the_unit(values: list[float], power: int) -> None:
    tensor = torch.tensor(values, dtype=torch.float64)
    a, b = only(features(tensor)), only(features(tensor * 2.0**power))
    assert {name: a[name] for name in SHAPE} == pytest.approx({name: b[name] for name in SHAPE}, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_mirrored_tensor_is_as_hard(name: str) -> None:
    values = sample(name, 20_000)
    a, b = only(features(values)), only(features(-values))
    assert a["skewness"] == pytest.approx(-b["skewness"], rel=1e-9)
    for feature in set(SHAPE) - {"skewness"}:
        assert a[feature] == pytest.approx(b[feature], rel=1e-2, abs=2e-3), feature


def test_rows_are_tensors_of_their_own() -> None:
    rows = [sample(name, 3000) for name in NAMES] + [torch.zeros(3000), torch.full((3000,), -1.5)]
    together = features(torch.stack(rows), rows=len(rows), bins=1024)
    for place, row in enumerate(rows):
        alone = only(features(row, bins=1024))
        assert {name: getattr(together, name)[place].item() for name in FIELDS} == pytest.approx(
            alone, rel=1e-12, abs=1e-12
        )


def test_one_far_value_keeps_divergences_finite() -> None:
    values = torch.zeros(1_000_000)
    values[0], values[1] = 1.0, -1e-30
    found = only(features(values))
    # The Gauss' logarithm at 1,000 standard deviations is -500,000; one value in a million has it.
    cell = (1.0 + 1e-30) / 256
    assert found["kl_gauss"] == pytest.approx(
        1e-6 * (math.log(1e-6) - scipy.stats.norm.logsf(1 - cell, 1e-6, 1e-3))
        + (1 - 1e-6) * -math.log(scipy.stats.norm.cdf(cell, 1e-6, 1e-3) - scipy.stats.norm.cdf(0, 1e-6, 1e-3)),
        rel=1e-5,
    )
    assert found["kl_laplace"] == pytest.approx(255 / 256 + math.log(2) + 1e-6 * math.log(1e-6), abs=1e-3)
    assert found["outlier_ratio"] == pytest.approx(1e-6, rel=1e-6)


def test_weights_by_tensor_and_channel() -> None:
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(4)) * torch.arange(6).view(6, 1, 1, 1)
    for axis in (0, 1, -4):
        tensor, channels = statistics_of_weight(weight, axis)
        rows = weight.movedim(axis, 0).flatten(1).double().numpy()
        assert channels.count.tolist() == [rows.shape[1]] * len(rows)
        np.testing.assert_allclose(channels.std, rows.std(1), rtol=1e-12)
        np.testing.assert_allclose(channels.l1, abs(rows).mean(1), rtol=1e-12)
        assert channels.maximum.tolist() == rows.max(1).tolist()
        assert only(tensor)["count"] == weight.numel()
        assert only(tensor)["std"] == pytest.approx(rows.std(), rel=1e-12)
        assert only(tensor)["kurtosis"] == pytest.approx(scipy.stats.kurtosis(rows, axis=None, fisher=False), rel=1e-9)


def test_a_stream_in_batches_has_the_features_of_the_whole() -> None:
    values = sample("relu", 40_000).view(40, 10, 100)
    stream = Stream(1)
    for batch in values.split(7):
        stream.add(batch)
    assert only(statistics_of(stream.tensor, stream.moments)) == pytest.approx(only(features(values)), rel=1e-9)


@pytest.mark.parametrize(
    ("weight", "axis", "match"),
    [
        (torch.empty(0, 3), 1, r"expected a weight with values, got one of shape \(0, 3\)"),
        (torch.ones(2, 3), 2, r"expected a tensor with a channel axis 2, got one of shape \(2, 3\)"),
        (torch.tensor([[1.0, math.nan]]), 0, "expected finite calibration data, got NaN or infinity"),
    ],
)
def test_a_weight_must_have_finite_values(weight: torch.Tensor, axis: int, match: str) -> None:
    with pytest.raises(InputError, match=match):
        statistics_of_weight(weight, axis)


def test_histogram_and_moments_must_belong_together() -> None:
    histogram, moments = Histogram(), Moments()
    histogram.add(torch.ones(3))
    with pytest.raises(InputError, match="expected the histogram and the moments of the same values, got other counts"):
        statistics_of(histogram, moments)
    with pytest.raises(InputError, match="expected the histogram and the moments of the same values, got other counts"):
        statistics_of(Histogram(2), Moments(3))
