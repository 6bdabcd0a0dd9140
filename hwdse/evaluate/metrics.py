"""Quality metrics: per-sample scores, larger is better.

A metric is a function ``(outputs, targets, reference) -> (samples,)``; ``reference`` is the full-precision output for
the same batch, for metrics that need no labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from hwdse.analysis.sensitivity import first_tensor, kl, sqnr_db
from hwdse.errors import InputError

__all__ = ["METRICS", "Evaluation", "QualityMetric", "evaluation_of", "top1_on"]

Scorer = Callable[[Any, Any, Any], torch.Tensor]


@dataclass(frozen=True)
class QualityMetric:
    """A quality metric.

    Attributes
    ----------
    name
        Column prefix: ``top1`` becomes ``top1_measured``.
    scorer
        ``(outputs, targets, reference) -> (samples,)``, larger is better.
    needs_reference
        True if it compares with the full-precision output, which costs a second forward pass.
    """

    name: str
    scorer: Scorer
    needs_reference: bool = False


def _top1(outputs: Any, targets: Any, reference: Any) -> torch.Tensor:
    del reference
    return (first_tensor(outputs).argmax(-1) == targets).float()


def _top5(outputs: Any, targets: Any, reference: Any) -> torch.Tensor:
    del reference
    right: torch.Tensor = first_tensor(outputs).topk(5, dim=-1).indices == targets[..., None]
    return right.any(-1).float()


def _log_likelihood(outputs: Any, targets: Any, reference: Any) -> torch.Tensor:
    del reference
    chosen: torch.Tensor = first_tensor(outputs).log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    return chosen.reshape(chosen.shape[0], -1).mean(1)


def _agreement(outputs: Any, targets: Any, reference: Any) -> torch.Tensor:
    del targets
    same = (first_tensor(outputs).argmax(-1) == first_tensor(reference).argmax(-1)).float()
    return same.reshape(same.shape[0], -1).mean(1)


def _negative_kl(outputs: Any, targets: Any, reference: Any) -> torch.Tensor:
    del targets
    return -kl(first_tensor(reference), first_tensor(outputs))


def _sqnr(outputs: Any, targets: Any, reference: Any) -> torch.Tensor:
    del targets
    return sqnr_db(first_tensor(reference), first_tensor(outputs))


METRICS = {
    "top1": QualityMetric("top1", _top1),
    "top5": QualityMetric("top5", _top5),
    "log_likelihood": QualityMetric("log_likelihood", _log_likelihood),
    "agreement": QualityMetric("agreement", _agreement, needs_reference=True),
    "negative_kl": QualityMetric("negative_kl", _negative_kl, needs_reference=True),
    "sqnr_db": QualityMetric("sqnr_db", _sqnr, needs_reference=True),
}
"""Metrics by name: with labels (top1, top5, log_likelihood in nats) and without (agreement, negative_kl, sqnr_db)."""


@dataclass(frozen=True)
class Evaluation:
    """What quality is measured on.

    Attributes
    ----------
    batches
        Pairs (batch, targets); iterated once per evaluation.
    metric
        How a sample is scored.
    """

    batches: Iterable[tuple[Any, Any]]
    metric: QualityMetric


def evaluation_of(batches: Iterable[tuple[Any, Any]], metric: str | Callable[[Any, Any], torch.Tensor]) -> Evaluation:
    """Return an evaluation on ``batches`` by a metric's name, or by a function ``(outputs, targets) -> (samples,)``.

    An iterator that can be read only once is kept in memory.

    Raises
    ------
    InputError
        If the metric is unknown.
    """
    kept = list(batches) if iter(batches) is batches else batches
    if callable(metric):
        function = metric
        name = getattr(metric, "__name__", "quality")
        return Evaluation(kept, QualityMetric(name, lambda outputs, targets, _: function(outputs, targets)))
    if metric not in METRICS:
        raise InputError(
            f"expected a metric out of {', '.join(METRICS)}, or file.py:function, got {metric!r}; correct data.metric"
        )
    return Evaluation(kept, METRICS[metric])


def top1_on(batches: Iterable[tuple[Any, Any]]) -> Evaluation:
    """Return an evaluation of top-1 accuracy on ``batches`` of (inputs, labels)."""
    return evaluation_of(batches, "top1")
