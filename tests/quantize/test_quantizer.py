"""Fake quantization of activations against the framework's operator and the definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hwdse.calibrate import Points, calibrator
from hwdse.errors import InputError
from hwdse.formats import FP32, Levels, NumberFormat, Scheme, Symmetry, parse
from hwdse.quantize.quantizer import CodebookQuantizer, Quantizer, UniformQuantizer, activation_quantizer

FORMATS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (*range(2, 9), 12, 16)] + ["uint1"]
CODEBOOKS = ["posit8_0", "posit5_1", "apot4", "pot4", "nf4", "fp4_e2m1", "fp6_e3m2", "fp8_e5m2", "ternary", "binary"]
SCALES = st.floats(2.0**-20, 2.0**10, width=32)


def grid_of(number_format: NumberFormat) -> tuple[int, int]:
    assert number_format.lowest is not None
    assert number_format.highest is not None
    return number_format.lowest, number_format.highest


def uniform(name: str, scale: float, zero_point: int = 0) -> UniformQuantizer:
    return UniformQuantizer(Levels(parse(name), *grid_of(parse(name))), scale, zero_point)


def ranged(low: float, high: float, name: str, scheme: Scheme) -> Quantizer | None:
    """Return the quantizer of a tensor whose extremes are ``low`` and ``high``."""
    distribution = Points(torch.tensor([[low, high]], dtype=torch.float64))
    return activation_quantizer(distribution, number_format=parse(name), scheme=scheme, calibrate=calibrator("minmax"))


def values(seed: int, spread: float) -> torch.Tensor:
    return torch.randn(4096, generator=torch.Generator().manual_seed(seed)) * spread


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("scale", [2.0**-7, 0.25, 1.0, 4.0])
@pytest.mark.parametrize("place", [0.0, 0.3, 1.0])
def test_it_is_the_frameworks_operator_bit_for_bit(name: str, scale: float, place: float) -> None:
    lowest, highest = grid_of(parse(name))
    zero_point = round(lowest + place * (highest - lowest))
    quantizer = uniform(name, scale, zero_point)
    halves = torch.arange(-600, 600) * scale / 2  # every tie
    x = torch.cat([halves, values(1, 100 * scale), torch.tensor([1e30, -1e30, 0.0, -0.0, 1e-40])])
    expected = torch.fake_quantize_per_tensor_affine(x, scale, zero_point, lowest, highest)
    assert torch.equal(quantizer(x), expected)


@given(SCALES, st.sampled_from(FORMATS), st.integers(0, 2**31))
def test_any_float32_scale_agrees_with_the_framework(scale: float, name: str, seed: int) -> None:
    lowest, highest = grid_of(parse(name))
    x = values(seed, scale * highest)
    expected = torch.fake_quantize_per_tensor_affine(x, scale, lowest // 2, lowest, highest)
    assert torch.equal(uniform(name, scale, lowest // 2)(x), expected)


@pytest.mark.parametrize("scale", [0.1, 0.3, 1 / 3, 0.7, 1e-3 / 7])
def test_a_float64_scale_is_rounded_to_float32_as_the_framework_does(scale: float) -> None:
    x = torch.cat([*(values(seed, 40 * scale) for seed in range(20)), (torch.arange(-128, 128) + 0.5).mul(scale)])
    assert torch.equal(uniform("int8", scale)(x), torch.fake_quantize_per_tensor_affine(x, scale, 0, -128, 127))


def test_ties_go_to_even() -> None:
    x = torch.tensor([0.5, 1.5, 2.5, 3.5, -0.5, -1.5, -2.5])
    assert uniform("int8", 1.0)(x).tolist() == [0.0, 2.0, 2.0, 4.0, 0.0, -2.0, -2.0]


def test_a_copy_is_rounded_or_the_tensor_itself() -> None:
    quantizer = uniform("uint4", 0.5, 3)
    x = values(0, 3.0)
    before = x.clone()
    rounded = quantizer(x)
    assert torch.equal(x, before)
    result = quantizer.apply_(x)
    assert result is x
    assert torch.equal(x, rounded)


@given(SCALES, st.sampled_from(FORMATS), st.floats(0.0, 1.0), st.integers(0, 2**31))
def test_rounding_twice_is_rounding_once(scale: float, name: str, place: float, seed: int) -> None:
    lowest, highest = grid_of(parse(name))
    quantizer = uniform(name, scale, round(lowest + place * (highest - lowest)))
    once = quantizer(values(seed, scale * highest))
    assert torch.equal(quantizer(once), once)


@given(SCALES, st.sampled_from(FORMATS), st.integers(0, 2**31))
def test_order_is_kept_and_no_value_moves_by_more_than_half_a_step(scale: float, name: str, seed: int) -> None:
    lowest, highest = grid_of(parse(name))
    quantizer = uniform(name, scale)
    x = values(seed, 2 * scale * highest).sort()[0]
    y = quantizer(x)
    assert (y.diff() >= 0.0).all()
    assert len(y.unique()) <= highest - lowest + 1
    inside = (x >= lowest * scale) & (x <= highest * scale)
    assert ((y - x)[inside].abs() <= scale * 0.5001 + 1e-6 * x[inside].abs()).all()
    assert (y[x > highest * scale] == torch.tensor(highest, dtype=torch.float32) * scale).all()
    assert (y[x < lowest * scale] == torch.tensor(lowest, dtype=torch.float32) * scale).all()


@given(
    st.floats(-1e3, 0.0, width=32), st.floats(0.0, 1e3, width=32), st.sampled_from(Symmetry), st.sampled_from([2, 4, 8])
)
def test_zero_stays_zero(low: float, high: float, symmetry: Symmetry, bits: int) -> None:
    quantizer = ranged(low, high, f"int{bits}", Scheme(activations=symmetry))
    assert quantizer is not None
    assert quantizer(torch.zeros(3)).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("low", "scheme", "unsigned"),
    [
        (0.0, Scheme(), True),
        (-1.0, Scheme(), False),
        (0.0, Scheme(unsigned_activations=False), False),
        (0.0, Scheme(activations=Symmetry.AFFINE), True),
        (-1.0, Scheme(activations=Symmetry.AFFINE), False),
    ],
)
def test_an_unsigned_grid_is_a_relu(low: float, scheme: Scheme, *, unsigned: bool) -> None:
    quantizer = ranged(low, 2.0, "int8", scheme)
    assert quantizer is not None
    assert quantizer.is_unsigned is unsigned
    x = values(0, 1.0)
    assert torch.equal(quantizer(x), quantizer(x.relu())) is unsigned


@pytest.mark.parametrize("high", [1e-45, 1e-40, 1e-38, 1e-30, 1e30, 3e38])
def test_extreme_ranges_give_finite_values(high: float) -> None:
    for scheme in (Scheme(), Scheme(activations=Symmetry.AFFINE)):
        quantizer = ranged(-high, high, "int8", scheme)
        assert quantizer is not None
        x = torch.tensor([0.0, high, -high, high / 3])
        assert torch.isfinite(quantizer(x)).all()
        assert quantizer(x)[0] == 0.0


def test_full_precision_needs_no_quantizer() -> None:
    assert ranged(-1.0, 1.0, "fp32", Scheme()) is None


def test_signed_activations_need_a_positive_code() -> None:
    with pytest.raises(InputError, match="expected a format with positive codes for signed activations, got int1"):
        ranged(-1.0, 1.0, "int1", Scheme())
    assert ranged(0.0, 1.0, "int1", Scheme()) is not None


@pytest.mark.parametrize("name", CODEBOOKS)
@pytest.mark.parametrize("scale", [0.25, 0.3, 7.0])
def test_a_codebook_rounds_to_the_nearest_of_its_values(name: str, scale: float) -> None:
    levels = Levels(parse(name))
    x = torch.cat([values(2, 3 * scale), torch.tensor([0.0, -0.0, 1e30, -1e30])])
    wanted = torch.tensor(levels.values * scale, dtype=torch.float32)
    distances = (x[:, None].double() - wanted.double()).abs()
    given = CodebookQuantizer(levels, scale)(x)
    assert torch.isin(given, wanted).all()
    moved = (given.double() - x.double()).abs()
    assert (moved <= distances.amin(1) + 1e-6 * scale * moved.clamp(min=1.0)).all()


@pytest.mark.parametrize("name", CODEBOOKS)
def test_images_in_any_order_of_memory_are_rounded_alike(name: str) -> None:
    quantizer = CodebookQuantizer(Levels(parse(name)), 0.5)
    images = values(3, 1.0).view(2, 8, 16, 16)
    moved = images.contiguous(memory_format=torch.channels_last)
    rounded = quantizer(moved)
    assert torch.equal(rounded, quantizer(images))
    assert rounded.is_contiguous(memory_format=torch.channels_last)
    result = quantizer.apply_(moved)
    assert result is moved
    assert torch.equal(moved, rounded)


@pytest.mark.parametrize(("name", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_sixteen_bit_floats_are_casts_that_saturate(name: str, dtype: torch.dtype) -> None:
    quantizer = ranged(-1.0, 1.0, name, Scheme())
    assert quantizer is not None
    x = values(4, 1.0)
    assert torch.equal(quantizer(x), x.to(dtype).float())
    assert quantizer(torch.tensor([3e38, -3e38])).tolist() == [
        end * torch.finfo(dtype).max if dtype is torch.float16 else end * float(torch.tensor(3e38).bfloat16())
        for end in (1, -1)
    ]
    copy = x.clone()
    assert quantizer.apply_(copy) is copy
    assert torch.equal(copy, quantizer(x))


@pytest.mark.parametrize("name", ["codebook4", "quantile4"])
def test_a_learned_codebook_fits_the_tensor_better_than_integers(name: str) -> None:
    x = values(5, 1.0).relu()[None]
    errors = {}
    for chosen in (name, "int4"):
        quantizer = activation_quantizer(
            Points(x), number_format=parse(chosen), scheme=Scheme(), calibrate=calibrator("minmax")
        )
        assert quantizer is not None
        errors[chosen] = float((quantizer(x) - x).square().sum())
    assert errors[name] < 0.7 * errors["int4"]


def test_a_float_activation_is_saturated_at_the_largest_level() -> None:
    quantizer = ranged(-2.0, 2.0, "fp8_e4m3", Scheme())
    assert quantizer is not None
    assert quantizer(torch.tensor([2.0, 5.0, -9.0])).tolist() == [2.0, 2.0, -2.0]


def test_nobody_is_unsigned_but_a_grid_that_starts_at_zero() -> None:
    assert FP32.is_signed
    for name in ("nf4", "posit8_0"):
        quantizer = ranged(0.0, 1.0, name, Scheme())
        assert quantizer is not None
        assert not quantizer.is_unsigned
