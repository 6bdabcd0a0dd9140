"""How far a quantized network's output is from the full-precision one, per sample, without labels.

Every distance is a function of (reference output, quantized output), of shape ``(samples, ..., classes)``, that returns
``(samples,)``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.utils import _pytree as pytree

from hwdse.errors import InputError

__all__ = ["cosine", "first_tensor", "jsd", "kl", "sqnr_db"]


def kl(reference: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
    """Return the Kullback-Leibler divergence of the softmax outputs per sample, ``(samples,)``, in nats.

    The last axis holds the logits; other axes (tokens) are averaged. Sum over groups is the usual additive prediction
    of harm; divergence at the output ranks layers better than errors inside the network. [Kullback1951]_
    """
    p, q = reference.double().log_softmax(-1), quantized.double().log_softmax(-1)
    return _per_sample(_divergence(p, q)).clamp(min=0.0)


def jsd(reference: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
    """Return the Jensen-Shannon divergence of the softmax outputs per sample, ``(samples,)``, in nats.

    ``(KL(p || m) + KL(q || m)) / 2`` with ``m = (p + q) / 2`` [Lin1991]_: symmetric, and never above ``ln 2``, so that
    no sample outweighs the others. Tokens are averaged.
    """
    p, q = reference.double().log_softmax(-1), quantized.double().log_softmax(-1)
    m = torch.logaddexp(p, q) - math.log(2.0)
    return _per_sample((_divergence(p, m) + _divergence(q, m)) / 2.0).clamp(min=0.0)


def cosine(reference: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
    """Return 1 less the cosine similarity of the outputs per sample, ``(samples,)``, between 0 and 2.

    A sample's outputs are one vector, tokens and all. Found as half the squared distance of the two vectors at length
    1, which stays exact where they are nearly parallel. Two zero vectors are alike (0), a zero and another are not (1).
    """
    y, q = (x.double().reshape(x.shape[0], -1) for x in (reference, quantized))
    lengths = [torch.linalg.vector_norm(x, dim=1, keepdim=True) for x in (y, q)]
    unit = [x / length.clamp(min=torch.finfo(x.dtype).tiny) for x, length in zip((y, q), lengths, strict=True)]
    half = (unit[0] - unit[1]).square().sum(1) / 2.0
    one_is_zero = (lengths[0] > 0.0) != (lengths[1] > 0.0)
    return torch.where(one_is_zero[:, 0], 1.0, half)


def sqnr_db(reference: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
    """Return the signal-to-quantization-noise ratio of the output per sample, ``(samples,)``, in dB.

    ``10 log10(E[y^2] / E[(y - y_q)^2])`` [Pandey2023]_, with the noise floored at 1e-12 of the signal (120 dB), so that
    small outputs are not compressed.
    """
    y = reference.double().reshape(reference.shape[0], -1)
    noise = (quantized.double().reshape(y.shape) - y).square().mean(1)
    signal = y.square().mean(1).clamp(min=1e-300)
    return 10.0 * torch.log10(signal / noise.clamp(min=1e-12 * signal))


def _divergence(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Return the divergence of log-probabilities over the last axis.

    A class that the first rules out (logit -inf) adds nothing, whatever the other says.
    """
    return torch.where(p > -torch.inf, p.exp() * (p - q), 0.0).sum(-1)


def _per_sample(values: torch.Tensor) -> torch.Tensor:
    return values.reshape(values.shape[0], -1).mean(1)


def first_tensor(output: Any) -> torch.Tensor:
    """Return the first tensor of a model's output.

    Raises
    ------
    InputError
        If there is none.
    """
    for leaf in pytree.tree_leaves(output):
        if isinstance(leaf, torch.Tensor):
            return leaf
    raise InputError(f"expected a model that returns a tensor, got {type(output).__name__}")
