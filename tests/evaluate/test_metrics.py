import itertools

import numpy as np
import pytest
import torch

from hwdse.errors import InputError
from hwdse.evaluate import METRICS, Evaluation, evaluation_of, top1_on

LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0, -2.0, -3.0], [0.0, 5.0, 4.0, 3.0, 2.0, 1.0]])


def scores(name, targets, outputs=LOGITS, reference=None):
    return METRICS[name].scorer(outputs, targets, reference)


def test_top1_and_top5_count_right_answers():
    assert scores("top1", torch.tensor([0, 0])).tolist() == [1.0, 0.0]
    assert scores("top5", torch.tensor([5, 0])).tolist() == [0.0, 0.0]
    assert scores("top5", torch.tensor([4, 5])).tolist() == [1.0, 1.0]
    assert scores("top5", torch.tensor([1, 2]), LOGITS[:, :3]).tolist() == [1.0, 1.0]  # fewer than five classes


def test_log_likelihood_is_minus_the_cross_entropy():
    labels = torch.tensor([3, 2])
    expected = -torch.nn.functional.cross_entropy(LOGITS, labels, reduction="none")
    assert torch.allclose(scores("log_likelihood", labels), expected)


def test_tokens_are_averaged():
    logits = torch.stack([LOGITS, LOGITS])
    labels = torch.tensor([[0, 1], [5, 1]])
    expected = -torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none").mean(1)
    assert torch.allclose(scores("log_likelihood", labels, logits), expected)
    assert scores("top1", labels, logits).tolist() == [1.0, 0.5]
    assert scores("top5", labels, logits).tolist() == [1.0, 0.5]
    other = logits.clone()
    other[1, 0] = other[1, 0].flip(0)
    assert scores("agreement", None, other, logits).tolist() == [1.0, 0.5]


def test_full_precision_agrees_with_itself():
    assert scores("agreement", None, LOGITS, LOGITS).tolist() == [1.0, 1.0]
    assert scores("negative_kl", None, LOGITS, LOGITS).tolist() == [0.0, 0.0]
    assert scores("sqnr_db", None, LOGITS, LOGITS).tolist() == pytest.approx([120.0, 120.0])
    assert (scores("negative_kl", None, LOGITS * 0.5, LOGITS) < 0).all()


@pytest.mark.parametrize("labels", [[0, 1], np.array([0, 1]), np.array([0, 1], dtype=np.int32), torch.tensor([0, 1])])
@pytest.mark.parametrize("name", ["top1", "top5", "log_likelihood"])
def test_labels_may_come_as_any_whole_numbers(name, labels):
    assert torch.equal(scores(name, labels), scores(name, torch.tensor([0, 1])))


@pytest.mark.parametrize(
    "labels", [torch.tensor([0.0, 1.0]), torch.tensor([[0], [1]]), torch.tensor([0]), torch.eye(2, 6)]
)
@pytest.mark.parametrize("name", ["top1", "top5", "log_likelihood"])
def test_other_targets_are_refused(name, labels):
    with pytest.raises(InputError, match=r"class labels of shape \(2,\) for outputs of shape \(2, 6\), got torch\."):
        scores(name, labels)


def test_an_iterator_is_kept():
    evaluation = top1_on((x, 0) for x in (1, 2))
    assert list(evaluation.batches) == list(evaluation.batches) == [(1, 0), (2, 0)]
    assert list(Evaluation(iter([1]), METRICS["top1"]).batches) == [1]
    with pytest.raises(InputError, match=r"as pairs \(batch, target\), got NoneType; give a list"):
        top1_on(None)
    loader = [(1, 0)]
    assert top1_on(loader).batches is loader


def test_unknown_metrics_are_refused():
    with pytest.raises(InputError, match=r"expected a metric out of top1, .*, got 'top2'"):
        evaluation_of([], "top2")


def test_what_has_no_name_is_called_quality():
    class Metric:
        def __call__(self, outputs, targets):
            return outputs[:, 0] * targets

    for function in (Metric(), lambda outputs, targets: outputs[:, 0] * targets):
        metric = evaluation_of([], function).metric
        assert metric.name == "quality"
        assert metric.key.startswith("quality.")
        assert metric.scorer(LOGITS, torch.ones(2), None).tolist() == [2.0, 0.0]


def test_names_are_keys():
    for (a, first), (b, second) in itertools.combinations(METRICS.items(), 2):
        assert (first.name, second.name) == (a, b)
        assert first.key != second.key


@pytest.mark.parametrize("name", ["top1", "top5", "log_likelihood"])
@pytest.mark.parametrize("label", [-1, 6])
def test_a_label_that_no_class_has_is_refused(name, label):
    with pytest.raises(InputError, match=rf"expected class labels from 0 to 5 for outputs of 6 classes, got {label}"):
        scores(name, torch.tensor([0, label]))
