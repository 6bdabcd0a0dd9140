import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwdse.search import hull


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_hull_is_the_lower_convex_hull_of_all_configurations(data, draw_space, enumerate_space):
    space = draw_space(data, largest=6)
    _, values = enumerate_space(space)
    genes = hull.hull_genes(space, ("m0", "m1"))
    corners = space.evaluate(genes)
    # Optimal for every price of harm in cost, the slopes between neighbours and beyond among them.
    slopes = -np.diff(corners[:, 0]) / np.diff(corners[:, 1]) if len(corners) > 1 else np.array([1.0])
    for price in (*slopes, *(slopes * 1.01), *(slopes * 0.99), 1e-3, 1e3):
        assert (corners @ [1, price]).min() == pytest.approx((values @ [1, price]).min(), rel=1e-12, abs=1e-9)
    assert corners[:, 0].min() == values[:, 0].min()
    assert corners[:, 1].min() == values[:, 1].min()
    assert (np.diff(corners[:, 1]) < 0).all()
    assert (np.diff(slopes) >= -1e-12).all()  # each step saves cost at a higher price than the one before


def test_more_objectives_are_covered_by_prices_of_all(make_space):
    space = make_space(np.random.default_rng(0).random((12, 3, 3)))
    genes = hull.hull_genes(space, ("m0", "m1", "m2"))
    values = space.evaluate(genes)
    assert len(np.unique(genes, axis=0)) == len(genes)
    for metric in range(3):
        assert values[:, metric].min() == pytest.approx(space.unary[..., metric].min(axis=1).sum())
    balanced = (space.unary @ np.ones(3)).min(axis=1).sum()
    assert values.sum(axis=1).min() <= balanced * 1.01


def test_costs_between_groups_count_by_their_mean(make_space):
    unary = np.zeros((2, 2, 2))
    unary[:, 0] = [2.0, 1.0]
    unary[:, 1] = [1.0, 2.0]
    pairwise = np.zeros((1, 2, 2, 2))
    pairwise[0, 0, 1, 1] = pairwise[0, 1, 0, 1] = 8.0
    space = make_space(unary, edges=[[0, 1]], pairwise=pairwise)
    part = hull.additive_part(space, [0, 1])
    np.testing.assert_array_equal(part[..., 1], [[5.0, 6.0], [5.0, 6.0]])
    result = hull.search(space, ("m0", "m1"))
    assert result.values.tolist() == [[4.0, 2.0], [2.0, 4.0]]  # the mixture costs 11 and is dominated


def test_search_counts_its_corners(make_space):
    space = make_space(np.random.default_rng(0).random((9, 3, 2)))
    result = hull.search(space, ("m0", "m1"))
    assert result.evaluations == len(hull.hull_genes(space, ("m0", "m1"))) == len(result.genes)
    assert result.exact is False
    assert result.tolerance == np.inf
