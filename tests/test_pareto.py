from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hwdse.errors import InputError
from hwdse.pareto import (
    additive_epsilon,
    crowding,
    epsilon_non_dominated,
    hypervolume,
    knee,
    non_dominated,
    select_spread,
)


def point_sets(*, most=12, objectives=(1, 5), values=None):
    """Point sets with many ties: few distinct values per objective."""
    values = st.integers(-2, 3).map(float) if values is None else values
    shapes = st.tuples(st.integers(0, most), st.integers(*objectives))
    return shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=values))


def dominates(a, b):
    return (a <= b).all() and (a < b).any()


@settings(max_examples=300, deadline=None)
@given(points=point_sets(most=40))
def test_non_dominated_equals_the_definition(points):
    expected = [
        not any(dominates(q, p) for q in points) and not any((q == p).all() for q in points[:i])
        for i, p in enumerate(points)
    ]
    assert non_dominated(points).tolist() == expected


@pytest.mark.parametrize("m", [2, 3, 4])
def test_non_dominated_across_blocks(m):
    rng = np.random.default_rng(m)
    points = np.round(rng.random((3000, m)), 1 if m > 2 else 3)
    mask = non_dominated(points)
    kept = points[mask]
    assert len(np.unique(kept, axis=0)) == len(kept)
    below = (kept[:, None] <= points[None]).all(axis=2)
    assert below.any(axis=0).all()  # everything is covered
    assert below[:, mask].sum() == len(kept)  # and a kept point by itself only
    first = [int(np.flatnonzero((points == p).all(axis=1))[0]) for p in kept]
    assert first == np.flatnonzero(mask).tolist()


def test_non_dominated_is_fast_for_a_hundred_thousand_points():
    x = np.linspace(0, 1, 100_000)
    assert non_dominated(np.column_stack([x, 1 - x])).all()  # a quadratic algorithm would take minutes


def test_infinite_points_are_ordinary_points_of_dominance():
    assert non_dominated([[np.inf, 0], [1, 1], [np.inf, 1]]).tolist() == [True, True, False]


def volume_by_inclusion_exclusion(points, reference):
    sides = [np.maximum(reference - p, 0) for p in points]
    return sum(
        (-1) ** (size + 1) * np.minimum.reduce(subset).prod()
        for size in range(1, len(sides) + 1)
        for subset in combinations(sides, size)
    )


@settings(max_examples=200, deadline=None)
@given(points=point_sets(most=8))
def test_hypervolume_equals_inclusion_and_exclusion(points):
    reference = np.full(points.shape[1], 2.0)  # some points lie on it or beyond
    assert hypervolume(points, reference) == volume_by_inclusion_exclusion(points, reference)


def test_hypervolume_of_the_textbook_front():
    assert hypervolume([(0.2, 0.8), (0.5, 0.4), (0.9, 0.1)], (1, 1)) == pytest.approx(0.39, abs=1e-15)


@pytest.mark.parametrize("m", [3, 4, 5])
def test_hypervolume_of_a_staircase_in_any_dimension(m):
    # Unit cells below the diagonal plane of a lattice: counted one by one.
    steps = 5
    lattice = np.array(np.meshgrid(*[np.arange(steps)] * m)).reshape(m, -1).T
    corners = lattice[lattice.sum(axis=1) == steps - 1]
    covered = (corners[:, None] <= lattice[None]).all(axis=2).any(axis=0)
    assert hypervolume(corners, [steps] * m) == covered.sum()


def test_hypervolume_ignores_points_beyond_the_reference():
    assert hypervolume([[0.5, 1.0], [2.0, -5.0], [np.inf, 0.0]], (1, 1)) == 0.0
    assert hypervolume([[0.5, 0.5], [2.0, -5.0]], (1, 1)) == 0.25
    assert hypervolume(np.empty((0, 3)), (1, 1, 1)) == 0.0


@pytest.mark.parametrize(
    ("points", "reference", "match"),
    [
        ([[1, np.nan]], (2, 2), "got nan for point 0, objective 1"),
        ([1.0, 2.0], (2, 2), r"points of shape \(n, m\) with m >= 1 objectives, got shape \(2,\)"),
        ([[1.0, 2.0]], (2, 2, 2), r"reference of shape \(2,\) \(i\.e\. \(objectives,\)\), got shape \(3,\)"),
        ([[1.0, 2.0]], (2, np.inf), r"finite reference, got \[2\.0, inf\]"),
        ([[1.0, -np.inf]], (2, 2), "got minus infinity"),
        ([["a", "b"]], (2, 2), "points of shape .* of numbers, got list"),
    ],
)
def test_hypervolume_refuses(points, reference, match):
    with pytest.raises(InputError, match=match):
        hypervolume(points, reference)


def test_knee_is_the_farthest_below_the_line_through_the_extremes():
    angles = np.linspace(np.pi, 1.5 * np.pi, 91)
    circle = np.column_stack([1 + np.cos(angles), 1 + np.sin(angles)]) * [1000.0, 1e-3]  # the units do not matter
    assert knee(circle) == 45
    assert knee(np.vstack([circle, [[0.0, 5.0], [1.0, 9.0]]])) == 45  # nor do dominated points
    assert knee([[3.0, 3.0]]) == 0
    assert knee([[0.0, 1.0], [1.0, 0.0]]) == 0
    with pytest.raises(InputError, match=r"at least 1 point \(n\) to find a knee in, got 0"):
        knee(np.empty((0, 2)))


@settings(max_examples=100, deadline=None)
@given(points=point_sets(most=8, objectives=(2, 2)), targets=point_sets(most=8, objectives=(2, 2)))
def test_additive_epsilon_is_the_smallest_shift_that_covers(points, targets):
    if not (len(points) and len(targets)):
        with pytest.raises(InputError, match="two non-empty sets"):
            additive_epsilon(points, targets)
        return
    epsilon = additive_epsilon(points, targets)

    def covers(shift):
        return all(any((p - shift <= t).all() for p in points) for t in targets)

    assert covers(epsilon)
    assert not covers(epsilon - 0.5)


@settings(max_examples=100, deadline=None)
@given(points=point_sets(most=20, objectives=(2, 3), values=st.floats(-1, 1)), side=st.sampled_from([0.1, 0.5, 3.0]))
def test_epsilon_boxes_keep_every_point_within_epsilon(points, side):
    kept = points[epsilon_non_dominated(points, side)]
    assert len(kept) > 0 or len(points) == 0
    if len(points):
        assert additive_epsilon(kept, points) <= side * (1 + 1e-9)
        boxes = np.floor((kept - points.min(axis=0)) / side)
        assert len(np.unique(boxes, axis=0)) == len(boxes)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, np.nan, [1.0, 1.0, 1.0]])
def test_epsilon_must_be_positive(epsilon):
    with pytest.raises(InputError, match=r"positive epsilon, 1 number or 2 \(objectives\)"):
        epsilon_non_dominated([[0.0, 1.0]], epsilon)


def test_crowding_is_the_size_of_the_gap_around_a_point():
    distance = crowding([[0, 10], [1, 6], [4, 1], [10, 0]])
    assert distance[[0, 3]].tolist() == [np.inf, np.inf]
    assert distance[1:3] == pytest.approx([4 / 10 + 9 / 10, 9 / 10 + 6 / 10])
    assert crowding(np.empty((0, 2))).tolist() == []


def test_select_spread_takes_the_extremes_and_fills_gaps_evenly():
    x = np.linspace(0, 1, 101)
    points = np.column_stack([x, 1 - x])
    assert select_spread(points, 2).tolist() == [0, 100]
    assert select_spread(points, 3).tolist() == [0, 50, 100]
    chosen = select_spread(points, 9)
    assert len(chosen) == 9
    assert np.diff(chosen).max() <= 13
    assert select_spread(points, 500).tolist() == list(range(101))
    assert select_spread(points, 0).tolist() == []
    assert select_spread(np.zeros((4, 2)), 3).tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="k >= 0 points to select, got -1"):
        select_spread(points, -1)
