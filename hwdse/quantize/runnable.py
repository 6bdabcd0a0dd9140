"""Steps that compute a network's output: what is left of a program once nothing more is asked about where it came from.

It goes to other processes, which know no captured network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree as pytree

from hwdse.errors import InputError
from hwdse.quantize.batch import tensors_of
from hwdse.quantize.quantizer import Quantizer

__all__ = ["IMAGES", "Environment", "Quantizers", "Runnable", "Slot", "Step", "channels_last"]

IMAGES = 4
"""Axes of a batch of images: samples, channels, height, width."""

Environment = list[Any]
Quantizers = Mapping[str, Quantizer]


@dataclass(frozen=True)
class Step:
    """One operator of the program.

    Attributes
    ----------
    name
        Name of the node it computes.
    function
        What computes it.
    arguments, keywords
        Constants, and :class:`fx.Node` for values.
    output
        Position of the result among the values.
    frees
        Positions that nobody reads afterwards.
    point
        Name under which the result is quantized; empty if no layer reads it.
    second
        Name under which the second operand is quantized; empty if it is not.
    is_relu
        True if the step is a ReLU, which an unsigned quantizer makes superfluous.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    output: int
    frees: tuple[int, ...] = ()
    point: str = ""
    second: str = ""
    is_relu: bool = False


@dataclass(frozen=True)
class Slot:
    """Reference to a value by position."""

    position: int


@dataclass(kw_only=True)
class Runnable:
    """An executable list of steps.

    Attributes
    ----------
    steps
        Operators in order.
    constants
        Values at the start: folded weights and biases, parameters, folded constants; ``None`` elsewhere.
    inputs
        Positions of the user's inputs, with the name under which each is quantized.
    outputs
        What the network returns, flat.
    structure
        How the outputs are put together.
    """

    steps: list[Step] = field(default_factory=list)
    constants: Environment = field(default_factory=list)
    inputs: list[tuple[int, str]] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    structure: pytree.TreeSpec

    def forward(self, batch: Any, constants: Mapping[int, torch.Tensor], quantizers: Quantizers) -> Any:
        """Return the network's output for one batch, with other constants and with tensors rounded."""
        with torch.inference_mode():
            values = self.start(batch, constants)
            self.quantize_inputs(values, quantizers)
            self.advance(values, quantizers)
            return self.result(values)

    def start(self, batch: Any, weights: Mapping[int, torch.Tensor]) -> Environment:
        """Return the values before the first step for one batch (a tensor or a tuple of tensors)."""
        tensors = tensors_of(batch)
        if len(tensors) != len(self.inputs):
            raise InputError(f"expected batches of {len(self.inputs)} input tensors, got {len(tensors)}")
        values = list(self.constants)
        for position, weight in weights.items():
            values[position] = weight
        for (position, _), tensor in zip(self.inputs, tensors, strict=True):
            values[position] = channels_last(tensor)
        return values

    def quantize_inputs(self, values: Environment, quantizers: Quantizers) -> None:
        """Round the user's inputs, on copies."""
        for position, point in self.inputs:
            if point in quantizers:
                values[position] = quantizers[point](values[position])

    def advance(self, values: Environment, quantizers: Quantizers, *, first: int = 0, last: int | None = None) -> None:
        """Run steps ``first`` to ``last - 1`` on ``values``."""
        for step in self.steps[first:last]:
            quantizer = quantizers.get(step.point) if step.point else None
            arguments = [_value(a, values) for a in step.arguments]
            if step.second and (second := quantizers.get(step.second)) is not None:
                arguments[_second_position(step)] = second(arguments[_second_position(step)])
            if step.is_relu and quantizer is not None and quantizer.is_unsigned:
                result = quantizer.apply_(arguments[0]) if step.function is torch.relu_ else quantizer(arguments[0])
            else:
                keywords = {k: _value(v, values) for k, v in step.keywords.items()} if step.keywords else {}
                result = step.function(*arguments, **keywords)
                if quantizer is not None:
                    result = quantizer.apply_(result)
            values[step.output] = result
            for position in step.frees:
                values[position] = None

    def result(self, values: Environment) -> Any:
        """Return the model's output, in its own structure."""
        flat = [_value(o, values) for o in self.outputs]
        return pytree.tree_unflatten(flat, self.structure)


def _value(argument: Any, values: Environment) -> Any:
    if isinstance(argument, Slot):
        return values[argument.position]
    if isinstance(argument, list | tuple):
        return [_value(a, values) for a in argument]
    return argument


def _second_position(step: Step) -> int:
    return 2 if step.name.startswith("addmm") else 1


def channels_last(tensor: torch.Tensor) -> torch.Tensor:
    """Return ``tensor`` with its channels innermost if it is a batch of images.

    One channel is contiguous either way; its strides are those of many, or operators would take it for channels first
    and leave all that follows so.
    """
    if tensor.ndim != IMAGES:
        return tensor
    innermost = tensor.contiguous(memory_format=torch.channels_last)
    height, width = tensor.shape[2:]
    if tensor.shape[1] > 1:
        return innermost
    return innermost.as_strided(tensor.shape, (height * width, 1, width, 1))
