"""Optima and fronts where groups are coupled: costs of pairs, largest sums, and several limits at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwdse.cost.table import SumOverSets
from hwdse.infeasible import Limit, Reason
from hwdse.search import exact, milp
from hwdse.search.integer_program import cheapest

LIMITED = ("m1", "m2", "m3")


def front_of(values):
    """The distinct non-dominated values, by the definition."""
    values = np.unique(values, axis=0)
    better = (values[:, None] <= values[None]).all(2) & (values[:, None] < values[None]).any(2)
    return values[~better.any(axis=0)]


def draw_limits(data, values):
    """One to three limits at values that configurations take, so that each is met or missed by a hair."""
    names = data.draw(st.lists(st.sampled_from(LIMITED), min_size=1, max_size=3, unique=True), label="limited")
    rows = [data.draw(st.integers(0, len(values) - 1), label="row") for _ in names]
    shifts = [data.draw(st.sampled_from([0.0, 1e-9, -1e-9]), label="shift") for _ in names]
    return {name: float(values[r, int(name[1])] + d) for name, r, d in zip(names, rows, shifts, strict=True)}


def meets(values, limits):
    """Mask of the rows that meet every limit."""
    return np.all([values[:, int(name[1])] <= bound for name, bound in limits.items()], axis=0)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_optimum_under_one_to_three_limits_equals_enumeration(data, draw_coupled_space, enumerate_space):
    space = draw_coupled_space(data)
    _, values = enumerate_space(space)
    limits = draw_limits(data, values)
    column = data.draw(st.integers(0, 3), label="minimised")
    found = cheapest(space, f"m{column}", [Limit(name, name, 1, bound) for name, bound in limits.items()])
    within = meets(values, limits)
    if not within.any():
        assert found is None
        return
    reached = space.evaluate(found[None])
    assert meets(reached, limits)[0]
    assert reached[0, column] == values[within, column].min()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_front_under_one_to_three_limits_equals_enumeration(data, draw_coupled_space, enumerate_space):
    space = draw_coupled_space(data)
    _, values = enumerate_space(space)
    objectives = data.draw(st.sampled_from([("m0", "m1"), ("m0", "m3"), ("m3", "m1"), ("m2",)]), label="objectives")
    columns = [int(name[1]) for name in objectives]
    limits = draw_limits(data, values)
    result = exact.search(space, objectives, limits=limits)
    within = meets(values, limits)
    assert result.exact
    if within.any():
        np.testing.assert_array_equal(np.unique(result.values, axis=0), front_of(values[within][:, columns]))
        np.testing.assert_array_equal(space.evaluate(result.genes)[:, columns], result.values)
        return
    assert len(result.genes) == 0
    trouble = result.infeasible
    alone = [name for name, bound in limits.items() if values[:, int(name[1])].min() > bound]
    assert trouble.reason is (Reason.UNREACHABLE if alone else Reason.CONFLICT)
    assert trouble.limit in (alone or limits)
    assert trouble.best == values[:, int(trouble.limit[1])].min()
    for name, bound in trouble.relaxations.items():
        others = {other: value for other, value in limits.items() if other != name}
        rest = meets(values, others) if others else np.ones(len(values), dtype=bool)
        assert bound == values[rest, int(name[1])].min()


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_both_sides_of_every_switching_point(data, draw_coupled_space, enumerate_space):
    # A limit at a value of the true front admits its point; the next smaller number refuses it.
    space = draw_coupled_space(data)
    _, values = enumerate_space(space)
    limited = data.draw(st.sampled_from([0, 1, 3]), label="limited")
    columns = [0, limited] if limited else [0, 1]
    objectives = tuple(f"m{k}" for k in columns)
    front = front_of(values[:, columns])
    for value in front[:, columns.index(limited)]:
        for bound in (value, np.nextafter(value, -np.inf)):
            result = exact.search(space, objectives, limits={f"m{limited}": bound})
            within = values[values[:, limited] <= bound][:, columns]
            expected = front_of(within) if len(within) else np.empty((0, 2))
            np.testing.assert_array_equal(np.unique(result.values, axis=0).reshape(-1, 2), expected)
            admitted = (result.values[:, columns.index(limited)] == value).any()
            assert admitted == (bound == value)
            assert (result.infeasible is None) == (len(within) > 0)


@pytest.mark.parametrize("seed", range(4))
def test_switching_points_of_costs_that_rounding_touches(seed, make_space, enumerate_space):
    # Real costs, no binary fractions: the bound is the number that evaluation gives, whatever the order of its sum.
    rng = np.random.default_rng(seed)
    space = make_space(rng.random((4, 3, 2)) / 3, edges=[[0, 1], [2, 1], [3, 0]], pairwise=rng.random((3, 3, 3, 2)) / 7)
    _, values = enumerate_space(space)
    for harm, cost in front_of(values):
        at = exact.search(space, ("m0", "m1"), limits={"m1": cost})
        assert at.values[-1].tolist() == [harm, cost]
        below = exact.search(space, ("m0", "m1"), limits={"m1": np.nextafter(cost, -np.inf)})
        assert (below.values[:, 1] < cost).all()
        assert (below.infeasible is None) == (values[:, 1] < cost).any()


def test_a_chain_of_pairs_agrees_with_dynamic_programming(make_space):
    # Costs along a chain have a closed recursion: the least sum up to each group, by the choice of its last group.
    rng = np.random.default_rng(5)
    groups = 40
    unary, pairs = rng.random((groups, 3, 1)), rng.random((groups - 1, 3, 3, 1))
    space = make_space(unary, edges=[[g, g + 1] for g in range(groups - 1)], pairwise=pairs)
    least = unary[0, :, 0]
    for g in range(1, groups):
        least = (least[:, None] + pairs[g - 1, ..., 0]).min(axis=0) + unary[g, :, 0]
    result = milp.search(space, ("m0",))
    assert result.values[0, 0] == pytest.approx(least.min(), rel=1e-12)


def test_several_sums_of_a_maximum_are_all_limited(make_space, enumerate_space):
    # Two live sets share group 1: each alone would admit what both together refuse.
    terms = np.zeros((2, 3, 2))
    terms[0, :2, 1] = terms[1, 1:, 1] = [4.0, 3.0]
    terms[1, 1:, 1] = [3.0, 4.0]
    unary = np.zeros((3, 2, 2))
    unary[:, 0, 0] = [5.0, 4.0, 5.0]
    space = make_space(unary, peaks={"m1": SumOverSets(terms, np.array([1.0, 2.0]))})
    _, values = enumerate_space(space)
    for bound, harm in ((9.0, 0.0), (8.0, 4.0), (6.0, 4.0), (5.0, 9.0), (4.0, 14.0), (2.0, 14.0)):
        best = values[values[:, 1] <= bound, 0].min()
        found = milp.search(space, ("m0",), limits={"m1": bound})
        assert found.values[0, 0] == best == harm
