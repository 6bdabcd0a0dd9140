"""How far answers are from those in full precision, as a loss to train with: no labels are needed."""

from __future__ import annotations

import torch
from torch.nn import functional

from hwdse.errors import InputError

__all__ = ["LOSSES", "distance"]

LOSSES = ("kl", "mse")
"""Divergence of class probabilities, for logits; mean squared error, for anything else."""


def distance(found: torch.Tensor, wanted: torch.Tensor, *, loss: str, temperature: float = 1.0) -> torch.Tensor:
    """Return the distance of outputs ``found`` from ``wanted``, a mean over rows, ``()``.

    ``kl``: of ``softmax(found / T)`` from ``softmax(wanted / T)`` over the last axis in nats, times ``T^2``
    [Hinton2015]_, so that gradients keep their size. ``mse``: mean squared difference.

    Parameters
    ----------
    found, wanted
        Outputs of the same shape.
    loss
        One of :data:`LOSSES`.
    temperature
        ``T``.

    Raises
    ------
    InputError
        If the loss is unknown.

    >>> logits = torch.tensor([[0.0, 1.0]])
    >>> distance(logits, logits, loss="kl", temperature=2.0).item()
    0.0
    """
    if loss not in LOSSES:
        raise InputError(f"expected a loss of {', '.join(LOSSES)}, got {loss!r}")
    if loss == "mse":
        return functional.mse_loss(found, wanted)
    ours, theirs = ((logits.float() / temperature).log_softmax(-1) for logits in (found, wanted))
    return (theirs.exp() * (theirs - ours)).sum(-1).mean() * temperature**2
