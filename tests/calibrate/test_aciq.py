"""Analytic ranges against the published table, numerical integrals, and what they do to samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.stats import laplace, norm

from hwdse.calibrate import Boxes, Distribution, Points, Stream
from hwdse.calibrate.aciq import GAUSS, LAPLACE, Density, best_clip, best_range, calibrate_gauss, calibrate_laplace
from hwdse.formats import FP32, Levels, Scheme, Symmetry, parse

SYMMETRIC, FULL = Scheme(), Scheme(full_range=True)
SIGNED = Scheme(unsigned_activations=False)
AFFINE = Scheme(weights=Symmetry.AFFINE, activations=Symmetry.AFFINE)
CALIBRATORS = {"gauss": (GAUSS, calibrate_gauss), "laplace": (LAPLACE, calibrate_laplace)}
PDF: dict[str, Callable[[float], float]] = {"gauss": norm.pdf, "laplace": laplace.pdf}

PUBLISHED_CLIPS = {
    "laplace": (1.863, 2.831, 3.897, 5.029, 6.205, 7.413, 8.646, 9.897),
    "gauss": (1.240, 1.711, 2.152, 2.559, 2.936, 3.287, 3.615, 3.924),
}
PREDICTED_DB = {
    "laplace": (5.2, 8.5, 12.2, 16.4, 20.8, 25.5, 30.3, 35.2),
    "gauss": (6.7, 10.6, 15.0, 19.8, 24.8, 29.9, 35.2, 40.6),
}


def seen(values: NDArray[np.float64]) -> list[Distribution]:
    stream = Stream()
    for part in np.array_split(values, 3):
        stream.add(torch.tensor(part))
    return [Points(torch.tensor(values[None])), Boxes.of_stream(stream)]


def activations(number_format: str, scheme: Scheme, distribution: Distribution) -> Levels:
    return Levels.of_activations(parse(number_format), scheme, nonnegative=distribution.is_nonnegative)


@pytest.mark.parametrize("name", CALIBRATORS)
@pytest.mark.parametrize("bits", range(1, 9))
def test_clips_and_errors_are_the_published_ones(name: str, bits: int) -> None:
    density = CALIBRATORS[name][0]
    clip = best_clip(density, bits)
    assert clip == pytest.approx(PUBLISHED_CLIPS[name][bits - 1], abs=0.0006)
    predicted_db = 10 * np.log10(density.mean_square / density.error(clip, bits))
    assert predicted_db == pytest.approx(PREDICTED_DB[name][bits - 1], abs=0.051)


@pytest.mark.parametrize("name", CALIBRATORS)
@pytest.mark.parametrize("clip", [0.0, 0.5, 2.0, 6.0])
def test_what_is_clipped_is_the_integral_beyond(name: str, clip: float) -> None:
    def beyond(x: float) -> float:
        return 2 * (x - clip) ** 2 * PDF[name](x)

    assert CALIBRATORS[name][0].clipping(clip) == pytest.approx(quad(beyond, clip, 40.0)[0], rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("name", CALIBRATORS)
@pytest.mark.parametrize("values", [[0.3], [-1.0, 1.0], [-2.0, -0.5, 0.0, 0.1, 4.0]])
def test_the_error_of_levels_is_the_integral_of_the_squared_distance(name: str, values: list[float]) -> None:
    levels = np.array(values)

    def error(x: float) -> float:
        return float(np.abs(levels - x).min() ** 2) * PDF[name](x)

    kinks = [0.0, *((levels[:-1] + levels[1:]) / 2)]
    expected = quad(error, -40.0, 40.0, points=kinks, limit=300)[0]
    assert CALIBRATORS[name][0].error_of_levels(levels) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("number_format", "density", "expected"),
    [
        # Means of |x|; Max 1960 for three levels; for Laplace the levels of three cells are 1 beyond their thresholds.
        ("binary", GAUSS, np.sqrt(2 / np.pi)),
        ("binary", LAPLACE, 1.0),
        ("ternary", GAUSS, 1.224),
        ("ternary", LAPLACE, 2.0),
    ],
)
def test_ranges_of_few_levels_are_known(number_format: str, density: Density, expected: float) -> None:
    assert best_range(density, Levels(parse(number_format))) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("name", CALIBRATORS)
@pytest.mark.parametrize("number_format", ["nf4", "pot4", "apot4", "fp4_e2m1", "fp8_e4m3", "posit4_0", "posit8_0"])
def test_no_range_of_a_list_is_better(name: str, number_format: str) -> None:
    density, levels = CALIBRATORS[name][0], Levels(parse(number_format))
    found = density.error_of_levels(levels.values * best_range(density, levels) / levels.anchor)
    dense = [density.error_of_levels(levels.values * r / levels.anchor) for r in np.geomspace(0.02, 800.0, 4000)]
    assert found <= min(dense) * 1.0005


@pytest.mark.parametrize(
    ("number_format", "gauss_db", "laplace_db"),
    [
        ("pot4", 14.2, 14.2),
        ("apot4", 19.2, 16.9),
        ("posit4_0", 18.3, 16.6),
        ("posit8_0", 41.5, 39.7),
        ("posit8_2", 31.6, 31.5),
    ],
)
def test_lists_reach_their_known_ratios(number_format: str, gauss_db: float, laplace_db: float) -> None:
    levels = Levels(parse(number_format))
    for density, expected in ((GAUSS, gauss_db), (LAPLACE, laplace_db)):
        error = density.error_of_levels(levels.values * best_range(density, levels) / levels.anchor)
        assert 10 * np.log10(density.mean_square / error) == pytest.approx(expected, abs=0.06)


def test_learned_levels_have_ranges_of_their_own() -> None:
    narrow = Levels(parse("codebook2")).taught([-0.5, -0.1, 0.1, 0.5])
    wide = Levels(parse("codebook2")).taught([-1.0, -0.2, 0.2, 1.0])
    assert best_range(GAUSS, narrow) == pytest.approx(2 * best_range(GAUSS, wide), rel=1e-3)


SIZES = {"gauss": 1.7, "laplace": 0.3}


def sample(name: str, count: int = 200_000) -> NDArray[np.float64]:
    rng = np.random.default_rng(4)
    unit = rng.standard_normal(count) if name == "gauss" else rng.laplace(size=count)
    return SIZES[name] * unit


@pytest.mark.parametrize("name", CALIBRATORS)
@pytest.mark.parametrize("scheme", [SYMMETRIC, FULL])
def test_symmetric_grids_are_clipped_about_zero(name: str, scheme: Scheme) -> None:
    for distribution in seen(sample(name)):
        for bits in (2, 4, 6):
            levels = Levels.of_weights(parse(f"int{bits}"), scheme)
            (low,), (high,) = CALIBRATORS[name][1](distribution, levels)
            assert high == pytest.approx(SIZES[name] * PUBLISHED_CLIPS[name][bits - 1], rel=0.01)
            assert low == -high


@pytest.mark.parametrize("name", CALIBRATORS)
def test_affine_grids_are_clipped_about_the_mean(name: str) -> None:
    for distribution in seen(sample(name) + 2 * SIZES[name]):
        levels = activations("int4", AFFINE, distribution)
        (low,), (high,) = CALIBRATORS[name][1](distribution, levels)
        clip = PUBLISHED_CLIPS[name][3]
        assert (low / SIZES[name], high / SIZES[name]) == pytest.approx((2 - clip, 2 + clip), rel=0.02)


@pytest.mark.parametrize("name", CALIBRATORS)
@pytest.mark.parametrize("zeros", [0, 500_000])
def test_values_of_one_sign_have_a_bit_more_and_no_zeros(name: str, zeros: int) -> None:
    positive = np.append(np.abs(sample(name)), np.zeros(zeros))
    for distribution in seen(positive):
        for scheme, row in ((SYMMETRIC, 4), (AFFINE, 4), (SIGNED, 3)):
            levels = activations("int4", scheme, distribution)
            (low,), (high,) = CALIBRATORS[name][1](distribution, levels)
            assert low == 0.0
            assert high == pytest.approx(SIZES[name] * PUBLISHED_CLIPS[name][row], rel=0.01)
    for distribution in seen(-positive):
        (low,), (high,) = CALIBRATORS[name][1](distribution, activations("int4", AFFINE, distribution))
        assert high == 0.0
        assert low == pytest.approx(-SIZES[name] * PUBLISHED_CLIPS[name][4], rel=0.01)


@pytest.mark.parametrize("name", CALIBRATORS)
def test_exact_zeros_cost_a_grid_nothing_but_binary_levels_something(name: str) -> None:
    values = sample(name)
    dense, sparse = (seen(v)[0] for v in (values, np.append(values, np.zeros(values.size))))
    calibrate = CALIBRATORS[name][1]
    for number_format in ("int4", "nf4", "ternary"):
        levels = Levels.of_weights(parse(number_format), SYMMETRIC)
        np.testing.assert_allclose(calibrate(sparse, levels), calibrate(dense, levels), rtol=1e-9)
    half = {"gauss": np.sqrt(0.5), "laplace": 0.5}[name]
    levels = Levels(parse("binary"))
    np.testing.assert_allclose(calibrate(sparse, levels), half * np.array(calibrate(dense, levels)), rtol=1e-9)


@pytest.mark.parametrize("name", CALIBRATORS)
@pytest.mark.parametrize("number_format", ["int4", "int6", "nf4", "posit4_0", "posit8_0", "fp4_e2m1", "ternary"])
def test_ranges_of_samples_are_nearly_the_best(name: str, number_format: str) -> None:
    levels = Levels.of_weights(parse(number_format), SYMMETRIC)
    for distribution in seen(sample(name)):
        found = distribution.error(levels, *levels.grid(*CALIBRATORS[name][1](distribution, levels)))[0]
        shares = np.geomspace(0.02, 4.0, 300)[:, None]
        scales = levels.grid(shares * distribution.minimum, shares * distribution.maximum)
        assert 10 * np.log10(found / distribution.error(levels, *scales).min()) < 0.1


def test_rows_are_calibrated_one_by_one() -> None:
    table = torch.randn(5, 400, generator=torch.Generator().manual_seed(0)) * torch.logspace(-2, 2, 5)[:, None]
    table[4] = table[4].abs()
    for scheme, name in ((SYMMETRIC, "int4"), (AFFINE, "int4"), (SYMMETRIC, "posit4_0")):
        levels = Levels.of_weights(parse(name), scheme)
        for _, calibrate in CALIBRATORS.values():
            together = np.array(calibrate(Points(table), levels))
            alone = [np.array(calibrate(Points(row[None]), levels))[:, 0] for row in table]
            np.testing.assert_allclose(together, np.stack(alone, axis=1), rtol=1e-12)


@pytest.mark.parametrize("name", CALIBRATORS)
def test_no_range_is_wider_than_seen_but_where_a_posit_has_its_one(name: str) -> None:
    uniform = np.linspace(-1.0, 2.0, 1001)
    calibrate = CALIBRATORS[name][1]
    for distribution in seen(uniform):
        for number_format, scheme in (
            ("int8", SYMMETRIC),
            ("int8", AFFINE),
            ("nf4", SYMMETRIC),
            ("fp8_e4m3", SYMMETRIC),
        ):
            low, high = calibrate(distribution, Levels.of_weights(parse(number_format), scheme))
            assert (low[0], high[0]) == (-1.0, 2.0)
        low, high = calibrate(distribution, Levels(FP32))
        assert (low[0], high[0]) == (-1.0, 2.0)
    levels = Levels(parse("posit8_0"))
    expected = best_range(CALIBRATORS[name][0], levels)
    assert expected > 1.2
    for distribution in seen(np.array([1.0, -1.0] * 50)):
        np.testing.assert_allclose(calibrate(distribution, levels), [[-expected], [expected]], rtol=1e-9)
