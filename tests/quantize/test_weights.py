"""Quantized weights against the framework's operator, values worked out by hand, and brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hwdse.errors import InputError
from hwdse.formats import FP32, Granularity, Scheme, Symmetry, parse
from hwdse.quantize.weights import QuantizedWeight, quantize_weight

FULL = Scheme(full_range=True)
AFFINE = Scheme(weights=Symmetry.AFFINE)
TENSOR = Scheme(weight_granularity=Granularity.PER_TENSOR)
SCHEMES = [Scheme(), FULL, AFFINE, TENSOR, Scheme(weights=Symmetry.AFFINE, weight_granularity=Granularity.PER_TENSOR)]


def weights(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * torch.rand(shape[0], generator=generator).view(
        -1, *[1] * (len(shape) - 1)
    )


def codes(quantized: QuantizedWeight, axis: int = 0) -> torch.Tensor:
    """Return the stored codes, from values, scales and zero points."""
    shape = [1] * quantized.values.ndim
    shape[axis] = -1
    exact = quantized.values.double() / quantized.scale.view(shape) + quantized.zero_point.view(shape)
    assert (exact - exact.round()).abs().max() < 1e-4
    return exact.round()


def test_by_hand_restricted_and_full_and_affine() -> None:
    row = torch.tensor([[-3.0, -1.6, -0.5, 0.0, 0.4, 1.5, 2.5]])
    restricted = quantize_weight(row, parse("int3"), scheme=Scheme())
    assert (restricted.scale.tolist(), restricted.zero_point.tolist()) == ([1.0], [0.0])
    assert restricted.values.tolist() == [[-3.0, -2.0, 0.0, 0.0, 0.0, 2.0, 2.0]]
    # The full range has a code more below: the scale is the smallest that clips neither end.
    rows = torch.tensor([[-4.0, -2.4, 0.0, 3.0], [-3.0, 1.0, 0.2, 3.0]])
    full = quantize_weight(rows, parse("int3"), scheme=FULL)
    assert full.scale.tolist() == [1.0, 1.0]
    assert full.values.tolist() == [[-4.0, -2.0, 0.0, 3.0], [-3.0, 1.0, 0.0, 3.0]]
    assert quantize_weight(rows, parse("int3"), scheme=Scheme()).scale.tolist() == pytest.approx([4 / 3, 1.0])
    # 8 codes from -4 to 3 over [-1, 2.5]: half a unit each, 0 is code -2.
    affine = quantize_weight(torch.tensor([[-1.0, 0.0, 0.3, 2.5]]), parse("int3"), scheme=AFFINE)
    assert (affine.scale.tolist(), affine.zero_point.tolist()) == ([0.5], [-2.0])
    assert affine.values.tolist() == [[-1.0, 0.0, 0.5, 2.5]]


@pytest.mark.parametrize("ranges", ["minmax", "mse"])
def test_only_the_full_range_uses_the_lowest_code(ranges: str) -> None:
    row = torch.tensor([[-4.0, 3.0, 2.0, 1.0, 0.0, -1.0, -2.0, -3.0]])
    assert codes(quantize_weight(row, parse("int3"), scheme=FULL, ranges=ranges)).tolist() == row.tolist()
    assert codes(quantize_weight(row, parse("int3"), scheme=Scheme(), ranges=ranges)).min() == -3


def test_symmetric_weights_need_a_sign() -> None:
    with pytest.raises(
        InputError, match="expected a signed format for symmetric weights, got uint4; use int or affine"
    ):
        quantize_weight(weights(2, 3), parse("uint4"), scheme=Scheme())
    assert quantize_weight(weights(2, 3), parse("uint8"), scheme=AFFINE).zero_point.min() >= 0.0


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("shape", [(6, 40), (8, 4, 3, 3), (4, 2, 5)])
def test_it_is_the_frameworks_operator_per_channel(bits: int, shape: tuple[int, ...]) -> None:
    w = weights(*shape)
    for scheme in (Scheme(), AFFINE):
        quantized = quantize_weight(w, parse(f"int{bits}"), scheme=scheme)
        highest = 2 ** (bits - 1) - 1
        lowest = -highest if scheme is not AFFINE else -highest - 1
        theirs = torch.fake_quantize_per_channel_affine(
            w, quantized.scale.float(), quantized.zero_point.to(torch.int32), 0, lowest, highest
        )
        # Ours is rounded in float64, so a weight within 1e-4 of a tie may go the other way: none does here.
        torch.testing.assert_close(quantized.values, theirs, rtol=3e-7, atol=0.0)


def test_it_is_the_frameworks_operator_per_tensor() -> None:
    w = weights(8, 4, 3, 3)
    quantized = quantize_weight(w, parse("int4"), scheme=TENSOR)
    assert quantized.scale.tolist() == [w.abs().max().item() / 7]
    theirs = torch.fake_quantize_per_tensor_affine(w, quantized.scale.float(), torch.tensor([0]), -7, 7)
    torch.testing.assert_close(quantized.values, theirs, rtol=3e-7, atol=0.0)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("ranges", ["minmax", "mse"])
def test_the_axis_of_the_output_channels_makes_no_difference(scheme: Scheme, ranges: str) -> None:
    w = weights(5, 9)
    by_rows = quantize_weight(w, parse("int4"), scheme=scheme, ranges=ranges)
    by_columns = quantize_weight(w.t().contiguous(), parse("int4"), scheme=scheme, axis=1, ranges=ranges)
    assert torch.equal(by_columns.values, by_rows.values.t())
    assert torch.equal(by_columns.scale, by_rows.scale)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_least_squares_is_the_best_of_all_fractions(scheme: Scheme, bits: int) -> None:
    w = weights(4, 64, seed=3)
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    if scheme.weights is Symmetry.SYMMETRIC and not scheme.full_range:
        lowest = -highest
    rows = (
        w.double().numpy()
        if scheme.weight_granularity is Granularity.PER_CHANNEL
        else w.double().numpy().reshape(1, -1)
    )
    found = quantize_weight(w, parse(f"int{bits}"), scheme=scheme, ranges="mse")
    for row, mine in zip(rows, found.values.double().numpy().reshape(rows.shape), strict=True):
        errors = []
        for fraction in np.linspace(0.02, 1.0, 99):
            low, high = min(row.min(), 0.0) * fraction, max(row.max(), 0.0) * fraction
            symmetric = scheme.weights is Symmetry.SYMMETRIC
            step = max(low / lowest, high / highest) if symmetric else (high - low) / (highest - lowest)
            zero = 0 if symmetric else np.clip(np.rint(lowest - low / step), lowest, highest)
            grid = (np.clip(np.rint(row / step) + zero, lowest, highest) - zero) * step
            errors.append(((grid - row) ** 2).sum())
        assert ((mine - row) ** 2).sum() == pytest.approx(min(errors), rel=1e-5, abs=1e-12)


@pytest.mark.parametrize("outlier", [4.5, 20.0, 40.0])
def test_one_outlier_does_not_silence_all_other_weights(outlier: float) -> None:
    row = torch.tensor([[1.0, -1.0] * 2000 + [outlier]])
    (scale,) = quantize_weight(row, parse("int2"), scheme=Scheme(), ranges="mse").scale.tolist()
    assert scale == pytest.approx(1.0, abs=0.005 * outlier)  # to half a step of the search


@given(
    st.integers(0, 2**31), st.sampled_from([2, 3, 4, 8]), st.sampled_from(SCHEMES), st.sampled_from(["minmax", "mse"])
)
def test_rounding_twice_is_rounding_once_and_errors_are_bounded(
    seed: int, bits: int, scheme: Scheme, ranges: str
) -> None:
    w = weights(3, 17, seed=seed)
    once = quantize_weight(w, parse(f"int{bits}"), scheme=scheme, ranges=ranges)
    step = once.scale.view(-1, 1)
    # An affine zero point is rounded, so an end may be clipped by half a step more.
    bound = step * (1.0 if scheme.weights is Symmetry.AFFINE else 0.5) * (1 + 1e-5)
    if ranges == "minmax":
        assert ((once.values.double() - w.double()).abs() <= bound).all()
        assert len(np.unique(codes(once).numpy())) <= 2**bits
    if ranges == "minmax" and scheme.weights is Symmetry.SYMMETRIC:
        twice = quantize_weight(once.values, parse(f"int{bits}"), scheme=scheme)
        torch.testing.assert_close(twice.values, once.values, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("ranges", ["minmax", "mse"])
def test_zeros_stay_zeros(scheme: Scheme, ranges: str) -> None:
    w = torch.stack([torch.zeros(5), torch.tensor([0.0, 1.0, -2.0, 0.0, 3.0])])
    quantized = quantize_weight(w, parse("int4"), scheme=scheme, ranges=ranges)
    assert torch.isfinite(quantized.values).all()
    assert (quantized.values[w == 0.0] == 0.0).all()
    if scheme.weight_granularity is Granularity.PER_CHANNEL:
        assert quantized.scale[0] == 1.0


def test_extremes_of_float32() -> None:
    for size in (1e-40, 1e-30, 1e30, 3e38):
        w = torch.tensor([[size, -size, 0.0]])
        torch.testing.assert_close(quantize_weight(w, parse("int4"), scheme=Scheme()).values, w, rtol=1e-6, atol=0.0)


def test_the_parameter_itself_is_left_alone_and_its_type_kept() -> None:
    w = weights(4, 3, 3, 3).to(torch.bfloat16)
    before = w.clone()
    quantized = quantize_weight(w, parse("int4"), scheme=Scheme())
    assert torch.equal(w, before)
    assert quantized.values.dtype == torch.bfloat16
    assert quantized.values.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_must_be_finite(value: float) -> None:
    with pytest.raises(InputError, match="expected finite weights, got NaN or infinity; check the weight file"):
        quantize_weight(torch.tensor([[1.0, value]]), parse("int4"), scheme=Scheme())


def test_ranges_and_formats_are_known() -> None:
    with pytest.raises(InputError, match="expected weight ranges by one of minmax, mse, got 'median'"):
        quantize_weight(weights(2, 2), parse("int4"), scheme=Scheme(), ranges="median")
    with pytest.raises(InputError, match="expected an integer format to quantize to, got fp32"):
        quantize_weight(weights(2, 2), FP32, scheme=Scheme())
