"""Tables of a run."""

from __future__ import annotations

from hwdse.cost import provenance
from hwdse.study.tables import costs_table, roofline_table


def test_costs_say_where_latencies_come_from(tiny_problem):
    table = costs_table(tiny_problem)
    origins = provenance(tiny_problem.graph, tiny_problem.profile, tiny_problem.space.candidates)
    assert len(table) == tiny_problem.space.allowed.sum()
    assert set(table["latency_origin"]) == set(origins[origins != "unsupported"].tolist()) == {"closed form"}


def test_bounds_are_of_every_layer_and_candidate_and_add_up_to_the_costs(tiny_problem):
    table = roofline_table(tiny_problem)
    graph, space = tiny_problem.graph, tiny_problem.space
    assert len(table) == sum(space.allowed[g].sum() for g in graph.group_of)
    groups = {layer.name: graph.groups[g].name for layer, g in zip(graph.layers, graph.group_of, strict=True)}
    summed = (
        table.assign(group=table["layer"].map(groups)).groupby(["group", "candidate"])["latency_ms_predicted"].sum()
    )
    costs = costs_table(tiny_problem).set_index(["group", "candidate"])["latency_ms_predicted"]
    for key, latency in costs.items():
        assert summed[key] <= latency * (1 + 1e-12)  # what lies between layers is beside it
