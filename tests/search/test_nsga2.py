import numpy as np
import pytest

from hwdse.errors import InputError
from hwdse.infeasible import Reason
from hwdse.pareto import hypervolume, non_dominated
from hwdse.search import evaluations as known
from hwdse.search import exact, hull, nsga2, nsga3, random_search


def with_edges(make_space, *, groups=10, metrics=2, seed=0):
    rng = np.random.default_rng(seed)
    edges = [[g, g + 1] for g in range(groups - 1)]
    pairwise = rng.random((groups - 1, 3, 3, metrics))
    allowed = rng.random((groups, 3)) < 0.8
    allowed[:, 0] = True
    return make_space(rng.random((groups, 3, metrics)), edges=edges, pairwise=pairwise, allowed=allowed)


def test_finds_the_front_where_costs_do_not_add_up(make_space, enumerate_space):
    space = with_edges(make_space, groups=12)
    genes, values = enumerate_space(space)
    result = nsga2.search(space, ("m0", "m1"), evaluations=4000, rng=np.random.default_rng(1))
    reference = values.max(axis=0)
    share = hypervolume(result.values, reference) / hypervolume(values[non_dominated(values)], reference)
    assert len(genes) > 40_000
    assert 0.999 < share <= 1
    drawn = random_search.search(space, ("m0", "m1"), evaluations=4000, rng=np.random.default_rng(1))
    assert hypervolume(drawn.values, reference) < hypervolume(result.values, reference)


def test_three_objectives(make_space, enumerate_space):
    space = with_edges(make_space, groups=8, metrics=3)
    _, values = enumerate_space(space)
    result = nsga2.search(space, ("m0", "m1", "m2"), evaluations=2000, rng=np.random.default_rng(1))
    reference = values.max(axis=0)
    share = hypervolume(result.values, reference) / hypervolume(values[non_dominated(values)], reference)
    assert 0.99 < share <= 1


@pytest.mark.parametrize("search", [nsga2.search, nsga3.search])
@pytest.mark.parametrize("evaluations", [1, 7, 50, 333, 1000])
def test_never_evaluates_more_than_it_may_nor_anything_twice(make_space, monkeypatch, evaluations, search):
    space = make_space(np.random.default_rng(0).random((20, 3, 2)))
    tried = []
    collect = known.collect
    monkeypatch.setattr(known, "collect", lambda *args, **more: tried.append(args[2]) or collect(*args, **more))
    result = search(space, ("m0", "m1"), evaluations=evaluations, rng=np.random.default_rng(0))
    assert result.evaluations == evaluations == len(tried[0])
    assert len(np.unique(tried[0], axis=0)) == evaluations


def test_a_space_smaller_than_the_budget_is_found_whole(make_space):
    space = make_space(np.random.default_rng(0).random((4, 3, 2)))
    result = nsga2.search(space, ("m0", "m1"), evaluations=5000, rng=np.random.default_rng(0))
    assert result.evaluations == 81
    assert result.exact
    np.testing.assert_allclose(result.values, exact.search(space, ("m0", "m1")).values, rtol=1e-12)


def test_given_genes_are_used(make_space):
    # One configuration out of 2^30 is good, and nothing leads to it.
    pairwise = np.full((1, 2, 2, 2), 1.0)
    pairwise[0, 1, 1] = -50.0
    space = make_space(np.tile([[0.0, 0.0], [1.0, 1.0]], (30, 1, 1)), edges=[[3, 17]], pairwise=pairwise)
    best = np.zeros((1, 30), dtype=np.int64)
    best[0, [3, 17]] = 1
    result = nsga2.search(space, ("m0", "m1"), evaluations=40, rng=np.random.default_rng(0), initial=best)
    assert result.genes.tolist() == best.tolist()


def test_limits_steer_the_search(make_space):
    space = make_space(np.random.default_rng(0).random((25, 3, 3)))
    low = space.reach()["m2"]
    limits = {"m2": low + 0.5}  # far from anything that the seeds know
    result = nsga2.search(space, ("m0", "m1"), limits=limits, evaluations=5000, rng=np.random.default_rng(0))
    assert result.infeasible is None
    assert (space.evaluate(result.genes)[:, 2] <= limits["m2"]).all()
    impossible = nsga2.search(
        space, ("m0", "m1"), limits={"m2": low - 0.1}, evaluations=500, rng=np.random.default_rng(0)
    )
    assert impossible.infeasible.reason is Reason.UNREACHABLE


def test_masked_choices_are_never_tried(make_space):
    space = with_edges(make_space, groups=14, seed=5)  # evaluate() refuses what is not allowed
    result = nsga2.search(space, ("m0", "m1"), evaluations=3000, rng=np.random.default_rng(3))
    assert space.allowed[np.arange(14), result.genes].all()


def test_needs_a_budget(make_space):
    space = make_space(np.random.default_rng(0).random((4, 3, 2)))
    with pytest.raises(InputError, match="at least 1 evaluation, got 0"):
        nsga2.search(space, ("m0", "m1"), rng=np.random.default_rng(0))


def test_a_measured_harm_leads_away_from_what_the_tables_say(make_space, enumerate_space):
    # The table's harm is that of the wrong groups: only by measuring can the front be found.
    space = with_edges(make_space, groups=9, seed=2)
    genes, values = enumerate_space(space)
    weight = np.random.default_rng(8).random((9, 3))

    def measure(x):
        return np.array([weight[np.arange(9), row].sum() for row in x])

    values[:, 0] = measure(genes)
    reference = values.max(axis=0)
    whole = hypervolume(values[non_dominated(values)], reference)
    shares = []
    for search in (nsga2.search, random_search.search):
        result = search(space, ("m0", "m1"), evaluations=400, rng=np.random.default_rng(1), measure=measure)
        np.testing.assert_array_equal(result.values[:, 0], measure(result.genes))
        shares.append(hypervolume(result.values, reference) / whole)
    assert 0.97 < shares[0] <= 1
    assert shares[0] > shares[1] + 0.02


@pytest.mark.parametrize("search", [nsga2.search, nsga3.search])
def test_half_of_the_measurements_are_left_for_what_the_tables_do_not_say(make_space, search):
    unary = np.sort(np.random.default_rng(0).random((60, 3, 2)), axis=1)
    unary[..., 0] = unary[:, ::-1, 0]  # less cost is more harm: a hull of many corners
    space = make_space(unary)
    corners = {row.tobytes() for row in hull.hull_genes(space, ("m0", "m1"))}
    asked = []

    def measure(genes):
        asked.extend(row.tobytes() for row in genes)
        return space.evaluate(genes)[:, 0]

    search(space, ("m0", "m1"), evaluations=60, rng=np.random.default_rng(1), measure=measure)
    assert len(corners) > 60
    assert 20 <= len(set(asked[:30]) & corners) <= 30  # with three uniform ones
    assert len(set(asked[35:]) & corners) < 15
