"""A network that is not shown to beat always giving the commonest answer is one that the user hears of."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hwdse.evaluate import Interval, evaluation_of, top1_on
from hwdse.evaluate.metrics import commonest_share
from hwdse.report.tables import RunTables
from tests.listener import Listener


def test_a_network_that_guesses_is_named(tiny, start, tmp_path):
    """Its labels are none of its own: two classes in turn."""
    evaluation = top1_on([(batch, torch.arange(len(batch)) % 2) for batch, _ in tiny.evaluation.batches])
    listener = Listener()
    study = start(evaluation=evaluation, evaluations=2, out=tmp_path / "run", progress=listener)
    assert commonest_share(evaluation) == study.commonest == 0.5
    assert study.full_precision.low <= 0.5
    assert study.doubt.startswith(f"in full precision the network has {study.full_precision.mean:.1%} right (")
    assert "on 96 samples), no better than always the commonest class, 50.0%: is it trained" in study.doubt
    assert study.doubt in listener.sentences
    assert RunTables.load(tmp_path / "run").full_precision.doubt == study.doubt
    for low, is_doubted in ((0.5, True), (0.51, False)):
        better = replace(study, full_precision=Interval(0.6, low, 0.7, 96))
        assert bool(better.doubt) is is_doubted


@pytest.mark.parametrize("metric", ["agreement", "top1"])
def test_without_several_answers_none_is_the_commonest(metric, tiny):
    batches = [(batch, torch.zeros(len(batch), dtype=torch.long)) for batch, _ in tiny.evaluation.batches]
    assert commonest_share(evaluation_of(batches, metric)) is None
