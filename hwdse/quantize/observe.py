"""What every tensor that a layer reads holds over calibration data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import starmap
from typing import Any

import torch
from torch import fx

from hwdse.calibrate import Stream
from hwdse.capture import Capture
from hwdse.errors import InputError
from hwdse.quantize.program import Program
from hwdse.quantize.runnable import IMAGES, Runnable
from hwdse.workers import Crew

__all__ = ["channel_axes", "observe", "read_points"]


class _Observer:
    """Stands where a quantizer would and looks at what passes."""

    is_unsigned = False

    def __init__(self, name: str, channel_axis: int | None) -> None:
        self.name = name
        self.stream = Stream(channel_axis)

    def apply_(self, x: torch.Tensor) -> torch.Tensor:
        try:
            self.stream.add(x)
        except InputError as error:
            raise InputError(f"{error} (tensor {self.name!r})") from error
        return x

    __call__ = apply_


def observe(
    program: Program,
    batches: Iterable[Any],
    *,
    channels: bool = False,
    on_batch: Callable[[], None] | None = None,
    crew: Crew | None = None,
) -> dict[str, Stream]:
    """Return what every tensor that a layer reads holds, over the calibration ``batches``.

    Memory does not grow with the number of batches. Each is looked at apart, and what it holds is added to what those
    before it hold: whoever looks at it, the result is the same.

    Parameters
    ----------
    program, batches
        Network and calibration data.
    channels
        Look at every channel apart, too; calibration needs only the tensors.
    on_batch
        Called after each batch.
    crew
        Who looks at the batches; ``None`` for this process.

    Raises
    ------
    InputError
        If there is no batch, none holds a sample, or a value is not finite (the tensor is named).
    """
    axes = channel_axes(program.captured) if channels else {}
    points = {point: axes.get(point) for point in program.points}
    items = ((program.runnable, batch, points) for batch in batches)
    seen = (
        starmap(observe_batch, items) if crew is None else crew.map(observe_batch, items, about="a calibration batch")
    )
    found = {point: Stream(axis) for point, axis in points.items()}
    for streams in seen:
        for point, stream in streams.items():
            found[point].merge(stream)
        if on_batch is not None:
            on_batch()
    if not all(stream.tensor.count.all() for stream in found.values()):
        raise InputError("expected at least one batch of calibration data, got none; check the calibration factory")
    return found


def observe_batch(network: Runnable, batch: Any, points: Mapping[str, int | None]) -> dict[str, Stream]:
    """Return what the tensors at ``points``, each with its channel axis, hold for one batch."""
    observers = {point: _Observer(point, axis) for point, axis in points.items()}
    network.forward(batch, {}, observers)
    return {point: observer.stream for point, observer in observers.items()}


def channel_axes(captured: Capture) -> dict[str, int]:
    """Return the axis of each tensor's channels: the one that its first reader sums over.

    A tensor is looked at before views, which may cut or join that axis; then it is the usual one of a tensor of such a
    rank. An axis whose length differs from batch to batch, such as that of positions, has no channels: its tensor is
    left out.
    """
    axes: dict[str, int | None] = {}
    for layer in captured.layers:
        first, second = captured.sites[layer.name].operands
        if layer.input not in axes:
            axes[layer.input] = _stored_axis(captured.flow.root(first), first, 1 if layer.op == "conv" else -1)
        if layer.second_input is not None:
            axes[f"{layer.name}.second"] = _stored_axis(second, second, -2)
    return {point: axis for point, axis in axes.items() if axis is not None}


def _stored_axis(stored: fx.Node, read: fx.Node, axis: int) -> int | None:
    """Return the axis of ``stored`` that is ``axis`` of its view ``read``, if its length is fixed."""
    shape, length = stored.meta["val"].shape, read.meta["val"].shape[axis]
    if not isinstance(length, int):
        return None
    same = [a for a in (axis, *range(len(shape))) if -len(shape) <= a < len(shape) and shape[a] == length]
    found = same[0] if same else 1 if len(shape) == IMAGES else -1
    return found if isinstance(shape[found], int) else None


def read_points(captured: Capture) -> frozenset[str]:
    """Return the names under which the operands of layers are quantized."""
    first = {layer.input for layer in captured.layers}
    return frozenset(first | {f"{layer.name}.second" for layer in captured.layers if layer.weight is None})
