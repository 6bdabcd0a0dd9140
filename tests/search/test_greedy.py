import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwdse.errors import InputError
from hwdse.search import greedy, hull


def bits(space):
    return np.array([p.weights.bits + p.activations.bits for p in space.candidates])


def test_harm_per_cost_walks_the_hull_where_everything_adds_up(make_space):
    space = make_space(np.random.default_rng(4).random((15, 4, 2)))
    path, evaluated = greedy.walk(space, ("m0", "m1"), order="harm_per_cost")
    np.testing.assert_array_equal(path, hull.hull_genes(space, ("m0", "m1")))
    assert evaluated == 1 + len(path) * 60


def test_harm_per_cost_counts_costs_between_groups(make_space):
    # Alone, either group's step is dear: a switch between formats. The walk sees that and takes the third first.
    unary = np.zeros((3, 2, 2))
    unary[:, 1] = [0.0, 5.0]
    unary[:, 0, 0] = [1.0, 1.0, 2.0]
    pairwise = np.zeros((1, 2, 2, 2))
    pairwise[0, 0, 1, 1] = pairwise[0, 1, 0, 1] = 4.0
    space = make_space(unary, edges=[[0, 1]], pairwise=pairwise)
    path, _ = greedy.walk(space, ("m0", "m1"), order="harm_per_cost")
    assert path.tolist() == [[1, 1, 1], [1, 1, 0], [0, 1, 0], [0, 0, 0]]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_sensitivity_applies_the_sorted_list_and_never_raises_a_group(data, draw_space):
    space = draw_space(data, largest=9)
    path, _ = greedy.walk(space, ("m0", "m1"), order="sensitivity")
    width = bits(space)
    # The definition, entry by entry: sorted by harm, then bits (high first), then group; of a group's entries the
    # fewest bits so far count.
    entries = sorted(
        (space.unary[g, c, 0], -width[c], g, c) for g, c in zip(*np.nonzero(space.allowed), strict=True)
    )  # fmt: skip
    current = path[0].tolist()
    expected = [tuple(current)]
    for _, _, g, c in entries:
        if width[c] <= width[current[g]]:
            current[g] = int(c)
        expected.append(tuple(current))
    assert list(map(tuple, path.tolist())) == list(dict.fromkeys(expected))
    assert (np.diff(width[path], axis=0) <= 0).all()
    assert (path[-1] == [min(np.flatnonzero(row), key=lambda c: width[c]) for row in space.allowed]).all()


def test_sensitivity_of_a_harm_that_does_not_fall_with_the_bits(make_space):
    # Group 0 is hurt less at 2 bits than at 4: the 4-bit entry comes later and must not raise it again.
    unary = np.zeros((2, 3, 2))
    unary[0, :, 0] = [0.2, 0.3, 0.0]
    unary[1, :, 0] = [0.5, 0.1, 0.0]
    space = make_space(unary)  # W2A8, W3A8, W4A8
    path, _ = greedy.walk(space, ("m0", "m1"), order="sensitivity")
    assert path.tolist() == [[2, 2], [2, 1], [0, 1], [0, 0]]


@pytest.mark.parametrize(
    ("objectives", "order", "match"),
    [
        (("m0",), "sensitivity", "a harm and at least 1 cost as objectives, got m0"),
        (("m0", "m1"), "cost", "order harm_per_cost or sensitivity, got 'cost'"),
    ],
)
def test_walk_refuses(make_space, objectives, order, match):
    space = make_space(np.random.default_rng(0).random((3, 2, 2)))
    with pytest.raises(InputError, match=match):
        greedy.walk(space, objectives, order=order)


@settings(max_examples=150, deadline=None)
@given(
    falls=st.lists(st.integers(0, 5), min_size=0, max_size=80),
    target=st.integers(-10, 200),
    method=st.sampled_from(["binary", "interpolation"]),
)
def test_last_meeting_equals_a_scan(falls, target, method):
    qualities = 150.0 - np.concatenate([[0], np.cumsum(falls)])
    asked = []

    def quality(k):
        asked.append(k)
        return float(qualities[k])

    met = np.flatnonzero(qualities >= target)
    expected = int(met[-1]) if len(met) else None
    assert greedy.last_meeting(quality, len(qualities), target, method=method) == expected
    assert len(asked) == len(set(asked))
    if method == "binary":
        assert len(asked) <= 2 + np.ceil(np.log2(max(len(qualities), 2)))


def test_interpolation_needs_few_points_where_quality_falls_evenly():
    asked = []

    def quality(k):
        asked.append(k)
        return 90.0 - 0.01 * k

    assert greedy.last_meeting(quality, 5000, 77.7, method="interpolation") == 1230
    assert len(asked) <= 5


def test_last_meeting_needs_a_point():
    with pytest.raises(InputError, match=r"at least 1 point \(count\) to search, got 0"):
        greedy.last_meeting(float, 0, 1.0)
