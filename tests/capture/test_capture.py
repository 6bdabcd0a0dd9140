"""Layer graphs of whole networks against counts worked out by hand and by the framework's own counter."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import hwdse
from hwdse.capture import Capture, capture
from hwdse.errors import CaptureError
from hwdse.graph import Layer
from tests import networks

# Multiply-accumulates and parameters after folding, layer by layer in the order of execution.
BY_HAND = {
    "mlp": (12 * 20 + 20 * 5, 12 * 20 + 20 + 2 * 20 + 20 * 5),
    "residual": (
        8 * 144 * 27 + 2 * 8 * 144 * 72 + 16 * 36 * 72 + 16 * 36 * 144 + 16 * 36 * 8 + 160,
        (216 + 8) + 2 * (576 + 8) + (1152 + 16) + (2304 + 16) + (128 + 16) + 170,
    ),
    # He et al. 2016: 0.27 M parameters; stem, 6 convolutions at 32x32, 6 at 16x16, 6 at 8x8.
    "resnet20": (
        442_368 + 6 * 2_359_296 + 2 * (1_179_648 + 5 * 2_359_296) + 640,
        (432 + 6 * 2_304 + 4_608 + 5 * 9_216 + 18_432 + 5 * 36_864 + 640) + (7 * 16 + 6 * 32 + 6 * 64 + 10),
    ),
    # MLPerf Tiny: 2.7 M MACs; stem to 25x5, four pairs of depthwise and pointwise.
    "dscnn": (64 * 125 * (40 + 4 * 9 + 4 * 64) + 768, 64 * 41 + 4 * (64 * 10 + 64 * 65) + 65 * 12),
    # Six words; per block q, k, v, two products in four heads of four, o, gate, up, down; then the head.
    "llama": (
        2 * 6 * (256 + 128 + 128 + 2 * 4 * 6 * 4 + 256 + 3 * 384) + 6 * 640,
        640 + 2 * (256 + 128 + 128 + 256 + 3 * 384 + 2 * 16) + 16,
    ),
    "vit": (
        4 * 16 * 48 + 5 * 768 + 2 * 2 * 25 * 8 + 5 * 256 + 2 * 5 * 512 + 112,
        16 * 49 + 16 + 80 + 4 * 16 + 48 * 17 + 16 * 17 + 32 * 17 + 16 * 33 + 7 * 17,
    ),
    "packed": (6 * 8 * 24 + 2 * 36 * 8 + 6 * 64, 24 * 9 + 8 * 9),
    "encoder": (5 * 192 + 2 * 25 * 8 + 5 * 64 + 2 * 5 * 128, 24 * 9 + 8 * 9 + 16 * 9 + 8 * 17 + 4 * 8),
    "reused": (64 * 6 * 27 + 3 * 64 * 6 * 54, 6 * 28 + 6 * 55),
    "tied": (2 * 60, 60 + 6 + 10),
    "inception": (64 * (4 * 4 + 6 * 36 + 5 * 14), 4 * 5 + 6 * 37 + 5 * 15),
    "functional": (8 * 55 * 30 + 4 * 55 * 72 + 12 * 30 * 3, 240 + 288 + 4 + 36 + 12),
    # The norms that nothing can take in keep scale and shift; the bare one becomes a bias.
    "odd_norms": (49 * (4 * 36 + 2 * 4 * 36 + 6 * 4), 8 + (144 + 4) + 8 + 144 + 8 + (24 + 6)),
    "products": (54 + 72 + 32 + 8, 54 + 9 + 72 + 32),
    "normed": (6 * 49 * 27 + 24, 6 * 28 + 4 * 7),
    "siamese": (4 * 16 * 27 + 20, 4 * 28 + 4 * 6),
    "aliases": (6 * 36 + 6 * 18, 42 + 21),
}


def layer_of(captured: Capture, name: str) -> Layer:
    return captured.layers[captured.layer_index[name]]


@pytest.mark.parametrize("name", networks.CASES)
def test_counts_are_those_worked_out_by_hand(name: str) -> None:
    captured = networks.captured(name)
    assert (captured.macs, captured.parameter_count) == BY_HAND[name]


@pytest.mark.parametrize("name", networks.CASES)
def test_macs_are_half_of_what_the_framework_counts(name: str) -> None:
    inputs = networks.CASES[name].inputs(1)
    # With gradients, and attention in plain products: the counter does not see into fused inference kernels.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        networks.model(name)(*inputs)
    assert 2 * networks.captured(name).macs == counter.get_total_flops()


@pytest.mark.parametrize("name", ["residual", "packed", "encoder", "vit"])
@pytest.mark.parametrize("batch", [2, 5])
def test_counts_are_per_sample_whatever_the_example(name: str, batch: int) -> None:
    case = networks.CASES[name]
    again = capture(networks.model(name), case.inputs(batch), dynamic_dims=case.dynamic_dims)
    assert again == networks.captured(name)


def test_counts_are_for_the_examples_length() -> None:
    case = networks.CASES["packed"]
    longer = capture(networks.model("packed"), case.inputs(1, length=9), dynamic_dims=(0, 1))
    assert longer.macs == 9 * 8 * 24 + 2 * 81 * 8 + 9 * 64
    assert longer.layers[0].input_shape == (9, 8)


def test_layers_are_named_by_their_module_paths() -> None:
    names = {name: [layer.name for layer in networks.captured(name).layers] for name in networks.CASES}
    assert names["residual"] == ["stem", "a1", "a2", "b1", "b2", "short", "head"]
    assert names["resnet20"][:4] == ["conv1", "layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1"]
    assert names["dscnn"][:3] == ["stem.1", "blocks.0.0.0", "blocks.0.1.0"]
    assert names["reused"] == ["stem", "loop", "loop@2", "loop@3"]
    assert names["tied"] == ["weight", "weight@2"]
    assert names["functional"] == ["w1", "w2", "line"]
    assert names["normed"] == ["conv.conv2d", "head.linear"]
    block = ["q", "k", "v", "matmul", "matmul_1", "o", "gate", "up", "down"]
    assert names["llama"][:9] == [f"blocks.0.{part}" for part in block]


def test_what_must_be_chosen_together() -> None:
    groups = {name: [g.layers for g in networks.captured(name).groups if len(g.layers) > 1] for name in networks.CASES}
    assert groups["residual"] == [("b1", "short")]
    assert groups["resnet20"] == groups["dscnn"] == groups["mlp"] == groups["vit"] == groups["packed"] == []
    assert groups["llama"] == [
        tuple(f"blocks.{b}.{name}" for name in names) for b in range(2) for names in (("q", "k", "v"), ("gate", "up"))
    ]
    assert groups["reused"] == [("loop", "loop@2", "loop@3")]
    assert groups["odd_norms"] == [("shared", "shared@2")]
    assert groups["tied"] == [("weight", "weight@2")]
    assert groups["inception"] == [("one", "three")]


def test_a_convolution_is_described_in_full() -> None:
    strided = layer_of(networks.captured("functional"), "w1")
    assert (strided.op, strided.input_shape, strided.output_shape) == ("conv", (4, 9, 11), (8, 5, 11))
    assert (strided.weight, strided.weight_shape, strided.bias, strided.bias_count) == ("w1", (8, 2, 3, 5), None, 0)
    assert (strided.kernel, strided.stride, strided.groups, strided.op_class) == ((3, 5), (2, 1), 2, "grouped")
    dilated = layer_of(networks.captured("functional"), "w2")
    assert (dilated.stride, dilated.groups, dilated.bias, dilated.bias_count) == ((1, 1), 1, "b2", 4)
    line = layer_of(networks.captured("functional"), "line")
    assert (line.input_shape, line.output_shape, line.kernel, line.stride) == ((4, 60), (12, 30), (3,), (2,))
    assert (line.groups, line.op_class) == (4, "depthwise")
    assert layer_of(networks.captured("dscnn"), "blocks.2.1.0").op_class == "pointwise"
    folded = layer_of(networks.captured("residual"), "stem")
    assert (folded.bias, folded.bias_count, folded.input, folded.output) == (None, 8, "x", "relu")


def test_a_product_of_activations_is_described_in_full() -> None:
    scores = layer_of(networks.captured("llama"), "blocks.1.matmul_2")
    assert (scores.op, scores.weight, scores.weight_count, scores.macs) == ("matmul", None, 0, 4 * 6 * 6 * 4)
    assert (scores.input_shape, scores.second_shape, scores.output_shape) == ((4, 6, 4), (4, 4, 6), (4, 6, 6))
    packed = layer_of(networks.captured("packed"), "matmul")
    assert packed.input == packed.second_input == "linear"  # queries and keys lie in one tensor


def test_weights_as_columns_are_turned() -> None:
    columns, matrix, mix, scores = networks.captured("products").layers
    assert (columns.weight_shape, columns.bias, columns.bias_count) == ((9, 6), "shift", 9)
    assert (matrix.weight_shape, matrix.bias_count, mix.weight_shape) == ((8, 9), 0, (4, 8))
    assert (scores.op, scores.input_shape, scores.second_shape, scores.output_shape) == (
        "matmul",
        (2, 2),
        (2, 2),
        (2, 2),
    )
    shapes = [layer.weight_shape for layer in networks.captured("tied").layers]
    assert shapes == [(6, 10), (10, 6)]


def test_the_language_models_head_is_its_embedding() -> None:
    captured = networks.captured("llama")
    head = captured.layers[-1]
    assert (head.weight, head.weight_shape, head.output_shape) == ("embedding.weight", (40, 16), (6, 40))
    assert captured.other_parameters == 5 * 16  # the norms; the embedding counts with the head


def test_formats_change_hands_between_producers_and_consumers() -> None:
    def edges(name: str) -> set[tuple[str, str]]:
        captured = networks.captured(name)
        return {(captured.layers[a].name, captured.layers[b].name) for a, b in captured.edges}

    assert edges("residual") == {
        ("stem", "a1"), ("a1", "a2"), ("a2", "b1"), ("a2", "short"), ("b1", "b2"), ("b2", "head"), ("short", "head"),
    }  # fmt: skip
    assert edges("inception") == {("one", "after"), ("three", "after")}
    assert edges("reused") == {("stem", "loop"), ("loop", "loop@2"), ("loop@2", "loop@3")}
    assert edges("packed") == {("qkv", "matmul"), ("qkv", "matmul_1"), ("matmul", "matmul_1"), ("matmul_1", "out")}


def test_capture_changes_nothing_of_the_model() -> None:
    model = networks.Residual()
    model.train()
    model.a1_norm.eval()
    model.head.weight.requires_grad_(False)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    pointers = {name: value.data_ptr() for name, value in model.named_parameters()}
    example = torch.randn(1, 3, 12, 12)
    before = example.clone()
    captured = hwdse.capture(model, example)
    assert [m for m in model.modules() if not m.training] == [model.a1_norm]
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert {name: value.data_ptr() for name, value in model.named_parameters()} == pointers
    assert [name for name, value in model.named_parameters() if not value.requires_grad] == ["head.weight"]
    assert torch.equal(example, before)
    assert captured == capture(model.eval(), example)


def test_a_failed_capture_restores_the_mode() -> None:
    model = nn.Sequential(nn.LSTM(4, 4, batch_first=True)).train()
    with pytest.raises(CaptureError, match=r"aten\.lstm"):
        capture(model, torch.randn(2, 3, 4))
    assert model.training
    assert model[0].training


def test_a_recurrent_layer_that_cannot_be_exported_is_named() -> None:
    class Summary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.memory, self.head = nn.LSTM(4, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            state = torch.zeros(1, int(x.shape[0]), 4)
            return self.head(self.memory(x, (state, state))[0][:, -1])

    with pytest.raises(CaptureError, match=r"; replace the recurrent layer 'memory': recurrent layers have no cost"):
        capture(Summary(), torch.randn(2, 3, 4))


def test_layers_that_share_an_assigned_parameter_are_one_group() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    captured = capture(model, torch.randn(2, 4))
    assert len(captured.groups) == 1
    assert captured.parameter_count == 16 + 4 + 4


def test_operators_are_listed_for_the_fingerprint() -> None:
    operators = networks.captured("inception").operators
    assert operators == ("max_pool2d", "conv2d", "relu", "conv2d", "relu", "cat", "conv2d")


@pytest.mark.parametrize("example", [(), (torch.zeros(0, 4),), ([1.0, 2.0],), (torch.tensor(1.0),), ("x",)])
def test_examples_are_tensors_with_a_batch(example: object) -> None:
    with pytest.raises(CaptureError, match="expected example inputs as a tensor or a tuple of tensors, batch first"):
        capture(nn.Linear(4, 4), example)


def test_there_must_be_something_to_quantize() -> None:
    with pytest.raises(CaptureError, match="at least one convolution, linear or matrix product, got none in ReLU"):
        capture(nn.ReLU(), torch.randn(2, 4))
