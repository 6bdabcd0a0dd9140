"""Rounding that can be trained: straight through for the values, and a step size that learns."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["balanced", "learned_step"]


def learned_step(
    x: torch.Tensor,
    step: torch.Tensor,
    rounded: torch.Tensor,
    *,
    ends: tuple[torch.Tensor | float, torch.Tensor | float],
) -> torch.Tensor:
    """Return ``rounded`` with the gradients of learned step size quantization [Esser2020]_.

    With ``u = x / step``, ``q = rounded / step`` and the gradient ``g`` of the result: ``x`` gets ``g`` where ``u`` is
    between the ends and 0 outside; ``step`` gets ``g (q - u)`` between the ends and ``g q`` outside. That holds for any
    list of levels, not only for integers.

    Parameters
    ----------
    x
        Values.
    step
        Step sizes, shaped as ``x`` or of a shape that is spread over it.
    rounded
        What ``x`` is rounded to, shaped as ``x``.
    ends
        Lowest and highest level in units of the step, counted from the zero point.
    """
    found: torch.Tensor = _LearnedStep.apply(x, step, rounded, ends)  # type: ignore[no-untyped-call]
    return found


def balanced(step: torch.Tensor, *, values: int, highest: float) -> torch.Tensor:
    """Return ``step`` with its gradient divided by ``sqrt(values * highest)`` [Esser2020]_.

    The gradient of a step grows with the number of values that share it, and with the number of levels.

    >>> step = torch.ones((), requires_grad=True)
    >>> balanced(step, values=100, highest=4.0).backward()
    >>> round(step.grad.item(), 6)
    0.05
    """
    fixed = step.detach()
    return fixed + (step - fixed) * float((values * highest) ** -0.5)  # the sum is exactly the step


class _LearnedStep(torch.autograd.Function):
    """See :func:`learned_step`."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, step: torch.Tensor, rounded: torch.Tensor, ends: Any) -> Any:
        low, high = ends
        inside = (x >= low * step) & (x <= high * step)
        slope = torch.where(inside, rounded - x, rounded) / step if ctx.needs_input_grad[1] else None
        ctx.save_for_backward(inside, slope)
        ctx.shape = step.shape
        return rounded.view_as(rounded)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        inside, slope = ctx.saved_tensors
        of_x = gradient * inside if ctx.needs_input_grad[0] else None
        of_step = None if slope is None else (gradient * slope).sum_to_size(ctx.shape)
        return of_x, of_step, None, None
