"""The measuring search on harm whose true front is known."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from hwdse.errors import InputError
from hwdse.pareto import hypervolume, non_dominated
from hwdse.search import adaptive

GROUPS, CANDIDATES = 8, 3
EVERYTHING = np.array(list(product(range(CANDIDATES), repeat=GROUPS)), dtype=np.uint8)


@pytest.fixture(params=range(2))
def problem(request, make_space):
    """Return a space, a harm that its losses predict badly, and a function from configurations to hypervolume."""
    rng = np.random.default_rng(request.param)
    losses = np.sort(rng.lognormal(-4.0, 1.3, (GROUPS, CANDIDATES)), axis=1)
    losses[:, 0] *= 0.02
    true = losses * np.exp(0.7 * rng.standard_normal(losses.shape))
    sizes = rng.lognormal(1.0, 1.0, (GROUPS, 1)) * np.array([8.0, 4.0, 2.0])
    space = make_space(np.stack([losses, sizes], axis=-1), names=("loss", "size"))

    def harm(genes):
        return 0.9 * (1.0 - np.exp(-true[np.arange(GROUPS), genes].sum(1)))

    reference = np.array([0.3 * harm(EVERYTHING).max(), 1.05 * sizes.max(1).sum()])

    def volume(genes):
        return hypervolume(np.column_stack([harm(genes), space.evaluate(genes)[:, 1]]), reference)

    return space, harm, volume


def found(space, harm, evaluations, **changes):
    arguments = {"rng": np.random.default_rng(0), "measure": harm, "evaluations": evaluations}
    return adaptive.search(space, ("loss", "size"), **(arguments | changes))


def test_a_few_dozen_measurements_find_the_true_front(problem):
    space, harm, volume = problem
    result = found(space, harm, 60)
    assert volume(result.genes) > 0.995 * volume(EVERYTHING)
    assert result.evaluations == 60
    predicted = adaptive.predicted_front(space, ("loss", "size"), limits={}, rng=np.random.default_rng(0)).genes
    assert volume(result.genes) > volume(predicted)


def test_what_is_returned_was_measured_and_is_a_front(problem):
    space, harm, _ = problem
    asked = []

    def recorded(genes):
        asked.extend(map(tuple, genes.tolist()))
        return harm(genes)

    result = found(space, recorded, 20)
    assert len(asked) == len(set(asked)) == 20
    assert {tuple(genes) for genes in result.genes.tolist()} <= set(asked)
    assert result.values[:, 0] == pytest.approx(harm(result.genes))
    assert result.values[:, 1] == pytest.approx(space.evaluate(result.genes)[:, 1])
    assert non_dominated(result.values).all()
    assert (np.diff(result.values[:, 1]) >= 0).all()


def test_the_predicted_front_of_a_small_space_is_exact(problem):
    space, _, _ = problem
    values = space.evaluate(EVERYTHING)
    limit = float(np.quantile(values[:, 1], 0.7))
    predicted = adaptive.predicted_front(space, ("loss", "size"), limits={"size": limit}, rng=np.random.default_rng(0))
    inside = EVERYTHING[values[:, 1] <= limit]
    expected = inside[non_dominated(space.evaluate(inside))]
    assert {tuple(g) for g in predicted.genes.tolist()} == {tuple(g) for g in expected.tolist()}


def test_same_seed_same_result(problem):
    space, harm, _ = problem
    one, other = (found(space, harm, 12) for _ in range(2))
    assert (one.genes == other.genes).all()


def test_limits_are_hard(problem):
    space, harm, _ = problem
    limit = float(np.quantile(space.evaluate(EVERYTHING)[:, 1], 0.2))
    asked = []
    result = found(space, lambda genes: asked.extend(genes) or harm(genes), 12, limits={"size": limit})
    assert len(result.genes)
    assert space.evaluate(np.array(asked))[:, 1].max() <= limit


def test_a_limit_on_harm_is_one_on_what_is_measured(problem):
    space, harm, _ = problem
    result = found(space, harm, 25, limits={"loss": 0.1})
    assert len(result.genes)
    assert result.values[:, 0] == pytest.approx(harm(result.genes))
    assert result.values[:, 0].max() <= 0.1


def test_several_costs_are_traded_for_one_another(make_space):
    rng = np.random.default_rng(5)
    losses = np.sort(rng.lognormal(-4.0, 1.3, (GROUPS, CANDIDATES)), axis=1)
    costs = rng.lognormal(1.0, 1.0, (2, GROUPS, 1)) * np.array([8.0, 4.0, 2.0])
    space = make_space(np.stack([losses, *costs], axis=-1), names=("loss", "size", "time"))
    reference = (0.3 * losses.max(1).sum(), *(1.05 * costs.max(2).sum(1)))

    def harm(genes):
        return losses[np.arange(GROUPS), genes].sum(1)

    def volume(genes):
        return hypervolume(np.column_stack([harm(genes), space.evaluate(genes)[:, 1:]]), reference)

    result = adaptive.search(space, ("loss", "size", "time"), evaluations=60, rng=rng, measure=harm)
    assert volume(result.genes) > 0.97 * volume(EVERYTHING)


def test_what_nothing_fits_is_infeasible(problem):
    space, harm, _ = problem
    result = found(space, harm, 25, limits={"size": 0.1})
    assert result.infeasible is not None
    assert result.evaluations == len(result.genes) == 0


def test_a_small_space_is_measured_whole(make_space):
    unary = np.random.default_rng(0).random((2, 3, 2))
    space = make_space(unary, names=("loss", "size"))
    assert found(space, lambda genes: genes.sum(1) / 10.0, 50).evaluations == 9


def test_it_needs_something_to_measure_and_a_budget(problem):
    space, harm, _ = problem
    with pytest.raises(InputError, match="expected a function that measures harm, got none"):
        found(space, None, 5)
    with pytest.raises(InputError, match="expected at least 1 evaluation, got 0"):
        found(space, harm, 0)
