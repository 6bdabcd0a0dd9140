"""Quantized copies of weights: one scale per tensor, per output channel, or per block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hwdse.calibrate import Calibrator, Points, calibrator
from hwdse.calibrate.codebook import taught
from hwdse.calibrate.distribution import nearest
from hwdse.errors import InputError
from hwdse.formats import Granularity, Levels, NumberFormat, Scheme

__all__ = ["QuantizedWeight", "quantize_weight", "scale_rows"]


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight on a format's grid.

    Attributes
    ----------
    values
        Fake-quantized weight, shaped as the stored parameter.
    scale, zero_point
        ``(rows,)``, float64; a row is a tensor, a channel, or a block (channel after channel).
    levels
        What the codes stand for; learned, if the format is.
    """

    values: torch.Tensor
    scale: torch.Tensor
    zero_point: torch.Tensor
    levels: Levels


def scale_rows(weight: torch.Tensor, scheme: Scheme, *, axis: int = 0) -> list[torch.Tensor]:
    """Return the values of ``weight`` as rows that share a scale, ``(rows, n)``.

    Two tables where a channel is no multiple of the block: whole blocks, and the short one at each channel's end.

    Raises
    ------
    InputError
        If there are no values.
    """
    if weight.numel() == 0:
        raise InputError(f"expected a weight with values, got one of shape {tuple(weight.shape)}; check the model")
    moved = weight.movedim(axis, 0)
    channels = moved.reshape(moved.shape[0], -1)
    if scheme.weight_granularity is Granularity.PER_TENSOR:
        return [channels.reshape(1, -1)]
    if scheme.weight_granularity is Granularity.PER_CHANNEL:
        return [channels]
    whole = channels.shape[1] // scheme.block_size * scheme.block_size
    tables = [channels[:, :whole].reshape(-1, scheme.block_size), channels[:, whole:]]
    return [table for table in tables if table.numel()]


def quantize_weight(
    weight: torch.Tensor, number_format: NumberFormat, *, scheme: Scheme, axis: int = 0, ranges: str = "minmax"
) -> QuantizedWeight:
    """Return ``weight`` rounded to nearest on the grid of ``number_format``, in float32.

    Parameters
    ----------
    weight
        The parameter as stored.
    number_format
        Any format but fp32.
    scheme
        Symmetric or affine, granularity, restricted or full range.
    axis
        Axis of the output channels.
    ranges
        Name of a calibrator.

    Raises
    ------
    InputError
        If the calibrator is unknown, the weight is empty or not finite, or the format cannot hold its sign.
    """
    calibrate = calibrator(ranges)
    rows = scale_rows(weight.detach(), scheme, axis=axis)
    unlearned = Levels.of_weights(number_format, scheme)
    tables = [Points(values) for values in rows]
    levels = taught(unlearned, tables[0])
    parts = [_rounded(table, levels, calibrate) for table in tables]
    moved = weight.movedim(axis, 0)
    values, scale, zero_point = (_joined([part[i] for part in parts], moved.shape[0]) for i in range(3))
    values = values.reshape(moved.shape).movedim(0, axis).to(weight.dtype)
    if weight.ndim == 4:
        values = values.contiguous(memory_format=torch.channels_last)
    return QuantizedWeight(values, scale.reshape(-1), zero_point.reshape(-1), levels)


def _rounded(table: Points, levels: Levels, calibrate: Calibrator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return rounded rows, scales and zero points."""
    scale, zero_point = map(torch.from_numpy, levels.grid(*calibrate(table, levels)))
    s = scale.float()[:, None]
    rounded = nearest(table.values * s.reciprocal(), levels, zero_point.float()[:, None]).mul_(s)
    return rounded, scale, zero_point


def _joined(parts: Sequence[torch.Tensor], channels: int) -> torch.Tensor:
    """Return the parts of every channel side by side."""
    return parts[0] if len(parts) == 1 else torch.cat([part.reshape(channels, -1) for part in parts], dim=1)
