import numpy as np
import pytest

from hwdse.errors import InputError
from hwdse.infeasible import Reason
from hwdse.pareto import non_dominated
from hwdse.search import random_search


def test_is_the_front_of_the_draw(make_space, monkeypatch):
    monkeypatch.setattr(random_search, "BLOCK", 70)  # several blocks
    space = make_space(np.random.default_rng(0).random((12, 3, 2)))
    result = random_search.search(space, ("m0", "m1"), evaluations=500, rng=np.random.default_rng(5))
    rng = np.random.default_rng(5)
    space.random(0, rng)
    drawn = np.concatenate([space.random(min(70, 500 - done), rng) for done in range(0, 500, 70)])
    values = space.evaluate(drawn)
    expected = values[non_dominated(values)]
    np.testing.assert_array_equal(result.values, expected[np.argsort(expected[:, 1])])
    assert result.evaluations == 500


def test_starts_from_given_genes(make_space):
    space = make_space(np.random.default_rng(0).random((30, 3, 2)))
    best = space.unary[..., 1].argmin(axis=1)[None]
    result = random_search.search(space, ("m0", "m1"), evaluations=50, rng=np.random.default_rng(5), initial=best)
    assert result.genes[0].tolist() == best[0].tolist()


def test_limits_that_are_never_met_report_the_nearest(make_space):
    pairwise = np.random.default_rng(2).random((1, 3, 3, 2))
    space = make_space(np.random.default_rng(0).random((12, 3, 2)), edges=[[0, 1]], pairwise=pairwise)
    limit = space.reach()["m1"] + 0.01
    result = random_search.search(
        space, ("m0", "m1"), limits={"m1": limit}, evaluations=300, rng=np.random.default_rng(5)
    )
    nearest = space.evaluate(space.random(300, np.random.default_rng(5)))[:, 1].min()
    assert result.infeasible.reason is Reason.UNMEASURED
    assert result.infeasible.best == nearest
    assert result.infeasible.relaxations == {"m1": nearest}


def test_needs_a_budget(make_space):
    space = make_space(np.random.default_rng(0).random((4, 3, 2)))
    with pytest.raises(InputError, match="at least 1 evaluation, got 0"):
        random_search.search(space, ("m0", "m1"), rng=np.random.default_rng(0))
