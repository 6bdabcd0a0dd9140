import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwdse.errors import InputError
from hwdse.infeasible import Limit, Reason
from hwdse.pareto import non_dominated
from hwdse.search import exact, milp
from hwdse.search.integer_program import cheapest


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_optimum_equals_enumeration_on_both_sides_of_every_switch(data, draw_space, enumerate_space):
    space = draw_space(data, metrics=3, largest=6)
    genes, values = enumerate_space(space)
    first, second = (values[data.draw(st.integers(0, len(genes) - 1)), k] for k in (1, 2))
    for bounds in ((first, second), (first - 1e-6, second), (first, second - 1e-6), (first - 1e-7, second + 1e-7)):
        limits = [Limit("m1", "m1", 1, bounds[0]), Limit("m2", "m2", 1, bounds[1])]
        within = (values[:, 1] <= bounds[0]) & (values[:, 2] <= bounds[1])
        found = cheapest(space, "m0", limits)
        if not within.any():
            assert found is None
            continue
        reached = space.evaluate(found[None])[0]
        assert reached[0] == values[within, 0].min()
        assert reached[1] <= bounds[0]
        assert reached[2] <= bounds[1]


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_front_under_further_limits_equals_enumeration(data, draw_space, enumerate_space):
    space = draw_space(data, metrics=4, largest=4)
    genes, values = enumerate_space(space)
    row = values[data.draw(st.integers(0, len(genes) - 1))]
    limits = {"m2": row[2], "m3": row[3]}
    result = exact.search(space, ("m0", "m1"), limits=limits)
    within = values[(values[:, 2] <= row[2]) & (values[:, 3] <= row[3])][:, :2]
    expected = np.unique(within[non_dominated(within)], axis=0)
    np.testing.assert_array_equal(np.unique(result.values, axis=0), expected)
    assert result.exact
    assert result.evaluations > 0


def test_front_agrees_with_dynamic_programming(make_space, rng):
    space = make_space(np.random.default_rng(8).random((10, 3, 2)))
    by_boxes = milp.search(space, ("m0", "m1"), rng=rng)
    by_lists = exact.search(space, ("m0", "m1"), rng=rng)
    assert len(by_lists.genes) > 20
    np.testing.assert_allclose(by_boxes.values, by_lists.values, rtol=1e-12)


def test_a_budget_leaves_a_tolerance_that_holds(make_space, rng):
    space = make_space(np.random.default_rng(8).random((12, 3, 2)))
    part = milp.search(space, ("m0", "m1"), evaluations=40, rng=rng)
    whole = exact.search(space, ("m0", "m1"), rng=rng)
    assert part.evaluations <= 40
    assert part.exact is False
    assert 2 < len(part.genes) < len(whole.genes)
    for harm, cost in whole.values:
        assert part.values[part.values[:, 0] <= harm, 1].min() <= cost + part.tolerance
    assert part.tolerance < np.ptp(whole.values[:, 1]) / 4


def test_fifty_groups_with_two_limits(make_space, rng):
    unary = np.random.default_rng(1).random((50, 3, 3))
    space = make_space(unary)
    low = unary.min(axis=1).sum(axis=0)
    limits = {"m1": low[1] + 4.0, "m2": low[2] + 5.0}
    result = milp.search(space, ("m0",), limits=limits, rng=rng)
    free = milp.search(space, ("m0",), rng=rng)
    metrics = space.evaluate(result.genes)[0]
    assert metrics[1] <= limits["m1"]
    assert metrics[2] <= limits["m2"]
    # Weak duality: no price of the limits can promise less than the optimum.
    prices = np.linspace(0, 4, 81)
    bounds = [
        (unary @ np.array([1, p, q])).min(axis=1).sum() - p * limits["m1"] - q * limits["m2"]
        for p in prices for q in prices
    ]  # fmt: skip
    assert max(bounds) <= metrics[0] <= max(bounds) + 0.3
    assert free.values[0, 0] < metrics[0]


def test_a_limit_below_reach_is_named_with_the_smallest_possible_value(make_space, rng):
    space = make_space(np.random.default_rng(1).random((8, 3, 3)))
    low = space.reach()["m2"]
    assert milp.search(space, ("m0", "m1"), limits={"m2": low}, rng=rng).infeasible is None
    result = milp.search(space, ("m0", "m1"), limits={"m1": 100.0, "m2": np.nextafter(low, 0) - 1e-12}, rng=rng)
    assert len(result.genes) == 0
    assert result.infeasible.reason is Reason.UNREACHABLE
    assert (result.infeasible.limit, result.infeasible.best) == ("m2", pytest.approx(low))
    assert result.infeasible.relaxations["m2"] == pytest.approx(low)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_conflicting_limits_are_explained_by_their_smallest_relaxations(seed, make_space, enumerate_space):
    space = make_space(np.random.default_rng(seed).integers(0, 64, (5, 3, 3)))
    _, values = enumerate_space(space)
    low = values.min(axis=0)
    limits = {"m0": values[values[:, 1] == low[1], 0].min() - 1.0, "m1": low[1], "m2": values[:, 2].max()}
    within = (values <= list(limits.values())).all(axis=1)
    result = exact.search(space, ("m0", "m1"), limits=limits, rng=np.random.default_rng(0))
    assert not within.any()
    trouble = result.infeasible
    assert set(trouble.conflict) == {"m0", "m1"} if limits["m0"] >= low[0] else trouble.conflict == ("m0",)
    for name, value in trouble.relaxations.items():
        column = space.column(name)
        others = [k for k in range(3) if k != column]
        rest = (values[:, others] <= np.array(list(limits.values()))[others]).all(axis=1)
        assert value == values[rest, column].min()


def test_refuses_three_objectives(make_space, rng):
    space = make_space(np.random.default_rng(0).random((3, 2, 3)))
    with pytest.raises(InputError, match="expected 1 or 2 objectives, got 3"):
        milp.search(space, ("m0", "m1", "m2"), rng=rng)


def test_a_program_that_presolve_calls_infeasible(make_space, enumerate_space):
    # Feasible, with a limit just below a solution: HiGHS 1.12 loses it in presolve.
    rng = np.random.default_rng(4)
    unary = rng.integers(-3, 6, (4, 4, 4)) / 8
    allowed = rng.random((4, 4)) < 0.8
    allowed[np.arange(4), rng.integers(0, 4, 4)] = True
    space = make_space(unary, allowed=allowed, constant=rng.integers(-9, 9, 4) / 4)
    limits = [Limit("m2", "m2", 1, -1.0), Limit("m3", "m3", 1, -0.75), Limit("m1", "m1", 1, 1.62499998)]
    _, values = enumerate_space(space)
    within = (values[:, 1:] <= [1.62499998, -1.0, -0.75]).all(axis=1)
    found = cheapest(space, "m0", limits)
    assert space.evaluate(found[None])[0, 0] == values[within, 0].min() == 1.0
