"""The published two-phase search against a separate re-computation, entry by entry, with plain Python."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.infeasible import Reason
from hwdse.search import two_phase

# conftest's candidates: W2A8, W3A8, W4A8, W5A8, ...
WIDTHS = (2, 3, 4, 5)
METHODS = ("brute_force", "binary", "interpolation")


def toy(make_space, groups, candidates, seed=0, allowed=None):
    """A space whose only metric is bit operations: MACs of a group times its bits of weights times 8."""
    macs = np.random.default_rng(seed).integers(1, 9, groups)
    operations = macs[:, None] * np.array(WIDTHS[:candidates]) * 8.0
    return make_space(operations[..., None], names=("bops_g",), allowed=allowed)


def recomputed(space, scores, baseline):
    """List and walk, written down from the description: one tuple per entry, applied one after another."""
    bits = [p.weights.bits + p.activations.bits for p in space.candidates]
    operations = space.unary[..., 0]
    rows = []
    for g in range(len(space.groups)):
        for c in range(len(space.candidates)):
            if space.allowed[g, c] and c != baseline and space.allowed[g].sum() > 1:
                key = (scores[g][c], bits[c], operations[g][baseline] - operations[g][c], -g)
                rows += [(key, (g, c))]
    entries = [entry for _, entry in sorted(rows, reverse=True)]
    here = [baseline if row[baseline] else int(np.flatnonzero(row)[0]) for row in space.allowed]
    points = [tuple(here)]
    for g, c in entries:
        narrowest = min([here[g], c], key=lambda choice: bits[choice])
        if narrowest != here[g]:
            here[g] = narrowest
            points.append(tuple(here))
    return entries, points


def uniform(space, candidate):
    return space.candidates[candidate]


class Quality:
    """A quality by configuration, and how often each was asked for."""

    def __init__(self, function):
        self.function, self.asked = function, []

    def __call__(self, genes):
        assert genes.shape[0] == 1
        self.asked.append(tuple(genes[0].tolist()))
        return np.array([self.function(genes[0])])


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_list_walk_and_choice_equal_a_separate_computation(data, make_space):
    groups, candidates = data.draw(st.integers(1, 6)), data.draw(st.integers(2, 4))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    allowed = rng.random((groups, candidates)) < 0.8
    allowed[:, -1] = True  # the baseline; some groups have nothing else
    space = toy(make_space, groups, candidates, seed=rng.integers(100), allowed=allowed)
    scores = rng.integers(0, 4, (groups, candidates)).astype(float)  # many ties, and not monotone in bits
    loss = rng.integers(1, 9, (groups, candidates)).astype(float)
    loss.sort(axis=1)
    loss = loss[:, ::-1]  # fewer bits never help: quality falls along the walk
    quality = Quality(lambda genes: -loss[np.arange(groups), genes].sum())
    entries, points = recomputed(space, scores, candidates - 1)
    values = [quality.function(np.array(point)) for point in points]
    target = data.draw(st.sampled_from([*values, min(values) - 1, max(values) + 1, np.mean(values)]))
    meeting = [k for k, value in enumerate(values) if value >= target]
    for method in METHODS:
        for direction in ("forward", "reverse"):
            quality.asked.clear()
            result = two_phase.search(
                space,
                scores,
                baseline=uniform(space, candidates - 1),
                measure=quality,
                target=target,
                method=method,
                direction=direction,
            )
            assert [tuple(entry) for entry in result.entries.tolist()] == entries
            assert [tuple(point) for point in result.path.tolist()] == points
            assert [entries[k][0] for k in result.applied] == [
                next(g for g in range(groups) if a[g] != b[g]) for a, b in pairwise(points)
            ]
            assert result.chosen == (meeting[-1] if meeting else None)
            assert len(set(quality.asked)) == len(quality.asked) == result.measurements == result.measured.sum()
            known = np.flatnonzero(result.measured)
            np.testing.assert_array_equal(result.quality[known], [values[k] for k in known])
            if meeting:
                assert result.genes.tolist() == list(points[meeting[-1]])
                assert result.infeasible is None


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("share", [0.1, 0.37, 0.5, 0.9])
def test_bracketing_measures_less_than_brute_force(make_space, direction, share):
    groups = 60
    space = toy(make_space, groups, 3)
    rng = np.random.default_rng(1)
    scores = rng.random((groups, 3))
    quality = Quality(lambda genes: float(genes.sum()))  # falls by one or two per point, nearly a straight line
    count = {}
    for method in METHODS:
        result = two_phase.search(
            space,
            scores,
            baseline=uniform(space, 2),
            measure=quality,
            target=2 * groups * share,
            method=method,
            direction=direction,
        )
        count[method] = result.measurements
        assert quality.function(result.genes) >= 2 * groups * share > quality.function(result.path[result.chosen + 1])
    points = len(result.path)
    assert count["binary"] <= 3 + np.ceil(np.log2(points))
    assert count["interpolation"] < count["binary"]
    ends = 2
    walked = result.chosen + 1 if direction == "forward" else points - 1 - result.chosen
    assert count["brute_force"] == walked + ends - (direction == "reverse" and result.chosen == 0)


def test_a_later_entry_never_makes_a_group_wider(make_space):
    # Group 0 scores better at 2 bits than at 4: as published, the entry for 4 bits would widen it again.
    space = toy(make_space, 2, 4)
    scores = [[9.0, 1.0, 8.0, 0.0], [7.0, 6.0, 5.0, 0.0]]
    result = two_phase.search(
        space, scores, baseline=uniform(space, 3), measure=lambda genes: genes.sum(axis=1) * 1.0, target=0.0
    )
    assert result.entries.tolist() == [[0, 0], [0, 2], [1, 0], [1, 1], [1, 2], [0, 1]]
    assert result.path.tolist() == [[3, 3], [0, 3], [0, 0]]
    assert result.applied.tolist() == [0, 2]
    assert (np.diff(result.path.astype(int), axis=0) <= 0).all()


def test_ties_go_by_bits_then_bit_operations_then_place(make_space):
    operations = np.array([[4.0, 9.0], [2.0, 9.0], [4.0, 9.0], [2.0, 3.0]])  # reductions 5, 7, 5, 1
    space = make_space(operations[..., None], names=("cost",))
    entries = two_phase.sensitivity_list(space, np.zeros((4, 2)), baseline=uniform(space, 1), bit_operations="cost")
    assert entries[:, 0].tolist() == [1, 0, 2, 3]
    wide_first = two_phase.sensitivity_list(toy(make_space, 1, 4), np.zeros((1, 4)), baseline=Precision.parse("W5A8"))
    assert wide_first[:, 1].tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("target", "direction", "asked", "chosen"),
    [
        (9.0, "forward", ["wide"], None),  # (a) the baseline already misses
        (9.0, "reverse", ["narrow", "wide"], None),
        (1.0, "forward", ["wide", "narrow"], 6),  # (b) the narrowest point meets it
        (1.0, "reverse", ["narrow"], 6),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_early_exits(make_space, target, direction, asked, chosen, method):
    space = toy(make_space, 6, 2)
    quality = Quality(lambda genes: 2.0 + genes.sum())
    result = two_phase.search(
        space,
        np.zeros((6, 2)),
        baseline=uniform(space, 1),
        measure=quality,
        target=target,
        method=method,
        direction=direction,
    )
    ends = {"wide": (1,) * 6, "narrow": (0,) * 6}
    assert quality.asked == [ends[end] for end in asked]
    assert result.chosen == chosen
    if chosen is None:
        trouble = result.infeasible
        assert result.genes is None
        assert trouble.reason is Reason.UNMEASURED
        assert (trouble.requested, trouble.best, trouble.gap) == (9.0, 8.0, 1.0)
        assert str(trouble) == (
            "infeasible: quality 9 was requested; no configuration that is known reaches it: best alone 8, gap 1. "
            "To change that: lower the target from 9 to 8; or start from a wider baseline."
        )


def test_quality_that_recovers_gives_the_documented_point(make_space):
    # Points 0 to 8; 3 and 4 miss the target, 5 and 6 meet it again.
    values = [10.0, 9.0, 8.0, 4.0, 4.0, 7.0, 6.0, 3.0, 2.0]
    space = toy(make_space, 8, 2)
    scores = np.column_stack([np.arange(8, 0, -1), np.zeros(8)])
    quality = Quality(lambda genes: values[8 - int(genes.sum())])
    chosen = {
        (method, direction): two_phase.search(
            space,
            scores,
            baseline=uniform(space, 1),
            measure=quality,
            target=5.0,
            method=method,
            direction=direction,
        ).chosen
        for method in METHODS
        for direction in ("forward", "reverse")
    }
    assert chosen["brute_force", "forward"] == 2  # before the first that misses
    assert chosen["brute_force", "reverse"] == 6  # the last of all that meet
    for method in ("binary", "interpolation"):
        for direction in ("forward", "reverse"):
            point = chosen[method, direction]
            assert values[point] >= 5.0 > values[point + 1]


def test_a_walk_of_one_point(make_space):
    space = toy(make_space, 3, 2, allowed=np.array([[False, True]] * 3))
    measure = Quality(lambda _: 5.0)
    found = two_phase.search(space, np.zeros((3, 2)), baseline=uniform(space, 1), measure=measure, target=5.0)
    assert (found.chosen, found.measurements, found.path.tolist()) == (0, 1, [[1, 1, 1]])
    missed = two_phase.search(space, np.zeros((3, 2)), baseline=uniform(space, 1), measure=measure, target=5.1)
    assert (missed.chosen, missed.infeasible.best) == (None, 5.0)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"scores": np.zeros((3, 3))}, r"expected scores of shape \(4, 3\) \(groups, candidates\), got \(3, 3\)"),
        ({"scores": np.full((4, 3), np.nan)}, "expected a finite score for every allowed choice"),
        ({"baseline": Precision.parse("W3A8")}, "expected a baseline that every group may have, got W3A8"),
        ({"baseline": Precision.parse("W8A8")}, "expected one of the candidates W2A8, W3A8, W4A8, got W8A8"),
        ({"target": np.nan}, "expected a finite target, got nan"),
        ({"method": "golden"}, "expected one of brute_force, binary, interpolation, got 'golden'"),
        ({"direction": "down"}, "expected one of forward, reverse, got 'down'"),
        ({"bit_operations": "macs"}, r"expected a metric of the space \(bops_g\), got 'macs'"),
        ({"measure": lambda _: np.array([np.nan])}, "expected a measure that gives 1 finite number"),
        ({"measure": lambda genes: genes}, "expected a measure that gives 1 finite number"),
    ],
)
def test_refuses_bad_input(make_space, change, match):
    allowed = np.ones((4, 3), dtype=bool)
    allowed[2, 1] = False
    space = toy(make_space, 4, 3, allowed=allowed)
    given_well = {
        "scores": np.zeros((4, 3)),
        "baseline": uniform(space, 2),
        "measure": lambda genes: genes.sum(axis=1),
        "target": 1.0,
    }
    with pytest.raises(InputError, match=match):
        two_phase.search(space, **given_well | change)
