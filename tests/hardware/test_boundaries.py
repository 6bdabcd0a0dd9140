"""The sections on what lies between layers: conversions by direction, operators without MACs, calibration."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hwdse.errors import ProfileError
from hwdse.formats import Precision, parse
from hwdse.graph import Layer
from hwdse.hardware import load_profile, parse_profile

CONV = Layer("c", "conv", "x", "y", (4, 6, 6), (8, 6, 6), 10368, "c.w", (8, 4, 3, 3), 8, (3, 3), (1, 1))
LINEAR = Layer("l", "linear", "x", "y", (512,), (10,), 5120, "l.w", (10, 512))
FLOAT, INT8, UINT8 = parse("fp32"), parse("int8"), parse("uint8")


def test_conversions_have_a_direction_and_the_class_that_is_named_comes_first(runtime: dict[str, Any]) -> None:
    profile = parse_profile(runtime)
    inwards, own, back = (
        profile.conversion(*ends) for ends in ((FLOAT, INT8, CONV), (FLOAT, UINT8, LINEAR), (UINT8, FLOAT, LINEAR))
    )
    assert inwards is not None
    assert own is not None
    assert back is not None
    assert inwards.time_us(0) == 2
    assert inwards.time_us(500_000) == 52
    assert own.time_us(500_000) == 1
    assert back.time_us(500_000) == 3
    assert profile.conversion(FLOAT, parse("int4"), CONV) is None


def test_operators_have_a_time_per_format(runtime: dict[str, Any]) -> None:
    times = parse_profile(runtime).node_times("add")
    assert {name: entry.time_us(100_000) for name, entry in times.items()} == {"fp32": 9, "int8": 2}
    assert parse_profile(runtime).node_times("relu") == {}


TERMS = ("float_layers", "integer_layers", "conversions", "nodes")


def test_calibration_has_factors_and_takes_the_place_of_the_time_per_inference(runtime: dict[str, Any]) -> None:
    profile = parse_profile(runtime)
    assert [profile.factor(term) for term in TERMS] == [1.25, 1, 1, 1]
    assert profile.inference_us == 60
    del runtime["calibration"]
    profile = parse_profile(runtime)
    assert profile.factor("float_layers") == 1
    assert profile.inference_us == 100
    del runtime["overhead"]
    assert parse_profile(runtime).inference_us == 0


def test_only_profiles_that_say_something_have_boundaries(runtime: dict[str, Any]) -> None:
    assert parse_profile(runtime).has_boundaries
    assert not load_profile("mpic").has_boundaries
    del runtime["conversions"]
    assert parse_profile(runtime).has_boundaries
    del runtime["nodes"]
    assert not parse_profile(runtime).has_boundaries


def test_what_is_written_can_be_read_again(runtime: dict[str, Any]) -> None:
    profile = parse_profile(runtime)
    assert parse_profile(profile.spec.model_dump(mode="json", exclude_none=True)) == profile
    written = json.loads(profile.spec.model_dump_json())
    assert written["conversions"][1]["from"] == "int8"
    assert written["calibration"]["float_layers"]["value"] == 1.25


def test_the_text_of_a_profile_without_them_names_none_of_them(runtime: dict[str, Any]) -> None:
    for key in ("conversions", "nodes", "calibration"):
        del runtime[key]
    written = json.loads(parse_profile(runtime).spec.model_dump_json())
    assert not {"conversions", "nodes", "calibration"} & set(written)
    assert written["switch"] is None  # an earlier key is written as ever


FAULTS = [
    ({"from": "int8", "to": "int8"}, "conversions[3]: expected two formats, got 'int8' twice"),
    ({"form": "int8", "to": "fp32"}, "conversions[3].form: expected no such key; did you mean from?"),
    ({"to": "fp32"}, "conversions[3].from: expected a value, got nothing; add it"),
    (
        {"from": "uint8", "to": "fp32"},
        "conversions[3].from: expected the signed name (the scheme decides the sign), got 'uint8'; write 'int8'",
    ),
    (
        {"from": "int16", "to": "fp32"},
        "conversions[3].from: expected a format that a rate stores activations in (fp32, int4, int8), got 'int16'",
    ),
    (
        {"from": "int8", "to": "fp32"},
        "conversions[3]: expected one entry per pair and class, got int8 to fp32 for every class as in conversions[1]",
    ),
    (
        {"from": "fp32", "to": "int8", "op_classes": ["conv", "linear"]},
        "conversions[3]: expected one entry per pair and class, got fp32 to int8 for linear as in conversions[2]",
    ),
]


@pytest.mark.parametrize(("entry", "fault"), FAULTS)
def test_faults_of_conversions(runtime: dict[str, Any], entry: dict[str, Any], fault: str) -> None:
    runtime["conversions"].append(entry)
    assert fault in faults_of(runtime)


NODE_FAULTS = [
    (
        {"operator": "add", "activations": "int8"},
        "nodes[2]: expected one entry per operator and format, got add in int8 as in nodes[1]",
    ),
    (
        {"operator": "relu", "activations": "int16"},
        "nodes[2].activations: expected a format that a rate stores activations in (fp32, int4, int8), got 'int16'",
    ),
    (
        {"operator": "max pool", "activations": "int8"},
        "nodes[2].operator: expected text that matches ^[a-z_][a-z0-9_.:]*$, got 'max pool'",
    ),
    (
        {"operator": "relu", "activations": "fp32", "us": {"value": -1, "kind": "measured", "source": "Lab2024"}},
        "nodes[2].us.value: expected a number of at least 0, got -1",
    ),
]


@pytest.mark.parametrize(("entry", "fault"), NODE_FAULTS)
def test_faults_of_nodes(runtime: dict[str, Any], entry: dict[str, Any], fault: str) -> None:
    runtime["nodes"].append(entry)
    assert fault in faults_of(runtime)


def test_a_format_that_only_runs_in_a_container_is_not_converted(runtime: dict[str, Any]) -> None:
    runtime["rates"] = [
        {**rate, "container": "int8"} if rate["activations"] == "int4" else rate for rate in runtime["rates"]
    ]
    assert Precision.parse("W4A4") in parse_profile(runtime).precisions
    runtime["conversions"].append({"from": "fp32", "to": "int4"})
    (fault,) = faults_of(runtime)
    assert fault == "conversions[3].to: expected a format that a rate stores activations in (fp32, int8), got 'int4'"


def test_a_switch_without_direction_beside_conversions_is_a_fault(runtime: dict[str, Any]) -> None:
    runtime["switch"] = {}
    assert faults_of(runtime) == ("switch: expected either [switch] or [[conversions]], got both; remove one",)


def test_a_negative_factor_is_a_fault(runtime: dict[str, Any]) -> None:
    runtime["calibration"]["float_layers"]["value"] = -0.5
    assert faults_of(runtime) == ("calibration.float_layers.value: expected a number of at least 0, got -0.5",)


def faults_of(raw: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(ProfileError, match="fault") as caught:
        parse_profile(raw)
    return caught.value.faults
