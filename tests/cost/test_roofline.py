"""Where a layer lies under the roofline: never above it, on it where nothing is lost, with published peaks at hand."""

from __future__ import annotations

from typing import Any

import pytest

from hwdse.cost.latency import Origin, layer_latency_ms
from hwdse.cost.resources import OVERHEAD, resources_ms
from hwdse.cost.roofline import layer_bound
from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.graph import Layer
from hwdse.hardware import HardwareProfile, list_profiles, load_profile, parse_profile
from hwdse.networks import layer_graph
from tests.profiles import figure, processor

P = Precision.parse
W8A8 = P("W8A8")
LINEAR = Layer("l", "linear", "x", "y", (64,), (10,), 640, "l.w", (10, 64))
"""640 MACs; 640 bytes of weights and 74 of activations."""


def level(gb_per_s: float | None, *holds: str) -> dict[str, Any]:
    bandwidth = {} if gb_per_s is None else {"bandwidth_gb_per_s": figure(gb_per_s)}
    return {"name": "sram", "holds": list(holds), "capacity_kib": figure(64), **bandwidth}


def device(memory: dict[str, Any], **sections: object) -> HardwareProfile:
    rates = [{"weights": "int8", "activations": "int8", "gmac_per_s": figure(2)}]
    return parse_profile(processor(rates=rates, memories=[memory], **sections))


@pytest.mark.parametrize("network", ["resnet8", "vit_tiny"])
@pytest.mark.parametrize("name", list_profiles())
def test_no_layer_lies_above_the_roof(name: str, network: str) -> None:
    profile, graph = load_profile(name), layer_graph(network)
    for layer in graph.layers:
        for precision in profile.precisions:
            if not profile.supports(layer, precision):
                continue
            bound = layer_bound(layer, precision, profile)
            assert bound.latency_ms == layer_latency_ms(layer, precision, profile)
            spent = resources_ms(layer, precision, profile)
            assert bound.bound_ms == pytest.approx(sum(spent.values()) - spent.get(OVERHEAD, 0.0), rel=1e-9, abs=1e-12)
            if bound.origin is Origin.TABLE:
                continue
            attained = bound.macs / bound.bound_ms * 1e-6
            assert attained <= bound.compute_gmac_per_s * (1 + 1e-9)
            if bound.memory:
                assert attained <= bound.macs / bound.memory_bytes * bound.memory_gb_per_s * (1 + 1e-9)


def test_a_layer_without_losses_lies_on_the_roof() -> None:
    slow = layer_bound(LINEAR, W8A8, device(level(0.1, "weights", "activations")))
    assert (slow.memory, slow.memory_bytes, slow.memory_gb_per_s) == ("sram", 714, pytest.approx(0.1))
    assert slow.bound_ms == pytest.approx(714 / 0.1e9 * 1e3)
    assert slow.macs / slow.bound_ms * 1e-6 == pytest.approx(640 / 714 * 0.1)
    fast = layer_bound(LINEAR, W8A8, device(level(100, "weights", "activations"), batch=4))
    assert fast.macs == 4 * 640
    assert fast.memory_bytes == 640 + 4 * 74
    assert fast.macs / fast.bound_ms * 1e-6 == pytest.approx(2.0) == fast.compute_gmac_per_s
    assert fast.origin is Origin.CLOSED_FORM


def test_without_a_bandwidth_all_traffic_counts_and_there_is_no_slope() -> None:
    bound = layer_bound(LINEAR, W8A8, device(level(None, "weights")))
    assert (bound.memory, bound.memory_bytes, bound.memory_gb_per_s) == ("", 714, 0.0)


def test_the_overhead_is_beside_the_bound() -> None:
    profile = device(level(None, "weights"), overhead={"us_per_layer": figure(5)})
    bound = layer_bound(LINEAR, W8A8, profile)
    assert bound.latency_ms - bound.bound_ms == pytest.approx(5e-3)
    assert bound.bound_ms == pytest.approx(640 / 2e9 * 1e3)


def test_a_precision_that_does_not_run_is_refused() -> None:
    with pytest.raises(InputError, match=r"expected a precision that .* supports for l, got W2A8"):
        layer_bound(LINEAR, P("W2A8"), device(level(1, "weights")))
