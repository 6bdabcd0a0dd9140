"""Quality metrics: per-sample scores, larger is better.

A metric is a function ``(outputs, targets, reference) -> (samples,)``; ``reference`` is the full-precision output for
the same batch, for metrics that need no labels.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import torch

from hwdse.analysis.sensitivity import first_tensor, kl, sqnr_db
from hwdse.errors import InputError

__all__ = ["METRICS", "Evaluation", "QualityMetric", "commonest_share", "evaluation_of", "top1_on"]

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
    may_count
        True if scores of 0 and 1 are wrong and right answers, whose share has an interval of its own.
    source
        Text that differs where a user's function differs; empty for the metrics of this module.
    """

    name: str
    scorer: Scorer
    needs_reference: bool = False
    may_count: bool = True
    source: str = ""

    @property
    def key(self) -> str:
        """Text that is equal for equal metrics; part of the fingerprint of an evaluation."""
        return f"{self.name}.{sha256(self.source.encode()).hexdigest()[:12]}" if self.source else self.name


def _top1(outputs: Any, targets: Any, reference: Any) -> torch.Tensor:
    del reference
    logits = first_tensor(outputs)
    return _per_sample(logits.argmax(-1) == _labels(targets, logits))


def _top5(outputs: Any, targets: Any, reference: Any) -> torch.Tensor:
    del reference
    logits = first_tensor(outputs)
    right: torch.Tensor = logits.topk(min(5, logits.shape[-1]), dim=-1).indices == _labels(targets, logits)[..., None]
    return _per_sample(right.any(-1))


def _log_likelihood(outputs: Any, targets: Any, reference: Any) -> torch.Tensor:
    del reference
    logits = first_tensor(outputs)
    chosen: torch.Tensor = logits.log_softmax(-1).gather(-1, _labels(targets, logits)[..., None])[..., 0]
    return _per_sample(chosen)


def _per_sample(values: torch.Tensor) -> torch.Tensor:
    """Return the mean over everything but the samples (tokens), ``(samples,)``."""
    return values.float().reshape(values.shape[0], -1).mean(1)


def _labels(targets: Any, logits: torch.Tensor) -> torch.Tensor:
    """Return class labels, one for each row of ``logits`` ``(..., classes)``.

    Raises
    ------
    InputError
        If they are not whole numbers, not one per row, or no class has them.
    """
    labels = torch.as_tensor(targets)
    wanted = tuple(logits.shape[:-1])
    if labels.is_floating_point() or tuple(labels.shape) != wanted:
        raise InputError(
            f"expected whole-numbered class labels of shape {wanted} for outputs of shape {tuple(logits.shape)}, got "
            f"{labels.dtype} of shape {tuple(labels.shape)}; change the targets that the evaluation factory yields"
        )
    strange = labels[(labels < 0) | (labels >= logits.shape[-1])]
    if strange.numel():
        raise InputError(
            f"expected class labels from 0 to {logits.shape[-1] - 1} for outputs of {logits.shape[-1]} classes, got "
            f"{int(strange[0])}; change the targets that the evaluation factory yields"
        )
    return labels.long()


def _agreement(outputs: Any, targets: Any, reference: Any) -> torch.Tensor:
    del targets
    return _per_sample(first_tensor(outputs).argmax(-1) == first_tensor(reference).argmax(-1))


def _negative_kl(outputs: Any, targets: Any, reference: Any) -> torch.Tensor:
    del targets
    return -kl(first_tensor(reference), first_tensor(outputs))


def _sqnr(outputs: Any, targets: Any, reference: Any) -> torch.Tensor:
    del targets
    return sqnr_db(first_tensor(reference), first_tensor(outputs))


METRICS = {
    "top1": QualityMetric("top1", _top1),
    "top5": QualityMetric("top5", _top5),
    "log_likelihood": QualityMetric("log_likelihood", _log_likelihood, may_count=False),
    "agreement": QualityMetric("agreement", _agreement, needs_reference=True),
    "negative_kl": QualityMetric("negative_kl", _negative_kl, needs_reference=True, may_count=False),
    "sqnr_db": QualityMetric("sqnr_db", _sqnr, needs_reference=True, may_count=False),
}
"""Metrics by name: with labels (top1, top5, log_likelihood in nats) and without (agreement, negative_kl, sqnr_db)."""


@dataclass(frozen=True)
class Evaluation:
    """What quality is measured on.

    Attributes
    ----------
    batches
        Pairs (batch, targets); iterated once per evaluation, always in the same order. An iterator that can be read
        only once is kept in memory.
    metric
        How a sample is scored.

    Raises
    ------
    InputError
        If ``batches`` cannot be iterated.
    """

    batches: Iterable[tuple[Any, Any]]
    metric: QualityMetric

    def __post_init__(self) -> None:
        try:
            is_spent_once = iter(self.batches) is self.batches
        except TypeError as error:
            raise InputError(
                f"expected evaluation batches as pairs (batch, target), got {type(self.batches).__name__}; "
                "give a list or a loader of them"
            ) from error
        if is_spent_once:
            object.__setattr__(self, "batches", list(self.batches))


def commonest_share(evaluation: Evaluation) -> float | None:
    """Return the top-1 accuracy of always answering with the commonest class.

    ``None`` where another metric counts, and where there is one class alone, so that nothing can be told from it.

    >>> commonest_share(top1_on([(torch.zeros(4, 3), torch.tensor([0, 2, 2, 1]))]))
    0.5
    """
    if evaluation.metric is not METRICS["top1"]:
        return None
    labels = torch.cat([torch.as_tensor(targets).reshape(-1) for _, targets in evaluation.batches])
    counts = labels.unique(return_counts=True)[1]
    return int(counts.max()) / labels.numel() if len(counts) > 1 else None


def evaluation_of(batches: Iterable[tuple[Any, Any]], metric: str | Callable[[Any, Any], torch.Tensor]) -> Evaluation:
    """Return an evaluation on ``batches`` by a metric's name, or by a function ``(outputs, targets) -> (samples,)``.

    Raises
    ------
    InputError
        If the metric is unknown, or ``batches`` cannot be iterated.
    """
    if callable(metric):
        return Evaluation(batches, _metric_of(metric))
    if metric not in METRICS:
        raise InputError(f"expected a metric out of {', '.join(METRICS)}, or a function, got {metric!r}; correct it")
    return Evaluation(batches, METRICS[metric])


def _metric_of(function: Callable[[Any, Any], torch.Tensor]) -> QualityMetric:
    """Return a user's function as a metric, told from others of its name by its source."""
    name = getattr(function, "__name__", "")
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):  # typed in at a prompt, or an object that is called
        source = f"{type(function).__module__}.{type(function).__qualname__} {name}"
    return QualityMetric(
        name if name.isidentifier() else "quality",
        lambda outputs, targets, _: function(outputs, targets),
        source=source,
    )


def top1_on(batches: Iterable[tuple[Any, Any]]) -> Evaluation:
    """Return an evaluation of top-1 accuracy on ``batches`` of (inputs, labels)."""
    return evaluation_of(batches, "top1")
