import numpy as np
import pytest

from hwdse.search.evaluations import Evaluations, every_configuration


def test_each_configuration_is_evaluated_once(make_space):
    space = make_space(np.random.default_rng(0).random((6, 3, 2)))
    asked = []

    def measure(genes):
        asked.append(genes.copy())
        genes[:] = 0  # what a measure does to its genes stays with it
        return asked[-1].sum(axis=1)

    known = Evaluations(space, ("m1",), limits={"m0": 2.0, "m1": 0.0}, budget=9, measure=measure)
    genes = space.random(4, np.random.default_rng(1))
    twice = np.concatenate([genes, genes[::-1], genes[:1]])
    np.testing.assert_array_equal(known.fresh(twice), genes)
    metrics = known.metrics(twice)
    np.testing.assert_array_equal(metrics[:, 0], space.evaluate(twice)[:, 0])
    np.testing.assert_array_equal(metrics[:, 1], twice.sum(axis=1))
    assert (len(known), known.left) == (4, 5)
    assert genes[2] in known
    assert known.fresh(twice).shape == (0, 6)
    known.metrics(genes[1:3])
    np.testing.assert_array_equal(np.concatenate(asked), genes)
    excess = known.excess(metrics)
    np.testing.assert_allclose(excess[:, 0], metrics[:, 0] / 2 - 1)
    np.testing.assert_array_equal(excess[:, 1], metrics[:, 1])


def test_every_configuration_is_listed_in_order(make_space, enumerate_space):
    allowed = np.ones((5, 3), dtype=bool)
    allowed[1, 0] = allowed[3, 1] = allowed[3, 2] = False
    space = make_space(np.zeros((5, 3, 1)), allowed=allowed)
    np.testing.assert_array_equal(every_configuration(space), enumerate_space(space)[0])


@pytest.mark.parametrize("groups", [1, 200])
def test_a_space_of_one_configuration_is_listed(make_space, groups):
    space = make_space(np.zeros((groups, 1, 1)))
    np.testing.assert_array_equal(every_configuration(space), np.zeros((1, groups)))
