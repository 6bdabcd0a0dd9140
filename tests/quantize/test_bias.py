"""Bias correction against mean outputs, and the guard that takes it back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hwdse.capture import capture
from hwdse.errors import InputError
from hwdse.formats import Granularity, Precision, Scheme
from hwdse.quantize import rebuild
from hwdse.quantize.bias import spread
from hwdse.quantize.network import QuantizedNetwork
from hwdse.quantize.observe import observe
from hwdse.quantize.program import layer_output
from hwdse.quantize.rebuildable import rebuildable
from hwdse.quantize.recipe import Recipe
from tests import networks
from tests.listener import Listener

CASES = ["residual", "dscnn", "normed", "mlp"]


def network_of(name, correction, **recipe):
    batches = [networks.CASES[name].inputs(16, seed=seed) for seed in range(3)]
    program = networks.program(name)
    recipe = Recipe(activation_ranges="minmax", bias_correction=correction, **recipe)
    return QuantizedNetwork(program, scheme=Scheme(), streams=observe(program, batches), recipe=recipe, batches=batches)


def everywhere(network, text):
    return network.setting(dict.fromkeys(network.captured.layer_index, Precision.parse(text)))


def written(network, constants, quantizers, name):
    """Return what every layer reads and writes on the calibration data, with given constants."""
    program = network.program
    (i,) = [j for j, step in enumerate(program.steps) if step.name == layer_output(program.captured.sites[name]).name]
    outputs, values_of = [], []
    for batch in network.batches:
        values = program.start(batch, constants)
        program.quantize_inputs(values, quantizers)
        program.advance(values, quantizers, last=i)
        values_of.append(list(values))
        program.advance(values, {}, first=i, last=i + 1)
        outputs.append(values[program.steps[i].output])
    return torch.cat(outputs), i, values_of


def mean_of(outputs):
    return outputs.movedim(1, -1).reshape(-1, outputs.shape[1]).double().mean(0)


@pytest.mark.parametrize("name", CASES)
def test_local_correction_removes_the_mean_error_of_the_rounded_weights(name):
    network = network_of(name, "local")
    setting = everywhere(network, "W4A8")
    program = network.program
    assert setting.biases
    for site in rebuildable(program).values():
        if site.name not in program.biases:
            continue
        rounded, i, befores = written(network, setting.constants, setting.quantizers, site.name)
        full = []
        for before in befores:
            before[program.weights[site.weight]] = program.folded[site.weight]
            before[program.biases[site.name]] = program.constants[program.biases[site.name]]
            program.advance(before, {}, first=i, last=i + 1)
            full.append(before[program.steps[i].output])
        full = torch.cat(full)
        np.testing.assert_allclose(mean_of(rounded), mean_of(full), atol=1e-5 * float(full.abs().max()))


@pytest.mark.parametrize("name", ["dscnn"])
def test_global_correction_keeps_the_mean_outputs_of_full_precision(name):
    network = network_of(name, "global")
    setting = everywhere(network, "W4A8")
    for site in rebuildable(network.program).values():
        rounded = written(network, setting.constants, setting.quantizers, site.name)[0]
        full = written(network, {}, {}, site.name)[0]
        np.testing.assert_allclose(mean_of(rounded), mean_of(full), atol=1e-4 * float(full.abs().max()))


def test_weights_stay_those_that_are_nearest():
    network, plain = network_of("residual", "local"), network_of("residual", "none")

    found, expected = (everywhere(n, "W3A8") for n in (network, plain))

    assert not expected.biases
    for position, weight in expected.weights.items():
        torch.testing.assert_close(found.weights[position], weight, rtol=0, atol=0)


def test_correction_repairs_a_shift():
    """All weights round down: outputs of positive inputs shift, and the correction takes all of that shift away."""
    model = nn.Sequential(nn.Linear(32, 4)).eval()
    with torch.no_grad():
        model[0].weight.fill_(1.4)
        model[0].weight[:, 0] = 7.0
    batches = [torch.rand(64, 32, generator=torch.Generator().manual_seed(s)) for s in range(2)]
    errors = {}
    for correction in ("none", "local", "global"):
        network = QuantizedNetwork.calibrated(
            capture(model, batches[0]),
            batches,
            scheme=Scheme(weight_granularity=Granularity.PER_TENSOR),
            recipe=Recipe(activation_ranges="minmax", bias_correction=correction),
        )
        out = network.forward(torch.cat(batches), everywhere(network, "W4A8"))
        errors[correction] = float((out - model(torch.cat(batches))).mean().detach())

    assert errors["none"] == pytest.approx(-0.4 * 31 * 0.5, rel=0.05)
    assert abs(errors["local"]) < 0.02
    assert abs(errors["global"]) < 0.02


def test_a_correction_that_makes_all_outputs_alike_is_taken_back(monkeypatch):
    """Biases so negative that no unit answers any more stand for the collapse."""
    network = network_of("mlp", "global")
    plain = everywhere(network_of("mlp", "none"), "W4A8")
    broken = rebuild.corrected

    def collapsed(rebuilt, view, correction):
        found = broken(rebuilt, view, correction)
        return found if found.bias is None else type(found)(found.weight, torch.full_like(found.bias, -1e4))

    monkeypatch.setattr(rebuild, "corrected", collapsed)
    listener = Listener()

    network.reconstruct([Precision.parse("W4A8").weights], progress=listener)

    setting = everywhere(network, "W4A8")
    assert not setting.biases
    for position, weight in plain.weights.items():
        torch.testing.assert_close(setting.weights[position], weight, rtol=0, atol=0)
    (sentence,) = listener.sentences
    assert sentence.startswith("expected corrected biases to keep the outputs apart, got 0 of full precision's spread")


def test_a_harmless_correction_stays():
    listener = Listener()
    network = network_of("mlp", "global")

    network.reconstruct([Precision.parse("W4A8").weights], progress=listener)

    assert everywhere(network, "W4A8").biases
    assert listener.sentences == []


def test_the_spread_is_the_mean_deviation_from_row_to_row():
    outputs = torch.tensor([[[0.0, 5.0], [2.0, 5.0]], [[0.0, 5.0], [2.0, 5.0]]])

    assert spread(outputs) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"bias_correction": "all"}, "expected a bias correction of none, local, global, got 'all'"),
        (
            {"weight_rounding": "gram", "bias_correction": "local"},
            "expected no bias correction with the weight rounding",
        ),
    ],
)
def test_recipes_that_make_no_sense_are_refused(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        Recipe(**settings)
