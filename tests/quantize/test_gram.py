"""Whole networks whose weights are reconstructed layer after layer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from hwdse.capture import capture
from hwdse.errors import InputError
from hwdse.formats import Granularity, Precision, Scheme, Symmetry, parse
from hwdse.progress import SILENT
from hwdse.quantize.network import QuantizedNetwork
from hwdse.quantize.observe import observe
from hwdse.quantize.program import layer_output
from hwdse.quantize.rebuildable import rebuildable, tied
from hwdse.quantize.recipe import Recipe
from tests import networks
from tests.listener import Listener

NEAREST = Recipe(activation_ranges="minmax")
GRAM = replace(NEAREST, weight_rounding="gram")
SCHEMES = {
    "channel": Scheme(),
    "affine": Scheme(weights=Symmetry.AFFINE, activations=Symmetry.AFFINE),
    "tensor": Scheme(weight_granularity=Granularity.PER_TENSOR),
    "block": Scheme(weight_granularity=Granularity.PER_BLOCK, block_size=8),
}


def batches_of(name, count=3):
    return [networks.CASES[name].inputs(16, seed=seed) for seed in range(count)]


def network_of(name, *, scheme=SCHEMES["channel"], recipe=GRAM, batches=None):
    batches = batches_of(name) if batches is None else batches
    program = networks.program(name)
    return QuantizedNetwork(program, scheme=scheme, streams=observe(program, batches), recipe=recipe, batches=batches)


def everywhere(network, text):
    return dict.fromkeys(network.captured.layer_index, Precision.parse(text))


def values_of(network, setting, batch, last):
    values = network.program.start(batch, setting.constants)
    network.program.quantize_inputs(values, setting.quantizers)
    network.program.advance(values, setting.quantizers, last=last)
    return values


def judged_at(site, steps):
    """Return the step whose result a layer's weights are to keep: its own, or the sum that they complete."""
    i = steps[layer_output(site).name]
    (user, *more) = layer_output(site).users
    if more or user.name not in steps or not user.name.startswith("add"):
        return i
    (other,) = [node for node in user.args if node is not layer_output(site)]
    return steps[user.name] if steps[other.name] < i else i


def harm(network, text):
    """Return the mean squared error of the outputs on calibration data."""
    setting = network.setting(everywhere(network, text))
    errors = [
        (torch.as_tensor(network.forward(b, setting)) - network.forward(b, network.setting({}))).square().mean()
        for b in network.batches
    ]
    return float(torch.stack(errors).mean())


@pytest.mark.parametrize("name", ["residual", "mlp", "functional"])
@pytest.mark.parametrize(("path", "other", "text"), [("fp32", "int2", "W3Afp32"), ("int3", "fp32", "W3A3")])
def test_weights_suit_the_path_of_the_recipe(name, path, other, text):
    harms = [harm(network_of(name, recipe=replace(GRAM, path=p)), text) for p in (path, other)]

    assert harms[0] < harms[1]


def test_nothing_is_rounded_on_a_path_in_full_precision():
    in_full, in_int8 = (network_of("residual", recipe=replace(GRAM, path=path)) for path in ("fp32", "int8"))

    assert in_full._quantizers_on_path() == {}
    assert in_int8._quantizers_on_path().keys() == set(in_int8.program.points)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("text", ["W2A8", "W3A8", "Wnf4A8", "Wcodebook3A8"])
@pytest.mark.parametrize("name", ["residual", "mlp", "functional"])
def test_reconstruction_harms_less_than_rounding_to_nearest(name, text, scheme):
    harms = [harm(network_of(name, scheme=SCHEMES[scheme], recipe=r), text) for r in (GRAM, NEAREST)]

    assert harms[0] < harms[1]


@pytest.mark.parametrize("name", ["residual", "dscnn", "inception", "normed"])
def test_mean_outputs_stay_what_they_were(name):
    network = network_of(name)
    setting = network.setting(everywhere(network, "W3A8"))
    full = network.setting({})
    steps = {step.name: i for i, step in enumerate(network.program.steps)}
    for site in rebuildable(network.program).values():
        i = steps[layer_output(site).name]
        outputs = [
            torch.cat([values_of(network, s, b, i + 1)[network.program.steps[i].output] for b in network.batches])
            for s in (setting, full)
        ]
        means = [o.movedim(1, -1).reshape(-1, o.shape[1]).double().mean(0) for o in outputs]
        spread = outputs[1].double().std()
        # What the layer writes may be rounded at once, to steps of this size.
        np.testing.assert_allclose(means[0], means[1], atol=0.01 * float(spread))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", ["residual", "functional", "products"])
def test_no_channel_is_worse_than_rounded_to_nearest(name, scheme):
    network = network_of(name, scheme=SCHEMES[scheme])
    nearest = network_of(name, scheme=SCHEMES[scheme], recipe=NEAREST)
    setting = network.setting(everywhere(network, "W3A8"))
    steps = {step.name: i for i, step in enumerate(network.program.steps)}
    for site in rebuildable(network.program).values():
        layer = network.captured.layers[network.captured.layer_index[site.name]]
        other = nearest.quantized_weight(layer, parse("int3")).values
        i = judged_at(site, steps)
        errors: list[list[torch.Tensor]] = [[], []]
        for batch in network.batches:
            target = values_of(network, network.setting({}), batch, i + 1)[network.program.steps[i].output]
            for found, weight in zip(errors, (None, other), strict=True):
                changed = {} if weight is None else {network.program.weights[site.weight]: weight}
                trial = replace(
                    setting,
                    weights={**setting.weights, **changed},
                    quantizers={p: q for p, q in setting.quantizers.items() if p != network.program.steps[i].point},
                )
                written = values_of(network, trial, batch, i + 1)[network.program.steps[i].output]
                axis = 1 if site.is_convolution else -1
                found.append((written - target).movedim(axis, -1).reshape(-1, target.shape[axis]).double())
        own, others = (torch.cat(e) for e in errors)
        if site.name in network.program.biases:
            others = others - others.mean(0)
        squares = [e.square().mean(0) for e in (own, others)]
        if scheme == "tensor":
            squares = [s.sum() for s in squares]
        assert (squares[0] <= squares[1] * (1 + 1e-4) + 1e-9).all()


def test_a_setting_is_a_stitch_of_layers_that_were_found_once():
    network = network_of("residual")
    whole = network.setting(everywhere(network, "W3A8"))
    name = "a1"
    own = network.setting({name: Precision.parse("W3A8")})

    (position,) = own.weights
    assert own.weights[position] is whole.weights[position]
    assert own.biases[network.program.biases[name]] is whole.biases[network.program.biases[name]]
    assert set(own.constants) == {position, network.program.biases[name]}


def test_waiting_batches_that_take_too_much_memory_start_again(monkeypatch):
    kept = network_of("residual").setting(everywhere(network_of("residual"), "W2A8"))
    monkeypatch.setattr("hwdse.quantize.walk.KEPT_BYTES", 0)
    network = network_of("residual")

    forgotten = network.setting(everywhere(network, "W2A8"))

    for position, value in kept.constants.items():
        torch.testing.assert_close(forgotten.constants[position], value, rtol=0, atol=0)


def test_scales_and_codes_make_the_values():
    for scheme in SCHEMES.values():
        network = network_of("residual", scheme=scheme)
        layer = network.captured.layers[network.captured.layer_index["b1"]]

        found = network.quantized_weight(layer, parse("int3"))
        plain = network_of("residual", scheme=scheme, recipe=NEAREST).quantized_weight(layer, parse("int3"))

        assert found.scale.shape == plain.scale.shape
        rows = found.values.reshape(found.scale.numel(), -1).double() / found.scale[:, None]
        codes = rows + found.zero_point[:, None]
        torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-4)
        assert found.levels.lowest <= codes.round().min()
        assert codes.round().max() <= found.levels.highest
        assert found.values.stride() == plain.values.stride()


def test_a_weight_that_is_transposed_before_it_is_read_is_rebuilt_in_full():
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Parameter(torch.randn(6, 10))
            self.last = nn.Parameter(torch.randn(4, 6))

        def forward(self, x):
            return torch.matmul(torch.matmul(x, self.first.t()).relu(), self.last.t())

    torch.manual_seed(0)
    batches = [torch.randn(32, 10) for _ in range(2)]
    captured = capture(Turned().eval(), batches[0])
    network = QuantizedNetwork.calibrated(captured, batches, scheme=Scheme(), recipe=GRAM)
    assert len(rebuildable(network.program)) == 2
    plain = QuantizedNetwork.calibrated(captured, batches, scheme=Scheme(), recipe=NEAREST)
    everything = everywhere(network, "W2A8")

    errors = [
        float(
            (n.forward(torch.cat(batches), n.setting(everything)) - n.forward(torch.cat(batches), n.setting({})))
            .square()
            .mean()
        )
        for n in (network, plain)
    ]

    assert errors[0] < 0.7 * errors[1]


@pytest.mark.parametrize("name", ["reused", "tied"])
def test_a_weight_that_something_else_reads_too_stays_at_nearest(name):
    network, plain = network_of(name), network_of(name, recipe=NEAREST)
    layers = [layer for layer in network.captured.layers if layer.weight is not None]
    shared = [layer for layer in layers if layer.weight not in rebuildable(network.program)]

    assert shared
    for layer in shared:
        found, expected = (n.quantized_weight(layer, parse("int4")).values for n in (network, plain))
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        assert network.bias(layer, parse("int4")) is None


def test_a_weight_that_is_an_embedding_too_is_fitted_to_the_layer_that_reads_it():
    network, plain = network_of("llama"), network_of("llama", recipe=NEAREST)
    ((name, site),) = tied(network.program).items()
    layer = network.captured.layers[network.captured.layer_index[site.name]]

    found, nearest = (n.quantized_weight(layer, parse("int3")) for n in (network, plain))

    full = network.program.folded[name]
    assert network.bias(layer, parse("int3")) is None
    assert (found.values - full).square().mean() < (nearest.values - full).square().mean()
    assert harm(network, "W3A8") < harm(plain, "W3A8")


def test_a_product_with_a_factor_stays_at_nearest():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.shift = nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(4))

        def forward(self, x):
            return torch.addmm(self.shift, x, self.weight, beta=2.0, alpha=0.5)

    torch.manual_seed(0)
    batches = [torch.randn(32, 6)]
    captured = capture(Scaled().eval(), batches[0])
    settings = [
        QuantizedNetwork.calibrated(captured, batches, scheme=Scheme(), recipe=recipe).setting(
            dict.fromkeys(captured.layer_index, Precision.parse("W2A8"))
        )
        for recipe in (GRAM, NEAREST)
    ]

    for position, weight in settings[1].weights.items():
        torch.testing.assert_close(settings[0].constants[position], weight, rtol=0, atol=0)
    assert not settings[0].biases


def test_formats_of_more_than_8_bits_are_rounded_to_nearest():
    network, plain = network_of("residual"), network_of("residual", recipe=NEAREST)
    layer = network.captured.layers[network.captured.layer_index["a1"]]

    for text in ("int16", "fp16"):
        found, expected = (n.quantized_weight(layer, parse(text)).values for n in (network, plain))
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert not network.setting({"a1": Precision.parse("W16A16")}).biases


def test_progress_is_shown_and_too_few_samples_are_told():
    network = network_of("residual", batches=[networks.CASES["residual"].inputs(10)])
    listener = Listener()

    network.reconstruct([parse("int2"), parse("int2"), parse("int16")], progress=listener)
    network.reconstruct([parse("int2")], progress=listener)

    assert listener.stages == [("weights in int2", 7)]
    assert listener.steps == 7
    # 10 samples for a head of 16 columns.
    assert listener.sentences == [
        "expected 17 rows of calibration data (samples, or positions of samples) or more to reconstruct the weights of "
        "head, got 10; add samples"
    ]


def test_dead_channels_are_no_obstacle():
    class Dead(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x):
            return self.last((self.first(x) - 1e3).relu())

    torch.manual_seed(0)
    batches = [torch.randn(32, 4)]
    network = QuantizedNetwork.calibrated(capture(Dead().eval(), batches[0]), batches, scheme=Scheme(), recipe=GRAM)

    setting = network.setting(everywhere(network, "W3A8"))

    assert all(bool(torch.isfinite(value).all()) for value in setting.constants.values())
    torch.testing.assert_close(network.forward(batches[0], setting), network.forward(batches[0], network.setting({})))


def test_a_recipe_that_reconstructs_needs_data():
    program = networks.program("mlp")
    streams = observe(program, batches_of("mlp"))

    with pytest.raises(InputError, match="expected calibration batches for a recipe that reconstructs weights"):
        QuantizedNetwork(program, scheme=Scheme(), streams=streams, recipe=GRAM)


def test_an_unknown_rounding_is_refused():
    with pytest.raises(InputError, match="expected a weight rounding of nearest, gram, adaround, got 'best'"):
        Recipe(weight_rounding="best")


def test_the_key_tells_the_recipes_apart():
    assert Recipe().key == "nearest.w-minmax.a-mse"
    assert Recipe(weight_rounding="gram").key == "gram.w-minmax.a-mse"


def test_nothing_is_reconstructed_by_default():
    network = network_of("mlp", recipe=NEAREST)

    network.reconstruct([parse("int2")], progress=SILENT)

    assert not network.setting(everywhere(network, "W2A8")).biases
