import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwdse.errors import InputError
from hwdse.pareto import non_dominated
from hwdse.search import exact


def front_of(values):
    """The distinct non-dominated values, by the definition."""
    values = np.unique(values, axis=0)
    better = (values[:, None] <= values[None]).all(2) & (values[:, None] < values[None]).any(2)
    return values[~better.any(axis=0)]


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_exact_equals_enumeration(data, draw_space, enumerate_space):
    space = draw_space(data)
    result = exact.search(space, ("m0", "m1"))
    _, values = enumerate_space(space)
    np.testing.assert_array_equal(np.unique(result.values, axis=0), front_of(values))
    np.testing.assert_array_equal(space.evaluate(result.genes), result.values)
    assert len(np.unique(result.values, axis=0)) == len(result.genes)
    assert result.exact
    assert result.tolerance == 0.0
    assert (np.diff(result.values[:, 1]) > 0).all()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_limits_on_the_objectives_are_hard_on_both_sides(data, draw_space, enumerate_space):
    space = draw_space(data)
    genes, values = enumerate_space(space)
    bound = values[data.draw(st.integers(0, len(genes) - 1)), 1]
    for limit in (bound, bound + 1e-9, bound - 1e-9):
        result = exact.search(space, ("m0", "m1"), limits={"m1": limit})
        within = values[values[:, 1] <= limit]
        if len(within):
            np.testing.assert_array_equal(np.unique(result.values, axis=0), front_of(within))
            assert result.infeasible is None
        else:
            assert len(result.genes) == 0
            assert result.infeasible.limit == "m1"
            assert result.infeasible.best == bound


def test_real_costs_agree_with_the_hull_of_a_large_space(make_space, rng):
    # 3^50 configurations: every weighted sum must have its optimum on the exact front.
    space = make_space(np.random.default_rng(3).random((50, 3, 2)))
    result = exact.search(space, ("m0", "m1"), rng=rng)
    assert result.exact
    for weight in np.linspace(0, 1, 21):
        weights = np.array([weight, 1 - weight])
        optimum = (space.unary @ weights).min(axis=1).sum()
        assert (result.values @ weights).min() == pytest.approx(optimum, rel=1e-12)
    assert non_dominated(result.values).all()


def test_equal_layers_do_not_multiply_the_front(make_space, rng):
    # Forty equal layers, costs that are no binary fractions: exactly 41 points, however rounding orders the sums.
    space = make_space(np.tile([[[0.7, 0.1], [0.1, 0.3]]], (40, 1, 1)))
    result = exact.search(space, ("m0", "m1"), rng=rng)
    np.testing.assert_allclose(result.values[:, 1], 4.0 + 0.2 * np.arange(41), rtol=1e-12)


def test_costs_that_tie_but_for_rounding_are_one_point(make_space):
    # Costs k / 10: 0.1 + 0.2 is not 0.3 in floating point. In whole k, the least harm of every sum is a small table.
    harms, steps = np.random.default_rng(2).random(40), np.arange(40) % 13 + 1
    unary = np.zeros((40, 2, 2))
    unary[:, 0, 0], unary[:, 1, 1] = harms, steps / 10
    result = exact.search(make_space(unary), ("m0", "m1"))
    least = np.full(steps.sum() + 1, np.inf)
    least[0] = 0.0
    for harm, step in zip(harms, steps, strict=True):
        spared = np.concatenate([np.full(step, np.inf), least[:-step]])
        least = np.minimum(least + harm, spared)
    expected = [(h, k / 10) for k, h in enumerate(least) if h < least[:k].min(initial=np.inf) - 1e-12]
    assert len(result.values) == len(expected)
    np.testing.assert_allclose(result.values, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_a_limit_that_rounding_decides_is_still_hard(make_space, share):
    # Many ways to the same cost, 0.1 k, whose floating-point sums differ in the last place: some meet the limit.
    # What is found must meet it, and be no worse than what meets it with room to spare.
    rng = np.random.default_rng(0)
    unary = np.stack([rng.random((18, 2)), np.tile([0.1, 0.4], (18, 1))], axis=2)
    unary[:, 1, 0] = 0.0
    space = make_space(unary)
    every = np.array(np.unravel_index(np.arange(2**18), (2,) * 18)).T.astype(np.uint8)
    values = space.evaluate(every)
    costs = np.unique(values[:, 1])
    assert len(costs) > 19
    for limit in costs[np.searchsorted(costs, 1.8 + share * 5.4) + np.arange(-2, 3)]:
        result = exact.search(space, ("m0", "m1"), limits={"m1": limit})
        best, safe = (values[values[:, 1] <= bound, 0].min() for bound in (limit, limit - 1e-6))
        assert result.values[-1, 1] <= limit
        assert best - 1e-12 <= result.values[-1, 0] <= safe + 1e-12


def test_a_long_front_is_thinned_within_the_reported_tolerance(make_space, rng, monkeypatch):
    powers = 2.0 ** np.arange(16)
    unary = np.zeros((16, 2, 2))
    unary[:, 1, 0], unary[:, 0, 1] = powers, powers  # every one of the 65,536 configurations is on the front
    space = make_space(unary)
    whole = exact.search(space, ("m0", "m1"), rng=rng)
    assert whole.exact is False
    assert len(whole.genes) <= exact.CELLS + 1
    monkeypatch.setattr(exact, "CELLS", 100)
    thinned = exact.search(space, ("m0", "m1"), rng=rng)
    assert len(thinned.genes) <= 101
    assert thinned.exact is False
    assert 0 < thinned.tolerance < 65536 * 0.2
    harms = np.arange(65536.0)
    costs = 65535 - harms
    for found in (whole, thinned):
        assert found.values[[0, -1]].tolist() == [[65535.0, 0.0], [0.0, 65535.0]]
        by_harm = np.searchsorted(np.sort(found.values[:, 0]), harms, side="right") - 1
        assert (by_harm >= 0).all()
        reached = np.sort(found.values[:, 1])[::-1][by_harm]
        excess = (reached - costs).max()
        assert 0 < excess <= found.tolerance


def test_one_objective_is_the_optimum(make_space, rng):
    space = make_space(np.random.default_rng(0).random((12, 4, 2)))
    result = exact.search(space, ("m1",), rng=rng)
    assert result.values.tolist() == [[pytest.approx(space.unary[..., 1].min(axis=1).sum())]]


def test_costs_of_pairs_go_to_integer_programs(make_space, enumerate_space, rng):
    pairwise = np.random.default_rng(1).integers(0, 9, (2, 2, 2, 3)) / 4
    space = make_space(np.random.default_rng(0).integers(0, 9, (4, 2, 3)), edges=[[0, 1], [3, 1]], pairwise=pairwise)
    _, values = enumerate_space(space)
    assert not space.is_additive("m1")
    result = exact.search(space, ("m0", "m1"), rng=rng)
    np.testing.assert_array_equal(np.unique(result.values, axis=0), front_of(values[:, :2]))
    assert result.exact
    bound = float(np.median(values[:, 1]))
    limited = exact.search(space, ("m0", "m2"), limits={"m1": bound}, rng=rng)
    within = values[values[:, 1] <= bound]
    np.testing.assert_array_equal(np.unique(limited.values, axis=0), front_of(within[:, [0, 2]]))


@pytest.mark.parametrize(
    ("objectives", "limits", "match"),
    [
        (("m0", "m1", "m2"), {}, r"expected 1 or 2 objectives, got 3 \(m0, m1, m2\)"),
        (("m0", "m0"), {}, "each named once"),
        ((), {}, "at least 1 objective"),
        (("m0", "n1"), {}, r"expected a metric of the space \(m0, m1, m2\), got 'n1'"),
        (("m0", "m1"), {"m2": np.inf}, "expected a finite limit on m2, got inf"),
    ],
)
def test_refuses_bad_input(make_space, rng, objectives, limits, match):
    space = make_space(np.random.default_rng(0).random((3, 2, 3)))
    with pytest.raises(InputError, match=match):
        exact.search(space, objectives, limits=limits, rng=rng)
