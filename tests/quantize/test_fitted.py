"""Numbers of one configuration: kept in a file, and used wherever the network is asked."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from hwdse.errors import InputError, RunFolderError
from hwdse.formats import Granularity, Precision, Scheme, Symmetry
from hwdse.graph import BitConfig
from hwdse.quantize.fitted import Fitted
from hwdse.quantize.network import QuantizedNetwork
from hwdse.quantize.observe import observe
from hwdse.quantize.quantizer import UniformQuantizer
from hwdse.quantize.recipe import Recipe
from tests import networks

ABOUT = {"network": "n", "data": "d", "bits": "b"}


def network_of(name: str, scheme: Scheme | None = None) -> QuantizedNetwork:
    program = networks.program(name)
    batches = [networks.CASES[name].inputs(8, seed=seed) for seed in (1, 2)]
    return QuantizedNetwork(
        program, scheme=scheme or Scheme(), streams=observe(program, batches), recipe=Recipe(activation_ranges="minmax")
    )


def fitted_of(network: QuantizedNetwork, texts: tuple[str, ...]) -> Fitted:
    """Return numbers that differ a little from those of the recipe."""
    graph = network.captured
    config = graph.config([Precision.parse(texts[g % len(texts)]) for g in range(len(graph.groups))])
    setting = network.configure(config)
    weights, biases = {}, {}
    for layer in graph.layers:
        if layer.weight is None or config.precisions[layer.name].weights.name == "fp32":
            continue
        found = network.quantized_weight(layer, config.precisions[layer.name].weights)
        weights[layer.weight] = replace(found, values=found.values * 1.25, scale=found.scale * 1.25)
        if layer.name in network.program.biases:
            biases[layer.name] = network.program.constants[network.program.biases[layer.name]] + 0.25
    quantizers = {
        point: replace(q, scale=q.scale * 1.5) if hasattr(q, "scale") else q for point, q in setting.quantizers.items()
    }
    return Fitted(config, weights, biases, quantizers)


def same(one: Fitted, other: Fitted) -> None:
    assert one.config.precisions == other.config.precisions
    assert list(one.config.precisions) == list(other.config.precisions)
    assert one.quantizers == other.quantizers
    assert one.weights.keys() == other.weights.keys()
    for name, found in one.weights.items():
        for part in ("values", "scale", "zero_point"):
            mine, theirs = getattr(found, part), getattr(other.weights[name], part)
            assert torch.equal(mine, theirs)
            assert mine.dtype == theirs.dtype
        assert found.levels == other.weights[name].levels
    assert one.biases.keys() == other.biases.keys()
    assert all(torch.equal(bias, other.biases[name]) for name, bias in one.biases.items())


KINDS = {
    "integers": (Scheme(), ("W2A8", "W4A4", "W8A8")),
    "affine": (Scheme(weights=Symmetry.AFFINE, activations=Symmetry.AFFINE), ("W4A8",)),
    "blocks": (Scheme(weight_granularity=Granularity.PER_BLOCK, block_size=5), ("W4A8", "fp32")),
    "codebooks": (Scheme(), ("Wcodebook3A8", "Wquantile3Aposit8_0", "Wnf4Afp16", "Wposit6_0Abf16")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_gives_everything_back(kind, tmp_path):
    scheme, texts = KINDS[kind]
    fitted = fitted_of(network_of("residual", scheme), texts)
    path = fitted.save(tmp_path / "weights.npz", ABOUT)
    loaded = Fitted.load(path, ABOUT)
    same(fitted, loaded)
    convolution = next(w.values for w in loaded.weights.values() if w.values.ndim == 4 and w.values.shape[1] > 1)
    assert convolution.is_contiguous(memory_format=torch.channels_last)
    with np.load(path, allow_pickle=False) as archive:
        assert json.loads(str(archive["header"]))["about"] == ABOUT
    assert [p.name for p in tmp_path.iterdir()] == ["weights.npz"]


def test_a_file_of_something_else_is_refused(tmp_path):
    fitted = fitted_of(network_of("mlp"), ("W4A8",))
    path = fitted.save(tmp_path / "weights.npz", ABOUT)
    with pytest.raises(RunFolderError, match=r"fitted for the same question, got another data, network; remove"):
        Fitted.load(path, {**ABOUT, "network": "m", "data": "e"})
    with pytest.raises(RunFolderError, match=r"expected fitted weights in .*gone\.npz, got no file"):
        Fitted.load(tmp_path / "gone.npz", ABOUT)
    content = path.read_bytes()
    for damaged in (b"", b"nothing", content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(RunFolderError, match="got a damaged file"):
            Fitted.load(path, ABOUT)
    np.savez(path, header=np.array(json.dumps({"about": ABOUT})))
    with pytest.raises(RunFolderError, match="got a damaged file"):
        Fitted.load(path, ABOUT)
    np.savez(path, header=np.array([{"about": ABOUT}], dtype=object))
    with pytest.raises(RunFolderError, match="got a damaged file"):
        Fitted.load(path, ABOUT)


def test_short_floats_are_refused(tmp_path):
    fitted = fitted_of(network_of("mlp"), ("W4A8",))
    name, found = next(iter(fitted.weights.items()))
    short = replace(fitted, weights={name: replace(found, values=found.values.half())})
    with pytest.raises(InputError, match=f"expected weights in float32 or float64, got torch.float16 at {name}"):
        short.save(tmp_path / "weights.npz", ABOUT)


def test_a_network_answers_with_what_was_fitted():
    network = network_of("residual")
    fitted = fitted_of(network, ("W4A8", "W2A8"))
    other = network.fitted(fitted)
    setting, before = other.configure(fitted.config), network.configure(fitted.config)
    for layer in network.captured.layers:
        number_format = fitted.config.precisions[layer.name].weights
        assert other.quantized_weight(layer, number_format) is fitted.weights[layer.weight]
        assert other.bias(layer, number_format) is fitted.biases[layer.name]
        position = network.program.weights[layer.weight]
        assert setting.weights[position] is fitted.weights[layer.weight].values
        assert not torch.equal(before.weights[position], setting.weights[position])
        assert setting.biases[network.program.biases[layer.name]] is fitted.biases[layer.name]
    assert setting.quantizers == fitted.quantizers
    assert isinstance(setting.quantizers[network.captured.layers[0].input], UniformQuantizer)
    # The network that it was made from, and full precision, stay what they are.
    assert network.configure(fitted.config).quantizers == before.quantizers
    batch = networks.CASES["residual"].inputs(3, seed=5)
    assert torch.equal(other.forward(batch, other.setting({})), network.forward(batch, network.setting({})))


def test_what_was_not_fitted_is_as_the_recipe_finds_it():
    network = network_of("residual")
    whole = fitted_of(network, ("W4A8",))
    layer = network.captured.layers[1]
    part = Fitted(whole.config, {layer.weight: whole.weights[layer.weight]})
    setting, before = network.fitted(part).configure(whole.config), network.configure(whole.config)
    assert setting.quantizers == before.quantizers
    assert not setting.biases
    changed = {p for p, w in setting.weights.items() if w is not before.weights[p]}
    assert changed == {network.program.weights[layer.weight]}


def test_another_configuration_is_refused():
    network = network_of("residual")
    fitted = fitted_of(network, ("W4A8",))
    names = list(fitted.config.precisions)
    changed = BitConfig({**fitted.config.precisions, names[-1]: Precision.parse("W8A8")})
    sentence = f"fitted for, with W4A8 at {names[-1]}, got W8A8; use the network without them"
    with pytest.raises(InputError, match=sentence):
        network.fitted(fitted).configure(changed)
    with pytest.raises(InputError, match=f"with W4A8 at {names[1]}, got fp32"):
        network.fitted(fitted).setting({names[0]: Precision.parse("W4A8")})
    unknown = replace(fitted, config=BitConfig({"nobody": Precision.parse("W4A8")}))
    with pytest.raises(InputError, match="expected layer names of this network, got 'nobody'"):
        network.fitted(unknown)
