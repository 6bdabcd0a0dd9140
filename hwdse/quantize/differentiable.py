"""Programs that autograd can walk back: nothing is written in place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from hwdse.quantize.program import Program

__all__ = ["differentiable", "operator_name", "out_of_place"]


def differentiable(program: Program) -> Program:
    """Return ``program`` with nothing written in place and no value freed; gradients pass where the model cuts them."""
    fresh = out_of_place(program)
    return replace(fresh, steps=[replace(step, function=_attached(step.function), frees=()) for step in fresh.steps])


def out_of_place(program: Program) -> Program:
    """Return ``program`` with operators that write nothing over: gradients need what they read."""
    return replace(program, steps=[replace(step, function=_fresh(step.function)) for step in program.steps])


def _attached(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return an operator that does the same and lets gradients pass."""
    return torch.ops.aten.alias.default if operator_name(function) == "detach" else function


def _fresh(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the operator that computes the same into a new tensor."""
    if function is torch.relu_:
        return torch.relu
    if isinstance(function, torch._ops.OpOverload) and function._schema.is_mutable:
        packet = getattr(torch.ops.aten, operator_name(function).removesuffix("_"))
        other: Callable[..., Any] = getattr(packet, function._overloadname)
        return other
    return function


def operator_name(function: Callable[..., Any]) -> str:
    """Return the name of an ATen operator without namespace and overload; empty for another function."""
    return str(function._schema.name).removeprefix("aten::") if isinstance(function, torch._ops.OpOverload) else ""
