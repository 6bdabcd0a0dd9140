"""Draws: how often a sample is met, that weighted means are means, and what is not needed is not run."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from hwdse.analysis.draws import Drawn, draw, uncertainty
from hwdse.analysis.sensitivity import measure_sensitivity
from hwdse.capture import capture
from hwdse.errors import InputError
from hwdse.formats import Precision, Scheme
from hwdse.quantize.network import QuantizedNetwork
from hwdse.quantize.observe import observe
from hwdse.quantize.program import Program
from tests import networks


@cache
def coin() -> QuantizedNetwork:
    """A network whose logits are (x, 0), which is the less sure the nearer x is to 0."""
    model = nn.Linear(1, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0], [0.0]]))
        model.bias.zero_()
    program = Program.of(capture(model, torch.ones(1, 1)))
    return QuantizedNetwork(program, scheme=Scheme(), streams=observe(program, [torch.ones(2, 1)]))


def inputs(samples: int) -> torch.Tensor:
    return torch.linspace(0.0, 12.0, samples)[:, None]


def test_uncertainty_of_coins_and_tokens() -> None:
    p = torch.tensor([0.5, 0.9, 1.0])
    logits = torch.stack([p.log(), (1.0 - p).log()], dim=-1)
    np.testing.assert_allclose(uncertainty(logits), 2.0 * p * (1.0 - p), rtol=1e-6)
    assert uncertainty(logits[None]).tolist() == pytest.approx([float((2.0 * p * (1.0 - p)).mean())])
    assert uncertainty(torch.zeros(1, 10)).tolist() == pytest.approx([0.9])


def test_a_sample_is_met_in_proportion_to_its_chance() -> None:
    x = inputs(40)
    root = np.sqrt(uncertainty(torch.cat([x, torch.zeros_like(x)], dim=1)))
    chance = 0.1 / 40 + 0.9 * root / root.sum()
    rng = np.random.default_rng(0)
    seen = np.zeros(40)
    for _ in range(500):
        for part in draw(coin(), x.split(16), draws=5, rng=rng):
            seen[np.searchsorted(x[:, 0].numpy(), part.tensors[0][:, 0].numpy())] += 1
    # Met at most once where 5 draws stand no nearer than the chance, so the count is that of the draws.
    assert (5 * chance).max() < 1.0
    np.testing.assert_allclose(seen / 500, 5 * chance, atol=4.5 * np.sqrt(0.25 / 500))


def test_weighted_means_are_the_means_over_all_samples() -> None:
    x = inputs(60)
    value = torch.exp(-x[:, 0]).double().numpy()
    rng = np.random.default_rng(1)
    found, ones, even = [], [], []
    for _ in range(300):
        drawn = draw(coin(), x.split(7), draws=12, rng=rng)
        weights = np.concatenate([part.weights for part in drawn])
        own = np.concatenate([torch.exp(-part.tensors[0][:, 0]).double().numpy() for part in drawn])
        assert len(weights) <= 12
        found.append((own * weights).mean())
        ones.append(weights.mean())
        even.append(rng.choice(value, 12, replace=False).mean())
    assert np.mean(found) == pytest.approx(value.mean(), rel=0.05)
    assert np.mean(ones) == pytest.approx(1.0, rel=0.05)
    assert np.std(found) < 0.5 * np.std(even)  # what unequal chances are for


def test_as_many_draws_as_equally_unsure_samples_take_each_once() -> None:
    x = torch.zeros(9, 1)
    drawn = draw(coin(), [x[:4], x[4:]], draws=9, rng=np.random.default_rng(2))
    assert [len(part.weights) for part in drawn] == [5, 4]  # as large as the largest batch given
    assert np.concatenate([part.weights for part in drawn]) == pytest.approx(np.ones(9))


def test_any_two_samples_may_be_drawn_together() -> None:
    x = torch.tensor([[1.0], [-1.0], [1.0 + 1e-6], [-1.0 - 1e-6]])  # equally unsure, told apart by their value
    rng = np.random.default_rng(5)
    pairs = {
        tuple(sorted(float(v) for part in draw(coin(), [x], draws=2, rng=rng) for v in part.tensors[0]))
        for _ in range(80)
    }
    assert len(pairs) == 6


def test_one_likely_sample_met_often_weighs_as_often() -> None:
    x = torch.tensor([[0.0], [50.0]])  # one sample of which the network is sure
    (drawn,) = draw(coin(), [x], draws=40, rng=np.random.default_rng(3))
    assert drawn.tensors[0].tolist() == x.tolist()
    assert drawn.weights == pytest.approx([1.0, 1.0])  # met 38 and 2 times, with chances of 0.95 and 0.05


def test_sentences_of_different_lengths_stay_apart_and_a_measurement_takes_them() -> None:
    case, program = networks.CASES["packed"], networks.program("packed")
    batches = [case.inputs(1, length=n, seed=n) for n in (4, 6, 4, 5)]
    network = QuantizedNetwork(program, scheme=Scheme(), streams=observe(program, batches))
    drawn = draw(network, batches, draws=400, rng=np.random.default_rng(4))
    assert sorted(tuple(part.tensors[0].shape) for part in drawn) == [(1, 4, 8), (1, 4, 8), (1, 5, 8), (1, 6, 8)]
    candidates = [Precision.parse("W4A8")]
    whole = measure_sensitivity(network, batches, candidates=candidates)
    found = measure_sensitivity(network, drawn, candidates=candidates)
    np.testing.assert_allclose(found.scores["kl"], whole.scores["kl"], rtol=0.05)
    assert found.samples == 4


def test_a_batch_that_is_not_drawn_weighs_one_each() -> None:
    batch = (torch.zeros(3, 2), torch.zeros(3))
    assert Drawn.of(batch).weights.tolist() == [1.0, 1.0, 1.0]
    drawn = Drawn(batch, np.array([2.0, 0.5, 0.5]))
    assert Drawn.of(drawn) is drawn


def test_bad_requests() -> None:
    with pytest.raises(InputError, match="expected at least one draw out of at least one sample, got 0 out of 4"):
        draw(coin(), [inputs(4)], draws=0, rng=np.random.default_rng(0))
    with pytest.raises(InputError, match="expected at least one draw out of at least one sample, got 3 out of 0"):
        draw(coin(), [], draws=3, rng=np.random.default_rng(0))
