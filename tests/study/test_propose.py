"""Proposals against hypervolumes that are computed another way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hwdse.pareto import hypervolume
from hwdse.study.propose import LossMap, improvement, propose

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


@given(st.lists(st.tuples(st.floats(0, 1e3), st.floats(-1, 1)), min_size=1, max_size=30))
def test_more_loss_never_means_less_harm(measured):
    losses, harms = np.array(measured).T
    grid = np.concatenate([[0.0], np.geomspace(1e-9, 1e4, 200), losses])
    harm = LossMap(losses, harms)(np.sort(grid))
    assert (np.diff(harm) >= -1e-12).all()
    assert harm.min() >= harms.min() - 1e-12
    assert harm.max() <= harms.max() + 1e-12


def test_the_map_goes_through_what_is_monotone_already():
    losses, harms = np.array([0.3, 0.1, 1.0]), np.array([0.02, 0.0, 0.5])
    loss_map = LossMap(losses, harms)
    assert loss_map(losses) == pytest.approx(harms)
    assert loss_map(np.array([np.sqrt(0.3)]))[0] == pytest.approx(0.26)  # half way on the logarithm
    assert loss_map(np.array([1e-9, 1e9])) == pytest.approx([0.0, 0.5])


def test_what_contradicts_is_averaged():
    assert LossMap(np.array([0.1, 0.2]), np.array([0.4, 0.0]))(np.array([0.1, 0.2])) == pytest.approx([0.2, 0.2])


def test_nothing_measured_leaves_the_loss():
    losses = np.array([0.5, 2.0])
    assert LossMap(np.zeros(0), np.zeros(0))(losses) is losses


def all_proposals(problem, *, harm):
    """Propose until nothing is left."""
    measured = np.zeros((0, len(problem.space.groups)), dtype=np.uint8)
    turn = 0
    while True:
        harms = harm(measured)
        losses = problem.space.evaluate(measured)[:, problem.space.column("loss_predicted")]
        genes = propose(
            problem, measured=measured, harms=harms, loss_map=LossMap(losses, harms), turn=turn, harm_reference=0.2
        )
        if genes is None:
            return measured
        measured = np.vstack([measured, genes])
        turn += 1


def loss_of(problem):
    return lambda genes: problem.space.evaluate(genes)[:, problem.space.column("loss_predicted")]


def test_proposals_never_repeat_and_end_with_the_space(tiny_problem):
    measured = all_proposals(tiny_problem, harm=loss_of(tiny_problem))
    assert len(np.unique(measured, axis=0)) == len(measured) == tiny_problem.space.size
    assert tiny_problem.space.allowed[np.arange(len(tiny_problem.space.groups)), measured].all()


def test_proposals_keep_to_memory_limits(tiny_problem, monkeypatch):
    sizes = tiny_problem.space.evaluate(tiny_problem.anything(np.random.default_rng(0)))[
        :, tiny_problem.space.column("size_kib")
    ]
    limit = float(np.median(sizes))
    monkeypatch.setattr(tiny_problem, "limits", {"size_kib": limit})
    measured = all_proposals(tiny_problem, harm=lambda genes: np.zeros(len(genes)))
    assert len(measured) == (sizes <= limit).sum() < len(sizes)
    assert tiny_problem.space.evaluate(measured)[:, tiny_problem.space.column("size_kib")].max() <= limit


def test_the_first_proposals_are_worth_most(tiny_problem):
    """With a prediction that is right, a few proposals cover most of what there is."""
    column = tiny_problem.space.column(tiny_problem.objectives[0])
    measured = all_proposals(tiny_problem, harm=loss_of(tiny_problem))
    values = tiny_problem.space.evaluate(measured)
    points = np.column_stack([values[:, column], loss_of(tiny_problem)(measured)])
    reference = np.array([1.05 * points[:, 0].max(), 0.2])
    some = hypervolume(points[: len(points) // 4], reference)
    assert some > 0.97 * hypervolume(points, reference)
