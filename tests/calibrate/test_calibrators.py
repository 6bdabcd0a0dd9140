"""What all calibrators have in common, by the names they are installed under."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from hwdse.calibrate import GROUP, Boxes, Distribution, Points, Stream, calibrator
from hwdse.errors import InputError
from hwdse.formats import Levels, Scheme, Symmetry, parse
from hwdse.plugins import plugin_names

NAMES = ("aciq_gauss", "aciq_laplace", "ema", "entropy", "l2.4", "minmax", "mse", "percentile")
SCHEMES = {
    "restricted": Scheme(),
    "full": Scheme(full_range=True, unsigned_activations=False),
    "affine": Scheme(weights=Symmetry.AFFINE, activations=Symmetry.AFFINE),
}
UNIFORM = ("int2", "int4", "int8", "int16")
LISTED = ("binary", "ternary", "nf4", "pot4", "posit8_2", "fp8_e4m3", "fp8_e5m2")
LEARNED = Levels(parse("codebook2")).taught([-0.8, -0.2, 0.3, 0.9])

GENERATOR = torch.Generator().manual_seed(0)
NORMAL = torch.randn(500, generator=GENERATOR)
STRANGE = {
    "zero": torch.zeros(7),
    "minus zero": torch.full((7,), -0.0),
    "one element": torch.tensor([0.75]),
    "minus one element": torch.tensor([-0.75]),
    "constant": torch.full((100,), 2.5),
    "negative constant": torch.full((100,), -2.5),
    "two values": torch.tensor([0.0, 5.0]),
    "denormals": NORMAL * 1e-41,
    "smallest": torch.tensor([1e-45, -1e-45, 0.0]),
    "tiny": NORMAL * 1e-30,
    "huge": NORMAL * 1e30,
    "largest": torch.tensor([3.4e38, -3.4e38, 1.0, 0.0]),
    "wide": torch.tensor([3.4e38, 1e-45, -1e-45, 1.0]),
    "far": NORMAL * 0.01 + 100.0,
    "mostly zeros": torch.cat([torch.zeros(1000), torch.tensor([1.0, -2.0])]),
}


def seen(kind: str, *batches: torch.Tensor) -> Distribution:
    if kind == "points":
        return Points(torch.cat([batch.reshape(1, -1) for batch in batches], dim=1))
    stream = Stream()
    for batch in batches:
        stream.add(batch)
    return Boxes.of_stream(stream)


def all_levels(distribution: Distribution) -> list[Levels]:
    uniform = [
        Levels.of_activations(parse(name), scheme, nonnegative=distribution.is_nonnegative)
        for scheme in SCHEMES.values()
        for name in UNIFORM
    ]
    weights = [Levels.of_weights(parse(name), scheme) for scheme in SCHEMES.values() for name in UNIFORM]
    return [*uniform, *weights, *(Levels(parse(name)) for name in LISTED), LEARNED]


def test_all_are_installed() -> None:
    assert set(NAMES) <= set(plugin_names(GROUP))
    with pytest.raises(InputError, match=r"expected one of the installed calibrators \(.*mse.*\), got 'median'"):
        calibrator("median")


@pytest.mark.parametrize("kind", ["points", "boxes"])
@pytest.mark.parametrize("values", STRANGE)
@pytest.mark.parametrize("name", NAMES)
def test_strange_values_have_finite_grids(name: str, values: str, kind: str) -> None:
    distribution = seen(kind, STRANGE[values])
    for levels in all_levels(distribution):
        low, high = calibrator(name)(distribution, levels)
        assert low.shape == high.shape == (1,)
        assert low.dtype == high.dtype == np.float64
        assert np.isfinite([low, high]).all()
        assert (low <= high).all()
        scale, zero_point = levels.grid(low, high)
        with np.errstate(over="raise", divide="raise"):
            inverse = np.float32(1.0) / scale.astype(np.float32)
        assert np.isfinite(inverse).all()
        assert np.isfinite(distribution.error(levels, scale, zero_point)).all()
        if not distribution.largest[0]:
            assert (low[0], high[0]) == (0.0, 0.0)


@pytest.mark.parametrize("kind", ["points", "boxes"])
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("name", NAMES)
def test_the_size_of_the_values_is_that_of_the_range(name: str, size: float, kind: str) -> None:
    """Ranges scale with the values: by a power of two exactly, but for bins at the ends of a float's exponents."""
    factor = 2.0 ** round(np.log2(size))
    unit, scaled = seen(kind, NORMAL), seen(kind, NORMAL * factor)
    for levels in all_levels(unit):
        expected = factor * np.array(calibrator(name)(unit, levels))
        np.testing.assert_allclose(calibrator(name)(scaled, levels), expected, rtol=1e-6)


@pytest.mark.parametrize("constant", [2.5, -2.5, 1e-30])
@pytest.mark.parametrize("kind", ["points", "boxes"])
@pytest.mark.parametrize("name", NAMES)
def test_a_constant_is_kept(name: str, kind: str, constant: float) -> None:
    values = torch.full((100,), constant)
    distribution = seen(kind, values)
    for scheme in SCHEMES.values():
        levels = Levels.of_activations(parse("int8"), scheme, nonnegative=distribution.is_nonnegative)
        error = distribution.error(levels, *levels.grid(*calibrator(name)(distribution, levels)))
        # Half of the smallest step, a 255th of the range.
        assert error[0] <= 100 * (constant / 250) ** 2


@pytest.mark.parametrize("name", NAMES)
def test_merged_streams_are_calibrated_as_one(name: str) -> None:
    batches = [NORMAL[:200], NORMAL[200:] * 3 + 1, NORMAL.relu() * 0.5, NORMAL * 0.1]
    merged = Stream()
    for half in (batches[:2], batches[2:]):
        part = Stream()
        for batch in half:
            part.add(batch)
        merged.merge(part)
    one = seen("boxes", *batches)
    for levels in all_levels(one):
        np.testing.assert_allclose(
            calibrator(name)(Boxes.of_stream(merged), levels), calibrator(name)(one, levels), rtol=1e-9
        )


@pytest.mark.parametrize("name", [name for name in NAMES if name != "entropy"])
def test_rows_of_points_are_calibrated_without_each_other(name: str) -> None:
    """But for the entropy, which finds one shape for all."""
    table = NORMAL.reshape(5, 100) * torch.tensor([[1.0], [1e-3], [0.0], [1e4], [-2.0]])
    table[3] = table[3].abs()
    for levels in all_levels(Points(table)):
        low, high = calibrator(name)(Points(table), levels)
        for row in range(5):
            alone = calibrator(name)(Points(table[row : row + 1]), levels)
            np.testing.assert_allclose((low[row], high[row]), np.ravel(alone), rtol=1e-9)


def test_extremes_are_exact_and_averages_follow_the_formula() -> None:
    batches = [NORMAL * size for size in (1.0, 3.0, 0.5)]
    distribution, levels = seen("boxes", *batches), Levels(parse("nf4"))
    everything = torch.cat(batches).double()
    extremes = [everything.min().item()], [everything.max().item()]
    np.testing.assert_array_equal(calibrator("minmax")(distribution, levels), extremes)
    low, high = (np.array([float(f(batch)) for batch in batches]) for f in (torch.min, torch.max))
    for expected, found in zip((low, high), calibrator("ema")(distribution, levels), strict=True):
        average = expected[0]
        for value in expected[1:]:
            average += 0.01 * (value - average)
        assert found[0] == pytest.approx(average, rel=1e-12)
    # Weights are one batch.
    rows = Points(NORMAL.reshape(5, 100))
    np.testing.assert_array_equal(calibrator("ema")(rows, levels), calibrator("minmax")(rows, levels))


def test_what_a_stream_holds_does_not_grow_with_its_batches() -> None:
    stream = Stream()
    sizes = []
    for batch in range(40):
        stream.add(NORMAL * (batch + 1))
        sizes.append(len(pickle.dumps(stream)))
    assert max(sizes[1:]) - min(sizes[1:]) < 100
    assert sizes[-1] < 200_000
