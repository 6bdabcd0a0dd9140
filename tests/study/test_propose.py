"""Proposals for a device, with harm that is what was predicted."""

from __future__ import annotations

import numpy as np

from hwdse.pareto import hypervolume
from hwdse.search.propose import Belief
from hwdse.search.surrogate import Learner


def all_proposals(problem, *, harm):
    """Propose until nothing is left."""
    measured = np.zeros((0, len(problem.space.groups)), dtype=np.uint8)
    turn = 0
    learner = Learner(problem.space.unary[..., problem.space.column("loss_predicted")])
    while True:
        model = learner.model(measured, harm(measured), None)
        belief = Belief(measured, harm(measured), model, model.corrected)
        proposal = problem.proposer.propose(belief, turn=turn, harm_reference=0.2)
        if proposal is None:
            return measured
        measured = np.vstack([measured, proposal.genes])
        turn += 1


def loss_of(problem):
    return lambda genes: problem.space.evaluate(genes)[:, problem.space.column("loss_predicted")]


def test_proposals_never_repeat_and_end_with_the_space(tiny_problem):
    measured = all_proposals(tiny_problem, harm=loss_of(tiny_problem))
    assert len(np.unique(measured, axis=0)) == len(measured) == tiny_problem.space.size
    assert tiny_problem.space.allowed[np.arange(len(tiny_problem.space.groups)), measured].all()


def test_proposals_keep_to_memory_limits(tiny_problem, monkeypatch):
    sizes = tiny_problem.space.evaluate(tiny_problem.proposer.anything(np.random.default_rng(0)))[
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
