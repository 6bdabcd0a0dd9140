"""The latency term by term is the cost table's, also where weights spill, units change or precisions have factors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hwdse.cost import cost_table, latency_terms, network_totals
from hwdse.formats import Precision
from hwdse.hardware import parse_profile
from hwdse.networks import layer_graph
from tests.profiles import figure, processor

RATE = {"weights": "int8", "activations": "int8", "gmac_per_s": figure(10)}


@pytest.mark.parametrize(
    "sections",
    [
        {
            "calibration": {
                "precisions": {"W8A8": figure(2)},
                "integer_layers": figure(1.5),
                "us_per_inference": figure(3),
            }
        },
        {
            "memories": [
                {"name": "on chip", "holds": ["weights"], "capacity_kib": figure(4), "spill_gb_per_s": figure(0.01)}
            ]
        },
        {"overhead": {"us_per_layer": figure(5), "counts_nodes": True}},
        {
            "rates": [RATE | {"op_classes": ["conv"]}, RATE | {"op_classes": ["pointwise", "linear"], "unit": "host"}],
            "handover": {"us": figure(100), "us_per_melement": figure(1000)},
        },
    ],
)
def test_terms_sum_to_the_cost_table(sections: dict[str, Any]) -> None:
    profile = parse_profile(processor(**({"rates": [RATE]} | sections)))
    graph = layer_graph("resnet8")
    precision = Precision.parse("W8A8")
    terms = latency_terms(graph, profile, graph.config([precision] * len(graph.groups)))
    table = cost_table(graph, profile, [precision], metrics=["latency_ms"])
    bare = parse_profile(processor(rates=[RATE]))
    plain = latency_terms(graph, bare, graph.config([precision] * len(graph.groups)))
    expected = float(network_totals(table, np.zeros((1, len(graph.layers)), dtype=np.int64))[0, 0])
    assert terms.total_ms(profile) == pytest.approx(expected, rel=1e-12)
    assert terms.total_ms(profile) > plain.total_ms(bare) * 1.001
