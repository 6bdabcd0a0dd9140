"""Hopeless configurations are given up early, and only those."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from hwdse.evaluate import Evaluation, Pool, Scores
from hwdse.evaluate.executor import Here
from hwdse.quantize.recipe import Recipe
from hwdse.study import schedule
from hwdse.study.measure import FULL_PRECISION, Identity, Laboratory

SAMPLES = 1000


class Batched:
    """An evaluator whose scores are given; it shows them in batches of 50."""

    def __init__(self, scores):
        self.given, self.shown = scores, []
        self.evaluation = SimpleNamespace(metric=SimpleNamespace(may_count=True))

    def score(self, network, config, *, is_enough=None):
        del network
        scores = self.given[str(next(iter(config.precisions.values()))) if config else FULL_PRECISION]
        for end in range(50, SAMPLES + 1, 50):
            if is_enough is not None and is_enough(scores[:end]):
                break
        self.shown.append(end)
        return Scores(scores[:end], 0.1)


@pytest.fixture
def laboratory():
    """Return a laboratory with full precision measured, and a scheme of one layer."""
    rng = np.random.default_rng(0)
    scores = {FULL_PRECISION: np.ones(SAMPLES), "W8A8": rng.random(SAMPLES) < 0.99, "W2A8": rng.random(SAMPLES) < 0.3}
    evaluator = Batched({bits: np.asarray(values, np.float32) for bits, values in scores.items()})
    network = SimpleNamespace(scheme=SimpleNamespace(key="s"), captured=SimpleNamespace(layer_index={"layer": 0}))
    state = SimpleNamespace(key="s", network=network, measured={}, under_way={})
    found = Laboratory(Here(evaluator), evaluator.evaluation.metric, Pool(None), Identity("n", "d", "m", "r"))
    found.measure_reference(network)
    return found, state, evaluator


def test_what_is_hopeless_is_given_up_and_what_is_not_is_measured_whole(laboratory):
    found, state, evaluator = laboratory
    for bits in ("W2A8", "W8A8"):
        found.measure(state, bits, ceiling=0.2)
    assert evaluator.shown == [1000, 100, 1000]
    assert state.measured["W2A8"].drop.samples == 100
    assert state.measured["W2A8"].drop.mean > 0.5
    assert state.measured["W8A8"].quality.samples == 1000


def test_nothing_is_hopeless_without_something_better(laboratory):
    found, state, evaluator = laboratory
    found.measure(state, "W2A8", ceiling=np.inf)
    assert evaluator.shown[-1] == 1000


def test_what_was_given_up_is_measured_whole_once_there_is_hope(laboratory):
    found, state, evaluator = laboratory
    found.measure(state, "W2A8", ceiling=0.2)
    assert found.knows(state, "W2A8", ceiling=0.2)
    assert found.measure(state, "W2A8", ceiling=0.2)[1]
    assert not found.knows(state, "W2A8", ceiling=0.9)
    assert not found.measure(state, "W2A8", ceiling=0.9)[1]
    assert evaluator.shown == [1000, 100, 1000]
    assert found.scores(state, ["W2A8"])[0].size == 1000
    assert len(found.pool) == 2


def test_fewer_samples_never_replace_more(laboratory):
    found, state, _ = laboratory
    found.measure(state, "W2A8")
    found.pool.put(found.identity.key("s", "W2A8"), Scores(np.zeros(10, np.float32), 0.1))
    assert found.scores(state, ["W2A8"])[0].size == 1000


def test_the_front_is_the_one_of_a_run_that_measures_everything(start, tiny, monkeypatch):
    batches = [(x, y) for _ in range(8) for x, y in tiny.evaluation.batches]
    evaluation = Evaluation(batches, tiny.evaluation.metric)
    raced = start(evaluation=evaluation, evaluations=1000, devices=["mpic"], recipe=Recipe())
    monkeypatch.setattr(schedule, "_ceiling", lambda *_: np.inf)
    whole = start(evaluation=evaluation, evaluations=1000, devices=["mpic"], recipe=Recipe())
    measured, everything = raced.measured("mpic").set_index("bits"), whole.measured("mpic").set_index("bits")
    assert measured["samples"].min() < everything["samples"].min() == measured["samples"].max()
    assert set(measured.index) == set(everything.index)
    ours, theirs = raced.front("mpic").table, whole.front("mpic").table
    assert ours["bits"].tolist() == theirs["bits"].tolist()
    assert (ours["samples"] == ours["samples"].max()).all()
