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


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8, 12, 16])
@pytest.mark.parametrize("shape", [(6, 40), (8, 4, 3, 3), (4, 2, 5)])
@pytest.mark.parametrize("ranges", ["minmax", "mse"])
def test_it_is_the_frameworks_operator_per_channel(bits: int, shape: tuple[int, ...], ranges: str) -> None:
    w = weights(*shape)
    for scheme in (Scheme(), FULL, AFFINE):
        quantized = quantize_weight(w, parse(f"int{bits}"), scheme=scheme, ranges=ranges)
        highest = 2 ** (bits - 1) - 1
        lowest = -highest - 1 if scheme in (FULL, AFFINE) else -highest
        theirs = torch.fake_quantize_per_channel_affine(
            w, quantized.scale.float(), quantized.zero_point.to(torch.int32), 0, lowest, highest
        )
        assert torch.equal(quantized.values, theirs)


def test_it_is_the_frameworks_operator_per_tensor() -> None:
    w = weights(8, 4, 3, 3)
    quantized = quantize_weight(w, parse("int4"), scheme=TENSOR)
    assert quantized.scale.tolist() == [float(np.float32(w.abs().max().item() / 7))]
    theirs = torch.fake_quantize_per_tensor_affine(w, quantized.scale.float(), torch.tensor([0]), -7, 7)
    assert torch.equal(quantized.values, theirs)


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
        assert ((mine - row) ** 2).sum() <= min(errors) * 1.03


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
    for size in (1e-36, 1e-30, 1e30, 3e38):
        w = torch.tensor([[size, -size, 0.0]])
        torch.testing.assert_close(quantize_weight(w, parse("int4"), scheme=Scheme()).values, w, rtol=1e-6, atol=0.0)
    # A step below the smallest normal float32 has no inverse: such weights are zeros.
    assert quantize_weight(torch.tensor([[1e-40, 0.0]]), parse("int4"), scheme=Scheme()).values.tolist() == [[0.0, 0.0]]


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
    with pytest.raises(
        InputError, match=r"expected one of the installed calibrators \(.*minmax, mse.*\), got 'median'"
    ):
        quantize_weight(weights(2, 2), parse("int4"), scheme=Scheme(), ranges="median")
    with pytest.raises(InputError, match=r"expected a format of at most 2\*\*16 values to list, got fp32"):
        quantize_weight(weights(2, 2), FP32, scheme=Scheme())


@pytest.mark.parametrize("shape", [(4, 32), (4, 40), (2, 3, 3, 3), (3, 5)])
@pytest.mark.parametrize("symmetry", list(Symmetry))
def test_blocks_are_the_frameworks_operator_on_every_block(shape: tuple[int, ...], symmetry: Symmetry) -> None:
    w = weights(*shape)
    scheme = Scheme(weights=symmetry, weight_granularity=Granularity.PER_BLOCK, block_size=16)
    quantized = quantize_weight(w, parse("int4"), scheme=scheme)
    lowest = -7 if symmetry is Symmetry.SYMMETRIC else -8
    parts = [part for channel in w.reshape(shape[0], -1) for part in channel.split(16)]
    assert len(quantized.scale) == len(parts)
    theirs = [
        torch.fake_quantize_per_tensor_affine(part, scale, zero_point, lowest, 7)
        for part, scale, zero_point in zip(
            parts, quantized.scale.tolist(), map(int, quantized.zero_point.tolist()), strict=True
        )
    ]
    assert torch.equal(quantized.values, torch.cat(theirs).view(shape))
    alone = [quantize_weight(part[None], parse("int4"), scheme=Scheme(weights=symmetry)).scale.item() for part in parts]
    assert quantized.scale.tolist() == alone


@pytest.mark.parametrize(
    "name", ["nf4", "posit8_0", "apot4", "fp4_e2m1", "ternary", "binary", "codebook3", "quantile4"]
)
@pytest.mark.parametrize("scheme", [Scheme(), TENSOR, Scheme(weight_granularity=Granularity.PER_BLOCK, block_size=5)])
def test_a_codebook_weight_is_the_nearest_level_times_its_scale(name: str, scheme: Scheme) -> None:
    w = weights(4, 12)
    quantized = quantize_weight(w, parse(name), scheme=scheme, ranges="mse")
    rows = {"per_tensor": 48, "per_channel": 12, "per_block": 5}[scheme.weight_granularity]
    start = 0
    flat, given = (t.reshape(-1) for t in (w, quantized.values))
    lengths = [rows] * (48 // rows) if rows != 5 else [5, 5, 2] * 4
    for scale, length in zip(quantized.scale.tolist(), lengths, strict=True):
        wanted = torch.tensor(quantized.levels.values * scale)
        part = flat[start : start + length].double()
        nearest = wanted[(part[:, None] - wanted).abs().argmin(1)]
        torch.testing.assert_close(given[start : start + length].double(), nearest, rtol=1e-6, atol=1e-12)
        start += length
    assert start == 48


def test_a_binary_weight_has_the_mean_magnitude_as_its_scale() -> None:
    w = weights(3, 400)
    quantized = quantize_weight(w, parse("binary"), scheme=Scheme(), ranges="mse")
    torch.testing.assert_close(quantized.scale, w.abs().mean(1).double(), rtol=0.02, atol=0.0)
    assert torch.equal(quantized.values.sign(), torch.where(w >= 0, 1.0, -1.0))


def test_one_bit_needs_another_grid_than_the_symmetric_restricted_one() -> None:
    with pytest.raises(InputError, match="expected a format with a symmetric grid, got int1; use binary, or a scheme"):
        quantize_weight(weights(2, 3), parse("int1"), scheme=Scheme())
    row = torch.tensor([[-1.0, -0.6, 0.0, 2.0]])
    assert quantize_weight(row, parse("int1"), scheme=FULL).values.tolist() == [[-1.0, -1.0, 0.0, 0.0]]
    assert quantize_weight(row, parse("int1"), scheme=AFFINE).values.tolist() == [[0.0, 0.0, 0.0, 3.0]]


@pytest.mark.parametrize("name", ["int4", "nf4", "posit8_0", "fp8_e4m3", "binary", "codebook4", "fp16"])
@pytest.mark.parametrize(
    "ranges", ["minmax", "mse", "l2.4", "percentile", "ema", "entropy", "aciq_gauss", "aciq_laplace"]
)
@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0], [2.5], [-1e-30, 1e-30], [1e30, -1e30], [-0.0, 1e-42], [1.0] * 9])
def test_odd_channels_have_a_defined_answer(name: str, ranges: str, values: list[float]) -> None:
    w = torch.tensor([values, [0.25] * len(values)])
    quantized = quantize_weight(w, parse(name), scheme=Scheme(), ranges=ranges)
    assert torch.isfinite(quantized.values).all()
    assert torch.isfinite(1.0 / quantized.scale.float()).all()
    if name != "binary" and not any(values):
        assert (quantized.values[0] == 0.0).all()


def test_a_weight_has_values() -> None:
    with pytest.raises(InputError, match=r"expected a weight with values, got one of shape \(0, 3\)"):
        quantize_weight(torch.zeros(0, 3), parse("int4"), scheme=Scheme())
