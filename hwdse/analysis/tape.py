"""A tape: one forward pass of a captured program that autograd can walk back, with batch norm folded as it runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch

from hwdse.analysis.distances import first_tensor
from hwdse.quantize.differentiable import differentiable, operator_name
from hwdse.quantize.program import Program
from hwdse.quantize.runnable import Environment

__all__ = ["differentiable", "operator_name", "record", "sign_seeds"]


def record(
    program: Program,
    batch: Any,
    *,
    weights: Mapping[int, torch.Tensor] | None = None,
    leaves: Collection[int] = (),
) -> tuple[Environment, torch.Tensor]:
    """Return every value of a forward pass and the first output tensor, with the graph that leads there.

    Parameters
    ----------
    program
        Made by :func:`differentiable`.
    batch
        A tensor or a tuple of tensors.
    weights
        Weights to use in place of the program's own, by position.
    leaves
        Positions of values whose gradients will be asked for.
    """
    with torch.inference_mode(False), torch.enable_grad():
        values = program.start(batch, weights or {})
        for position, _ in program.inputs:
            if position in leaves:
                values[position] = values[position].clone().requires_grad_()
        for i, step in enumerate(program.steps):
            program.advance(values, {}, first=i, last=i + 1)
            if step.output in leaves and not values[step.output].requires_grad:
                values[step.output] = values[step.output].detach().requires_grad_()
        return values, first_tensor(program.result(values))


def sign_seeds(logits: torch.Tensor, count: int, rng: np.random.Generator) -> list[torch.Tensor]:
    """Return ``count`` random ``v``, like ``logits (..., classes)``, whose ``v v'`` is on average the Fisher matrix.

    ``v = sum_c s_c sqrt(p_c) (e_c - p)`` with random signs ``s``, of which every sample and token has its own, so that
    they add up without mixing: the mean of ``v v'`` is ``diag(p) - p p'`` within a row of logits and 0 between rows.
    """
    p = logits.detach().double().softmax(-1)
    mixed = [torch.from_numpy(rng.integers(2, size=tuple(p.shape)) * 2.0 - 1.0) * p.sqrt() for _ in range(count)]
    return [(m - p * m.sum(-1, keepdim=True)).to(logits.dtype) for m in mixed]
