"""Ranges of the least divergence against loops over bins, and against clips that others found."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import entropy as divergence

from hwdse.calibrate import Boxes, Distribution, Points, Stream, entropy
from hwdse.calibrate.entropy import _fewest_lost
from hwdse.formats import FP32, Levels, Scheme, Symmetry, parse

BINS = 2048
SYMMETRIC, AFFINE = Scheme(), Scheme(weights=Symmetry.AFFINE, activations=Symmetry.AFFINE)


def by_loops(bins: NDArray[np.float64], groups: int, start: int) -> int:
    """Return how many bins to keep, one candidate after the other."""
    bins = bins.copy()
    bins[0] = bins[1]
    best, least = bins.size, np.inf
    for count in range(start, bins.size + 1):
        reference = bins[:count].copy()
        reference[-1] += bins[count:].sum()
        member = np.searchsorted(np.linspace(0, count, groups + 1), np.arange(count), side="right") - 1
        filled = bins[:count] > 0
        mass = np.bincount(member[filled], weights=bins[:count][filled], minlength=groups)
        sizes = np.bincount(member[filled], minlength=groups)
        candidate = np.zeros(count)
        candidate[filled] = (mass / np.maximum(sizes, 1))[member[filled]]
        if candidate.sum() == 0.0:
            continue
        found = divergence(reference, candidate)
        # Several counts may lose nothing at all.
        if found <= least + 1e-12 and np.isfinite(found):
            best, least = count, min(found, least)
    return best


def histogram_of(name: str, seed: int, bins: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(200, 40_000))
    values: NDArray[np.float64] = {
        "gauss": rng.standard_normal(count),
        "laplace": rng.laplace(size=count),
        "bimodal": np.append(rng.normal(3.0, 0.3, count), rng.standard_normal(count // 3)),
        "sparse": rng.choice(rng.standard_normal(int(rng.integers(3, 60))), count),
        "heavy": rng.standard_t(2.2, count),
        "relu": np.maximum(rng.standard_normal(count), 0.0),
        "pixels": rng.integers(0, 256, count) / 255.0,
    }[name]
    return np.histogram(np.abs(values), bins=bins)[0].astype(np.float64)


@pytest.mark.parametrize("name", ["gauss", "laplace", "bimodal", "sparse", "heavy", "relu", "pixels"])
@pytest.mark.parametrize("seed", range(8))
def test_the_clip_is_the_one_that_loops_find(name: str, seed: int) -> None:
    bins = histogram_of(name, seed, BINS if seed == 0 else BINS // 4)
    groups, start = ((128, 128), (8, 16), (256, 128), (2, 4), (32, 64))[seed % 5]
    assert _fewest_lost(bins, groups, start) == by_loops(bins, groups, start)


@pytest.mark.parametrize("groups", [1, 2, 16, 128, 1024])
def test_counts_need_not_be_whole(groups: int) -> None:
    bins = np.random.default_rng(groups).random(BINS) * np.exp(-np.arange(BINS) / 300)
    assert _fewest_lost(bins, groups, 128) == by_loops(bins, groups, 128)


def seen(values: NDArray[np.float64]) -> list[Distribution]:
    stream = Stream()
    stream.add(torch.tensor(values))
    return [Points(torch.tensor(values[None])), Boxes.of_stream(stream)]


def clip(distribution: Distribution, number_format: str, scheme: Scheme = SYMMETRIC) -> float:
    levels = Levels.of_activations(parse(number_format), scheme, nonnegative=distribution.is_nonnegative)
    return float(entropy.calibrate(distribution, levels)[1][0])


@pytest.mark.parametrize(
    ("name", "number_format", "published", "noise"),
    [
        ("gauss", "int8", 4.66, 0.15),
        ("laplace", "int8", 10.4, 1.0),
        ("relu", "int8", 4.42, 0.25),
        ("t5", "int8", 13.4, 1.0),
        ("gauss", "int4", 3.60, 0.1),
        ("laplace", "int4", 6.06, 0.2),
    ],
)
def test_a_million_values_are_clipped_where_others_clip_them(
    name: str, number_format: str, published: float, noise: float
) -> None:
    rng = np.random.default_rng(0)
    values: NDArray[np.float64] = {
        "gauss": rng.standard_normal(10**6),
        "laplace": rng.laplace(size=10**6),
        "relu": np.maximum(rng.standard_normal(10**6), 0.0),
        "t5": rng.standard_t(5, 10**6),
    }[name]
    clips = [clip(distribution, number_format) for distribution in seen(values)]
    assert clips == pytest.approx([published] * 2, abs=noise)


def test_the_grid_decides_over_the_groups() -> None:
    """One sign: twice as many magnitudes. What cannot be told apart by 2,048 bins keeps its extremes."""
    values = np.abs(np.random.default_rng(1).standard_normal(50_000)) + 1e-3
    bins = np.histogram(values, bins=BINS, range=(0.0, values.max()))[0].astype(np.float64)
    positive = Points(torch.tensor(values[None]))

    def share(levels: Levels) -> float:
        return float(entropy.calibrate(positive, levels)[1][0] / positive.largest[0] * BINS)

    for scheme, groups in ((SYMMETRIC, 16), (AFFINE, 16), (Scheme(unsigned_activations=False), 8)):
        levels = Levels.of_activations(parse("int4"), scheme, nonnegative=True)
        assert share(levels) == pytest.approx(by_loops(bins, groups, 16), abs=1e-6)
    # Lists of values have the range of the integers with as many bits.
    assert share(Levels(parse("nf4"))) == share(Levels.of_weights(parse("int4"), SYMMETRIC))
    assert share(Levels.of_weights(parse("int16"), SYMMETRIC)) == BINS
    assert share(Levels.of_weights(parse("int12"), SYMMETRIC)) == BINS
    assert share(Levels(FP32)) == BINS


def test_ends_lie_within_what_was_seen() -> None:
    values = np.append(np.random.default_rng(2).standard_normal(20_000), [-9.0])
    for distribution in seen(values):
        for scheme in (SYMMETRIC, AFFINE):
            levels = Levels.of_activations(parse("int4"), scheme, nonnegative=False)
            (low,), (high,) = entropy.calibrate(distribution, levels)
            assert -9.0 < low < -2.5
            assert high == min(-low, values.max())


def test_rows_share_one_shape() -> None:
    table = torch.randn(60, 500, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 60)[:, None]
    rows, levels = Points(table), Levels.of_weights(parse("int2"), SYMMETRIC)
    low, high = entropy.calibrate(rows, levels)
    together = Points((table / table.abs().amax(1, keepdim=True)).reshape(1, -1))
    share = entropy.calibrate(together, levels)[1][0]
    assert 0.3 < share < 1.0
    limits = table.double().numpy()
    np.testing.assert_allclose(high, np.minimum(share * np.abs(limits).max(1), limits.max(1)), rtol=1e-6)
    np.testing.assert_allclose(low, -np.minimum(share * np.abs(limits).max(1), -limits.min(1)), rtol=1e-6)


@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0], [3.0], [-3.0], [0.0, 5.0], [1e-3, 5.0]])
def test_a_few_values_keep_their_range(values: list[float]) -> None:
    for distribution in seen(np.array(values)):
        for scheme in (SYMMETRIC, AFFINE):
            levels = Levels.of_activations(parse("int8"), scheme, nonnegative=distribution.is_nonnegative)
            (low,), (high,) = entropy.calibrate(distribution, levels)
            assert (low, high) == (min(*values, 0.0), max(*values, 0.0))
