"""A program that autograd can walk back: nothing is written in place, nothing is freed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from hwdse.quantize.program import Program

__all__ = ["differentiable", "operator_name"]


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
