"""A tape: one forward pass of a captured program that autograd can walk back, with batch norm folded as it runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from hwdse.analysis.distances import first_tensor
from hwdse.quantize.program import Environment, Program

__all__ = ["differentiable", "operator_name", "record", "sign_seeds"]


def differentiable(program: Program) -> Program:
    """Return ``program`` with nothing written in place and no value freed."""
    steps = [replace(step, function=_out_of_place(step.function), frees=()) for step in program.steps]
    return replace(program, steps=steps)


def _out_of_place(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the operator that leaves its operands alone, and lets gradients pass where the model cut them off."""
    if function is torch.relu_:
        return torch.relu
    name = operator_name(function)
    if name == "detach":
        return torch.ops.aten.alias.default
    if isinstance(function, torch._ops.OpOverload) and name.endswith("_"):
        other: Callable[..., Any] = getattr(getattr(torch.ops.aten, name[:-1]), function._overloadname)
        return other
    return function


def operator_name(function: Callable[..., Any]) -> str:
    """Return the name of an ATen operator without namespace and overload; empty for another function."""
    return str(function._schema.name).removeprefix("aten::") if isinstance(function, torch._ops.OpOverload) else ""


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
