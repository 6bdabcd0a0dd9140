"""Fake quantization of activations against the framework's operator and the definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hwdse.errors import InputError
from hwdse.formats import FP32, Scheme, Symmetry, parse
from hwdse.quantize.quantizer import UniformQuantizer, activation_quantizer, grid_of

FORMATS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (2, 3, 4, 5, 6, 7, 8)]
SCALES = st.floats(2.0**-20, 2.0**10, width=32)


def values(seed: int, spread: float) -> torch.Tensor:
    return torch.randn(4096, generator=torch.Generator().manual_seed(seed)) * spread


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("scale", [2.0**-7, 0.25, 1.0, 4.0])
@pytest.mark.parametrize("place", [0.0, 0.3, 1.0])
def test_it_is_the_frameworks_operator_bit_for_bit(name: str, scale: float, place: float) -> None:
    lowest, highest = grid_of(parse(name))
    zero_point = round(lowest + place * (highest - lowest))
    quantizer = UniformQuantizer(parse(name), scale, zero_point)
    halves = torch.arange(-600, 600) * scale / 2  # every tie
    x = torch.cat([halves, values(1, 100 * scale), torch.tensor([1e30, -1e30, 0.0, -0.0, 1e-40])])
    expected = torch.fake_quantize_per_tensor_affine(x, scale, zero_point, lowest, highest)
    assert torch.equal(quantizer(x), expected)


@given(SCALES, st.sampled_from(FORMATS), st.integers(0, 2**31))
def test_any_float32_scale_agrees_with_the_framework(scale: float, name: str, seed: int) -> None:
    lowest, highest = grid_of(parse(name))
    x = values(seed, scale * highest)
    expected = torch.fake_quantize_per_tensor_affine(x, scale, lowest // 2, lowest, highest)
    assert torch.equal(UniformQuantizer(parse(name), scale, lowest // 2)(x), expected)


@pytest.mark.parametrize("scale", [0.1, 0.3, 1 / 3, 0.7, 1e-3 / 7])
def test_a_float64_scale_agrees_but_for_ties(scale: float) -> None:
    def codes(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        theirs = torch.fake_quantize_per_tensor_affine(x, scale, 0, -128, 127)
        return (UniformQuantizer(parse("int8"), scale)(x) / scale).round(), (theirs / scale).round()

    mine, theirs = codes(torch.cat([values(seed, 40 * scale) for seed in range(100)]))
    assert (mine != theirs).sum() == 0
    # The framework rounds the scale to float32 before it takes the inverse; at a tie that can decide, by one code.
    mine, theirs = codes((torch.arange(-128, 128) + 0.5).mul(scale))
    assert (mine - theirs).abs().max() <= 1.0


def test_ties_go_to_even() -> None:
    x = torch.tensor([0.5, 1.5, 2.5, 3.5, -0.5, -1.5, -2.5])
    assert UniformQuantizer(parse("int8"), 1.0)(x).tolist() == [0.0, 2.0, 2.0, 4.0, 0.0, -2.0, -2.0]


def test_a_copy_is_rounded_or_the_tensor_itself() -> None:
    quantizer = UniformQuantizer(parse("uint4"), 0.5, 3)
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
    quantizer = UniformQuantizer(parse(name), scale, round(lowest + place * (highest - lowest)))
    once = quantizer(values(seed, scale * highest))
    assert torch.equal(quantizer(once), once)


@given(SCALES, st.sampled_from(FORMATS), st.integers(0, 2**31))
def test_order_is_kept_and_no_value_moves_by_more_than_half_a_step(scale: float, name: str, seed: int) -> None:
    lowest, highest = grid_of(parse(name))
    quantizer = UniformQuantizer(parse(name), scale)
    x = values(seed, 2 * scale * highest).sort()[0]
    y = quantizer(x)
    assert (y.diff() >= 0.0).all()
    assert len(y.unique()) <= highest - lowest + 1
    inside = (x >= lowest * scale) & (x <= highest * scale)
    assert ((y - x)[inside].abs() <= scale * (0.5 + 1e-4)).all()
    assert (y[x > highest * scale] == torch.tensor(highest, dtype=torch.float32) * scale).all()
    assert (y[x < lowest * scale] == torch.tensor(lowest, dtype=torch.float32) * scale).all()


@given(
    st.floats(-1e3, 0.0, width=32), st.floats(0.0, 1e3, width=32), st.sampled_from(Symmetry), st.sampled_from([2, 4, 8])
)
def test_zero_stays_zero(low: float, high: float, symmetry: Symmetry, bits: int) -> None:
    quantizer = activation_quantizer(low, high, number_format=parse(f"int{bits}"), scheme=Scheme(activations=symmetry))
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
    quantizer = activation_quantizer(low, 2.0, number_format=parse("int8"), scheme=scheme)
    assert quantizer is not None
    assert quantizer.is_unsigned is unsigned
    x = values(0, 1.0)
    assert torch.equal(quantizer(x), quantizer(x.relu())) is unsigned


@pytest.mark.parametrize("high", [1e-45, 1e-40, 1e-38, 1e-30, 1e30, 3e38])
def test_extreme_ranges_give_finite_values(high: float) -> None:
    for scheme in (Scheme(), Scheme(activations=Symmetry.AFFINE)):
        quantizer = activation_quantizer(-high, high, number_format=parse("int8"), scheme=scheme)
        assert quantizer is not None
        x = torch.tensor([0.0, high, -high, high / 3])
        assert torch.isfinite(quantizer(x)).all()
        assert quantizer(x)[0] == 0.0


def test_full_precision_needs_no_quantizer() -> None:
    assert activation_quantizer(-1.0, 1.0, number_format=FP32, scheme=Scheme()) is None
    with pytest.raises(InputError, match="expected an integer format to quantize to, got fp32"):
        grid_of(FP32)
