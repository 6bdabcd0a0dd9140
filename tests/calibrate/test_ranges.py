"""Range estimators against numpy, brute force on the values themselves, and published optima."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwdse.calibrate import Histogram, minmax, mse, percentile, range_estimator
from hwdse.formats import FP32, Scheme, Symmetry, parse
from hwdse.quantize.quantizer import activation_quantizer

INT8 = parse("int8")
SCHEMES = {
    "default": Scheme(),
    "signed": Scheme(unsigned_activations=False),
    "affine": Scheme(activations=Symmetry.AFFINE),
}


def sample(name: str, count: int = 60_000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    normal = torch.randn(count, generator=generator)
    uniform = torch.rand(count, generator=generator)
    return {
        "gauss": normal,
        "relu": normal.relu(),
        "silu": torch.nn.functional.silu(2 * normal),
        "laplace": normal.sign() * -uniform.log(),
        "shifted": normal + 1.0,
        "lognormal": normal.exp(),
        "softmax": uniform**8,
        "pixels": (uniform * 256).floor(),
        "negative": -normal.abs() - 0.5,
        "outlier": torch.cat([normal, torch.tensor([60.0])]),
        "sparse": torch.where(uniform < 0.9, 0.0, normal.abs()),
    }[name]


def filled(values: torch.Tensor) -> Histogram:
    histogram = Histogram()
    for part in values.split(10_000):
        histogram.add(part)
    return histogram


def test_names_lead_to_functions() -> None:
    for module, name in ((minmax, "minmax"), (mse, "mse"), (percentile, "percentile")):
        assert range_estimator(name) is module.estimate


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=50))
@settings(deadline=None)
def test_minmax_is_exact(values: list[float]) -> None:
    assert minmax.estimate(filled(torch.tensor(values)), INT8, Scheme()) == (min(values), max(values))


@pytest.mark.parametrize("name", ["gauss", "relu", "laplace", "lognormal", "negative", "outlier"])
def test_percentiles_are_numpys_to_a_bin(name: str) -> None:
    values = sample(name)
    histogram = filled(values)
    low, high = percentile.estimate(histogram, INT8, Scheme())
    width = histogram.edges[1] - histogram.edges[0]
    left_out = len(values) // 10_000
    ends = np.sort(values.numpy())[[left_out, -1 - left_out]]
    assert ends[0] - width < low <= ends[0]
    assert ends[1] <= high <= ends[1] + width
    # numpy's own quantile is the last value that is left out, or the first that is not.
    assert (
        abs(np.quantile(values.numpy(), 1 - 1e-4) - high)
        <= width + np.diff(np.sort(values.numpy())[-2 - left_out :]).max()
    )
    assert histogram.minimum <= low
    assert high <= histogram.maximum


def test_percentiles_leave_out_one_value_in_ten_thousand() -> None:
    ramp = torch.arange(1, 100_001).float()
    low, high = percentile.estimate(filled(ramp), INT8, Scheme())
    width = 64.0  # 2,048 bins over 100,000 in powers of two
    assert 11 - width < low <= 11
    assert 99_990 <= high <= 99_990 + width
    # Eleven from the top of 100,000 is the first that stays.
    steps = torch.cat([torch.full((10,), 100.0), torch.tensor([80.0]), torch.rand(99_989) * 50])
    assert 80.0 <= percentile.estimate(filled(steps), INT8, Scheme())[1] <= 80.0 + 1 / 16
    assert -80.0 - 1 / 16 < percentile.estimate(filled(-steps), INT8, Scheme())[0] <= -80.0
    few = torch.arange(1, 101).float()
    assert percentile.estimate(filled(few), INT8, Scheme()) == (1.0, 100.0)


@pytest.mark.parametrize("constant", [0.0, 2.5, -2.5, 1e-30])
@pytest.mark.parametrize("estimator", [minmax, mse, percentile])
def test_a_constant_is_kept(constant: float, estimator: object) -> None:
    values = torch.full((100,), constant)
    low, high = estimator.estimate(filled(values), INT8, Scheme())  # type: ignore[attr-defined]
    quantizer = activation_quantizer(low, high, number_format=INT8, scheme=Scheme())
    assert quantizer is not None
    torch.testing.assert_close(quantizer(values), values, rtol=1e-6, atol=0.0)


NAMES = [
    "gauss",
    "relu",
    "silu",
    "laplace",
    "shifted",
    "lognormal",
    "softmax",
    "pixels",
    "negative",
    "outlier",
    "sparse",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_error_is_the_least_that_brute_force_finds(name: str, scheme: str, bits: int) -> None:
    values, number_format = sample(name, 20_000), parse(f"int{bits}")

    def error(low: float, high: float) -> float:
        quantizer = activation_quantizer(low, high, number_format=number_format, scheme=SCHEMES[scheme])
        assert quantizer is not None
        return float((quantizer(values) - values).double().square().mean())

    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    best = min(error(low * f, high * f) for f in np.linspace(0.02, 1.0, 99))
    found = mse.estimate(filled(values), number_format, SCHEMES[scheme])
    assert error(*found) <= 1.005 * best + 1e-12


@pytest.mark.parametrize(("bits", "step"), [(4, 0.3352), (5, 0.1881), (6, 0.1041), (8, 0.0308)])
def test_gaussian_values_get_max_s_uniform_step(bits: int, step: float) -> None:
    """Max 1960, table II: step of the least-squares uniform quantizer with 16, 32, 64, 256 levels, unit variance.

    Its outermost levels at 4 bit, 7.5 steps, are 2.51; ACIQ (Banner et al. 2019) gives a clip of 2.55.
    """
    generator = torch.Generator().manual_seed(0)
    histogram = filled(torch.randn(1_000_000, generator=generator))
    low, high = mse.estimate(histogram, parse(f"int{bits}"), Scheme())
    scale = max(-low, high) / (2 ** (bits - 1) - 1)
    assert scale == pytest.approx(step, rel=0.025)
    if bits == 4:
        assert 2.47 <= 7.5 * scale <= 2.56


def test_outliers_are_clipped_at_few_bits_only() -> None:
    histogram = filled(sample("outlier"))
    clips = [mse.estimate(histogram, parse(f"int{bits}"), Scheme())[1] for bits in (2, 4, 8, 16)]
    assert clips == sorted(clips)
    assert clips[1] < 5.0
    assert clips[3] == pytest.approx(60.0)


def test_full_precision_keeps_the_range() -> None:
    assert mse.estimate(filled(torch.tensor([-1.0, 2.0])), FP32, Scheme()) == (-1.0, 2.0)


@pytest.mark.parametrize("size", [1e-44, 1e-30, 1e30])
@pytest.mark.parametrize("estimator", [minmax, mse, percentile])
def test_extreme_sizes_give_finite_grids(size: float, estimator: object) -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * size
    for scheme in SCHEMES.values():
        low, high = estimator.estimate(filled(values), INT8, scheme)  # type: ignore[attr-defined]
        quantizer = activation_quantizer(low, high, number_format=INT8, scheme=scheme)
        assert quantizer is not None
        assert torch.isfinite(quantizer(values)).all()
        if size > 1e-40:
            assert (quantizer(values) - values).double().norm() < 0.05 * values.double().norm()
