"""What narrower precisions buy, in words that can be recomputed by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwdse.cost import worth_of_precisions
from hwdse.formats import Precision
from hwdse.graph import Layer, LayerGraph, TiedGroup
from hwdse.hardware import load_profile

PROFILE = """
schema_version = 1
name = "chip"
title = "Chip"
kind = "cpu"
software_stack = "test"
note = "made up"
batch = 1
[sources]
here = "this test"
[scheme]
weights = "symmetric"
activations = "symmetric"
weight_granularity = "per_tensor"
full_range = false
unsigned_activations = true
[[rates]]
weights = "fp32"
activations = "fp32"
gmac_per_s = { value = 1, kind = "modelled", source = "here" }
[[rates]]
weights = "int8"
activations = "int8"
op_classes = ["conv"]
gmac_per_s = { value = 4, kind = "modelled", source = "here" }
[[rates]]
weights = "int8"
activations = "int8"
op_classes = ["linear"]
gmac_per_s = { value = 0.5, kind = "modelled", source = "here" }
[[rates]]
weights = "int4"
activations = "int8"
container = "int8"
gmac_per_s = { value = 4, kind = "modelled", source = "here" }
"""


@pytest.fixture
def chip(tmp_path: Path):
    path = tmp_path / "chip.toml"
    path.write_text(PROFILE)
    return load_profile(str(path))


def graph(*layers):
    return LayerGraph(tuple(layers), (), tuple(TiedGroup(layer.name, (layer.name,)) for layer in layers))


CONV = Layer(
    "conv",
    "conv",
    "x",
    "y",
    (8, 10, 10),
    (10, 10, 10),
    400_000,
    "conv.weight",
    (10, 8, 5, 1),
    kernel=(5, 1),
    stride=(1, 1),
)
HEAD = Layer("head", "linear", "y", "z", (1000,), (100,), 100_000, "head.weight", (100, 1000))


def worth(chip, layers, *texts):
    return worth_of_precisions(graph(*layers), chip, [Precision.parse(text) for text in texts])


def test_speed_and_share_are_sums_over_layers_and_slower_layers_are_named(chip):
    # fp32: 0.4 + 0.1 ms; W8A8: 0.1 + 0.2 ms. Sizes: 4 bytes each weight; 1 byte each, and a scale of 4 per tensor.
    share = round(100 * (400 + 4 + 100_000 + 4) / (4 * (400 + 100_000)))
    assert worth(chip, [CONV, HEAD], "fp32", "W8A8") == (
        f"W8A8 against fp32: 1.67 times as fast over 2 layers together, {share}% of their size; slower in 1 layer, "
        "where it does not pay (head 0.50 times as fast)",
    )


def test_a_container_pays_nothing(chip):
    assert worth(chip, [CONV, HEAD], "W4A8", "W8A8") == (
        "W4A8 against W8A8: stored and run as W8A8 in all 2 layers: as large and as fast, it does not pay here",
    )


def test_precisions_are_compared_with_the_next_wider_one(chip):
    sentences = worth(chip, [CONV], "W4A8", "fp32", "W8A8")
    assert [sentence.split(":")[0] for sentence in sentences] == ["W8A8 against fp32", "W4A8 against W8A8"]
    assert "slower" not in sentences[0]


def test_one_precision_has_nothing_to_be_compared_with(chip):
    assert worth(chip, [CONV], "W8A8") == ()
