"""What a layer's latency is spent on: the parts are the whole, and the slower one has its name."""

from __future__ import annotations

from typing import Any

import pytest

from hwdse.cost.latency import layer_latency_ms
from hwdse.cost.resources import COMPUTE, OVERHEAD, TABLE, resources_ms
from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.graph import Layer
from hwdse.hardware import HardwareProfile, list_profiles, load_profile, parse_profile
from hwdse.networks import layer_graph
from tests.profiles import figure, processor

P = Precision.parse
W8A8 = P("W8A8")
LINEAR = Layer("l", "linear", "x", "y", (64,), (10,), 640, "l.w", (10, 64))
"""640 MACs take 0.64 us at 1 GMAC/s; 640 bytes of weights and 74 of activations."""


def level(name: str, gb_per_s: float | None, *holds: str) -> dict[str, Any]:
    bandwidth = {} if gb_per_s is None else {"bandwidth_gb_per_s": figure(gb_per_s)}
    return {"name": name, "holds": list(holds), "capacity_kib": figure(64), **bandwidth}


def device(*memories: dict[str, Any], **sections: object) -> HardwareProfile:
    rates = [{"weights": "int8", "activations": "int8", "gmac_per_s": figure(1)}]
    return parse_profile(processor(rates=rates, memories=list(memories), **sections))


@pytest.mark.parametrize("network", ["resnet8", "ds_cnn"])
@pytest.mark.parametrize("name", list_profiles())
def test_the_parts_are_the_latency_of_every_layer(name: str, network: str) -> None:
    profile, graph = load_profile(name), layer_graph(network)
    chosen = [
        (layer, precision)
        for layer in graph.layers
        for precision in profile.precisions
        if profile.supports(layer, precision)
    ]
    assert chosen
    levels = {memory.name for memory in profile.memories if memory.bandwidth_gb_per_s is not None}
    for layer, precision in chosen:
        spent = resources_ms(layer, precision, profile)
        assert sum(spent.values()) == pytest.approx(layer_latency_ms(layer, precision, profile), rel=1e-12)
        assert min(spent.values()) > 0
        assert len(set(spent) - {OVERHEAD}) == 1
        assert set(spent) <= {COMPUTE, OVERHEAD, TABLE} | levels


@pytest.mark.parametrize(
    ("memories", "spent"),
    [
        ([], {"compute": 0.64e-3}),
        ([level("SRAM", None, "weights", "activations")], {"compute": 0.64e-3}),
        ([level("SRAM", 2, "weights", "activations")], {"compute": 0.64e-3}),  # 0.357 us
        ([level("SRAM", 1, "weights", "activations")], {"SRAM": 0.714e-3}),
        ([level("SRAM", 0.1, "activations"), level("flash", 0.8, "weights")], {"flash": 0.8e-3}),
        ([level("SRAM", 0.05, "activations"), level("flash", 0.8, "weights")], {"SRAM": 1.48e-3}),
        ([level("SRAM", 2, "activations"), level("flash", 4, "weights")], {"compute": 0.64e-3}),
    ],
)
def test_the_slower_of_macs_and_traffic_is_named(memories: list[dict[str, Any]], spent: dict[str, float]) -> None:
    assert resources_ms(LINEAR, W8A8, device(*memories)) == pytest.approx(spent)


def test_overhead_stands_beside_it() -> None:
    profile = device(level("SRAM", 1, "weights", "activations"), overhead={"us_per_layer": figure(3)})
    assert resources_ms(LINEAR, W8A8, profile) == pytest.approx({"SRAM": 0.714e-3, "overhead": 3e-3})


def test_factors_of_calibration_decide_what_is_slower() -> None:
    memory = level("SRAM", 1, "weights", "activations")
    profile = device(memory, calibration={"compute": figure(1.2), "us_per_layer": figure(3)})
    assert resources_ms(LINEAR, W8A8, profile) == pytest.approx({"compute": 0.768e-3, "overhead": 3e-3})
    profile = device(memory, calibration={"compute": figure(1.2), "traffic": figure(2)})
    assert resources_ms(LINEAR, W8A8, profile) == pytest.approx({"SRAM": 1.428e-3})


def test_a_factor_of_the_precision_is_in_every_part() -> None:
    calibration = {"precisions": {"W8A8": figure(2)}, "integer_layers": figure(1.5)}
    profile = device(overhead={"us_per_layer": figure(4)}, calibration=calibration)
    assert resources_ms(LINEAR, W8A8, profile) == pytest.approx({"compute": 3 * 0.64e-3, "overhead": 3 * 4e-3})


def test_a_table_is_not_divided() -> None:
    t4 = load_profile("nvidia_t4")
    layer = Layer(
        "c", "conv", "x", "y", (64, 56, 56), (64, 56, 56), 64 * 64 * 9 * 56 * 56, "c.w", (64, 64, 3, 3), 0, (3, 3),
        (1, 1),
    )  # fmt: skip
    entry = t4.table.lookup(layer, P("W4A4"))
    assert entry is not None
    factor = t4.layer_factor(layer, P("W4A4"))
    spent = resources_ms(layer, P("W4A4"), t4)
    assert spent == pytest.approx({"table": factor * entry.latency_ms, "overhead": factor * t4.layer_us * 1e-3})
    whole = type(t4.table)(
        {key: type(e)(e.latency_ms, "layer", e.kind, e.source) for key, e in t4.table.entries.items()}
    )
    spent = resources_ms(layer, P("W4A4"), HardwareProfile(t4.spec, whole))
    assert spent == pytest.approx({"table": factor * entry.latency_ms})


def test_a_precision_that_the_device_lacks_is_an_error() -> None:
    with pytest.raises(InputError, match="expected a precision that processor supports for l, got W4A8"):
        resources_ms(LINEAR, P("W4A8"), device())
