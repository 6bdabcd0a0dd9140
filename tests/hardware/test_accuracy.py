"""What a profile claims of its own predictions: for which networks, in which words, and how it is measured."""

from __future__ import annotations

from typing import Any

import pytest

from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.graph import Layer
from hwdse.hardware import parse_profile
from hwdse.hardware.cycles import ne16
from tests.profiles import figure, processor

RATES = [{"weights": "int8", "activations": "int8", "gmac_per_s": figure(100)}]


def claim(**keys: Any) -> dict[str, Any]:
    return {"basis": "leave_one_network_out", "latency_factor": figure(1.5), **keys}


def test_a_claim_holds_for_networks_of_about_the_same_size() -> None:
    sizes = {"smallest_mmacs": figure(30), "largest_mmacs": figure(600)}
    profile = parse_profile(processor(rates=RATES, accuracy=claim(**sizes)))
    found = [profile.claims_for(int(mmacs * 1e6)) for mmacs in (5, 6, 100, 3000, 3001)]
    assert found == [False, True, True, True, False]
    anything = parse_profile(processor(rates=RATES, accuracy=claim()))
    assert anything.claims_for(1)
    assert parse_profile(processor(rates=RATES)).claims_for(1)


def test_uncertainty_is_by_column() -> None:
    profile = parse_profile(processor(rates=RATES, accuracy=claim(energy_factor=figure(2))))
    assert profile.uncertainty("latency_ms_predicted") == 1.5
    assert profile.uncertainty("energy_mj_predicted") == 2
    assert profile.uncertainty("size_kib") is None
    assert parse_profile(processor(rates=RATES)).uncertainty("latency_ms_predicted") is None


@pytest.mark.parametrize(
    ("basis", "words"),
    [
        ("leave_one_network_out", "from 7 published latencies of 3 networks each predicted from the others"),
        ("fitted", "from 7 published latencies of 3 networks that the fit saw"),
        ("unfitted", "from 7 published latencies of 3 networks that nothing was fitted to"),
    ],
)
def test_the_claim_in_words(basis: str, words: str) -> None:
    accuracy = claim(rows=figure(7), networks=figure(3)) | {"basis": basis}
    profile = parse_profile(processor(rates=RATES, accuracy=accuracy))
    assert (
        profile.accuracy_claim
        == f"where it could be checked it is closer, 90 % interval: a factor of 1.5 either way, {words}"
    )
    assert profile.accuracy_note.endswith(f"its figures come from a closed form; {profile.accuracy_claim}")


def test_a_claim_by_analogy_says_so() -> None:
    profile = parse_profile(processor(rates=RATES, accuracy=claim() | {"basis": "analogy"}))
    assert profile.accuracy_claim == "90 % interval: a factor of 1.5 either way, by analogy"
    assert parse_profile(processor(rates=RATES)).accuracy_claim == ""


def test_ne16_runs_3x3_depthwise_layers_alone() -> None:
    wide = Layer("dw", "conv", "x", "y", (16, 3, 3), (16, 3, 3), 3600, "w", (16, 1, 5, 5), 0, (5, 5), (1, 1), 16)
    with pytest.raises(InputError, match="expected 3x3 depthwise layers for NE16, got 5x5 at dw; name kernels"):
        ne16(wide, Precision.parse("W8A8"))


def test_a_scaled_pair_of_equal_speed_was_not_measured() -> None:
    scaling = {"rule": "fusion", "weights": ["int8", "int7"], "activations": ["int8"], "source": "Lab2024"}
    profile = parse_profile(processor(rates=[RATES[0] | {"scaling": scaling}]))
    kinds = {str(rate.precision): str(rate.gmac_per_s.kind) for rate in profile.rates if rate.gmac_per_s is not None}
    assert kinds == {"W8A8": "measured", "W7A8": "modelled"}


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        (
            {
                "rates": [
                    RATES[0]
                    | {"weights": "int4", "container": "int8"}
                    | {"scaling": {"rule": "fusion", "weights": ["int4"], "activations": ["int8"], "source": "Lab2024"}}
                ]
            },
            "expected a rate of one pair beside container, got scaling",
        ),
        (
            {
                "rates": [RATES[0], RATES[0] | {"op_classes": ["linear"], "unit": "host"}],
                "handover": {"us": figure(1)},
                "nodes": [{"operator": "add", "activations": "int8", "us": figure(1)}],
            },
            r"handover: expected either \[handover\] or \[\[nodes\]\], got both",
        ),
        ({"rates": [RATES[0] | {"kernels": []}]}, r"rates\[0\]\.kernels: "),
        (
            {"rates": RATES, "calibration": {"precisions": {"W99A8": figure(1)}}},
            r"calibration\.precisions\.W99A8: expected a number format",
        ),
    ],
)
def test_contradictions_are_faults(sections: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        parse_profile(processor(**sections))


def test_a_claim_is_wider_for_precisions_without_published_figures() -> None:
    narrow = {"weights": "int4", "activations": "int8", "gmac_per_s": figure(100, low=50, high=150)}
    bare = {"weights": "int2", "activations": "int8", "gmac_per_s": figure(100)}
    contained = {"weights": "int3", "activations": "int8", "gmac_per_s": figure(100), "container": "int8"}
    accuracy = claim(precisions=["W8A8"], energy_factor=figure(2))
    profile = parse_profile(processor(rates=[*RATES, narrow, bare, contained], accuracy=accuracy))
    parsed = {text: Precision.parse(text) for text in ("W8A8", "W4A8", "W2A8", "W3A8")}
    factors = {text: profile.uncertainty("latency_ms_predicted", [parsed[text]]) for text in parsed}
    assert factors == {"W8A8": 1.5, "W4A8": 3.0, "W2A8": 2.25, "W3A8": 1.5}
    assert profile.uncertainty("energy_mj_predicted", parsed.values()) == 4.0
    assert profile.unchecked(parsed.values()) == (parsed["W4A8"], parsed["W2A8"])
    anything = parse_profile(processor(rates=[*RATES, narrow], accuracy=claim()))
    assert anything.uncertainty("latency_ms_predicted", [parsed["W4A8"]]) == 1.5
