"""What lies between layers, against counts made by hand: every sort of time is a digit of its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from hwdse.capture import capture
from hwdse.cost.terms import LatencyTerms, latency_terms
from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.graph import BitConfig, LayerGraph
from hwdse.hardware import HardwareProfile, parse_profile
from tests import networks

P = Precision.parse


def terms(graph: LayerGraph, device: HardwareProfile, **different: str) -> LatencyTerms:
    """Return the terms where every layer is W8A8 but for those that are named."""
    names = {layer.name.replace(".", "_"): layer.name for layer in graph.layers}
    config = {layer.name: P("W8A8") for layer in graph.layers}
    config |= {names[name]: P(text) for name, text in different.items()}
    return latency_terms(graph, device, BitConfig(config))


def uniform(graph: LayerGraph, device: HardwareProfile, precision: str) -> LatencyTerms:
    return latency_terms(graph, device, BitConfig({layer.name: P(precision) for layer in graph.layers}))


def microseconds(found: LatencyTerms) -> tuple[float, float]:
    return pytest.approx(found.conversions_ms * 1e3), pytest.approx(found.nodes_ms * 1e3)


def test_in_full_precision_nothing_is_converted_and_every_operator_costs(processor: dict[str, Any]) -> None:
    found = uniform(networks.captured("residual"), parse_profile(processor), "fp32")
    assert microseconds(found) == (0, 0.1 + 0.001 + 0.1 + 0.001 + 0.0001)


def test_in_int8_the_addition_before_a_layer_is_an_integer_one(processor: dict[str, Any]) -> None:
    """The input and the pooled features are quantized; the second addition feeds the pooling, which runs in fp32."""
    found = uniform(networks.captured("residual"), parse_profile(processor), "W8A8")
    assert microseconds(found) == (10 + 2 * 1000 + 10, 0.01 + 0.1 + 0.001 + 0.0001)


def test_emulated_formats_are_those_of_their_container(processor: dict[str, Any]) -> None:
    device, graph = parse_profile(processor), networks.captured("residual")
    assert uniform(graph, device, "W4A8") == uniform(graph, device, "W8A8")


def test_one_float_layer_makes_its_addition_float(processor: dict[str, Any]) -> None:
    """In front of it one tensor is dequantized, for the addition the shortcut; its result is quantized again."""
    found = terms(networks.captured("residual"), parse_profile(processor), a2="fp32")
    assert microseconds(found) == (10 + 1000 + 1000 + 10 + 2 * 1000 + 10, 2 * (0.1 + 0.001) + 0.0001)


def test_a_tensor_that_two_tied_layers_read_is_converted_once(processor: dict[str, Any]) -> None:
    """``b1`` and ``short`` read one sum: the addition dequantizes both operands and writes what they read."""
    found = terms(networks.captured("residual"), parse_profile(processor), b1="fp32", short="fp32")
    # The input; both operands of the first addition; b1's result for b2; b2's for the second addition; the features.
    assert microseconds(found) == (10 + 2 * 1000 + 10 + 1000 + 10, 2 * (0.1 + 0.001) + 0.0001)


def test_a_float_reader_and_a_float_operator_share_a_dequantized_tensor(processor: dict[str, Any]) -> None:
    """The stem's result is stored in int8; the layer and the addition that read it in fp32 share one conversion."""
    found = terms(networks.captured("residual"), parse_profile(processor), a1="fp32", a2="fp32")
    assert microseconds(found)[0] == 10 + 1000 + 10 + 2 * 1000 + 10


def test_linears_write_what_is_asked_of_them(processor: dict[str, Any]) -> None:
    device, graph = parse_profile(processor), networks.captured("packed")
    assert [layer.name for layer in graph.layers] == ["qkv", "matmul", "matmul_1", "out"]
    # Quantized: the input, and what the products leave to the last linear. Their own results are float at once.
    assert terms(graph, device, matmul="fp32", matmul_1="fp32").conversions_ms == pytest.approx(20e-3)
    # Quantized: queries, keys and values together, and the attention's shares.
    assert terms(graph, device, qkv="fp32", out="fp32").conversions_ms == pytest.approx(20e-3)


def test_operators_that_are_not_listed_are_free_in_any_format(processor: dict[str, Any]) -> None:
    """A pooling between two integer convolutions leaves the tensor in integers; listed in fp32 only, it does not."""
    layers = (nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 2, 3))
    graph = capture(nn.Sequential(*layers), torch.zeros(1, 1, 12, 12))
    pooling = {"operator": "max_pool", "activations": "fp32", "us": processor["nodes"][0]["us"]}
    assert microseconds(uniform(graph, parse_profile(processor), "W8A8")) == (10, 0)
    processor["nodes"].append(pooling)
    assert microseconds(uniform(graph, parse_profile(processor), "W8A8")) == (10 + 1000 + 10, 0.1)
    processor["nodes"].append(pooling | {"activations": "int8"})
    assert microseconds(uniform(graph, parse_profile(processor), "W8A8")) == (10, 0.1)


def test_a_result_of_the_network_is_float(processor: dict[str, Any]) -> None:
    """An addition that nobody reads writes fp32, though both of its operands are stored in int8."""

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.one(x) + self.two(x)

    found = uniform(capture(Last(), torch.zeros(1, 1, 4, 4)), parse_profile(processor), "W8A8")
    assert microseconds(found) == (10 + 2 * 1000, 0.1)


def test_times_grow_with_the_elements_and_the_batch(processor: dict[str, Any]) -> None:
    slope = {"value": 1e6, "kind": "measured", "source": "Lab2024"}
    processor["conversions"] = [{"from": "fp32", "to": "int8", "us_per_melement": slope}]
    processor["nodes"] = [{"operator": "add", "activations": "int8", "us_per_melement": slope}]
    graph = networks.captured("residual")
    for batch in (1, 3):
        found = uniform(graph, parse_profile(processor | {"batch": batch}), "W8A8")
        assert found.conversions_ms == pytest.approx(batch * (3 * 12 * 12 + 16) * 1e-3)
        assert found.nodes_ms == pytest.approx(batch * 8 * 12 * 12 * 1e-3)


def test_a_shortcut_that_is_copied_leaves_integers(processor: dict[str, Any]) -> None:
    """ResNet-20 in int8: its input, its last tensor and two sums are rounded; ONNX Runtime leaves 4 and 6 operators.

    Its two shortcuts with slices and zeros are copied in fp32, and what is added to them is then fp32, too, as is the
    last sum, which a pooling reads.
    """
    found = uniform(networks.captured("resnet20"), parse_profile(processor), "W8A8")
    assert found.conversions_ms == pytest.approx((4 * 10 + 6 * 1000) * 1e-3)
    assert found.nodes_ms == pytest.approx((6 * 0.01 + 3 * (0.1 + 0.001) + 0.0001) * 1e-3)


@pytest.mark.parametrize(("shape", "rounded"), [((1, 8), 1), ((1, 5, 8), 2)])
def test_a_linear_layer_on_several_rows_writes_floats(
    processor: dict[str, Any], shape: tuple[int, ...], rounded: int
) -> None:
    """What it writes for another one is rounded on its own; on one row it is written rounded."""
    graph = capture(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), torch.randn(shape))
    assert uniform(graph, parse_profile(processor), "W8A8").conversions_ms == pytest.approx(rounded * 10e-3)


def test_the_layers_are_those_of_the_cost_model_before_calibration(processor: dict[str, Any]) -> None:
    graph = networks.captured("residual")
    processor["calibration"] = {"integer_layers": {"value": 0, "kind": "derived", "source": "Lab2024"}}
    device = parse_profile(processor)
    found = uniform(graph, device, "W8A8")
    assert found.layers_ms == pytest.approx(graph.macs / 200e9 * 1e3)
    assert found.total_ms(device) == pytest.approx(found.conversions_ms + found.nodes_ms)


def test_calibration_weighs_every_term(processor: dict[str, Any]) -> None:
    values = {"float_layers": 2, "integer_layers": 4, "conversions": 3, "nodes": 5, "us_per_inference": 7}
    calibration = {key: {"value": v, "kind": "derived", "source": "Lab2024"} for key, v in values.items()}
    device = parse_profile(processor | {"calibration": calibration})
    assert LatencyTerms(1.0, 1000.0, 10.0, 100.0).total_ms(device) == pytest.approx(2 + 4000 + 30 + 500 + 0.007)


def test_a_layer_without_precision_is_an_error(processor: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected a precision for every layer, got none for a1"):
        latency_terms(networks.captured("residual"), parse_profile(processor), BitConfig({"stem": P("W8A8")}))
