from dataclasses import replace
from typing import Any

import pytest

from hwdse.formats import Precision
from hwdse.graph import Layer
from hwdse.hardware import HardwareProfile, load_profile, parse_profile

P = Precision.parse
CONV = Layer("conv", "conv", "x", "y", (3, 8, 8), (8, 8, 8), 13824, "w", (8, 3, 3, 3), 8, (3, 3), (1, 1))
LINEAR = Layer("fc", "linear", "x", "y", (64,), (10,), 640, "w", (10, 64))
MATMUL = Layer("qk", "matmul", "q", "s", (4, 16, 8), (4, 16, 16), 8192, second_input="k", second_shape=(4, 8, 16))


@pytest.fixture
def profile(raw: dict[str, Any]) -> HardwareProfile:
    return parse_profile(raw)


def test_a_pair_without_a_rate_is_not_supported(profile: HardwareProfile) -> None:
    assert profile.supports(CONV, P("W8A8"))
    assert profile.supports(CONV, P("W4A4"))
    assert not profile.supports(CONV, P("W2A8"))
    assert not profile.supports(CONV, P("fp32"))


def test_a_general_rate_covers_the_classes_with_an_efficiency(profile: HardwareProfile) -> None:
    assert profile.op_classes == ("conv", "linear")
    assert not profile.supports(MATMUL, P("W8A8"))


def test_a_class_without_an_efficiency_is_named_where_a_rate_would_be_for_it(raw: dict[str, Any]) -> None:
    """The general rates are W8A8 and W4A8; linear has rates of its own at W8A8 and W4A4."""
    del raw["efficiency"]["linear"]
    raw["rates"][2]["efficiency"] = raw["rates"][3]["efficiency"]
    found = parse_profile(raw)
    named = {name: list(map(str, own)) for name, own in found.unnamed.items()}
    others = ("pointwise", "depthwise", "grouped", "matmul")
    assert named == {key: ["W8A8", "W4A8"] for key in others} | {"linear": ["W4A8"]}
    candidates = [Precision.parse(text) for text in ("W8A8", "W4A8", "W4A4")]
    assert found.unnamed_notes(["conv", "linear"], candidates) == (
        "board runs no linear layer at W4A8, since [efficiency] has no share for linear",
    )
    assert found.unnamed_notes(["conv", "linear"], candidates[:1]) == ()
    del raw["efficiency"]
    assert parse_profile(raw).unnamed == {}


def test_without_efficiency_a_general_rate_covers_every_class(raw: dict[str, Any]) -> None:
    del raw["efficiency"]
    profile = parse_profile(raw)
    assert profile.supports(MATMUL, P("W8A8"))
    assert not profile.supports(MATMUL, P("W4A4"))


def achieved(profile: HardwareProfile, layer: Layer, precision: str) -> float:
    rate = profile.rate(layer, P(precision))
    assert rate is not None
    return layer.macs / profile.macs_ms(layer, rate, layer.macs) * 1e-6


def test_the_rate_of_the_class_comes_before_the_general_one(profile: HardwareProfile) -> None:
    assert achieved(profile, CONV, "W8A8") == pytest.approx(2.0 * 0.1 * 0.5)  # MAC/cycle x GHz x efficiency
    assert achieved(profile, LINEAR, "W8A8") == pytest.approx(0.1)  # its own rate in GMAC/s


def test_the_efficiency_of_a_rate_takes_the_place_of_the_classes(profile: HardwareProfile) -> None:
    assert achieved(profile, CONV, "W4A4") == pytest.approx(4.0 * 0.1 * 0.25)


def test_a_container_is_what_is_stored(profile: HardwareProfile) -> None:
    assert profile.emulated(CONV, P("W4A8"))
    assert profile.stored(CONV, P("W4A8")) == P("W8A8")
    assert not profile.emulated(CONV, P("W4A4"))
    assert profile.stored(CONV, P("W4A4")) == P("W4A4")


def test_candidates_keep_the_order_asked_for(profile: HardwareProfile) -> None:
    asked = [P(text) for text in ("W2A8", "W4A4", "W8A8", "fp32", "W4A8")]
    assert profile.candidates(asked) == (P("W4A4"), P("W8A8"), P("W4A8"))


def test_a_profile_without_a_measured_table_says_so(profile: HardwareProfile) -> None:
    assert not profile.has_measured_table
    assert profile.accuracy_note.startswith("order of magnitude: board has no measured table")


@pytest.mark.parametrize("name", ["mpic", "stm32h7a3", "gap9_ne16"])
def test_only_the_t4_has_a_measured_table(name: str) -> None:
    assert not load_profile(name).has_measured_table
    assert load_profile("nvidia_t4").has_measured_table


MPIC = {  # Ottavi et al., arXiv:2010.04073: MAC per cycle by activation width, then weight width 2, 4, 8
    2: (6.5, 4.0, 2.2),
    4: (3.9, 3.5, 2.1),
    8: (2.5, 2.3, 2.1),
}


@pytest.mark.parametrize("activations", MPIC)
def test_mpic_has_the_published_rates(activations: int) -> None:
    mpic = load_profile("mpic")
    rates = [achieved(mpic, CONV, f"W{w}A{activations}") / 0.25 for w in (2, 4, 8)]
    assert rates == pytest.approx(MPIC[activations])
    assert mpic.spec.power is not None
    assert mpic.power_mw == 5.38


@pytest.mark.parametrize(("bits", "macs_per_cycle"), [(8, 138), (4, 240), (2, 380)])
def test_ne16_is_weight_serial_in_3x3_mode_only(bits: int, macs_per_cycle: float) -> None:
    gap9 = load_profile("gap9_ne16")
    pointwise = Layer("pw", "conv", "x", "y", (16, 3, 3), (32, 3, 3), 4608, "w", (32, 16, 1, 1), 0, (1, 1), (1, 1))
    many = Layer("c", "conv", "x", "y", (1600, 3, 3), (32, 3, 3), 4147200, "w", (32, 1600, 3, 3), 0, (3, 3), (1, 1))
    wide = replace(pointwise, input_shape=(1600, 3, 3), macs=460800, weight_shape=(32, 1600, 1, 1))
    assert achieved(gap9, many, f"W{bits}A8") / 0.37 == pytest.approx(macs_per_cycle, rel=1e-2)
    assert achieved(gap9, wide, f"W{bits}A8") / 0.37 == pytest.approx(4608 / 65, rel=1e-2)
    assert achieved(gap9, pointwise, f"W{bits}A8") / 0.37 == pytest.approx(4608 / (65 + 41 + 13), rel=1e-3)


def test_ne16_has_no_products_of_activations() -> None:
    assert load_profile("gap9_ne16").op_classes == ("conv", "pointwise", "depthwise", "grouped", "linear")


def test_the_t4_emulates_w4a8_in_int8() -> None:
    t4 = load_profile("nvidia_t4")
    assert t4.emulated(CONV, P("W4A8"))
    assert not t4.emulated(CONV, P("W4A4"))
    assert t4.batch == 8
