"""The hypervolume that a measurement promises, against differences of hypervolumes and against sampling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hwdse.pareto import hypervolume
from hwdse.search.acquire import expected_improvement, expected_joint_improvement, improvement, spread_points
from hwdse.search.surrogate import Expectation

COORDINATES = st.integers(0, 12).map(lambda k: k / 8.0)


@given(
    arrays(np.float64, st.tuples(st.integers(1, 6), st.just(2)), elements=COORDINATES),
    arrays(np.float64, st.tuples(st.integers(0, 8), st.just(2)), elements=COORDINATES),
)
def test_improvement_is_a_difference_of_hypervolumes(points, front):
    """Also for points outside the reference, on the front, and fronts with dominated or equal rows."""
    reference = np.array([1.0, 1.25])
    before = hypervolume(front, reference) if len(front) else 0.0
    expected = [hypervolume(np.vstack([front, point]), reference) - before for point in points]
    assert improvement(points, front, reference) == pytest.approx(expected, abs=1e-12)


@given(
    arrays(np.float64, st.tuples(st.integers(1, 6), st.just(2)), elements=COORDINATES),
    arrays(np.float64, st.tuples(st.integers(0, 8), st.just(2)), elements=COORDINATES),
)
def test_without_doubt_it_is_what_a_point_adds(points, front):
    reference = np.array([1.0, 1.25])
    sure = Expectation(np.log(points[:, 1] + 0.5), np.zeros(len(points)), 0.5)
    found = expected_improvement(points[:, 0], sure, front, reference)
    assert found == pytest.approx(improvement(points, front, reference), abs=1e-6)


@pytest.mark.parametrize(("mean", "sd"), [(-3.0, 0.1), (-1.0, 0.5), (0.5, 1.0), (3.0, 0.5)])
def test_it_is_the_mean_over_what_may_happen(mean, sd):
    front = np.array([[0.1, 0.8], [0.4, 0.3], [0.7, 0.1]])
    reference = np.array([1.0, 1.0])
    draws = np.exp(mean + sd * np.random.default_rng(0).standard_normal(200_000)) - 0.05
    cost = 0.3
    gains = improvement(np.column_stack([np.full(draws.size, cost), draws]), front, reference)
    expected = expected_improvement(
        np.array([cost]), Expectation(np.array([mean]), np.array([sd]), 0.05), front, reference
    )
    assert expected[0] == pytest.approx(gains.mean(), abs=4 * gains.std() / np.sqrt(draws.size) + 1e-9)


def test_a_ceiling_below_all_that_may_happen_promises_nothing():
    sure = Expectation(np.array([0.0, 0.0]), np.array([0.3, 0.0]), 0.1)
    assert sure.shortfall(np.array([-0.1, -5.0, 0.0])).max() < 1e-6
    assert sure.median == pytest.approx([0.9, 0.9])
    assert sure.quantile(2.0) == pytest.approx([np.exp(0.6) - 0.1, 0.9])


def test_over_several_costs_it_is_a_difference_of_hypervolumes():
    rng = np.random.default_rng(3)
    known, harms = rng.random((6, 2)), rng.uniform(0.1, 0.9, 6)
    costs, own = rng.random((5, 2)), rng.uniform(0.05, 0.8, 5)
    sure = Expectation(np.log(own + 0.5), np.zeros(5), 0.5)
    places = spread_points(200_000, 2, rng)
    found = expected_joint_improvement(costs, sure, known, harms, reference=0.7, places=places)
    measured, reference = np.column_stack([known, harms]), (1.0, 1.0, 0.7)
    before = hypervolume(measured, reference)
    points = np.column_stack([costs, own])
    expected = [hypervolume(np.vstack([measured, point]), reference) - before for point in points]
    assert found == pytest.approx(expected, abs=1e-3)
    assert (found > 0).any()


def test_of_one_cost_both_are_the_same():
    rng = np.random.default_rng(4)
    known, harms = rng.random((5, 1)), rng.uniform(0.1, 0.9, 5)
    costs, doubt = rng.random((7, 1)), Expectation(rng.normal(-1.0, 0.3, 7), rng.uniform(0.0, 0.6, 7), 0.1)
    places = spread_points(100_000, 1, rng)
    joint = expected_joint_improvement(costs, doubt, known, harms, reference=0.8, places=places)
    exact = expected_improvement(costs[:, 0], doubt, np.column_stack([known, harms]), np.array([1.0, 0.8]))
    assert joint == pytest.approx(exact, abs=1e-3)


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4])
def test_spread_points_fill_the_cube_evenly(dimensions):
    points = spread_points(4096, dimensions, np.random.default_rng(0))
    assert ((points >= 0) & (points < 1)).all()
    corner = np.random.default_rng(1).uniform(0.2, 1.0, (20, dimensions))
    shares = (points[:, None] < corner).all(axis=2).mean(axis=0)
    assert shares == pytest.approx(corner.prod(axis=1), abs=0.01)
