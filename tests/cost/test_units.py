"""Devices with more than one unit: who runs a layer, and what a tensor costs that passes from one to another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest

from hwdse.cost import cost_table, network_totals
from hwdse.cost.latency import layer_latency_ms
from hwdse.errors import ProfileError
from hwdse.formats import Precision
from hwdse.graph import LayerGraph
from hwdse.hardware import HardwareProfile, load_profile, parse_profile
from tests.profiles import figure, processor

Chain = Callable[[Sequence[int]], Any]
WIDE, NARROW = CANDIDATES = [Precision.parse("W8A8"), Precision.parse("W4A4")]
ELEMENTS = [8 * 36, 8 * 36, 16 * 36]
"""Values that the first three layers of the network write."""
HANDOVER = [(7 + 1000 * elements * 1e-6) * 1e-3 for elements in ELEMENTS]
SWITCH = [(3 + 500 * elements * 1e-6) * 1e-3 for elements in ELEMENTS]
UNITS = {WIDE: ["main", "host", "main", "main"], NARROW: ["main"] * 4}
"""Depthwise layers of 8 bits are the host's."""

# MACs padded to 16 input and 32 output channels, at 2 MAC/cycle; the host's are not padded and take 0.5 MAC/cycle.
LAYERS = {
    WIDE: [
        16 * 32 * 9 * 36 / 200e3,  # 3 to 8 channels, 3 x 3
        8 * 9 * 36 / 50e3,  # 8 channels of their own
        16 * 32 * 36 / 200e3,  # 8 to 16 channels, 1 x 1
        576 * 32 / 200e3,  # 576 to 10
    ],
    NARROW: [16 * 32 * 9 * 36 / 400e3, 16 * 9 * 36 / 400e3, 16 * 32 * 36 / 400e3, 576 * 32 / 400e3],
}


@pytest.fixture
def raw() -> dict[str, Any]:
    return processor(
        clock_mhz=figure(100),
        rates=[
            {
                "weights": "int8", "activations": "int8", "op_classes": ["conv", "pointwise", "linear"],
                "macs_per_cycle": figure(2),
            },
            {
                "weights": "int8", "activations": "int8", "op_classes": ["depthwise"], "macs_per_cycle": figure(0.5),
                "unit": "host",
            },
            {"weights": "int4", "activations": "int4", "macs_per_cycle": figure(4)},
        ],
        tile={"input_channels": figure(16), "output_channels": figure(32)},
        handover={"us": figure(7), "us_per_melement": figure(1000)},
    )  # fmt: skip


@pytest.fixture
def graph(chain: Chain) -> LayerGraph:
    net = chain((3, 6, 6))
    net.conv(8, 3)
    net.conv(8, 3, groups=8)
    net.conv(16, 1)
    net.linear(10)
    built: LayerGraph = net.graph()
    return built


def latencies(graph: LayerGraph, device: HardwareProfile) -> dict[tuple[Precision, ...], float]:
    """Return the predicted latency of every configuration."""
    table = cost_table(graph, device, CANDIDATES, metrics=["latency_ms"])
    choices = list(product(range(len(CANDIDATES)), repeat=len(graph.layers)))
    totals = network_totals(table, np.array(choices))[:, 0]
    return {tuple(CANDIDATES[c] for c in row): total for row, total in zip(choices, totals, strict=True)}


def test_another_units_layer_is_computed_without_the_tile(raw: dict[str, Any], graph: LayerGraph) -> None:
    device = parse_profile(raw)
    for precision in CANDIDATES:
        found = [layer_latency_ms(layer, precision, device) for layer in graph.layers]
        assert found == pytest.approx(LAYERS[precision])
    assert [device.unit(layer, WIDE) for layer in graph.layers] == [None, "host", None, None]
    assert [device.unit(layer, NARROW) for layer in graph.layers] == [None] * 4


def test_a_tensor_costs_the_handover_where_its_ends_are_on_different_units(
    raw: dict[str, Any], graph: LayerGraph
) -> None:
    found = latencies(graph, parse_profile(raw))
    assert len(found) == 16
    for chosen, latency in found.items():
        units = [UNITS[precision][i] for i, precision in enumerate(chosen)]
        expected = sum(LAYERS[precision][i] for i, precision in enumerate(chosen))
        expected += sum(HANDOVER[i] for i in range(3) if units[i] != units[i + 1])
        assert latency == pytest.approx(expected, rel=1e-12)


def test_the_whole_chain_by_hand(raw: dict[str, Any], graph: LayerGraph) -> None:
    found = latencies(graph, parse_profile(raw))
    there_and_back = 2 * 0.007288  # 7 us and 288 values at 1 us per 1000
    assert found[WIDE, WIDE, WIDE, WIDE] == pytest.approx(0.82944 + 0.05184 + 0.09216 + 0.09216 + there_and_back)
    assert found[WIDE, NARROW, WIDE, WIDE] == pytest.approx(0.82944 + 0.01296 + 0.09216 + 0.09216)


def test_a_change_of_format_comes_on_top(raw: dict[str, Any], graph: LayerGraph) -> None:
    raw["switch"] = {"us": figure(3), "us_per_melement": figure(500)}
    table = cost_table(graph, parse_profile(raw), CANDIDATES, metrics=["latency_ms"])
    changes = np.array([[0, 1], [1, 0]])
    crossings = [np.array([[1, 0], [1, 0]]), np.array([[1, 1], [0, 0]]), np.zeros((2, 2))]
    for e in range(3):
        assert table.edges[e].tolist() == [e, e + 1]
        assert table.switches[e, :, :, 0] == pytest.approx(SWITCH[e] * changes + HANDOVER[e] * crossings[e])


@pytest.mark.parametrize(
    ("handover", "us"),
    [({"us": figure(7)}, 7.0), ({"us_per_melement": figure(1000)}, 0.288), ({}, 0.0)],
)
def test_either_part_of_the_handover_may_be_absent(
    raw: dict[str, Any], graph: LayerGraph, handover: dict[str, Any], us: float
) -> None:
    raw["handover"] = handover
    found = latencies(graph, parse_profile(raw))
    assert found[WIDE, WIDE, WIDE, WIDE] - sum(LAYERS[WIDE]) == pytest.approx(2 * us * 1e-3, abs=1e-12)


def test_without_a_handover_other_units_cost_nothing_more(raw: dict[str, Any], graph: LayerGraph) -> None:
    del raw["handover"]
    table = cost_table(graph, parse_profile(raw), CANDIDATES, metrics=["latency_ms"])
    assert not table.switches.any()


def test_a_batch_passes_all_its_values(raw: dict[str, Any], graph: LayerGraph) -> None:
    raw["batch"] = 4
    found = latencies(graph, parse_profile(raw))
    crossing = (7 + 4 * 0.288) * 1e-3
    assert found[WIDE, WIDE, WIDE, WIDE] == pytest.approx(4 * sum(LAYERS[WIDE]) + 2 * crossing)


def test_two_units_beside_the_main_one_are_two(raw: dict[str, Any], graph: LayerGraph) -> None:
    raw["rates"][0]["op_classes"] = ["conv", "linear"]
    raw["rates"].append(
        {"weights": "int8", "activations": "int8", "op_classes": ["pointwise"], "macs_per_cycle": figure(2)}
        | {"unit": "other"}
    )
    found = latencies(graph, parse_profile(raw))
    own = 16 * 8 * 36 / 200e3  # the 1 x 1 layer is not padded any more
    expected = sum(LAYERS[WIDE]) - LAYERS[WIDE][2] + own + sum(HANDOVER)
    assert found[WIDE, WIDE, WIDE, WIDE] == pytest.approx(expected)


def test_one_unit_of_many_layers_hands_over_at_its_borders_only(raw: dict[str, Any], graph: LayerGraph) -> None:
    raw["rates"][0]["op_classes"] = ["conv", "linear"]
    raw["rates"][1]["op_classes"] = ["depthwise", "pointwise"]
    found = latencies(graph, parse_profile(raw))
    host = 16 * 8 * 36 / 50e3
    expected = sum(LAYERS[WIDE]) - LAYERS[WIDE][2] + host + HANDOVER[0] + HANDOVER[2]
    assert found[WIDE, WIDE, WIDE, WIDE] == pytest.approx(expected)


def test_power_is_drawn_during_the_handover(raw: dict[str, Any], graph: LayerGraph) -> None:
    raw["power"] = {"active_mw": figure(20)}
    table = cost_table(graph, parse_profile(raw), CANDIDATES, metrics=["latency_ms", "energy_mj"])
    assert table.switches[0, 0, 0] == pytest.approx([HANDOVER[0], HANDOVER[0] * 20e-3])


def test_a_handover_without_another_unit_is_a_fault(raw: dict[str, Any]) -> None:
    del raw["rates"][1]["unit"]
    sentence = "handover: expected a rate with a unit of its own, got none; add unit to a rate or remove it"
    with pytest.raises(ProfileError, match=sentence):
        parse_profile(raw)


def test_a_handover_beside_conversions_is_a_fault(raw: dict[str, Any]) -> None:
    raw["conversions"] = [{"from": "int8", "to": "int4", "us": figure(1)}]
    with pytest.raises(ProfileError, match=r"handover: expected either \[handover\] or \[\[conversions\]\], got both"):
        parse_profile(raw)


def test_kernels_that_ne16_lacks_run_on_the_cluster(chain: Chain) -> None:
    net = chain((16, 8, 8))
    net.conv(32, 3)
    net.conv(32, 5)
    layers = net.graph().layers
    device = load_profile("gap9_ne16")
    assert device.unit(layers[0], WIDE) is None
    assert device.unit(layers[1], WIDE) == "cluster of eight RISC-V cores"
    assert not device.supports(layers[1], Precision.parse("W4A8"))
    found = device.rate(layers[1], WIDE)
    assert found is not None
    cycles = 4 * 1 * (2 * 25 * 32 + 8 * (15 + 14 * 200))  # eight cores: 8 x 8 pixels
    assert device.macs_ms(layers[1], found, layers[1].macs) == pytest.approx(cycles / 370e3)
