"""Scores of one batch: what a metric makes of outputs, checked."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from hwdse.errors import InputError
from hwdse.evaluate.metrics import QualityMetric
from hwdse.reason import reason_of

__all__ = ["batch_and_targets", "batch_scores"]


def batch_scores(
    metric: QualityMetric, outputs: object, targets: object, reference: object, *, samples: int
) -> NDArray[np.float32]:
    """Return the scores of a batch, ``(samples,)``.

    Raises
    ------
    InputError
        If the metric fails, or does not give one finite number per sample.
    """
    try:
        with torch.inference_mode():
            scores = metric.scorer(outputs, targets, reference)
    except InputError:
        raise
    except Exception as error:  # a user's function can fail in any way
        raise InputError(
            f"expected metric {metric.name!r} to score a batch, got {reason_of(error)}; correct the metric or the "
            "targets"
        ) from error
    if not isinstance(scores, torch.Tensor) or tuple(scores.shape) != (samples,):
        got = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise InputError(
            f"expected metric {metric.name!r} to give one score per sample as a tensor of shape ({samples},) "
            f"(i.e. (samples,)), got {got}; correct the metric"
        )
    if not bool(torch.isfinite(scores).all()):
        raise InputError(
            f"expected finite scores from metric {metric.name!r}, got NaN or infinity; correct the metric, or the "
            "samples that it cannot score"
        )
    values: NDArray[np.float32] = scores.float().numpy()
    return values


def batch_and_targets(item: object) -> tuple[object, object]:
    """Return both parts of what an evaluation factory yields.

    Raises
    ------
    InputError
        If it is no pair.
    """
    if not isinstance(item, list | tuple) or len(item) != 2:
        length = f" of {len(item)}" if isinstance(item, list | tuple) else ""
        raise InputError(
            f"expected evaluation batches as pairs (batch, target), got {type(item).__name__}{length}; change the "
            "evaluation factory"
        )
    return item[0], item[1]
