"""Operators and changes of format without a time are named."""

from __future__ import annotations

from typing import Any

from hwdse.cost.unpriced import unpriced
from hwdse.formats import Precision
from hwdse.hardware import load_profile, parse_profile
from tests import networks

CANDIDATES = [Precision.parse(text) for text in ("fp32", "W8A8", "W4A8")]
ADVICE = "they are predicted to take no time on processor; measure it with this network, if that was not done"


def test_nothing_is_missing(processor: dict[str, Any]) -> None:
    """The residual network has additions with a ReLU, and a global pooling."""
    assert unpriced(networks.captured("residual"), parse_profile(processor), CANDIDATES) == ()


def test_operators_that_are_not_listed_in_fp32_are_named_with_their_number(processor: dict[str, Any]) -> None:
    add, _, _, pool = processor["nodes"]
    processor["nodes"] = [add | {"activations": "int8"}, pool]
    assert unpriced(networks.captured("residual"), parse_profile(processor), CANDIDATES) == (
        f"expected times of all operators without MACs, got none of add (2), relu (2): {ADVICE}",
    )


def test_changes_of_format_are_named_with_the_class_of_the_layer(processor: dict[str, Any]) -> None:
    to_int8, to_fp32 = processor["conversions"]
    classes = ["conv", "pointwise"]
    processor["conversions"] = [to_int8, to_fp32 | {"op_classes": classes}]
    graph, profile = networks.captured("residual"), parse_profile(processor)
    assert unpriced(graph, profile, CANDIDATES) == (
        f"expected times of all changes of format, got none of int8 to fp32 for linear: {ADVICE}",
    )
    assert unpriced(graph, profile, CANDIDATES[:1]) == ()


def test_devices_without_times_between_layers_say_so_themselves() -> None:
    assert unpriced(networks.captured("residual"), load_profile("mpic"), CANDIDATES) == ()
