"""Weights in training: they begin as what is deployed, and learn what they should."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hwdse.formats import Granularity, Scheme, Symmetry, parse
from hwdse.quantize.latent import LatentWeight, row_numbers, with_quantiles
from hwdse.quantize.weights import quantize_weight, scale_rows

SCHEMES = {
    "channel": Scheme(),
    "tensor": Scheme(weight_granularity=Granularity.PER_TENSOR),
    "block": Scheme(weight_granularity=Granularity.PER_BLOCK, block_size=5),
    "affine": Scheme(weights=Symmetry.AFFINE),
    "full": Scheme(full_range=True),
}
FORMATS = ("int2", "int4", "int8", "nf4", "posit6_0", "codebook3", "quantile3", "ternary", "binary", "fp4_e2m1")


def weight(*shape: int) -> torch.Tensor:
    spread = torch.linspace(0.2, 2.0, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return torch.randn(shape, generator=torch.Generator().manual_seed(3)) * spread


def latent(name: str, scheme: Scheme, full: torch.Tensor, axis: int = 0, reach: float = 0.0) -> LatentWeight:
    start = quantize_weight(full, parse(name), scheme=scheme, axis=axis, ranges="mse")
    return LatentWeight(start, full, axis=axis, scheme=scheme, reach=reach)


@pytest.mark.parametrize("reach", [0.0, 0.99])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", FORMATS)
def test_it_begins_as_what_is_deployed(name, scheme, reach):
    for shape, axis in (((4, 3, 3, 2), 0), ((7, 6), 1)):
        full = weight(*shape)
        made = latent(name, SCHEMES[scheme], full, axis, reach)
        found = made.quantized()
        assert torch.equal(found.values, made.start.values)
        assert torch.equal(found.scale, made.start.scale)
        assert torch.equal(found.zero_point, made.start.zero_point)
        assert found.levels == made.start.levels
        assert len(shape) < 4 or found.values.is_contiguous(memory_format=torch.channels_last)
        made.settle(0.9)
        if not made.levels.number_format.is_learned:
            assert torch.equal(made.quantized().values, made.start.values)


def test_values_begin_where_the_full_weight_is_within_the_cell():
    full = torch.tensor([[0.30, -0.10, 0.62, -1.0, 0.95]])
    start = quantize_weight(full, parse("int2"), scheme=Scheme())
    assert start.scale.tolist() == [1.0]
    moved = start.values.clone()
    moved[0, 1] = 1.0  # as a reconstruction might have it
    start = type(start)(moved, start.scale, start.zero_point, start.levels)
    made = LatentWeight(start, full, axis=0, scheme=Scheme(), reach=0.8)
    # 0.30 and 0.62 lie within 0.4 of their levels, -0.10 does not; nothing lies beyond the ends.
    assert made.values.detach()[0].tolist() == pytest.approx([0.30, 0.60, 0.62, -1.0, 0.95])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_rows_are_numbered_as_scales_are(scheme):
    for shape, axis in (((4, 3, 3, 2), 0), ((7, 6), 1), ((3, 5), 0)):
        numbers = row_numbers(torch.Size(shape), axis, SCHEMES[scheme])
        full = weight(*shape)
        count = quantize_weight(full, parse("int4"), scheme=SCHEMES[scheme], axis=axis).scale.numel()
        assert sorted(set(numbers.flatten().tolist())) == list(range(count))
        for table in scale_rows(numbers, SCHEMES[scheme], axis=axis):
            assert (table == table[:, :1]).all()
        largest = torch.zeros(count).scatter_reduce(0, numbers.flatten(), full.abs().flatten(), "amax")
        if scheme in ("channel", "tensor", "block"):
            scale = quantize_weight(full, parse("int4"), scheme=SCHEMES[scheme], axis=axis).scale
            assert torch.allclose(scale.float(), largest / 7)


@pytest.mark.parametrize("name", ["int2", "int4", "codebook3"])
@pytest.mark.parametrize("reach", [0.0, 0.9])
def test_a_step_has_the_gradient_of_the_rounded_weight(name, reach):
    full = weight(4, 10)
    made = latent(name, Scheme(), full, reach=reach)
    target = torch.randn(4, 10, generator=torch.Generator().manual_seed(8))
    # Values stay where they are in units of the step: the gradient within learned_step is of q - u, the rest of u.
    (made.rounded() * target).sum().backward()
    width, share = 1e-3, (10 * float(np.abs(made.levels.values).max())) ** -0.5
    for row in range(4):
        ends = []
        for side in (width, -width):
            with torch.no_grad():
                made.growth[row] += side
                ends.append(float((made.rounded() * target).double().sum()))
                made.growth[row] -= side
        slope = (ends[0] - ends[1]) / (2 * width)
        assert float(made.growth.grad[row]) == pytest.approx(slope * share, rel=2e-3, abs=1e-4)


def test_values_that_left_the_grid_come_back_to_its_end():
    made = latent("int2", Scheme(), weight(2, 4))
    with torch.no_grad():
        made.values[0] = torch.tensor([-1.7, 1.2, 0.4, -0.9])
    made.settle(0.9)
    assert made.values.detach()[0].tolist() == pytest.approx([-1.0, 1.0, 0.4, -0.9])


def test_levels_follow_their_weights():
    full = weight(3, 60)
    made = latent("quantile3", Scheme(), full, reach=0.99)
    before = made.levels.values
    assert 0.0 in before
    values, step = made.values.detach().double().numpy(), made.start.scale.numpy()
    place = np.abs(values[..., None] - before).argmin(-1)
    mass = np.repeat((step / step.max())[:, None] ** 2, 60, 1)
    means = np.array([np.average(values[place == k], weights=mass[place == k]) for k in range(before.size)])
    made.settle(0.0)
    expected = np.where(before == 0.0, 0.0, means)
    assert made.levels.values == pytest.approx(expected, rel=1e-5)
    assert not np.allclose(expected, before, rtol=1e-3)


def test_levels_with_a_long_memory_follow_slowly():
    made = latent("codebook2", Scheme(weight_granularity=Granularity.PER_TENSOR), weight(3, 60), reach=0.99)
    before = made.levels.values
    first = made.values.detach().double().numpy()
    with torch.no_grad():
        made.values.mul_(0.97)
    second = made.values.detach().double().numpy()

    def sums(values):
        place = np.abs(values[..., None] - before).argmin(-1)
        return np.array([[(place == k).sum(), values[place == k].sum()] for k in range(before.size)])

    mass, moment = (0.9 * sums(first) + 0.1 * sums(second)).T
    made.settle(0.9)
    assert made.levels.values == pytest.approx(moment / mass, rel=1e-5)


def test_a_codebook_may_begin_with_quantiles_of_either_sign():
    full = weight(2, 4000)
    start = quantize_weight(full, parse("codebook3"), scheme=Scheme())
    found = with_quantiles(start, full, axis=0, scheme=Scheme())
    levels = found.levels.values
    assert (levels < 0).sum() == (levels > 0).sum() == 3
    assert 0.0 in levels
    # Quantiles at the middles of equal shares, but for one factor.
    shares = (full / full.abs().amax(1, keepdim=True)).double()
    mass = (full.abs().amax(1) / full.abs().max()).double().square()[:, None].expand_as(full)
    positive = shares > 0
    order = shares[positive].argsort()
    below = mass[positive][order].cumsum(0) / mass[positive].sum()
    quantiles = [float(shares[positive][order][(below >= (i + 0.5) / 3).nonzero()[0, 0]]) for i in range(3)]
    assert levels[levels > 0] / levels.max() == pytest.approx(np.array(quantiles) / quantiles[-1], rel=0.01)
    error = (full - found.values).square().mean()
    assert (full - start.values).square().mean() < error < full.square().mean() / 10
    plain = quantize_weight(full, parse("int4"), scheme=Scheme())
    assert with_quantiles(plain, full, axis=0, scheme=Scheme()) is plain


@pytest.mark.parametrize("name", ["int4", "codebook3"])
def test_a_state_is_whole(name):
    made = latent(name, Scheme(), weight(3, 30), reach=0.9)
    fresh = made.state()
    with torch.no_grad():
        made.values.add_(0.05)
        made.growth.add_(0.1)
    made.settle(0.5)
    kept = made.state()
    changed = made.quantized()
    other = latent(name, Scheme(), weight(3, 30), reach=0.9)
    other.load(kept)
    for one in (made, other):
        one.settle(0.5)
    assert torch.equal(made.quantized().values, other.quantized().values)
    assert made.levels == other.levels
    made.load(kept)
    assert torch.equal(made.quantized().values, changed.values)
    made.load(fresh)
    assert torch.equal(made.quantized().values, made.start.values)
