"""Searches whose next configuration a sampler suggests: TPE and Gaussian processes."""

import logging

import numpy as np
import optuna
import pytest

from hwdse.pareto import hypervolume
from hwdse.search import gp, random_search, tpe

both = pytest.mark.parametrize("search", [tpe.search, gp.search], ids=["tpe", "gp"])


@pytest.mark.parametrize(("search", "evaluations", "groups"), [(tpe.search, 150, 16), (gp.search, 25, 8)])
def test_covers_more_than_chance(search, evaluations, groups, make_space):
    space = make_space(np.random.default_rng(0).random((groups, 3, 2)))
    reference = space.evaluate(space.random(1000, np.random.default_rng(5))).max(axis=0)
    volumes = [
        hypervolume(
            method(space, ("m0", "m1"), evaluations=evaluations, rng=np.random.default_rng(1)).values, reference
        )
        for method in (search, random_search.search)
    ]
    assert volumes[0] > 1.1 * volumes[1]


@both
def test_limits_are_constraints(search, make_space):
    # What is minimised pulls away from the limit; a cost of pairs, so that no program says where to start.
    rng = np.random.default_rng(3)
    unary, pairwise = rng.random((8, 3, 2)), rng.random((1, 3, 3, 2)) / 10
    unary[..., 0], pairwise[..., 0] = -unary[..., 1], 0.0
    space = make_space(unary, edges=[[0, 1]], pairwise=pairwise)
    limit = np.quantile(space.evaluate(space.random(20_000, np.random.default_rng(0)))[:, 1], 0.1)
    met = []

    def measure(genes):
        met.extend(space.evaluate(genes)[:, 1] <= limit)
        return space.evaluate(genes)[:, 0]

    evaluations = 80 if search is tpe.search else 24
    result = search(
        space,
        ("m0",),
        limits={"m1": limit},
        evaluations=evaluations,
        rng=np.random.default_rng(1),
        measure=measure,
    )
    assert result.infeasible is None
    assert (space.evaluate(result.genes)[:, 1] <= limit).all()
    assert np.mean(met[evaluations // 2 :]) > 0.3  # of random configurations 0.1


@both
def test_a_repeated_suggestion_walks_on(search, make_space):
    # 35 of 36 configurations: a sampler that favours the best would suggest it again and again.
    unary = np.zeros((4, 3, 2))
    unary[0, :, 0], unary[1, :2, 1], unary[2, :, 0], unary[3, 0, 0] = [0, 1, 2], [0, 1], [0, 3, 6], 1
    allowed = np.ones((4, 3), dtype=bool)
    allowed[1, 2] = allowed[3, 2] = False
    space = make_space(unary, allowed=allowed)
    seen = []

    def measure(genes):
        seen.extend(row.tobytes() for row in genes)
        return space.evaluate(genes)[:, 0]

    evaluations = 35 if search is tpe.search else 14
    result = search(space, ("m0", "m1"), evaluations=evaluations, rng=np.random.default_rng(0), measure=measure)
    assert len(set(seen)) == len(seen) == result.evaluations == evaluations


@both
def test_nothing_is_said_and_the_log_level_stays(search, make_space, capfd, caplog):
    space = make_space(np.random.default_rng(0).random((9, 3, 2)))
    before = optuna.logging.get_verbosity()
    optuna.logging.enable_propagation()
    try:
        with caplog.at_level(logging.DEBUG):
            search(space, ("m0", "m1"), evaluations=12, rng=np.random.default_rng(0))
    finally:
        optuna.logging.disable_propagation()
    assert optuna.logging.get_verbosity() == before
    assert [record for record in caplog.records if record.name.startswith("optuna")] == []
    assert capfd.readouterr() == ("", "")


@both
def test_groups_without_a_choice_are_no_parameters(search, make_space):
    allowed = np.ones((9, 3), dtype=bool)
    allowed[4, [0, 2]] = False
    space = make_space(np.random.default_rng(0).random((9, 3, 2)), allowed=allowed)
    result = search(space, ("m0", "m1"), evaluations=13, rng=np.random.default_rng(0))
    assert (result.genes[:, 4] == 1).all()
    assert result.evaluations == 13
