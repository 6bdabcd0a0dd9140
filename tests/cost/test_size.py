from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hwdse.cost import cost_table, fp32_size_kib
from hwdse.formats import Precision
from hwdse.graph import Layer, LayerGraph, LiveSet, Tensor, tie
from hwdse.hardware import HardwareProfile, load_profile, parse_profile

P = Precision.parse
MPIC, STM32, T4 = (load_profile(name) for name in ("mpic", "stm32h7a3", "nvidia_t4"))


@pytest.fixture
def small(chain: Callable[[Sequence[int]], Any]) -> LayerGraph:
    net = chain((3, 8, 8))
    net.conv(5, 3)  # 135 weights, 5 biases
    net.linear(7)  # 2240 weights, 7 biases
    return net.graph()


def sizes(graph: LayerGraph, device: HardwareProfile, *precisions: str) -> Any:
    table = cost_table(graph, device, [P(text) for text in precisions], metrics=["size_kib"])
    return table.values[..., 0] * 1024, table.constant[0] * 1024


def test_weights_are_packed_and_scales_and_biases_counted(small: LayerGraph) -> None:
    # Per channel and symmetric: weights + 4 per channel (scale) + 4 per channel (bias) + 4 (input scale).
    values, constant = sizes(small, MPIC, "W8A8", "W4A8", "W2A8")
    assert values[0] == pytest.approx([135 + 20 + 20 + 4, 68 + 20 + 20 + 4, 34 + 20 + 20 + 4])
    assert values[1] == pytest.approx([2240 + 28 + 28 + 4, 1120 + 28 + 28 + 4, 560 + 28 + 28 + 4])
    assert constant == 0


def test_affine_activations_add_a_zero_point(small: LayerGraph) -> None:
    symmetric, _ = sizes(small, MPIC, "W8A8", "W4A4")
    affine, _ = sizes(small, STM32, "W8A8", "W4A4")
    assert affine - symmetric == pytest.approx(np.ones((2, 2)))


def test_fp32_has_neither_scales_nor_zero_points(small: LayerGraph) -> None:
    values, _ = sizes(small, STM32, "fp32")
    assert values[:, 0] == pytest.approx([140 * 4, 2247 * 4])
    assert values.sum() / 1024 == pytest.approx(fp32_size_kib(small))


def test_an_emulated_precision_is_stored_in_its_container(small: LayerGraph) -> None:
    values, _ = sizes(small, T4, "W8A8", "W4A8", "W4A4")
    assert values[:, 1] == pytest.approx(values[:, 0])
    assert values[0, 2] == pytest.approx(68 + 20 + 20 + 4)


def test_per_tensor_affine_weights_have_one_scale_and_zero_point(small: LayerGraph) -> None:
    raw = STM32.spec.model_dump(exclude_none=True, mode="json")
    raw["scheme"] |= {"weights": "affine", "weight_granularity": "per_tensor"}
    device = parse_profile(raw)
    values, _ = sizes(small, device, "W8A8")
    assert values[0, 0] == pytest.approx(135 + 5 + 20 + 5)


def linear(name: str, weight: str, reads: str) -> Layer:
    return Layer(name, "linear", reads, f"{name}_out", (8,), (8,), 64, weight, (8, 8), 8)


def test_shared_weights_and_tensors_count_once_and_other_parameters_are_constant() -> None:
    layers = (linear("a", "w", "x"), linear("b", "w", "x"), linear("c", "v", "x"))
    tensors = tuple(Tensor(name, (8,), owner) for name, owner in (("x", "a"), ("a_out", None), ("b_out", None)))
    graph = LayerGraph(layers, tensors, tie(layers), (), (LiveSet("a", ("x",)),), other_parameters=10)
    values, constant = sizes(graph, MPIC, "W8A8")
    assert values[:, 0] == pytest.approx([64 + 32 + 32 + 4, 0, 64 + 32 + 32])
    assert constant == 40
    assert fp32_size_kib(graph) * 1024 == 4 * (64 + 8 + 64 + 8 + 10)


def test_a_product_of_activations_stores_two_scales_and_no_weights() -> None:
    layer = Layer("qk", "matmul", "q", "s", (4, 8), (4, 4), 128, second_input="k", second_shape=(8, 4))
    graph = LayerGraph((layer,), (Tensor("q", (4, 8), "qk"), Tensor("k", (8, 4), "qk")), tie((layer,)))
    assert sizes(graph, MPIC, "W4A8")[0].item() == pytest.approx(8)


def test_users_of_one_weight_count_each_bias_of_their_own() -> None:
    own = [replace(linear(name, "w", "x"), bias=f"{name}.bias") for name in ("a", "b")]
    shared = [replace(layer, bias="one.bias") for layer in own]
    for layers, biases in ((own, 2), (shared, 1)):
        tensors = tuple(Tensor(name, (8,), None) for name in ("x", "a_out", "b_out"))
        graph = LayerGraph(tuple(layers), tensors, tie(layers), (), (LiveSet("a", ("x",)),))
        values, _ = sizes(graph, MPIC, "W8A8")
        assert values.sum() == pytest.approx(64 + 8 * 4 + biases * 8 * 4 + 4)
        assert graph.parameter_count == 64 + biases * 8
