"""What every searcher must do, whoever wrote it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwdse.errors import InputError
from hwdse.infeasible import Reason
from hwdse.pareto import non_dominated
from hwdse.plugins import load_plugin, plugin_names
from hwdse.search import exact, greedy, hull, milp, nsga2, random_search
from hwdse.search.protocol import GROUP

SEARCHERS = {
    "exact": exact.search,
    "greedy": greedy.search,
    "hull": hull.search,
    "milp": milp.search,
    "nsga2": nsga2.search,
    "random": random_search.search,
    "greedy_sensitivity": greedy.search_by_sensitivity,
}
every = pytest.mark.parametrize("search", SEARCHERS.values(), ids=SEARCHERS.keys())


def test_the_searchers_are_installed_as_plugins():
    installed = plugin_names(GROUP)
    if not installed:
        pytest.skip("the package was installed before its searchers had entry points; install it again")
    for name, searcher in SEARCHERS.items():
        assert load_plugin(GROUP, name) is searcher


@every
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_results_are_unique_allowed_non_dominated_and_within_limits(search, data, draw_space, enumerate_space):
    space = draw_space(data, metrics=3, largest=5)
    genes, values = enumerate_space(space)
    bound = values[data.draw(st.integers(0, len(genes) - 1)), 1]
    limits = data.draw(st.sampled_from([{}, {"m1": bound}]))
    result = search(space, ("m0", "m1"), limits=limits, evaluations=60, rng=np.random.default_rng(1))
    assert result.genes.dtype == np.uint8
    assert result.genes.shape == (len(result.values), len(space.groups))
    assert len(np.unique(result.genes, axis=0)) == len(result.genes)
    assert non_dominated(result.values).all()
    np.testing.assert_array_equal(space.evaluate(result.genes)[:, :2], result.values)
    assert (result.values[:, 1] <= limits.get("m1", np.inf)).all()
    assert (len(result.genes) == 0) == (result.infeasible is not None)
    if result.exact:
        assert result.tolerance == 0.0


@every
def test_the_same_seed_gives_the_same_result(search, make_space):
    space = make_space(np.random.default_rng(0).random((9, 3, 2)))
    first, again = (
        search(space, ("m0", "m1"), evaluations=400, rng=np.random.default_rng(7)) for _ in range(2)
    )  # fmt: skip
    np.testing.assert_array_equal(first.genes, again.genes)
    assert first.evaluations == again.evaluations


@every
def test_an_unreachable_limit_is_a_result(search, make_space):
    space = make_space(np.random.default_rng(0).random((9, 3, 3)))
    low = space.reach()["m1"]
    result = search(space, ("m0", "m1"), limits={"m1": low * 0.99}, evaluations=200, rng=np.random.default_rng(7))
    assert result.genes.shape == (0, 9)
    assert result.values.shape == (0, 2)
    assert result.infeasible.reason is Reason.UNREACHABLE
    assert result.infeasible.limit == "m1"
    assert result.infeasible.best == pytest.approx(low)
    assert result.infeasible.relaxations["m1"] == pytest.approx(low)


@every
def test_unknown_metrics_are_refused(search, make_space):
    space = make_space(np.random.default_rng(0).random((4, 3, 2)))
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match=r"expected a metric of the space \(m0, m1\), got 'cost'"):
        search(space, ("m0", "cost"), evaluations=100, rng=rng)
    with pytest.raises(InputError, match=r"expected a metric of the space \(m0, m1\), got 'm7'"):
        search(space, ("m0", "m1"), limits={"m7": 1.0}, evaluations=100, rng=rng)


@every
def test_limits_that_can_be_met_are_never_called_infeasible(search, make_space):
    # A narrow passage: the two limits admit few of 3^16 configurations, none of them on a walk along the front.
    space = make_space(np.random.default_rng(3).random((16, 3, 4)))
    genes = space.random(20_000, np.random.default_rng(0))
    metrics = space.evaluate(genes)
    best = metrics[:, 2:].sum(axis=1).argmin()
    limits = {"m2": metrics[best, 2], "m3": metrics[best, 3]}
    result = search(space, ("m0", "m1"), limits=limits, evaluations=300, rng=np.random.default_rng(1))
    assert result.infeasible is None
    assert len(result.genes) >= 1
    reached = space.evaluate(result.genes)
    assert (reached[:, 2] <= limits["m2"]).all()
    assert (reached[:, 3] <= limits["m3"]).all()
