"""Weights beyond a memory's capacity, what passes through a memory, operators that cost an overhead, calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from math import prod
from typing import Any

import numpy as np
import pytest

from hwdse.cost import cost_table, memory_fit, memory_limits, network_totals
from hwdse.cost.energy import layer_energy_mj
from hwdse.cost.latency import layer_latency_ms
from hwdse.cost.traffic import spill_ms
from hwdse.errors import ProfileError
from hwdse.formats import Precision
from hwdse.graph import Layer, LayerGraph, Node
from hwdse.hardware import HardwareProfile, load_profile, parse_profile
from hwdse.hardware.schema import Calibration
from tests.profiles import figure, processor

Chain = Callable[[Sequence[int]], Any]
P = Precision.parse
W8A8, W4A8, W2A8 = CANDIDATES = [P("W8A8"), P("W4A8"), P("W2A8")]
RATES = [{"weights": f"int{bits}", "activations": "int8", "gmac_per_s": figure(1)} for bits in (8, 4, 2)]


def weights_memory(**more: object) -> dict[str, Any]:
    """Return a level of 1 KiB from which weights stream in at 0.5 GB/s."""
    level = {"name": "SRAM", "holds": ["weights"], "capacity_kib": figure(1), "spill_gb_per_s": figure(0.5)}
    return {key: value for key, value in (level | more).items() if value is not None}


def device(*memories: dict[str, Any], **sections: object) -> HardwareProfile:
    return parse_profile(processor(**{"rates": RATES, "memories": list(memories), **sections}))


def faults_of(*memories: dict[str, Any], **sections: object) -> tuple[str, ...]:
    with pytest.raises(ProfileError, match="fault") as caught:
        device(*memories, **sections)
    return caught.value.faults


@pytest.fixture
def graph(chain: Chain) -> LayerGraph:
    """Return two linear layers of 2048 and 1024 weights."""
    net = chain((64,))
    net.linear(32)
    net.linear(32)
    built: LayerGraph = net.graph()
    return built


def latency(graph: LayerGraph, profile: HardwareProfile, *chosen: Precision, metric: str = "latency_ms") -> float:
    """Return a cost of the network with a precision for each layer, or one for all."""
    table = cost_table(graph, profile, list(dict.fromkeys(chosen)), metrics=[metric])
    row = [table.candidates.index(precision) for precision in chosen] * (len(graph.layers) // len(chosen))
    return float(network_totals(table, np.array([row]))[0, 0])


@pytest.mark.parametrize(
    ("precision", "beyond"),
    [(W8A8, 3072 - 1024), (W4A8, 1536 - 1024), (W2A8, 0)],  # 3072 weights, 1024 bytes of room
)
def test_what_has_no_room_streams_in_at_every_inference(graph: LayerGraph, precision: Precision, beyond: int) -> None:
    spilled = latency(graph, device(weights_memory()), precision) - latency(graph, device(), precision)
    assert spilled == pytest.approx(beyond / 0.5e9 * 1e3, abs=1e-15)


def test_layers_share_what_has_no_room_by_their_bytes(graph: LayerGraph) -> None:
    found = spill_ms(graph, W8A8, device(weights_memory()))
    assert found == pytest.approx(np.array([2048, 1024]) / 3072 * 2048 / 0.5e6)


def test_layers_of_different_widths_count_as_if_all_had_their_own(graph: LayerGraph) -> None:
    profile, room = device(weights_memory()), device()
    own = {precision: spill_ms(graph, precision, profile) for precision in CANDIDATES}
    for first, second in product(CANDIDATES, repeat=2):
        spilled = latency(graph, profile, first, second) - latency(graph, room, first, second)
        assert spilled == pytest.approx(own[first][0] + own[second][1], abs=1e-15)


def test_reserved_room_is_no_room_and_the_last_byte_fits(graph: LayerGraph) -> None:
    exact = weights_memory(capacity_kib=figure(3.5), reserved_kib=figure(0.5))
    assert spill_ms(graph, W8A8, device(exact)).tolist() == [0, 0]
    less = weights_memory(capacity_kib=figure(3.5), reserved_kib=figure(1.5))
    assert spill_ms(graph, W8A8, device(less)).sum() == pytest.approx(1024 / 0.5e6)


def test_containers_take_their_own_room(graph: LayerGraph) -> None:
    emulated = [{**rate, "container": "int8"} if rate["weights"] == "int4" else rate for rate in RATES]
    profile = device(weights_memory(), rates=emulated)
    assert latency(graph, profile, W4A8) == latency(graph, profile, W8A8)


def test_a_batch_streams_them_in_once(graph: LayerGraph) -> None:
    spilled = [
        latency(graph, device(weights_memory(), batch=b), W8A8) - latency(graph, device(batch=b), W8A8) for b in (1, 8)
    ]
    assert spilled[1] == pytest.approx(spilled[0])


def test_every_level_without_room_adds_its_own_time(graph: LayerGraph) -> None:
    second = weights_memory(name="DRAM", capacity_kib=figure(2), spill_gb_per_s=figure(0.25))
    spilled = spill_ms(graph, W8A8, device(weights_memory(), second)).sum()
    assert spilled == pytest.approx(2048 / 0.5e6 + 1024 / 0.25e6)


def test_power_is_drawn_meanwhile(graph: LayerGraph) -> None:
    power = {"power": {"active_mw": figure(20)}}
    energies = [latency(graph, device(*m, **power), W8A8, metric="energy_mj") for m in ([weights_memory()], [])]
    assert energies[0] - energies[1] == pytest.approx(2048 / 0.5e9 * 20)


def test_a_capacity_that_spills_is_no_limit(graph: LayerGraph) -> None:
    config = graph.config([W8A8] * 2)
    spills, holds = device(weights_memory()), device(weights_memory(spill_gb_per_s=None))
    assert memory_limits(spills) == {}
    assert memory_fit(graph, spills, config).levels == ()
    assert memory_fit(graph, spills, config).fits
    assert memory_limits(holds) == {"size_kib": 1}
    assert not memory_fit(graph, holds, config).fits
    flash = {"name": "flash", "holds": ["weights"], "capacity_kib": figure(64)}
    assert memory_limits(device(weights_memory(), flash)) == {"size_kib": 64}


@pytest.mark.parametrize("holds", [["activations"], ["weights", "activations"], []])
def test_only_weights_spill(holds: list[str]) -> None:
    sentence = f"memories[0]: expected a level that holds weights alone to spill, got {holds}"
    assert faults_of(weights_memory(holds=holds)) == (sentence,)


def test_what_passes_through_counts_for_the_bandwidth_and_is_not_held(graph: LayerGraph) -> None:
    def level(*, holds: list[str], moves: list[str]) -> dict[str, Any]:
        return {
            "name": "L2", "holds": holds, "moves": moves, "capacity_kib": figure(1),
            "bandwidth_gb_per_s": figure(0.001), "pj_per_byte": figure(100),
        }  # fmt: skip

    def counted(holds: list[str], moves: list[str]) -> tuple[float, float, dict[str, float]]:
        profile = device(level(holds=holds, moves=moves), power={"static_mw": figure(0)})
        layer = graph.layers[0]
        latency_ms, energy_mj = layer_latency_ms(layer, W4A8, profile), layer_energy_mj(layer, W4A8, profile)
        return latency_ms, energy_mj, memory_limits(profile)

    weights, activations = 64 * 32 // 2, 64 + 32  # bytes
    for holds, moves, moved, limits in (
        ([], ["weights"], weights, {}),
        ([], ["activations"], activations, {}),
        ([], ["weights", "activations"], weights + activations, {}),
        (["weights"], ["activations"], weights + activations, {"size_kib": 1}),
        (["activations"], ["weights"], weights + activations, {"activation_kib": 1}),
        (["weights"], ["weights"], weights, {"size_kib": 1}),
        (["weights", "activations"], [], weights + activations, {"memory_kib": 1}),
    ):
        found = counted(holds, moves)
        assert found[0] == pytest.approx(moved / 1e6 * 1e3)
        assert found[1] == pytest.approx(moved * 100e-9)
        assert found[2] == limits


def test_what_only_passes_through_always_fits(graph: LayerGraph) -> None:
    level = {"name": "L2", "holds": [], "moves": ["weights", "activations"], "capacity_kib": figure(0.001)}
    assert memory_fit(graph, device(level), graph.config([W8A8] * 2)).levels == ()


def test_a_bandwidth_of_nothing_is_a_fault() -> None:
    level = {"name": "L2", "holds": [], "capacity_kib": figure(1), "bandwidth_gb_per_s": figure(1)}
    (fault,) = faults_of(level)
    assert fault.startswith("memories[0]: expected holds or moves to name what moves here, got [] with bandwidth")
    assert device(level | {"moves": ["weights"]}).memories[0].traffic == {"weights"}


@pytest.mark.parametrize("count", [0, 3])
def test_operators_without_macs_cost_an_overhead_where_the_profile_says_so(graph: LayerGraph, count: int) -> None:
    nodes = tuple(Node(f"add{i}", "add", 32) for i in range(count))
    graph = replace(graph, nodes=nodes)

    def total(**overhead: object) -> float:
        return latency(graph, device(overhead={"us_per_layer": figure(5), **overhead}), W8A8)

    layers = 3072 / 1e9 * 1e3 + 2 * 0.005
    assert total() == pytest.approx(layers)
    assert total(counts_nodes=False) == pytest.approx(layers)
    assert total(counts_nodes=True) == pytest.approx(layers + count * 0.005)
    assert total(counts_nodes=True, us_per_inference=figure(70)) == pytest.approx(layers + count * 0.005 + 0.070)


def test_the_calibrations_overhead_is_also_that_of_operators(graph: LayerGraph) -> None:
    graph = replace(graph, nodes=(Node("add", "add", 32),))
    overhead = {"us_per_layer": figure(5), "counts_nodes": True}
    profile = device(overhead=overhead, calibration={"us_per_layer": figure(2)})
    assert latency(graph, profile, W8A8) == pytest.approx(3072 / 1e9 * 1e3 + 3 * 0.002)


def test_operators_have_either_an_overhead_or_times_of_their_own() -> None:
    overhead = {"us_per_layer": figure(5), "counts_nodes": True}
    nodes = [{"operator": "add", "activations": "int8", "us": figure(1)}]
    sentence = "overhead.counts_nodes: expected either it or [[nodes]], got both; remove one"
    assert faults_of(overhead=overhead, nodes=nodes) == (sentence,)
    assert device(overhead={**overhead, "counts_nodes": False}, nodes=nodes).has_boundaries


def conv(inputs: int, outputs: int, *, kernel: int = 3, groups: int = 1) -> Layer:
    weights = (outputs, inputs // groups, kernel, kernel)
    return Layer(
        "c", "conv", "x", "y", (inputs, 6, 6), (outputs, 6, 6), prod(weights) * 36, "c.w", weights, 0,
        (kernel, kernel), (1, 1), groups,
    )  # fmt: skip


CLASSES = {
    "conv": conv(8, 16),
    "pointwise": conv(8, 16, kernel=1),
    "depthwise": conv(8, 8, groups=8),
    "grouped": conv(8, 16, groups=2),
    "linear": Layer("l", "linear", "x", "y", (64,), (10,), 640, "l.w", (10, 64)),
    "matmul": Layer("m", "matmul", "q", "s", (16, 8), (16, 16), 2048, second_input="k", second_shape=(8, 16)),
}
ALL = frozenset(CLASSES)
OVERHEAD = {"overhead": {"us_per_layer": figure(5), "us_per_inference": figure(11)}}


def test_there_is_a_layer_of_every_class() -> None:
    assert {name: layer.op_class for name, layer in CLASSES.items()} == {name: name for name in ALL}


@pytest.mark.parametrize(
    ("factors", "classes", "factor"),
    [
        ({}, ALL, 1),
        ({"compute": 3}, ALL, 3),
        ({"pointwise": 3}, {"pointwise"}, 3),
        ({"depthwise": 3}, {"depthwise", "grouped"}, 3),
        ({"linear": 3}, {"linear", "matmul"}, 3),
        ({"compute": 2, "pointwise": 3, "depthwise": 3, "linear": 3}, ALL - {"conv"}, 6),
        ({"traffic": 3}, frozenset(), 1),  # MACs take longer than the traffic, still
    ],
)
def test_factors_of_the_time_of_macs(factors: Mapping[str, float], classes: frozenset[str], factor: float) -> None:
    level = {"name": "L2", "holds": ["weights", "activations"], "capacity_kib": figure(1e6)}
    level["bandwidth_gb_per_s"] = figure(1e3)
    calibration = {key: figure(value) for key, value in factors.items()}
    profile = device(level, calibration=calibration, **OVERHEAD)
    for name, layer in CLASSES.items():
        own = factor if name in classes else factors.get("compute", 1)
        assert layer_latency_ms(layer, W8A8, profile) == pytest.approx(layer.macs / 1e9 * 1e3 * own + 0.005)


@pytest.mark.parametrize(("factors", "factor"), [({}, 1), ({"traffic": 3}, 3), ({"compute": 2, "linear": 2}, 1)])
def test_factors_of_the_time_of_traffic(factors: Mapping[str, float], factor: float) -> None:
    level = {"name": "L2", "holds": ["weights", "activations"], "capacity_kib": figure(1e6)}
    level["bandwidth_gb_per_s"] = figure(0.01)
    profile = device(level, calibration={key: figure(value) for key, value in factors.items()}, **OVERHEAD)
    moved = 640 + 64 + 10
    assert layer_latency_ms(CLASSES["linear"], W8A8, profile) == pytest.approx(moved / 0.01e9 * 1e3 * factor + 0.005)


def test_what_takes_longer_after_calibration_is_the_latency() -> None:
    layer = CLASSES["linear"]
    level = {"name": "L2", "holds": ["weights"], "capacity_kib": figure(1e6), "bandwidth_gb_per_s": figure(1)}
    for compute, traffic in product((0.5, 1, 2), repeat=2):
        profile = device(level, calibration={"compute": figure(compute), "traffic": figure(traffic)})
        assert layer_latency_ms(layer, W8A8, profile) == pytest.approx(640 / 1e9 * 1e3 * max(compute, traffic))


def test_the_calibrations_overhead_takes_the_place_of_the_profiles() -> None:
    layer = CLASSES["linear"]
    for us in (0, 2):
        profile = device(calibration={"us_per_layer": figure(us)}, **OVERHEAD)
        assert layer_latency_ms(layer, W8A8, profile) == pytest.approx(640e-6 + us * 1e-3)
    assert layer_latency_ms(layer, W8A8, device(calibration={"us_per_layer": figure(2)})) == pytest.approx(2.64e-3)


def test_a_precisions_factor_is_that_of_all_its_layers_take() -> None:
    precisions = {"W4A8": figure(1.5), "W2A8": figure(0.5)}
    profile = device(calibration={"compute": figure(2), "precisions": precisions}, **OVERHEAD)
    for layer in CLASSES.values():
        alone = layer.macs / 1e9 * 1e3 * 2 + 0.005
        found = [layer_latency_ms(layer, precision, profile) for precision in CANDIDATES]
        assert found == pytest.approx([alone, 1.5 * alone, 0.5 * alone])


def test_a_precisions_factor_comes_on_top_of_its_sorts() -> None:
    calibration = {"integer_layers": figure(3), "precisions": {"W4A8": figure(1.5)}}
    profile = device(calibration=calibration)
    found = [layer_latency_ms(CLASSES["linear"], precision, profile) for precision in (W8A8, W4A8)]
    assert found == pytest.approx([3 * 640e-6, 4.5 * 640e-6])


def test_a_factor_of_an_unknown_precision_is_a_fault() -> None:
    (fault,) = faults_of(calibration={"precisions": {"W99A8": figure(1)}})
    assert "calibration.precisions" in fault
    assert "W99A8" in fault


def test_a_tables_latency_is_calibrated_by_its_precision_alone() -> None:
    shipped = load_profile("nvidia_t4")
    layer = Layer(
        "c", "conv", "x", "y", (64, 56, 56), (64, 56, 56), 64 * 64 * 9 * 56 * 56, "c.w", (64, 64, 3, 3), 0, (3, 3),
        (1, 1),
    )  # fmt: skip
    factors = {"compute": 7, "traffic": 7, "us_per_layer": 30}
    figures: dict[str, Any] = {key: {"value": v, "kind": "derived", "source": "x"} for key, v in factors.items()}
    figures["precisions"] = {"W4A4": {"value": 2, "kind": "derived", "source": "x"}}
    calibration = Calibration.model_validate(figures)
    profile = HardwareProfile(shipped.spec.model_copy(update={"calibration": calibration}), shipped.table)
    kernel = profile.table.lookup(layer, P("W4A4")), profile.table.lookup(layer, W8A8)
    assert kernel[0] is not None
    assert kernel[1] is not None
    assert layer_latency_ms(layer, P("W4A4"), profile) == pytest.approx(2 * (kernel[0].latency_ms + 0.030))
    assert layer_latency_ms(layer, W8A8, profile) == pytest.approx(kernel[1].latency_ms + 0.030)


def test_the_energys_factor_is_that_of_all_energy(graph: LayerGraph) -> None:
    level = weights_memory(pj_per_byte=figure(100))
    power = {"static_mw": figure(20), "pj_per_mac": figure(4)}
    plain = device(level, power=power, **OVERHEAD)
    factor = device(level, power=power, calibration={"energy": figure(3)}, **OVERHEAD)
    time_ms = 3072 / 1e9 * 1e3 + 2 * 0.005 + 0.011 + 2048 / 0.5e9 * 1e3
    energy_mj = 3072 * 4e-9 + 3072 * 100e-9 + 20e-3 * time_ms
    assert latency(graph, plain, W8A8, metric="energy_mj") == pytest.approx(energy_mj)
    assert latency(graph, factor, W8A8, metric="energy_mj") == pytest.approx(3 * energy_mj)
    assert latency(graph, factor, W8A8) == pytest.approx(time_ms)


def test_time_between_layers_is_no_more_calibrated_than_before(graph: LayerGraph) -> None:
    calibration = {"compute": figure(2), "traffic": figure(2), "precisions": {"W8A8": figure(2)}}
    found = latency(graph, device(weights_memory(), calibration=calibration, **OVERHEAD), W8A8)
    assert found == pytest.approx(2 * (2 * 3072e-6 + 2 * 0.005) + 0.011 + 2048 / 0.5e9 * 1e3)
