"""ONNX files against the simulation, number by number, and against what is really in them."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from hwdse.capture import capture
from hwdse.deploy.audit import audit
from hwdse.deploy.onnx import explicit_model, stored_bytes, write_onnx
from hwdse.deploy.run import compare, run
from hwdse.deploy.translate import Translation
from hwdse.errors import InputError
from hwdse.formats import Granularity, Precision, Scheme, Symmetry
from hwdse.graph import BitConfig
from hwdse.hardware.measure.session import open_session
from hwdse.quantize.network import QuantizedNetwork, Setting
from hwdse.quantize.observe import observe
from hwdse.quantize.program import Program
from tests import networks
from tests.deploy.cases import BLOCKS, CPU, MINMAX, content, cycled, inputs, made, network_of, uniform

ALL = sorted({*networks.CASES, "mobile", "wide"} - {"resnet20", "tied"})


def arrays(model: bytes) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load_from_string(model).graph.initializer}


def operators(model: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_from_string(model).graph.node)


@pytest.mark.parametrize("name", ALL)
def test_full_precision_is_the_network(name):
    network = network_of(name)
    model = content(name, network, uniform(network.captured, "fp32"))
    onnx.checker.check_model(onnx.load_from_string(model))
    batch = inputs(name, 5, 9)  # another batch than the example's
    expected = torch.utils._pytree.tree_leaves(network.forward(batch, Setting()))
    found = run(open_session(model), batch)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("texts", [("W8A8",), ("W4A8", "fp32", "W8A8"), ("W2A4", "W8A8")], ids=" ".join)
def test_integers_are_the_simulation_to_one_code(name, texts):
    network = network_of(name)
    config = cycled(network.captured, *texts)
    model = content(name, network, config)
    found = compare(network, config, model, [inputs(name, 16, 9), inputs(name, 4, 10)])
    assert found.samples == 20
    assert found.codes > 0
    assert found.largest_lsb <= 1
    assert found.equal > 0.9
    wrong = [one for one in audit(model, config.precisions) if not one.is_as_requested]
    assert wrong == []


@pytest.mark.parametrize("scheme", [Scheme(), Scheme(full_range=True, unsigned_activations=False)], ids=lambda s: s.key)
@pytest.mark.parametrize("name", ["residual", "vit"])
def test_signed_codes_are_shifted_and_keep_their_values(name, scheme):
    network = network_of(name, scheme)
    config = cycled(network.captured, "W8A8", "W4A4")
    found = compare(network, config, content(name, network, config), [inputs(name, 16, 9)])
    assert found.largest_lsb <= 1
    assert found.equal > 0.99


@pytest.mark.parametrize("weights", Symmetry)
@pytest.mark.parametrize("granularity", [Granularity.PER_TENSOR, Granularity.PER_CHANNEL])
def test_stored_weights_are_the_simulated_ones(weights, granularity):
    network = network_of("residual", Scheme(weights, Symmetry.AFFINE, granularity))
    config = cycled(network.captured, "W8A8", "W3A8")
    found = arrays(content("residual", network, config))
    for layer in network.captured.layers:
        codes = found[layer.weight].astype(np.float64)
        scale = found[f"{layer.weight}:scale"]
        zero = found.get(f"{layer.weight}:zero", np.zeros(scale.shape, np.int8))
        rows = scale.shape if scale.ndim == 0 else (-1, *[1] * (codes.ndim - 1))
        values = ((codes - zero.reshape(rows)) * scale.reshape(rows)).astype(np.float32)
        expected = network.quantized_weight(layer, config.precisions[layer.name].weights).values
        assert found[layer.weight].dtype == np.int8
        np.testing.assert_array_equal(values, expected.numpy())


@pytest.mark.parametrize("bits", [4, 2])
def test_narrow_weights_are_packed(bits):
    """Two or four to the byte, the first one lowest; the runtime still computes the same."""
    network = network_of("residual")
    config = uniform(network.captured, f"W{bits}A8")
    stored = dict.fromkeys(network.captured.layer_index, bits)
    model = content("residual", network, config, stored_bits=stored)
    layers = {layer.weight: layer for layer in network.captured.layers}
    for tensor in onnx.load_from_string(model).graph.initializer:
        if tensor.name in layers:
            found = network.quantized_weight(layers[tensor.name], config.precisions["head"].weights)
            whole = (found.values.flatten(1) / found.scale[:, None]).round().to(torch.int8).numpy().reshape(-1)
            assert tensor.data_type == {4: onnx.TensorProto.INT4, 2: onnx.TensorProto.INT2}[bits]
            codes = np.frombuffer(tensor.raw_data, np.uint8)
            assert len(codes) == -(-len(whole) * bits // 8)
            unpacked = np.stack([codes >> (bits * i) & (2**bits - 1) for i in range(8 // bits)], 1).reshape(-1)
            np.testing.assert_array_equal(unpacked[: len(whole)], whole.view(np.uint8) & (2**bits - 1))
    x = inputs("residual", 4, 3)
    expected = network.forward(x, network.configure(config)).numpy()
    np.testing.assert_allclose(run(open_session(model), x)[0], expected, atol=0.02 * np.abs(expected).max())


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_blocks_are_packed_and_multiplied(bits):
    """Rows of 48 values are a block of 32 and a padded one."""
    network = network_of("wide", BLOCKS)
    linears = {layer.name: layer for layer in network.captured.layers if layer.op == "linear"}
    full = uniform(network.captured, "fp32").precisions
    config = BitConfig({**full, **dict.fromkeys(linears, Precision.parse(f"W{bits}Afp32"))})
    model = content("wide", network, config)
    nodes = [n for n in onnx.load_from_string(model).graph.node if n.op_type == "MatMulNBits"]
    assert sorted(node.name for node in nodes) == sorted(linears)
    found = arrays(model)
    for name, layer in linears.items():
        packed, scale = found[layer.weight], found[f"{layer.weight}:scale"].reshape(layer.weight_shape[0], -1, 1)
        codes = np.stack([packed >> (bits * i) & (2**bits - 1) for i in range(8 // bits)], -1)
        values = (codes.reshape(*packed.shape[:2], -1).astype(np.float64) - 2 ** (bits - 1)) * scale
        values = values.reshape(layer.weight_shape[0], -1)
        expected = network.quantized_weight(layer, config.precisions[name].weights).values.numpy()
        np.testing.assert_array_equal(values[:, : layer.weight_shape[1]].astype(np.float32), expected)
        assert not values[:, layer.weight_shape[1] :].any()
    agreement = compare(network, config, model, [inputs("wide", 8, 3)])
    assert 0 < agreement.relative < 0.02  # the runtime rounds what it reads to int8
    assert [one for one in audit(model, config.precisions) if not one.is_as_requested] == []


def test_what_the_codes_make_superfluous_is_gone():
    network = network_of("mobile")
    assert operators(content("mobile", network, uniform(network.captured, "fp32")))["Clip"] == 7
    quantized = content("mobile", network, uniform(network.captured, "W8A8"))
    assert operators(quantized)["Clip"] == 0
    assert operators(content("mobile", network, uniform(network.captured, "W8A4")))["Clip"] == len(
        network.configure(uniform(network.captured, "W8A4")).quantizers
    )  # these cut codes
    found = arrays(quantized)
    clipped = [name for name in found if name.startswith("hardtanh") and name.endswith(":zero")]
    assert len(clipped) == 7
    assert all(found[name] == 0 for name in clipped)
    for name, value in found.items():
        if name.endswith((":scale", ":zero")) and name.partition(":")[0] in network.program.points:
            assert value.shape == ()


def test_a_clip_that_codes_do_not_cover_stays():
    class Narrow(nn.Module):
        """Values beyond the clip are rounded, too, since calibration saw a wider range than the clip leaves."""

        def __init__(self):
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x):
            return self.last(self.conv(x).clamp(0.5, 1.0))

    x = torch.rand(16, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    program = Program.of(capture(Narrow().eval(), x), written=True)
    network = QuantizedNetwork(program, scheme=CPU, streams=observe(program, [x]), recipe=MINMAX)
    config = uniform(program.captured, "W8A8")
    model = explicit_model(Translation.of(program), network, config).SerializeToString()
    assert operators(model)["Clip"] == 1  # codes reach down to 0, the clip to 0.5
    assert compare(network, config, model, [x]).largest_lsb <= 1


def test_a_bias_beyond_int32_widens_its_channel():
    """A batch norm that all but removed a channel leaves its shift alone."""

    class Dead(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.last = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)

        def forward(self, x):
            return self.last(self.norm(self.conv(x)).relu())

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Dead().eval()
    model.norm.weight.data[1] = 1e-12
    model.norm.bias.data = torch.tensor([0.1, 0.7, -0.2, 0.3])
    x = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    program = Program.of(capture(model, x), written=True)
    network = QuantizedNetwork(program, scheme=CPU, streams=observe(program, [x]), recipe=MINMAX)
    config = uniform(program.captured, "W8A8")
    found = explicit_model(Translation.of(program), network, config).SerializeToString()
    scales = arrays(found)["conv:conv.weight:scale"]
    own = network.quantized_weight(program.captured.layers[0], config.precisions["conv"].weights).scale.numpy()
    assert scales[1] > own[1] * 1000
    np.testing.assert_array_equal(scales[[0, 2, 3]], own[[0, 2, 3]].astype(np.float32))
    assert np.abs(arrays(found)["conv:bias"][1]) == pytest.approx(2**30, rel=1e-3)
    assert compare(network, config, found, [x]).largest_lsb <= 1


def test_a_shared_weight_is_stored_once():
    network = network_of("llama")
    model = content("llama", network, uniform(network.captured, "W8A8"))
    assert sum(a.shape == (40, 16) for a in arrays(model).values()) == 1  # embedding and head
    network = network_of("reused")
    found = arrays(content("reused", network, uniform(network.captured, "W8A8")))
    assert sum(a.ndim == 4 for a in found.values()) == 2


def test_the_file_is_little_more_than_its_numbers():
    network = network_of("mobile")
    model = content("mobile", network, uniform(network.captured, "W8A8"))
    layers = network.captured.layers
    numbers = sum(layer.weight_count + 8 * layer.output_channels for layer in layers)  # int32 bias, a scale
    whole = onnx.load_from_string(model)
    assert stored_bytes(whole) == pytest.approx(numbers, rel=0.02)
    assert not any(node.doc_string or node.metadata_props for node in whole.graph.node)
    assert not whole.graph.value_info
    contents = [t.raw_data for t in whole.graph.initializer if len(t.raw_data) > 64 and any(t.raw_data)]
    assert len(set(contents)) == len(contents)


def test_properties_come_with_the_model():
    network = network_of("mlp")
    model = content("mlp", network, uniform(network.captured, "W8A8"), properties={"device": "desk"})
    assert {p.key: p.value for p in onnx.load_from_string(model).metadata_props} == {"device": "desk"}


REFUSED = {
    "float format": ("residual", CPU, "Wfp8_e4m3Afp8_e4m3", r"at stem \(conv\) under .*; it holds fp32, integers"),
    "too wide": ("residual", CPU, "W8A16", r"got W8A16 at stem"),
    "weights alone": ("mlp", CPU, "W8Afp32", r"got W8Afp32 at first \(linear\)"),
    "activations alone": ("mlp", CPU, "Wfp32A8", r"got Wfp32A8 at first"),
    "convolution in blocks": ("residual", BLOCKS, "W4Afp32", r"got W4Afp32 at stem \(conv\)"),
    "integers in blocks": ("mlp", BLOCKS, "W8A8", r"got W8A8 at first"),
    "three bits in blocks": ("mlp", BLOCKS, "W3Afp32", r"got W3Afp32 at first"),
    "block of 48": (
        "mlp",
        Scheme(weight_granularity=Granularity.PER_BLOCK, block_size=48),
        "W4Afp32",
        r"symmetric blocks of 32, 64, 128",
    ),
    "tied": ("tied", CPU, "W8A8", r"scale per output channel, got weight at weight@2, .* reads it transposed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_held_is_refused(case):
    name, scheme, text, sentence = REFUSED[case]
    network = network_of(name, scheme)
    with pytest.raises(InputError, match=sentence):
        content(name, network, uniform(network.captured, text))


def test_blocks_that_an_embedding_reads_are_refused():
    network = network_of("llama", BLOCKS)
    head = network.captured.layers[-1].name
    config = BitConfig({**uniform(network.captured, "fp32").precisions, head: Precision.parse("W4Afp32")})
    with pytest.raises(InputError, match=r"products alone read, got embedding\.weight at .*, which something else"):
        content("llama", network, config)


def test_another_networks_translation_is_refused():
    network = network_of("mlp")
    with pytest.raises(InputError, match="expected the translation of this network's program, got another one"):
        explicit_model(made("residual")[2], network, uniform(network.captured, "W8A8"))


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_package_is_one_sentence(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"expected onnx and onnxscript, got .*; pip install 'hwdse\[onnx\]'"):
        Translation.of(networks.program("mlp"))


def test_an_operator_that_onnx_has_not_is_one_sentence():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.line = nn.Linear(4, 4)

        def forward(self, x):
            return torch.special.i0e(self.line(x))

    program = Program.of(capture(Odd().eval(), torch.zeros(2, 4)))
    with pytest.raises(InputError, match=r"operators that the ONNX exporter knows, got .*i0e") as caught:
        Translation.of(program)
    assert "\n" not in str(caught.value)


def test_a_file_is_whole_or_absent(tmp_path: Path):
    network = network_of("mlp")
    model = explicit_model(made("mlp")[2], network, uniform(network.captured, "W8A8"))
    path = write_onnx(tmp_path / "new" / "mlp.onnx", model)
    assert path.read_bytes() == model.SerializeToString()
    assert [p.name for p in path.parent.iterdir()] == ["mlp.onnx"]
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"expected to write .*mlp\.onnx, got: .*; name a file in a folder"):
        write_onnx(tmp_path / "file" / "mlp.onnx", model)


@pytest.mark.parametrize("name", ["residual", "mlp"])
def test_reconstructed_weights_and_their_biases_are_in_the_file(name):
    program, streams, plain = made(name)
    batches = [inputs(name, 16, seed) for seed in (1, 2)]
    recipe = replace(MINMAX, weight_rounding="gram")
    network = QuantizedNetwork(program, scheme=CPU, streams=streams, recipe=recipe, batches=batches)
    config = uniform(program.captured, "W4A8")
    changed = program.with_constants(network.configure(config).biases)

    found = explicit_model(Translation.of(changed), network, config).SerializeToString()

    assert compare(network, config, found, batches).holds
    with pytest.raises(InputError, match="expected the translation of this network's program, got another one"):
        explicit_model(plain, network, config)
