"""Task sensitivity: how much of a labelled metric one group at one candidate costs, per sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from hwdse.analysis.robustness import Settled
from hwdse.analysis.sensitivity import Harm, Part, Sensitivity, measure_harms
from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.quantize.network import QuantizedNetwork

__all__ = ["LOSSES", "cross_entropy", "measure_task_sensitivity", "top1_error"]

Loss = Callable[[torch.Tensor, Any], torch.Tensor]


def cross_entropy(logits: torch.Tensor, labels: Any) -> torch.Tensor:
    """Return the negative log-likelihood of the labels per sample, ``(samples,)``, in nats; tokens are averaged.

    Parameters
    ----------
    logits
        ``(samples, ..., classes)``.
    labels
        Whole numbers, ``(samples, ...)``.

    Raises
    ------
    InputError
        If the labels are not whole numbers, or not one per row of logits.
    """
    chosen = logits.double().log_softmax(-1).gather(-1, _labels(labels, logits)[..., None])
    return -chosen.reshape(len(logits), -1).mean(1)


def top1_error(logits: torch.Tensor, labels: Any) -> torch.Tensor:
    """Return the share of wrong answers per sample, ``(samples,)``: 0 or 1 without tokens.

    Parameters and errors as in :func:`cross_entropy`.
    """
    wrong = logits.argmax(-1) != _labels(labels, logits)
    return wrong.double().reshape(len(logits), -1).mean(1)


LOSSES: Mapping[str, Loss] = MappingProxyType({"cross_entropy": cross_entropy, "top1_error": top1_error})
"""Losses by name: functions (logits, labels) to ``(samples,)``, less is better."""


def measure_task_sensitivity(
    network: QuantizedNetwork,
    batches: Iterable[tuple[Any, Any]],
    *,
    candidates: Sequence[Precision],
    losses: Mapping[str, Loss] = LOSSES,
    part: Part = "both",
    stop_when_settled: Settled | None = None,
    on_batch: Callable[[], None] | None = None,
) -> Sensitivity:
    """Return how much each (group, candidate) raises labelled losses; negative where quantization happens to help.

    The loss of the quantized network less that of full precision on the same sample. Top-1 changes on few samples, so
    its order needs many more of them than that of the divergence of the outputs.

    Parameters
    ----------
    network, candidates, part, stop_when_settled, on_batch
        As in :func:`hwdse.analysis.sensitivity.measure_sensitivity`.
    batches
        Pairs (batch, labels).
    losses
        Functions (logits, labels) to ``(samples,)`` by name.

    Raises
    ------
    InputError
        If there is no batch, a batch is no pair, or the labels do not fit the outputs.
    """
    return measure_harms(
        network,
        map(_pair, batches),
        {name: _rise(loss) for name, loss in losses.items()},
        candidates=candidates,
        part=part,
        stop_when_settled=stop_when_settled,
        on_batch=on_batch,
    )


def _rise(loss: Loss) -> Harm:
    return lambda reference, quantized, labels: loss(quantized, labels) - loss(reference, labels)


def _pair(batch: Any) -> tuple[Any, Any]:
    if not isinstance(batch, list | tuple) or len(batch) != 2:
        raise InputError(
            f"expected pairs (batch, labels), got {type(batch).__name__}; give the labelled data of the evaluation"
        )
    return batch[0], batch[1]


def _labels(labels: Any, logits: torch.Tensor) -> torch.Tensor:
    given = torch.as_tensor(labels)
    wanted = tuple(logits.shape[:-1])
    if given.is_floating_point() or tuple(given.shape) != wanted:
        raise InputError(
            f"expected whole-numbered labels of shape {wanted} for outputs of shape {tuple(logits.shape)}, got "
            f"{given.dtype} of shape {tuple(given.shape)}; check the labels"
        )
    return given.long()
