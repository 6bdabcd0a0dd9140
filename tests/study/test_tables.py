"""Tables of a run."""

from __future__ import annotations

from hwdse.cost import provenance
from hwdse.study.tables import costs_table


def test_costs_say_where_latencies_come_from(tiny_problem):
    table = costs_table(tiny_problem)
    origins = provenance(tiny_problem.graph, tiny_problem.profile, tiny_problem.space.candidates)
    assert len(table) == tiny_problem.space.allowed.sum()
    assert set(table["latency_origin"]) == set(origins[origins != "unsupported"].tolist()) == {"closed form"}
