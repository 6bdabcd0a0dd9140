"""Hutchinson's traces against the exact Hessian of tiny networks, and the score from them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from hwdse.analysis.draws import Drawn
from hwdse.analysis.hessian import hessian_sensitivity, hessian_traces
from hwdse.capture import capture
from hwdse.errors import InputError
from hwdse.formats import Precision, Scheme
from hwdse.quantize.network import QuantizedNetwork
from hwdse.quantize.observe import observe
from hwdse.quantize.program import Program
from tests import networks

CANDIDATES = tuple(map(Precision.parse, ("W2A8", "W4A4", "W4A8", "fp32")))


def network_of(model: nn.Module, batches: list[torch.Tensor]) -> QuantizedNetwork:
    program = Program.of(capture(model, batches[0][:1]))
    return QuantizedNetwork(program, scheme=Scheme(), streams=observe(program, batches))


def exact_trace(logits_of: Callable[[torch.Tensor], torch.Tensor], weight: torch.Tensor) -> float:
    """Return the trace of the Hessian of the divergence from the network's own answer, by the framework."""
    p = logits_of(weight).detach().softmax(-1)

    def divergence(w: torch.Tensor) -> torch.Tensor:
        return (p * (p.log() - logits_of(w).log_softmax(-1))).sum(-1).mean()

    hessian = torch.autograd.functional.hessian(divergence, weight)
    return float(hessian.reshape(weight.numel(), weight.numel()).trace())


def test_traces_are_those_of_the_exact_hessian() -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(3, 4).double(), nn.Linear(4, 3).double()
    x = torch.randn(6, 3, dtype=torch.float64)
    network = network_of(nn.Sequential(first, nn.Tanh(), second), [x])
    found = hessian_traces(network, [x[:2], x[2:]], rng=np.random.default_rng(0), probes=3000)

    def after_first(w: torch.Tensor) -> torch.Tensor:
        return second(torch.tanh(x @ w.T + first.bias))

    def after_second(w: torch.Tensor) -> torch.Tensor:
        return torch.tanh(first(x)) @ w.T + second.bias

    expected = {
        "0.weight": exact_trace(after_first, first.weight.detach()),
        "2.weight": exact_trace(after_second, second.weight.detach()),
    }
    assert found == pytest.approx(expected, rel=0.05)


def test_trace_of_a_coin_with_weighted_samples() -> None:
    """Logits (w x, 0) have the second derivative p (1 - p) x^2."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ConstantPad1d((0, 1), 0.0)).double()
    x = torch.tensor([[0.3], [-1.2], [2.0]], dtype=torch.float64)
    weights = np.array([2.0, 0.5, 0.0])
    p = torch.sigmoid(x * model[0].weight.item()).detach()
    expected = float(((p * (1.0 - p) * x**2)[:, 0].numpy() * weights).mean())
    network = network_of(model, [x])
    found = hessian_traces(network, [Drawn(x, weights)], rng=np.random.default_rng(0), probes=4000)
    assert found == pytest.approx({"0.weight": expected}, rel=0.06)


def test_tokens_are_averaged() -> None:
    torch.manual_seed(1)
    model = nn.Linear(3, 4).double()
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    found = hessian_traces(network_of(model, [x]), [x], rng=np.random.default_rng(0), probes=2000)
    flat = hessian_traces(
        network_of(model, [x.flatten(0, 1)]), [x.flatten(0, 1)], rng=np.random.default_rng(1), probes=2000
    )
    assert found == pytest.approx(flat, rel=0.05)


def test_score_is_mean_curvature_times_squared_error_of_the_weights_alone() -> None:
    program, batch = networks.program("residual"), networks.CASES["residual"].inputs(4)
    network = QuantizedNetwork(program, scheme=Scheme(), streams=observe(program, [batch]))
    found = hessian_sensitivity(network, [batch], candidates=CANDIDATES, rng=np.random.default_rng(1), probes=2)
    traces = hessian_traces(network, [batch], rng=np.random.default_rng(1), probes=2)
    scores = found.scores["hessian_predicted"]
    for g, group in enumerate(network.captured.groups):
        for c, candidate in enumerate(CANDIDATES[:3]):
            expected = 0.0
            for name in group.layers:
                weight = f"{name}.weight"
                full = program.folded[weight]
                rounded = network.setting(dict.fromkeys(group.layers, candidate)).weights[program.weights[weight]]
                expected += traces[weight] / full.numel() * float((rounded.double() - full.double()).square().sum())
            assert scores[g, c] == pytest.approx(expected, rel=1e-9)
    assert scores[:, 1].tolist() == scores[:, 2].tolist()
    assert scores[:, 3].tolist() == [0.0] * len(scores)
    assert found.samples == 4


def test_products_of_activations_have_no_weights_and_a_shared_weight_counts_once() -> None:
    for name, groups in (("packed", 4), ("tied", 1)):
        program, batch = networks.program(name), networks.CASES[name].inputs(4)
        network = QuantizedNetwork(program, scheme=Scheme(), streams=observe(program, [batch]))
        calls: list[int] = []
        found = hessian_sensitivity(
            network,
            [batch] * 2,
            candidates=CANDIDATES[:1],
            rng=np.random.default_rng(0),
            probes=20,
            on_batch=lambda calls=calls: calls.append(1),
        )
        scores = found.scores["hessian_predicted"][:, 0]
        assert len(calls) == 2
        assert len(scores) == groups
        weighted = [
            any(program.captured.layers[program.captured.layer_index[n]].weight for n in g.layers)
            for g in program.captured.groups
        ]
        assert (scores > 0.0).tolist() == weighted


def test_bad_requests() -> None:
    program, batch = networks.program("mlp"), networks.CASES["mlp"].inputs(4)
    network = QuantizedNetwork(program, scheme=Scheme(), streams=observe(program, [batch]))
    with pytest.raises(InputError, match="expected at least 1 probe, got 0"):
        hessian_traces(network, [batch], rng=np.random.default_rng(0), probes=0)
    with pytest.raises(InputError, match="expected at least one batch of calibration data, got none"):
        hessian_sensitivity(network, [], candidates=CANDIDATES, rng=np.random.default_rng(0))
