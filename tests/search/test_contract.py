"""What every searcher must do, whoever wrote it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwdse.errors import InputError
from hwdse.infeasible import Reason
from hwdse.pareto import non_dominated
from hwdse.plugins import load_plugin, plugin_names
from hwdse.search import annealing, exact, gp, greedy, hull, milp, nsga2, nsga3, random_search, tpe
from hwdse.search.protocol import GROUP

TABLE_SEARCHERS = {
    "exact": exact.search,
    "greedy": greedy.search,
    "greedy_sensitivity": greedy.search_by_sensitivity,
    "hull": hull.search,
    "milp": milp.search,
}
MEASURING_SEARCHERS = {
    "annealing": annealing.search,
    "gp": gp.search,
    "nsga2": nsga2.search,
    "nsga3": nsga3.search,
    "random": random_search.search,
    "tpe": tpe.search,
}
SEARCHERS = TABLE_SEARCHERS | MEASURING_SEARCHERS
SLOW = {gp.search: 11, tpe.search: 40}  # a model is fitted for every configuration
every = pytest.mark.parametrize("search", SEARCHERS.values(), ids=SEARCHERS.keys())
from_tables = pytest.mark.parametrize("search", TABLE_SEARCHERS.values(), ids=TABLE_SEARCHERS.keys())
measuring = pytest.mark.parametrize("search", MEASURING_SEARCHERS.values(), ids=MEASURING_SEARCHERS.keys())


def budget(search, evaluations):
    """`evaluations`, or fewer for a searcher that takes long over each."""
    return min(evaluations, SLOW.get(search, evaluations))


class Measure:
    """A harm that no table holds, and every configuration that it was asked for."""

    def __init__(self, space):
        self.weight = np.random.default_rng(11).normal(size=len(space.groups))
        self.asked = []

    def harm(self, genes):
        return np.exp(np.sin((genes * self.weight).sum(axis=1))) + genes.sum(axis=1) / 7

    def __call__(self, genes):
        self.asked += [row.tobytes() for row in genes]
        return self.harm(genes)


def test_the_searchers_are_installed_as_plugins():
    installed = plugin_names(GROUP)
    for name in set(installed) & set(SEARCHERS):
        assert load_plugin(GROUP, name) is SEARCHERS[name]
    missing = sorted(set(SEARCHERS) - set(installed))
    if missing:
        pytest.skip(f"the package was installed before {', '.join(missing)} had entry points; install it again")


@every
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_results_are_unique_allowed_non_dominated_and_within_limits(search, data, draw_space, enumerate_space):
    space = draw_space(data, metrics=3, largest=5)
    genes, values = enumerate_space(space)
    bound = values[data.draw(st.integers(0, len(genes) - 1)), 1]
    limits = data.draw(st.sampled_from([{}, {"m1": bound}]))
    result = search(space, ("m0", "m1"), limits=limits, evaluations=budget(search, 60), rng=np.random.default_rng(1))
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
        search(space, ("m0", "m1"), evaluations=budget(search, 400), rng=np.random.default_rng(7)) for _ in range(2)
    )  # fmt: skip
    np.testing.assert_array_equal(first.genes, again.genes)
    assert first.evaluations == again.evaluations


@every
def test_an_unreachable_limit_is_a_result(search, make_space):
    space = make_space(np.random.default_rng(0).random((9, 3, 3)))
    low = space.reach()["m1"]
    limits = {"m1": low * 0.99}
    result = search(space, ("m0", "m1"), limits=limits, evaluations=budget(search, 200), rng=np.random.default_rng(7))
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
    result = search(space, ("m0", "m1"), limits=limits, evaluations=budget(search, 300), rng=np.random.default_rng(1))
    assert result.infeasible is None
    assert len(result.genes) >= 1
    reached = space.evaluate(result.genes)
    assert (reached[:, 2] <= limits["m2"]).all()
    assert (reached[:, 3] <= limits["m3"]).all()


@every
def test_limits_that_exclude_each_other_are_a_result(search, make_space):
    # Each can be met alone: the least of one costs most of the other, and there is nothing between.
    unary = np.zeros((9, 2, 3))
    unary[:, 0, 1] = unary[:, 1, 2] = 1.0
    unary[:, 0, 0] = 0.1
    space = make_space(unary)
    limits = {"m1": 3.0, "m2": 5.0}
    result = search(space, ("m0", "m1"), limits=limits, evaluations=budget(search, 200), rng=np.random.default_rng(7))
    assert result.genes.shape == (0, 9)
    assert result.infeasible.reason is Reason.CONFLICT
    assert set(result.infeasible.conflict) == {"m1", "m2"}
    assert result.infeasible.relaxations == {"m1": 4.0, "m2": 6.0}


@every
def test_one_configuration_only_is_found(search, make_space):
    allowed = np.zeros((70, 3), dtype=bool)
    allowed[np.arange(70), np.arange(70) % 3] = True
    space = make_space(np.random.default_rng(0).random((70, 3, 2)), allowed=allowed)
    result = search(space, ("m0", "m1"), evaluations=5, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(result.genes, [np.arange(70) % 3])
    assert result.infeasible is None


def test_a_group_without_a_choice_is_refused_before_any_search(make_space):
    allowed = np.ones((3, 2), dtype=bool)
    allowed[1] = False
    with pytest.raises(InputError, match="expected an allowed candidate for every group, got none for g1"):
        make_space(np.zeros((3, 2, 2)), allowed=allowed)


@measuring
def test_no_budget_is_refused(search, make_space):
    space = make_space(np.random.default_rng(0).random((4, 3, 2)))
    for none in (0, -3):
        with pytest.raises(InputError, match=f"expected at least 1 evaluation, got {none}; set the budget"):
            search(space, ("m0", "m1"), evaluations=none, rng=np.random.default_rng(0))


@measuring
@pytest.mark.parametrize("measured", [False, True])
def test_a_budget_beyond_the_space_finds_the_whole_front(search, measured, make_space, enumerate_space):
    space = make_space(np.random.default_rng(0).random((5, 3, 2)))
    genes, values = enumerate_space(space)
    measure = Measure(space) if measured else None
    if measured:
        values[:, 0] = measure.harm(genes)
    result = search(space, ("m0", "m1"), evaluations=10**12, rng=np.random.default_rng(0), measure=measure)
    expected = np.unique(values[non_dominated(values)], axis=0)
    np.testing.assert_array_equal(np.unique(result.values, axis=0), expected)
    assert result.exact
    assert result.evaluations == 3**5


@from_tables
def test_a_method_of_tables_refuses_a_measure(search, make_space):
    space = make_space(np.random.default_rng(0).random((4, 3, 2)))
    with pytest.raises(
        InputError, match=r"expected no measure for \w+, which works on tables alone, got one; use nsga2"
    ):
        search(space, ("m0", "m1"), rng=np.random.default_rng(0), measure=Measure(space))


@measuring
@pytest.mark.parametrize("evaluations", [1, 13, 150])
def test_every_configuration_is_measured_once_at_most(search, evaluations, make_space):
    space = make_space(np.random.default_rng(0).random((12, 3, 3)))
    initial = space.random(4, np.random.default_rng(3)).repeat(2, axis=0)  # copies are measured once
    measure = Measure(space)
    evaluations = budget(search, evaluations)
    result = search(
        space,
        ("m0", "m1", "m2"),
        evaluations=evaluations,
        rng=np.random.default_rng(1),
        initial=initial,
        measure=measure,
    )
    assert len(set(measure.asked)) == len(measure.asked) == result.evaluations
    assert 0.9 * evaluations <= result.evaluations <= evaluations
    assert {row.tobytes() for row in initial[::2][:evaluations]} <= set(measure.asked)
    np.testing.assert_array_equal(result.values[:, 0], measure.harm(result.genes))
    np.testing.assert_array_equal(result.values[:, 1:], space.evaluate(result.genes)[:, 1:])
    everything = np.frombuffer(b"".join(measure.asked), dtype=np.uint8).reshape(-1, 12)
    values = np.column_stack([measure.harm(everything), space.evaluate(everything)[:, 1:]])
    np.testing.assert_array_equal(np.unique(result.values, axis=0), np.unique(values[non_dominated(values)], axis=0))


@measuring
def test_limits_on_measured_harm_and_on_tables_hold_together(search, make_space):
    unary = np.random.default_rng(0).random((12, 3, 2))
    unary[..., 0] += 100.0  # what the table says of the harm rules nothing out
    space = make_space(unary)
    measure = Measure(space)
    # The cost admits one configuration in half a million, whose measured harm is what it is.
    cheapest = unary[..., 1].argmin(axis=1).astype(np.uint8)[None]
    cost, harm = space.evaluate(cheapest)[0, 1], measure.harm(cheapest)[0]
    limits = {"m0": harm, "m1": cost + 1e-9}
    evaluations = budget(search, 60)
    rng = np.random.default_rng(1)
    result = search(space, ("m0", "m1"), limits=limits, evaluations=evaluations, rng=rng, measure=measure)
    assert result.genes.tolist() == cheapest.tolist()
    assert result.values.tolist() == [[harm, cost]]
    limits["m0"] = np.nextafter(harm, 0)
    missed = search(space, ("m0", "m1"), limits=limits, evaluations=evaluations, rng=rng, measure=measure)
    assert len(missed.genes) == 0
    assert missed.infeasible.reason is not Reason.UNREACHABLE
    assert missed.infeasible.relaxations["m0"] == harm


@measuring
def test_nothing_is_measured_if_the_tables_rule_everything_out(search, make_space):
    space = make_space(np.random.default_rng(0).random((12, 3, 2)))
    measure = Measure(space)
    limits = {"m0": 0.0, "m1": space.reach()["m1"] * 0.99}
    result = search(space, ("m0", "m1"), limits=limits, evaluations=50, rng=np.random.default_rng(1), measure=measure)
    assert measure.asked == []
    assert result.evaluations == 0
    assert result.infeasible.reason is Reason.UNREACHABLE
    assert result.infeasible.limit == "m1"


@measuring
@pytest.mark.parametrize(
    ("wrong", "got"),
    [
        (lambda genes: np.full(len(genes), np.nan), "got nan"),
        (lambda genes: np.full(len(genes), np.inf), "got inf"),
        (lambda genes: np.zeros((len(genes), 2)), r"got shape \(\d+, 2\)"),
    ],
)
def test_a_measure_that_gives_no_numbers_is_refused(search, wrong, got, make_space):
    space = make_space(np.random.default_rng(0).random((12, 3, 2)))
    with pytest.raises(InputError, match=rf"expected a measure that gives \d+ finite numbers .*, {got}"):
        search(space, ("m0", "m1"), evaluations=12, rng=np.random.default_rng(1), measure=wrong)


@measuring
def test_genes_to_start_from_are_checked(search, make_space):
    allowed = np.ones((12, 3), dtype=bool)
    allowed[5, 2] = False
    space = make_space(np.random.default_rng(0).random((12, 3, 2)), allowed=allowed)
    for bad, match in ((np.full((1, 12), 256), "got 256"), (np.full((1, 12), 2), "for group g5")):
        with pytest.raises(InputError, match=match):
            search(space, ("m0", "m1"), evaluations=12, rng=np.random.default_rng(1), initial=bad)
