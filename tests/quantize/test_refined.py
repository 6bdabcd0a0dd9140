"""Weights of one configuration that are found once more, against runs by hand; and what configurations are made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hwdse.errors import InputError
from hwdse.formats import Precision, Scheme, parse
from hwdse.graph import BitConfig
from hwdse.quantize.network import QuantizedNetwork
from hwdse.quantize.observe import observe
from hwdse.quantize.program import layer_output
from hwdse.quantize.rebuild import rebuild
from hwdse.quantize.rebuildable import rebuildable
from hwdse.quantize.recipe import Recipe
from tests import networks
from tests.listener import Listener

GRAM = Recipe(activation_ranges="minmax", weight_rounding="gram")
CORRECTED = Recipe(activation_ranges="minmax", bias_correction="local")


def network_of(name, *, recipe=GRAM, first_seed=0):
    batches = [networks.CASES[name].inputs(16, seed=seed) for seed in range(first_seed, first_seed + 3)]
    program = networks.program(name)
    return QuantizedNetwork(program, scheme=Scheme(), streams=observe(program, batches), recipe=recipe, batches=batches)


def cycled(network, *texts):
    graph = network.captured
    return graph.config([Precision.parse(texts[g % len(texts)]) for g in range(len(graph.groups))])


def by_execution(network):
    """Return the layers whose weights are found, as they are run: names of weight and layer."""
    steps = {step.name: i for i, step in enumerate(network.program.steps)}
    sites = rebuildable(network.program)
    return sorted(
        ((name, site.name) for name, site in sites.items()),
        key=lambda pair: steps[layer_output(sites[pair[0]]).name],
    )


def by_hand(network, config, *, left_out=()):
    """Find one weight after the other, each alone, after those that were found before it."""
    program, quantizers = network.program, network.configure(config).quantizers
    plain = QuantizedNetwork(
        program, scheme=network.scheme, streams=network.all_streams, recipe=Recipe(activation_ranges="minmax")
    )
    nearest = {
        layer.weight: plain.quantized_weight(layer, config.precisions[layer.name].weights)
        for layer in network.captured.layers
        if layer.weight is not None and config.precisions[layer.name].weights.name != "fp32"
    }
    alone = [pair for pair in by_execution(network) if pair[1] not in left_out and pair[0] in nearest]
    taken = {program.weights[n]: w.values for n, w in nearest.items() if n not in {name for name, _ in alone}}
    found = {}
    for name, layer in alone:
        found |= rebuild(
            program,
            network.batches,
            scheme=network.scheme,
            recipe=network.recipe,
            nearest=nearest.__getitem__,
            quantizers=quantizers,
            names=[name],
            taken=taken,
        )
        taken[program.weights[name]] = found[name].weight.values
        if found[name].bias is not None:
            taken[program.biases[layer]] = found[name].bias
    return found


def same(refined, found, layers):
    assert refined.weights.keys() == found.keys()
    for name, rebuilt in found.items():
        torch.testing.assert_close(refined.weights[name].values, rebuilt.weight.values, rtol=0, atol=0)
        torch.testing.assert_close(refined.weights[name].scale, rebuilt.weight.scale, rtol=0, atol=0)
        bias = refined.biases.get(layers[name])
        assert (bias is None) == (rebuilt.bias is None)
        if bias is not None:
            torch.testing.assert_close(bias, rebuilt.bias, rtol=0, atol=0)


def output_error(network, config):
    """Return the mean squared error of the outputs on the calibration data."""
    settings = network.configure(config), network.setting({})
    errors = [
        (network.forward(batch, settings[0]) - network.forward(batch, settings[1])).square().mean()
        for batch in network.batches
    ]
    return float(torch.stack(errors).mean())


@pytest.mark.parametrize("recipe", [GRAM, CORRECTED], ids=lambda recipe: recipe.key)
@pytest.mark.parametrize("text", ["W2A8", "W4A8"])
@pytest.mark.parametrize("name", ["residual", "mlp", "functional"])
def test_one_format_everywhere_has_been_found_already(name, text, recipe):
    network = network_of(name, recipe=recipe)
    config = cycled(network, text)
    setting = network.configure(config)

    again = network.fitted(network.refined(config)).configure(config)

    assert again.weights.keys() == setting.weights.keys()
    assert again.biases.keys() == setting.biases.keys()
    for position, value in setting.constants.items():
        torch.testing.assert_close(again.constants[position], value, rtol=0, atol=0)
    assert again.quantizers == setting.quantizers


@pytest.mark.parametrize("texts", [("W2A8", "W4A8"), ("W4A4", "W2A8", "W8A8")], ids=" ".join)
@pytest.mark.parametrize("name", ["residual", "mlp", "inception"])
def test_every_layer_follows_the_refined_ones_before_it(name, texts):
    network = network_of(name)
    config = cycled(network, *texts)

    refined = network.refined(config)

    found = by_hand(network, config)
    assert len(found) == len(rebuildable(network.program))
    same(refined, found, dict(by_execution(network)))
    stitched = network.configure(config)
    assert any(
        not torch.equal(weight.values, stitched.weights[network.program.weights[weight_name]])
        for weight_name, weight in refined.weights.items()
    )
    assert refined.config == config


def test_refining_harms_the_network_less_on_average():
    ratios = []
    for name in ("residual", "mlp", "inception", "functional", "normed"):
        for seed in (0, 10, 20):
            network = network_of(name, first_seed=seed)
            config = cycled(network, "W2A8", "W4A8")
            ratios.append(output_error(network.fitted(network.refined(config)), config) / output_error(network, config))

    assert np.exp(np.mean(np.log(ratios))) <= 1.0
    assert np.mean(np.array(ratios) <= 1.0) >= 0.5


def test_layers_of_more_bits_take_part_rounded_and_are_left_out():
    network = network_of("residual")
    precisions = dict.fromkeys(network.captured.layer_index, Precision.parse("W2A8"))
    others = {"stem": "Wbf16Abf16", "a2": "W16A16", "b2": "fp32"}
    config = BitConfig(precisions | {layer: Precision.parse(text) for layer, text in others.items()})

    refined = network.refined(config)

    weights = {layer: name for name, layer in by_execution(network)}
    assert set(refined.weights) == {name for layer, name in weights.items() if layer not in others}
    assert not set(others) & set(refined.biases)
    same(refined, by_hand(network, config, left_out=others), dict(by_execution(network)))
    # Had the stem stayed in full precision, its reader would have come out otherwise.
    full = network.refined(BitConfig({**config.precisions, "stem": Precision.parse("Wfp32Abf16")}))
    assert any(not torch.equal(refined.weights[n].values, weight.values) for n, weight in full.weights.items())


def test_nothing_is_refined_where_nothing_is_found():
    network = network_of("mlp", recipe=Recipe())

    with pytest.raises(InputError, match=r"expected a recipe that finds weights from data, got nearest\..*; use gram"):
        network.refined(cycled(network, "W4A8"))


def test_a_configuration_of_another_network_is_refused():
    network = network_of("mlp")

    with pytest.raises(InputError, match="expected layer names of this network, got 'other'"):
        network.refined(BitConfig({"other": Precision.parse("W4A8")}))


@pytest.mark.parametrize("name", ["reused", "tied"])
def test_a_shared_weight_stays_at_nearest(name):
    network, plain = network_of(name), network_of(name, recipe=Recipe(activation_ranges="minmax"))
    config = cycled(network, "W3A8", "W4A8")
    shared = [layer for layer in network.captured.layers if layer.weight not in rebuildable(network.program)]

    refined = network.refined(config)

    assert any(layer.weight is not None for layer in shared)
    fitted = network.fitted(refined)
    for layer in shared:
        if layer.weight is None:
            continue
        assert layer.weight not in refined.weights
        number_format = config.precisions[layer.name].weights
        found, expected = (n.quantized_weight(layer, number_format).values for n in (fitted, plain))
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_progress_is_shown():
    network = network_of("residual")
    config = cycled(network, "W2A8", "W4A8")
    network.configure(config)
    listener = Listener()

    network.refined(config, progress=listener)

    layers = len(rebuildable(network.program))
    assert listener.stages == [("refine", layers)]
    assert listener.steps == layers


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["residual", "mlp"])
def test_a_layer_has_the_weight_of_a_network_in_that_format_alone(name, threads):
    formats = [parse(text) for text in ("int2", "int3", "int4")]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = network_of(name)
        together.reconstruct(formats)
        alone = [network_of(name) for _ in formats]
        for network, number_format in zip(alone, formats, strict=True):
            network.reconstruct([number_format])
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)

    config = cycled(together, "W2A8", "W3A8", "W4A8")
    setting = together.configure(config)
    for layer in together.captured.layers:
        number_format = config.precisions[layer.name].weights
        other = alone[formats.index(number_format)]
        whole = other.configure(cycled(other, f"W{number_format.bits}A8"))
        position = together.program.weights[layer.weight]
        torch.testing.assert_close(setting.weights[position], whole.weights[position], rtol=0, atol=0)
        bias = together.program.biases.get(layer.name)
        assert (bias in setting.biases) == (bias in whole.biases)
        if bias in setting.biases:
            torch.testing.assert_close(setting.biases[bias], whole.biases[bias], rtol=0, atol=0)
