import warnings

import numpy as np
import pytest

from hwdse.errors import InputError
from hwdse.pareto import hypervolume, non_dominated
from hwdse.search import nsga3, random_search


def with_edges(make_space, *, groups, metrics, seed=0):
    rng = np.random.default_rng(seed)
    edges = [[g, g + 1] for g in range(groups - 1)]
    pairwise = rng.random((groups - 1, 3, 3, metrics))
    return make_space(rng.random((groups, 3, metrics)), edges=edges, pairwise=pairwise)


@pytest.mark.parametrize(("metrics", "least"), [(2, 0.99), (3, 0.98)])
def test_finds_the_front_where_costs_do_not_add_up(make_space, enumerate_space, metrics, least):
    space = with_edges(make_space, groups=8, metrics=metrics)
    _, values = enumerate_space(space)
    objectives = tuple(f"m{k}" for k in range(metrics))
    result = nsga3.search(space, objectives, evaluations=2000, rng=np.random.default_rng(1))
    reference = values.max(axis=0)
    share = hypervolume(result.values, reference) / hypervolume(values[non_dominated(values)], reference)
    assert least < share <= 1


@pytest.mark.parametrize("metrics", [4, 5])
def test_finds_more_of_a_wide_front_than_chance(make_space, enumerate_space, metrics):
    space = with_edges(make_space, groups=8, metrics=metrics)
    genes, values = enumerate_space(space)
    front = {row.tobytes() for row in genes[non_dominated(values)]}
    objectives = tuple(f"m{k}" for k in range(metrics))
    hits = []
    for search in (nsga3.search, random_search.search):
        result = search(space, objectives, evaluations=1000, rng=np.random.default_rng(1))
        hits.append(len({row.tobytes() for row in result.genes} & front))
    assert hits[0] > 2 * hits[1] > 0


def test_limits_steer_the_search_and_the_seed_decides_everything(make_space):
    space = with_edges(make_space, groups=25, metrics=3)  # limits on sums of pairs: no integer program steps in
    sample = space.evaluate(space.random(20_000, np.random.default_rng(2)))
    limits = {"m2": sample[:, 2].min() - 1.0}
    first, again = (
        nsga3.search(space, ("m0", "m1"), limits=limits, evaluations=3000, rng=np.random.default_rng(0))
        for _ in range(2)
    )
    assert len(first.genes) > 10
    assert (space.evaluate(first.genes)[:, 2] <= limits["m2"]).all()
    np.testing.assert_array_equal(first.genes, again.genes)


def test_the_seed_decides_between_equal_violations(make_space):
    # Few whole numbers: most of a population exceeds the limit by as much as the rest.
    rng = np.random.default_rng(1)
    unary = rng.random((20, 3, 3))
    unary[..., 2] = rng.integers(0, 2, (20, 3))
    pairwise = np.zeros((1, 3, 3, 3))
    pairwise[..., 2] = 1.0
    space = make_space(unary, edges=[[0, 1]], pairwise=pairwise)
    limits = {"m2": space.reach()["m2"]}
    runs = [
        nsga3.search(space, ("m0", "m1"), limits=limits, evaluations=300, rng=np.random.default_rng(0)).genes.tolist()
        for _ in range(4)
    ]
    assert runs.count(runs[0]) == 4


def test_warnings_stay_as_they_were(make_space):
    before = list(warnings.filters)
    nsga3.search(
        with_edges(make_space, groups=9, metrics=2), ("m0", "m1"), evaluations=200, rng=np.random.default_rng(0)
    )
    assert list(warnings.filters) == before


@pytest.mark.parametrize("count", [1, 6])
def test_takes_two_to_five_objectives(make_space, count):
    space = make_space(np.random.default_rng(0).random((4, 3, 6)))
    with pytest.raises(InputError, match=f"expected 2 to 5 objectives, got {count}; use nsga2"):
        nsga3.search(space, [f"m{k}" for k in range(count)], evaluations=10, rng=np.random.default_rng(0))
