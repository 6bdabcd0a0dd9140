"""Marks of what may belong to the front, against paired intervals of every pair."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hwdse.evaluate import paired_interval
from hwdse.study.noise import within_noise


def table(scores, costs):
    """Return a measured table and its scores by bits."""
    reference = np.ones(scores.shape[1])
    rows = []
    for i, ours in enumerate(scores):
        drop = paired_interval(ours, reference)
        rows.append([f"W{i}", *costs[i], ours.mean(), drop.mean, drop.low, drop.high])
    names = ["bits", *(f"cost{i}" for i in range(costs.shape[1])), "top1_measured"]
    names += ["top1_drop_measured", "top1_drop_measured_low", "top1_drop_measured_high"]
    return pd.DataFrame(rows, columns=names), {f"W{i}": ours for i, ours in enumerate(scores)}


def asked_of(kept):
    """Return what gives the scores of several at once."""
    return lambda configurations: [kept[bits] for bits in configurations]


def marked(scores, costs):
    measured, kept = table(scores, costs)
    names = [name for name in measured if name.startswith("cost")]
    return within_noise(measured, asked_of(kept), quality="top1", costs=names, may_count=True)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("costs", [1, 2])
def test_it_is_every_pair_compared(seed, costs):
    rng = np.random.default_rng(seed)
    difficulty = rng.random(400)
    scores = (difficulty < np.sort(rng.uniform(0.7, 0.95, 14))[:, None] + 0.02 * rng.standard_normal((14, 400))) * 1.0
    spent = rng.integers(1, 9, (14, costs)).astype(float)
    expected = []
    for i in range(14):
        no_dearer = [j for j in range(14) if (spent[j] <= spent[i]).all()]
        better = [j for j in no_dearer if scores[j].mean() > scores[i].mean()]
        as_good = [j for j in no_dearer if scores[j].mean() == scores[i].mean() and (spent[j] < spent[i]).any()]
        clearly = [j for j in better if paired_interval(scores[i], scores[j]).low > 0.0]
        expected.append(bool(better or as_good) and not clearly)
    assert marked(scores, spent).tolist() == expected


def test_what_is_clearly_worse_is_not_near():
    right = np.ones(500)
    wrong = np.zeros(500)
    close = np.r_[np.zeros(2), np.ones(498)]
    assert marked(np.stack([right, wrong, close]), np.array([[1.0], [2.0], [2.0]])).tolist() == [False, False, True]


def test_fewer_samples_are_compared_on_those_they_share():
    full = np.r_[np.ones(60), np.zeros(40)]
    measured, kept = table(np.stack([full, full]), np.array([[1.0], [2.0]]))
    kept["W1"] = full[:50]
    found = within_noise(measured, asked_of(kept), quality="top1", costs=["cost0"], may_count=True)
    assert found.tolist() == [False, True]


def test_nothing_measured_is_nothing_marked():
    measured, kept = table(np.ones((1, 4)), np.ones((1, 1)))
    found = within_noise(measured[:0], asked_of(kept), quality="top1", costs=["cost0"], may_count=True)
    assert found.shape == (0,)


def test_what_was_beaten_is_asked_again_only_when_that_left_the_front():
    right, wrong = np.ones(500), np.zeros(500)
    close = np.r_[np.zeros(10), np.ones(490)]
    scores = np.stack([right, close, wrong, close])
    measured, kept = table(scores, np.array([[2.0], [1.0], [3.0], [3.0]]))
    asked: list[str] = []

    def noted(configurations):
        asked.extend(configurations)
        return [kept[bits] for bits in configurations]

    def marks(rows):
        asked.clear()
        found = within_noise(
            measured.iloc[rows], noted, quality="top1", costs=["cost0"], may_count=True, beaten_by=beaten_by
        )
        return found.tolist()

    beaten_by: dict[str, str] = {}
    assert marks([0, 1, 2, 3]) == [False, False, False, False]
    assert beaten_by == {"W3": "W0"}
    assert sorted(asked) == ["W0", "W1", "W3"]  # W2 is farther away than needs a look
    assert marks([0, 1, 2, 3]) == [False, False, False, False]
    assert sorted(asked) == ["W0", "W1"]
    assert marks([1, 2, 3]) == [False, False, True]
