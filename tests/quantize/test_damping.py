"""How much of the weights' own error counts: as much as the data leave open."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hwdse.capture import capture
from hwdse.formats import Scheme, parse
from hwdse.quantize.moments import SecondMoments
from hwdse.quantize.network import QuantizedNetwork
from hwdse.quantize.observe import observe
from hwdse.quantize.program import Program, layer_output
from hwdse.quantize.recipe import Recipe
from hwdse.quantize.reconstruct import DAMPINGS, Damped, damping_of, output_error
from hwdse.quantize.walk import LayerView, Walk
from tests import networks

COLUMNS, CHANNELS = 20, 5


def covariances(rows, *, noise, seed):
    """Return covariances of so many rows, and a weight that is not quite the one that targets follow but for noise."""
    generator = np.random.default_rng(seed)
    true = np.random.default_rng(0).standard_normal((1, COLUMNS, CHANNELS))
    x = generator.standard_normal((1, rows, COLUMNS))
    t = x @ true + noise * generator.standard_normal((1, rows, CHANNELS))
    return (x.mT @ x / rows, x.mT @ t / rows), true + 0.3 * np.random.default_rng(1).standard_normal(true.shape)


def chosen(rows, *, noise, seed=1):
    halves = [covariances(rows // 2, noise=noise, seed=seed + i)[0] for i in range(2)]
    return damping_of(halves, covariances(2, noise=noise, seed=0)[1])


def test_many_clean_rows_need_the_least_damping():
    assert chosen(10_000, noise=0.01) == DAMPINGS[0]


def test_few_noisy_rows_need_the_most():
    assert chosen(44, noise=3.0) == DAMPINGS[-1]


def test_more_rows_never_need_more():
    needed = [chosen(rows, noise=2.0) for rows in (60, 600, 6000, 60_000)]

    assert needed == sorted(needed, reverse=True)
    assert len(set(needed)) > 1


@pytest.mark.parametrize("seed", range(5))
def test_what_is_chosen_does_best_on_fresh_data(seed):
    halves = [covariances(40, noise=3.0, seed=10 * seed + i)[0] for i in range(1, 3)]
    whole = tuple(np.mean(pair, axis=0) for pair in zip(*halves, strict=True))
    fresh, weight = covariances(50_000, noise=3.0, seed=10 * seed + 5)

    least, found = (
        float(output_error(Damped.of(*whole, weight, share).target, *fresh).sum())
        for share in (DAMPINGS[0], damping_of(halves, weight))
    )

    assert found < least


def test_a_single_half_needs_the_least():
    (half, weight) = covariances(30, noise=3.0, seed=0)

    assert damping_of([half], weight) == DAMPINGS[0]


@pytest.mark.parametrize("sizes", [(16, 16), (5, 3, 7), (1, 1, 1, 1), (1,)])
def test_halves_are_every_other_sample(sizes):
    program = networks.program("residual")
    (images,) = networks.CASES["residual"].inputs(sum(sizes), seed=0)
    batches = [(part,) for part in images.split(list(sizes))]
    network = QuantizedNetwork(program, scheme=Scheme(), streams=observe(program, batches))
    layer = program.captured.layers[program.captured.layer_index["b1"]]
    site = program.captured.sites["b1"]
    step = program.step_of[layer_output(site).name]

    def view(given):
        walks = [Walk(program, batch, {}, {}) for batch in given]
        return LayerView(program, site, step, walks, network.quantized_weight(layer, parse("int4")), Scheme())

    halves = view(batches).halves(SecondMoments)

    for half, samples in zip(halves, (images[::2], images[1::2]), strict=True):
        expected = view([(samples,)]).gather(SecondMoments) if len(samples) else None
        assert half.count == (expected.count if expected is not None else 0)
        if expected is not None:
            np.testing.assert_allclose(half.squares, expected.squares, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(half.mean, expected.mean, rtol=1e-4, atol=1e-5)
    merged = view(batches).gather(SecondMoments)
    halves[0].merge(halves[1])
    np.testing.assert_allclose(halves[0].products, merged.products, rtol=1e-4, atol=1e-5)


def test_one_sample_is_enough():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)).eval()
    batches = [torch.randn(1, 6)]
    program = Program.of(capture(model, torch.randn(2, 6)))
    recipe = Recipe(activation_ranges="minmax", weight_rounding="gram")
    network = QuantizedNetwork(
        program, scheme=Scheme(), streams=observe(program, batches), recipe=recipe, batches=batches
    )

    network.reconstruct([parse("int3")])

    assert all(
        torch.isfinite(network.quantized_weight(layer, parse("int3")).values).all() for layer in network.captured.layers
    )
