"""A cost table with times between layers against the exact rules, over every configuration or many drawn ones."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hwdse.cost import CostTable, cost_table, network_totals
from hwdse.cost.terms import latency_terms
from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.graph import LayerGraph, tie
from hwdse.hardware import HardwareProfile, parse_profile
from hwdse.search import exact
from hwdse.space import DesignSpace
from tests import networks

CANDIDATES = [Precision.parse(text) for text in ("fp32", "W8A8", "W4A8")]
Genes = NDArray[np.int64]


def timed(value: float, slope: float) -> dict[str, Any]:
    figures = {"us": value, "us_per_melement": slope}
    return {key: {"value": v, "kind": "measured", "source": "Lab2024"} for key, v in figures.items()}


@pytest.fixture
def device(processor: dict[str, Any]) -> HardwareProfile:
    """Return a processor with times of the usual size, and a calibration."""
    processor["conversions"] = [
        {"from": "fp32", "to": "int8", **timed(3, 220)},
        {"from": "int8", "to": "fp32", **timed(4, 200)},
    ]
    processor["nodes"] = [
        {"operator": "add", "activations": "fp32", **timed(1.5, 150)},
        {"operator": "add", "activations": "int8", **timed(2, 60)},
        {"operator": "global_avg_pool", "activations": "fp32", **timed(2, 100)},
    ]
    factors = {"float_layers": 1.1, "integer_layers": 0.9, "conversions": 0.8, "nodes": 1.5, "us_per_inference": 12}
    figures = {key: {"value": v, "kind": "derived", "source": "Lab2024"} for key, v in factors.items()}
    overhead = {"us_per_layer": {"value": 3, "kind": "measured", "source": "Lab2024"}}
    return parse_profile(processor | {"calibration": figures, "overhead": overhead})


def both(graph: LayerGraph, device: HardwareProfile, genes: Genes) -> tuple[Genes, Genes]:
    """Return the latencies of genes ``(n, groups)`` by the table and by the exact rules."""
    table = cost_table(graph, device, CANDIDATES, metrics=["latency_ms"])
    found = network_totals(table, genes[:, list(graph.group_of)])[:, 0]
    exactly = [
        latency_terms(graph, device, graph.config([CANDIDATES[g] for g in row])).total_ms(device) for row in genes
    ]
    return found, np.array(exactly)


def every(graph: LayerGraph, candidates: int) -> Genes:
    return np.array(list(product(range(candidates), repeat=len(graph.groups))))


def drawn(graph: LayerGraph, count: int) -> Genes:
    return np.random.default_rng(0).integers(0, len(CANDIDATES), size=(count, len(graph.groups)))


@pytest.mark.parametrize("name", ["inception", "mlp", "functional", "tied", "reused"])
def test_where_two_groups_decide_the_table_is_exact(name: str, device: HardwareProfile) -> None:
    graph = networks.captured(name)
    found, exactly = both(graph, device, every(graph, len(CANDIDATES)))
    assert found == pytest.approx(exactly, rel=1e-12)


def test_a_chain_of_many_layers_is_exact(device: HardwareProfile) -> None:
    found, exactly = both(graph := networks.captured("dscnn"), device, drawn(graph, 200))
    assert found == pytest.approx(exactly, rel=1e-12)


def test_around_additions_the_table_is_close_and_exact_where_all_layers_are_alike(device: HardwareProfile) -> None:
    """Of an addition between three groups a sixth is missing or too much at most; there are two of them here."""
    graph = networks.captured("residual")
    genes = every(graph, 2)
    found, exactly = both(graph, device, genes)
    alike = (genes == genes[:, :1]).all(axis=1)
    assert found[alike] == pytest.approx(exactly[alike], rel=1e-6)
    # All that an addition of 1152 values can add: three conversions, and itself in fp32 rather than in int8.
    whole = 0.8 * (2 * (4 + 0.2304) + 3 + 0.25344) + 1.5 * (1.5 + 0.1728)
    assert np.abs(found - exactly).max() < 2 * whole / 6 * 1e-3
    assert 0 < np.abs(found - exactly).mean() < 0.5 * np.abs(found - exactly).max()


def test_on_resnet20_the_table_is_within_a_few_percent_and_keeps_the_order(device: HardwareProfile) -> None:
    graph = networks.captured("resnet20")
    found, exactly = both(graph, device, drawn(graph, 300))
    error = np.abs(found / exactly - 1)
    assert error.mean() < 0.012
    assert error.max() < 0.04
    assert np.corrcoef(found, exactly)[0, 1] > 0.99


def test_nothing_is_negative_and_further_pairs_follow_the_edges(device: HardwareProfile) -> None:
    graph = networks.captured("residual")
    table = cost_table(graph, device, CANDIDATES, metrics=["size_kib", "latency_ms"])
    assert [tuple(pair) for pair in table.edges[: len(graph.edges)]] == list(graph.edges)
    assert len(table.edges) > len(graph.edges)
    assert (table.values >= 0).all()
    assert (table.switches >= 0).all()
    assert not table.switches[..., 0].any()


def test_energy_takes_power_for_all_of_the_time(processor: dict[str, Any]) -> None:
    power = {"active_mw": {"value": 2000, "kind": "measured", "source": "Lab2024"}}
    graph = networks.captured("residual")
    table = cost_table(
        graph, parse_profile(processor | {"power": power}), CANDIDATES, metrics=["latency_ms", "energy_mj"]
    )
    totals = network_totals(table, every(graph, 2)[:, list(graph.group_of)])
    assert totals[:, 1] == pytest.approx(2.0 * totals[:, 0])


def test_the_exact_search_finds_the_true_minimum_of_the_table(device: HardwareProfile) -> None:
    graph = networks.captured("residual")
    table = cost_table(graph, device, CANDIDATES, metrics=["size_kib", "latency_ms"])
    space = DesignSpace.from_costs(graph, table)
    totals = space.evaluate(every(graph, len(CANDIDATES)))
    result = exact.search(space, ("size_kib", "latency_ms_predicted"), rng=np.random.default_rng(0))
    assert result.genes is not None
    best = totals[:, space.column("latency_ms_predicted")].min()
    assert space.evaluate(result.genes)[:, 1].min() == pytest.approx(best)


def test_layers_fixed_to_one_precision_are_no_choice(device: HardwareProfile) -> None:
    graph = networks.captured("residual")
    table = cost_table(graph, device, CANDIDATES[:1], metrics=["latency_ms"])
    assert not table.switches.any()
    truth = latency_terms(graph, device, graph.config([CANDIDATES[0]] * len(graph.groups))).total_ms(device)
    assert network_totals(table, np.zeros((1, len(graph.layers)), dtype=np.int64))[0, 0] == pytest.approx(truth)


def test_unsupported_choices_cost_nothing_and_have_no_pairs(processor: dict[str, Any]) -> None:
    processor["rates"][1]["op_classes"] = ["conv", "linear"]
    graph = networks.captured("residual")  # its shortcut is a 1x1 convolution, which then runs in fp32 and W4A8 only
    table: CostTable = cost_table(graph, parse_profile(processor), CANDIDATES, metrics=["latency_ms"])
    short = graph.layer_index["short"]
    assert table.supported[short].tolist() == [True, False, True]
    assert table.values[short, 1, 0] == 0
    assert not table.switches[table.edges[:, 1] == short][:, :, 1].any()


def test_a_graph_without_values_is_an_error(device: HardwareProfile) -> None:
    known = networks.captured("residual")
    graph = LayerGraph(known.layers, known.tensors, tie(known.layers), known.edges)
    with pytest.raises(InputError, match="expected a graph with the values between its layers, which processor has"):
        cost_table(graph, device, CANDIDATES, metrics=["latency_ms"])
