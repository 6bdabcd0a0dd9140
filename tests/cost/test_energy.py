import pytest

from hwdse.cost import cost_table
from hwdse.cost.energy import layer_energy_mj
from hwdse.cost.latency import layer_latency_ms
from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.graph import Layer, LayerGraph, tie
from hwdse.hardware import load_profile, parse_profile

P = Precision.parse
LAYER = Layer("fc", "linear", "x", "y", (100,), (50,), 5000, "fc.w", (50, 100), 50)
MPIC, STM32, GAP9, T4 = (load_profile(name) for name in ("mpic", "stm32h7a3", "gap9_ne16", "nvidia_t4"))


def test_microcontrollers_take_active_power_for_the_time() -> None:
    assert layer_energy_mj(LAYER, P("W8A8"), MPIC) == pytest.approx(5000 / 2.1 / 250e6 * 5.38)  # s x mW
    time_s = layer_latency_ms(LAYER, P("W8A8"), STM32) * 1e-3
    assert layer_energy_mj(LAYER, P("W8A8"), STM32) == pytest.approx(time_s * 126.4 * STM32.energy_factor)
    assert layer_energy_mj(LAYER, P("W8A8"), MPIC) == pytest.approx(layer_latency_ms(LAYER, P("W8A8"), MPIC) * 5.38e-3)


def test_gap9_takes_energy_per_mac_and_static_power() -> None:
    time_s = layer_latency_ms(LAYER, P("W8A8"), GAP9) * 1e-3
    assert layer_energy_mj(LAYER, P("W8A8"), GAP9) == pytest.approx(
        (5000 * 1.23e-9 + time_s * 42.8) * GAP9.energy_factor
    )


def test_the_t4_counts_a_whole_batch() -> None:
    assert layer_energy_mj(LAYER, P("W8A8"), T4) == pytest.approx(layer_latency_ms(LAYER, P("W8A8"), T4) * 70)


def test_bytes_cost_energy_at_every_level() -> None:
    raw = GAP9.spec.model_dump(exclude_none=True, mode="json")
    source = {"kind": "measured", "source": "PLiNIO"}
    raw["memories"][1]["pj_per_byte"] = {"value": 20, **source}  # L2, weights and activations
    raw["memories"][2]["pj_per_byte"] = {"value": 300, **source}  # eMRAM, weights
    raw["rates"][0]["pj_per_mac"] = {"value": 2, **source}
    raw["batch"] = 4
    device = parse_profile(raw)
    dynamic_pj = 4 * 5000 * 2 + 20 * (5000 + 4 * 150) + 300 * 5000
    static = layer_latency_ms(LAYER, P("W8A8"), device) * 1e-3 * 42.8
    assert layer_energy_mj(LAYER, P("W8A8"), device) == pytest.approx((dynamic_pj * 1e-9 + static) * GAP9.energy_factor)


def test_a_profile_without_energy_says_what_to_do() -> None:
    raw = MPIC.spec.model_dump(exclude_none=True, mode="json")
    del raw["power"], raw["sources"]["PLiNIO"]
    graph = LayerGraph((LAYER,), (), tie((LAYER,)))
    with pytest.raises(InputError, match=r"got mpic without; add one to it or leave energy_mj out"):
        cost_table(graph, parse_profile(raw), [P("W8A8")], metrics=["energy_mj"])
    cost_table(graph, parse_profile(raw), [P("W8A8")], metrics=["latency_ms"])
