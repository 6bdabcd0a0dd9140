"""Rates: how they change with widths, which of them runs a layer, and what is wrong with them."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest

from hwdse.errors import ProfileError
from hwdse.formats import Precision
from hwdse.graph import Layer
from hwdse.hardware import HardwareProfile, Kind, Rate, load_profile, parse_profile
from hwdse.hardware.rate import Scaling
from tests.profiles import figure, processor

P = Precision.parse


def conv(inputs: int, outputs: int, *, kernel: tuple[int, ...] = (3, 3), groups: int = 1) -> Layer:
    size = (6,) * len(kernel)
    weights = (outputs, inputs // groups, *kernel)
    return Layer(
        "c", "conv", "x", "y", (inputs, *size), (outputs, *size), prod(weights) * prod(size), "c.w", weights, 0, kernel,
        (1,) * len(kernel), groups,
    )  # fmt: skip


LINEAR = Layer("l", "linear", "x", "y", (64,), (10,), 640, "l.w", (10, 64))


def scaling(rule: str, weights: list[str], activations: list[str]) -> dict[str, Any]:
    return {"rule": rule, "weights": weights, "activations": activations, "source": "Lab2024"}


def device(*rates: dict[str, Any], **sections: object) -> HardwareProfile:
    return parse_profile(processor(rates=list(rates), **sections))


def rate(weights: str = "int8", **more: object) -> dict[str, Any]:
    speed = {} if {"macs_per_cycle", "cycles", "gmac_per_s"} & set(more) else {"gmac_per_s": figure(1)}
    return {"weights": weights, "activations": "int8", **speed, **more}


def faults_of(*rates: dict[str, Any], **sections: object) -> tuple[str, ...]:
    with pytest.raises(ProfileError, match="fault") as caught:
        device(*rates, **sections)
    return caught.value.faults


@pytest.mark.parametrize(
    ("rule", "reference", "pair", "times"),
    [
        ("weight_serial", "W16A16", "W4A16", 16 / 4),
        ("weight_serial", "W16A16", "W3A16", 16 / 3),
        ("weight_serial", "W2A8", "W8A8", 2 / 8),
        ("weight_serial", "W8A8", "W4A4", 8 / 4),  # activations make no difference
        ("serial", "W8A8", "W4A4", 64 / 16),
        ("serial", "W8A8", "W2A8", 64 / 16),
        ("serial", "W8A8", "W3A5", 64 / 15),
        ("serial", "W4A4", "W8A8", 16 / 64),
        ("fusion", "W8A8", "W4A4", 4),
        ("fusion", "W8A8", "W2A2", 16),
        ("fusion", "W8A8", "W2A8", 4),
        ("fusion", "W8A8", "W3A8", 2),  # 3 bits take the units of 4
        ("fusion", "W8A8", "W3A3", 4),
        ("fusion", "W8A8", "W7A5", 1),  # 5 to 7 bits those of 8
        ("fusion", "W8A8", "W6A4", 2),
        ("fusion", "W8A8", "W1A8", 4),  # 1 bit those of 2
        ("fusion", "W8A8", "W1A1", 16),
        ("fusion", "W8A8", "W9A8", 1 / 2),
        ("fusion", "W5A8", "W4A8", 2),  # the reference is rounded up too
        ("cycles", "W8A8", "W2A2", 1),
    ],
)
def test_rules_by_hand(rule: str, reference: str, pair: str, times: float) -> None:
    found = Scaling.model_validate(scaling(rule, ["int4"], ["int8"]))
    assert found.speed(P(pair), P(reference)) == pytest.approx(times)


@pytest.mark.parametrize("key", ["macs_per_cycle", "gmac_per_s"])
def test_an_entry_stands_for_all_its_pairs_and_energy_goes_the_other_way(key: str) -> None:
    entry = {
        "weights": "int8",
        "activations": "int8",
        key: figure(512.0, low=400.0, high=600.0, note="the peak"),
        "pj_per_mac": figure(0.459, low=0.3, high=0.69),
        "op_classes": ["conv", "linear"],
        "efficiency": figure(0.5),
        "unit": "array",
        "kernels": ["3x3"],
        "max_channels": figure(64),
        "scaling": scaling("fusion", ["int8", "int4", "int2"], ["int8", "int4"]) | {"source": "Rule2018"},
    }
    pairs = Rate.model_validate(entry).pairs
    assert [str(pair.precision) for pair in pairs] == ["W8A8", "W8A4", "W4A8", "W4A4", "W2A8", "W2A4"]
    speeds = [getattr(pair, key) for pair in pairs]
    assert [speed.value for speed in speeds] == [512, 1024, 1024, 2048, 2048, 4096]
    assert [speed.low for speed in speeds] == [400, 800, 800, 1600, 1600, 3200]
    assert [speed.high for speed in speeds] == [600, 1200, 1200, 2400, 2400, 4800]
    assert {speed.note for speed in speeds} == {"the peak"}
    energies = [pair.pj_per_mac for pair in pairs]
    assert all(energy is not None for energy in energies)
    expected = [0.459, 0.2295, 0.2295, 0.11475, 0.11475, 0.057375]
    assert [energy.value for energy in energies if energy is not None] == pytest.approx(expected)
    assert [(energy.low, energy.high) for energy in energies if energy is not None][-1] == pytest.approx(
        (0.3 / 8, 0.69 / 8)
    )
    own, *others = pairs
    assert (getattr(own, key).kind, getattr(own, key).source) == (Kind.MEASURED, "Lab2024")
    for other in others:
        assert (getattr(other, key).kind, getattr(other, key).source) == (Kind.MODELLED, "Rule2018")
        assert other.pj_per_mac is not None
        assert (other.pj_per_mac.kind, other.pj_per_mac.source) == (Kind.MODELLED, "Rule2018")
    for pair in pairs:
        assert pair.scaling is None
        assert (pair.op_classes, pair.unit, pair.kernels) == (("conv", "linear"), "array", ("3x3",))
        assert pair.efficiency == own.efficiency
        assert pair.max_channels == own.max_channels


def test_energy_per_second_is_the_same_for_every_pair() -> None:
    entry = rate(
        macs_per_cycle=figure(512.0), pj_per_mac=figure(0.459),
        scaling=scaling("serial", ["int8", "int5", "int3"], ["int7", "int4"]),
    )  # fmt: skip
    products = [
        pair.macs_per_cycle.value * pair.pj_per_mac.value
        for pair in Rate.model_validate(entry).pairs
        if pair.macs_per_cycle is not None and pair.pj_per_mac is not None
    ]
    assert products == pytest.approx([512 * 0.459] * 6)


def test_an_entry_without_scaling_stands_for_itself() -> None:
    entry = Rate.model_validate(rate())
    assert entry.pairs == (entry,)


def test_the_pair_of_the_entry_is_there_only_if_it_is_listed() -> None:
    profile = device(rate(scaling=scaling("weight_serial", ["int4", "int2"], ["int8"])))
    assert [str(precision) for precision in profile.precisions] == ["W4A8", "W2A8"]
    found = profile.rate(LINEAR, P("W2A8"))
    assert found is not None
    assert profile.macs_ms(LINEAR, found, 640) == pytest.approx(640 / 4e9 * 1e3)


def test_a_closed_form_gets_the_widths_of_the_pair() -> None:
    form = {"model": "ne16", "source": "Lab2024"}
    entry = rate(cycles=form, scaling=scaling("cycles", ["int8", "int4", "int2"], ["int8"]))
    profile = device(entry, clock_mhz=figure(100))
    layer = Layer("c", "conv", "x", "y", (16, 3, 3), (32, 3, 3), 41472, "w", (32, 16, 3, 3), 0, (3, 3), (1, 1))
    for bits in (8, 4, 2):
        found = profile.rate(layer, P(f"W{bits}A8"))
        assert found is not None
        assert profile.macs_ms(layer, found, layer.macs) == pytest.approx((45 + 32 * bits + 54) / 100e3)


def test_a_chip_that_fuses_units_has_the_published_energies() -> None:
    fused = load_profile("bitfusion_45nm")
    published = {"W8A8": 0.459, "W4A4": 0.115, "W2A2": 0.0287}  # pJ per MAC of the synthesized unit
    for precision, energy in published.items():
        found = fused.rate(LINEAR, P(precision))
        assert found is not None
        assert fused.pj_per_mac(found) == pytest.approx(energy, rel=3e-3)


def ran_by(profile: HardwareProfile, layer: Layer, precision: str = "W8A8") -> float | None:
    """Return the speed of the rate that runs a layer, if one does."""
    found = profile.rate(layer, P(precision))
    return found.gmac_per_s.value if found is not None and found.gmac_per_s is not None else None


def test_a_rate_for_the_kernel_comes_before_one_for_the_class_and_before_a_general_one() -> None:
    general = rate(gmac_per_s=figure(1))
    own_class = rate(gmac_per_s=figure(2), op_classes=["conv", "linear"])
    own_kernel = rate(gmac_per_s=figure(3), kernels=["3x3", "9"])
    for rates in ((general, own_class, own_kernel), (own_kernel, own_class, general)):
        profile = device(*rates)
        assert ran_by(profile, conv(4, 8)) == 3
        assert ran_by(profile, conv(4, 8, kernel=(9,))) == 3
        assert ran_by(profile, conv(4, 4, groups=4)) == 3
        assert ran_by(profile, conv(4, 8, kernel=(5, 5))) == 2
        assert ran_by(profile, conv(4, 8, kernel=(3, 1))) == 2
        assert ran_by(profile, LINEAR) == 2
        assert ran_by(profile, conv(4, 8, kernel=(1, 1))) == 1


def test_kernels_that_no_rate_is_for_are_not_supported() -> None:
    profile = device(rate(kernels=["3x3", "1x1"]))
    assert profile.supports(conv(4, 8), P("W8A8"))
    assert profile.supports(conv(4, 8, kernel=(1, 1)), P("W8A8"))
    assert not profile.supports(conv(4, 8, kernel=(5, 5)), P("W8A8"))
    assert not profile.supports(LINEAR, P("W8A8"))  # a linear layer has no kernel


@pytest.mark.parametrize(
    ("layer", "runs"),
    [
        (conv(64, 64), True),
        (conv(65, 8), False),
        (conv(8, 65), False),
        (conv(64, 64, groups=64), True),
        (conv(66, 66, groups=66), False),  # all groups together
        (LINEAR, True),
        (Layer("l", "linear", "x", "y", (65,), (10,), 650, "l.w", (10, 65)), False),
    ],
)
def test_wider_layers_than_a_rate_is_for_are_not_supported(layer: Layer, runs: bool) -> None:
    assert device(rate(max_channels=figure(64))).supports(layer, P("W8A8")) is runs


def test_a_layer_too_wide_for_its_kernels_rate_falls_to_the_next_one() -> None:
    profile = device(rate(gmac_per_s=figure(3), kernels=["3x3"], max_channels=figure(64)), rate(gmac_per_s=figure(1)))
    assert ran_by(profile, conv(64, 64)) == 3
    assert ran_by(profile, conv(65, 64)) == 1


FORM = {"model": "ne16", "source": "Lab2024"}
SPEEDS = {"macs_per_cycle": figure(1), "gmac_per_s": figure(1), "cycles": FORM}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((), "none"),
        (("macs_per_cycle", "gmac_per_s"), "macs_per_cycle and gmac_per_s"),
        (("macs_per_cycle", "cycles"), "macs_per_cycle and cycles"),
        (("gmac_per_s", "cycles"), "gmac_per_s and cycles"),
        (("macs_per_cycle", "gmac_per_s", "cycles"), "macs_per_cycle and gmac_per_s and cycles"),
    ],
)
def test_a_rate_has_one_speed(given: tuple[str, ...], words: str) -> None:
    entry = {"weights": "int8", "activations": "int8"} | {key: SPEEDS[key] for key in given}
    source = {"clock_mhz": figure(100)}
    (fault,) = faults_of(entry, rate("int4"), **source)
    assert fault == f"rates[0]: expected one of macs_per_cycle, gmac_per_s and cycles, got {words}"


CLOCK = "expected clock_mhz beside it, got none; add it or use gmac_per_s"
FAULTS = [
    (
        [rate(cycles=FORM, scaling=scaling("serial", ["int4"], ["int8"]))],
        "rates[0]: expected the rule 'cycles' beside a closed form, got 'serial'",
    ),
    (
        [rate(macs_per_cycle=figure(1), scaling=scaling("cycles", ["int4"], ["int8"]))],
        "rates[0]: expected another rule beside a rate, got 'cycles'",
    ),
    (
        [rate(cycles={"model": "ne61", "source": "Lab2024"})],
        "rates[0].cycles.model: expected a closed form of cycles, got 'ne61'; did you mean ne16?",
    ),
    (
        [rate(cycles={"model": "xyz", "source": "Lab2024"})],
        "rates[0].cycles.model: expected a closed form of cycles, got 'xyz'; known: diana_analog, diana_digital, gap8, "
        "ne16",
    ),
    (
        [rate(cycles={"model": "gap8", "source": "Lab2025"})],
        "rates[0].cycles.source: expected a key of [sources], got 'Lab2025'; did you mean Lab2024?",
    ),
    (
        [rate(scaling=scaling("parallel", ["int4"], ["int8"]))],
        "rates[0].scaling.rule: expected 'weight_serial', 'serial', 'fusion' or 'cycles', got 'parallel'",
    ),
    (
        [rate(scaling=scaling("serial", [], ["int8"]))],
        "rates[0].scaling.weights: expected at least 1 entry, got []",
    ),
    (
        [rate(scaling=scaling("serial", ["int4"], ["uint8"]))],
        "rates[0].scaling.activations[0]: expected the signed name (the scheme decides the sign), got 'uint8'; write "
        "'int8'",
    ),
    (
        [rate(scaling=scaling("serial", ["int8", "int4"], ["int8", "int4"])), rate("int4")],
        "rates[1]: expected one rate per pair and class, got int4 x int8 for every class as in rates[0]",
    ),
    (
        [
            rate("int4", op_classes=["linear"]),
            rate(op_classes=["conv", "linear"], scaling=scaling("serial", ["int8", "int4"], ["int8"])),
        ],
        "rates[1]: expected one rate per pair and class, got int4 x int8 for linear as in rates[0]",
    ),
    (
        [rate(kernels=["1x1", "3x3"]), rate(kernels=["3x3", "5x5"])],
        "rates[1]: expected one rate per pair and class, got int8 x int8 for every class 3x3 as in rates[0]",
    ),
    ([rate(kernels=["3x"])], r"rates[0].kernels[0]: expected text that matches ^\d+(x\d+)*$, got '3x'"),
    ([rate(max_channels=figure(0))], "rates[0].max_channels.value: expected a number of at least 1, got 0"),
]


@pytest.mark.parametrize(("rates", "fault"), FAULTS)
def test_faults(rates: list[dict[str, Any]], fault: str) -> None:
    assert fault in faults_of(*rates, clock_mhz=figure(100))


@pytest.mark.parametrize("key", ["cycles", "macs_per_cycle"])
def test_cycles_need_a_clock(key: str) -> None:
    assert faults_of(rate("int4"), {"weights": "int8", "activations": "int8", key: SPEEDS[key]}) == (
        f"rates[1].{key}: {CLOCK}",
    )


def test_rates_of_one_pair_for_different_kernels_are_no_fault() -> None:
    profile = device(rate(kernels=["3x3"]), rate(kernels=["5x5"]), rate(kernels=["3x3"], op_classes=["depthwise"]))
    assert profile.precisions == (P("W8A8"),)
