"""A batch as data factories yield it: a tensor, or one tensor per input of the network, samples first."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["samples_in", "tensors_of"]


def tensors_of(batch: Any) -> tuple[torch.Tensor, ...]:
    """Return one tensor per input of the network."""
    return (batch,) if isinstance(batch, torch.Tensor) else tuple(batch)


def samples_in(batch: Any) -> int:
    """Return how many samples a batch holds.

    >>> samples_in((torch.zeros(4, 3), torch.zeros(4)))
    4
    """
    return int(tensors_of(batch)[0].shape[0])
