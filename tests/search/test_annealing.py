import numpy as np
import pytest

from hwdse.pareto import hypervolume
from hwdse.search import annealing, random_search
from hwdse.search.neighbours import random_neighbours


def coupled(make_space, groups, metrics=2):
    rng = np.random.default_rng(4)
    edges = [[g, g + 1] for g in range(groups - 1)]
    allowed = rng.random((groups, 4)) < 0.8
    allowed[:, 0] = True
    return make_space(
        rng.random((groups, 4, metrics)),
        allowed=allowed,
        edges=edges,
        pairwise=rng.random((groups - 1, 4, 4, metrics)),
    )


def test_one_objective_under_a_limit_reaches_the_optimum(make_space, enumerate_space):
    space = coupled(make_space, 9)
    _, values = enumerate_space(space)
    bound = np.quantile(values[:, 1], 0.1)
    result = annealing.search(
        space, ("m0",), limits={"m1": bound}, evaluations=len(values) // 10, rng=np.random.default_rng(0)
    )
    best = np.sort(values[values[:, 1] <= bound, 0])
    assert best[0] <= result.values[0, 0] <= best[5]  # of tens of thousands


def test_limits_repel(make_space):
    # What is minimised pulls away from the limit.
    space = coupled(make_space, 20)
    space = make_space(
        np.stack([-space.unary[..., 1], space.unary[..., 1]], axis=2),
        allowed=space.allowed,
        edges=space.edges,
        pairwise=np.stack([-space.pairwise[..., 1], space.pairwise[..., 1]], axis=3),
    )
    limit = np.quantile(space.evaluate(space.random(20_000, np.random.default_rng(0)))[:, 1], 0.1)
    met = []

    def measure(genes):
        met.extend(space.evaluate(genes)[:, 1] <= limit)
        return space.evaluate(genes)[:, 0]

    annealing.search(
        space, ("m0",), limits={"m1": limit}, evaluations=2000, rng=np.random.default_rng(1), measure=measure
    )
    assert np.mean(met[1000:]) > 0.3  # of random configurations 0.1


def test_covers_more_than_chance(make_space):
    space = coupled(make_space, 40)
    reference = space.evaluate(space.random(1000, np.random.default_rng(5))).max(axis=0)
    volumes = [
        np.mean(
            [
                hypervolume(
                    search(space, ("m0", "m1"), evaluations=3000, rng=np.random.default_rng(seed)).values, reference
                )
                for seed in range(3)
            ]
        )
        for search in (annealing.search, random_search.search)
    ]
    assert volumes[0] > 1.3 * volumes[1]


@pytest.mark.parametrize("evaluations", [1, 2, 99, 199])
def test_spends_the_whole_budget(make_space, evaluations):
    # No step from the one configuration within the limit is ever accepted: further rounds start elsewhere.
    unary = np.zeros((12, 3, 2))
    unary[:, 1:] = 1.0
    space = make_space(unary, edges=[[0, 1]], pairwise=np.ones((1, 3, 3, 2)))
    result = annealing.search(
        space,
        ("m0", "m1"),
        limits={"m1": 1.0},
        evaluations=evaluations,
        rng=np.random.default_rng(0),
        initial=np.zeros((1, 12), dtype=np.uint8),
    )
    assert result.evaluations == evaluations
    assert result.genes.tolist() == [[0] * 12]


def test_a_neighbour_differs_in_one_allowed_choice(make_space):
    allowed = np.ones((5, 4), dtype=bool)
    allowed[1, [0, 2, 3]] = allowed[3, 1] = False
    space = make_space(np.zeros((5, 4, 1)), allowed=allowed)
    genes = space.random(20_000, np.random.default_rng(0))
    moved = random_neighbours(space, genes, np.random.default_rng(1))
    assert ((moved != genes).sum(axis=1) == 1).all()
    assert space.allowed[np.arange(5), moved].all()
    counts = (moved != genes).sum(axis=0)
    assert counts[1] == 0
    assert (np.abs(counts[[0, 2, 3, 4]] - 5000) < 5 * np.sqrt(5000)).all()
    left = moved[(genes[:, 3] == 2) & (moved[:, 3] != 2), 3]
    chosen = np.bincount(left, minlength=4)
    assert chosen[[1, 2]].tolist() == [0, 0]
    assert (np.abs(chosen[[0, 3]] - len(left) / 2) < 5 * np.sqrt(len(left) / 2)).all()
