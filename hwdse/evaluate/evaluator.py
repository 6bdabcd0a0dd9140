"""Measured quality of a configuration, per sample."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils import _pytree as pytree

from hwdse.errors import InputError
from hwdse.evaluate.batches import check_batch
from hwdse.evaluate.metrics import Evaluation
from hwdse.evaluate.scoring import batch_and_targets, batch_scores
from hwdse.graph import BitConfig
from hwdse.quantize.network import QuantizedNetwork, Setting

__all__ = ["Evaluator", "Scores"]


@dataclass(frozen=True)
class Scores:
    """Result of one evaluation.

    Attributes
    ----------
    per_sample
        ``(samples,)`` float32.
    seconds
        How long it took.
    """

    per_sample: NDArray[np.float32]
    seconds: float


@dataclass
class Evaluator:
    """Scores configurations of quantized networks on one set of samples.

    Parameters
    ----------
    evaluation
        Samples and metric.
    clock
        Seconds; given so that tests can turn it.
    """

    evaluation: Evaluation
    clock: Callable[[], float] = field(default=time.perf_counter)

    def score(
        self,
        network: QuantizedNetwork,
        config: BitConfig | None,
        *,
        is_enough: Callable[[NDArray[np.float32]], bool] | None = None,
    ) -> Scores:
        """Return the scores of ``config`` on ``network``; of full precision for ``None``.

        Parameters
        ----------
        network
            A calibrated network.
        config
            Precision of every layer.
        is_enough
            Sees all scores so far after each batch and says whether the rest of the samples may be spared.

        Raises
        ------
        InputError
            If there are no samples, a batch is not what the network takes, the metric does not give one finite number
            per sample, or full precision gives outputs that are not finite.
        """
        setting = Setting() if config is None else network.configure(config)
        parts: list[NDArray[np.float32]] = []
        started = self.clock()
        for item in self.evaluation.batches:
            batch, targets = batch_and_targets(item)
            samples = check_batch(network.captured, batch, "evaluation")
            outputs = network.forward(batch, setting)
            if config is None:
                _check_finite(outputs, len(parts))
            reference = network.forward(batch, Setting()) if self.evaluation.metric.needs_reference else None
            parts.append(batch_scores(self.evaluation.metric, outputs, targets, reference, samples=samples))
            if is_enough is not None and is_enough(np.concatenate(parts)):
                break
        if not parts:
            raise InputError("expected at least one evaluation batch, got none; check the evaluation factory")
        return Scores(np.concatenate(parts), self.clock() - started)


def _check_finite(outputs: object, place: int) -> None:
    """Check that the network in full precision answers with numbers: nothing can be compared with anything else."""
    tensors = [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
        raise InputError(
            f"expected finite outputs of the network on the evaluation data, got NaN or infinity in batch {place} "
            "(counted from 0); check its inputs"
        )
