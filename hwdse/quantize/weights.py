"""Quantized copies of weights, one scale per tensor or per output channel."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hwdse.errors import InputError
from hwdse.formats import Granularity, NumberFormat, Scheme, Symmetry
from hwdse.quantize.quantizer import grid_of

__all__ = ["WEIGHT_RANGES", "QuantizedWeight", "quantize_weight"]

WEIGHT_RANGES = ("minmax", "mse")
_SHRINK = torch.linspace(0.02, 1.0, 99, dtype=torch.float64)


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight on a format's grid.

    Attributes
    ----------
    values
        Fake-quantized weight, shaped as the stored parameter.
    scale, zero_point
        ``(channels,)`` or ``(1,)``, float64 and integer-valued float64.
    """

    values: torch.Tensor
    scale: torch.Tensor
    zero_point: torch.Tensor


def quantize_weight(
    weight: torch.Tensor, number_format: NumberFormat, *, scheme: Scheme, axis: int = 0, ranges: str = "minmax"
) -> QuantizedWeight:
    """Return ``weight`` rounded to nearest on the grid of ``number_format``.

    Parameters
    ----------
    weight
        The parameter as stored.
    number_format
        Integer format.
    scheme
        Symmetric or affine, per tensor or per channel, restricted or full range.
    axis
        Axis of the output channels.
    ranges
        ``minmax``: the grid ends at the extreme weights. ``mse``: it ends where the squared error is least, among
        99 fractions of that range.

    Raises
    ------
    InputError
        If ``ranges`` is unknown, the weight is not finite, or the format cannot hold its sign.
    """
    if ranges not in WEIGHT_RANGES:
        raise InputError(f"expected weight ranges by one of {', '.join(WEIGHT_RANGES)}, got {ranges!r}")
    if not bool(torch.isfinite(weight).all()):
        raise InputError("expected finite weights, got NaN or infinity; check the weight file")
    moved = weight.movedim(axis, 0).to(torch.float64)
    rows = (
        moved.reshape(moved.shape[0], -1)
        if scheme.weight_granularity is Granularity.PER_CHANNEL
        else moved.reshape(1, -1)
    )
    low, high = rows.amin(1).clamp(max=0.0), rows.amax(1).clamp(min=0.0)
    codes = _codes(number_format, scheme)
    if ranges == "mse":
        low, high = _least_squares(rows, low, high, codes, scheme)
    scale, zero_point = _grid(low, high, codes, scheme)
    values = _round(rows, scale, zero_point, codes).reshape(moved.shape).movedim(0, axis).to(weight.dtype)
    if weight.ndim == 4:
        values = values.contiguous(memory_format=torch.channels_last)
    return QuantizedWeight(values, scale, zero_point)


def _codes(number_format: NumberFormat, scheme: Scheme) -> tuple[int, int]:
    """Return the lowest and highest code in use."""
    lowest, highest = grid_of(number_format)
    symmetric = scheme.weights is Symmetry.SYMMETRIC
    if symmetric and not number_format.is_signed:
        raise InputError(f"expected a signed format for symmetric weights, got {number_format.name}; use int or affine")
    return (-highest if symmetric and not scheme.full_range else lowest), highest


def _grid(
    low: torch.Tensor, high: torch.Tensor, codes: tuple[int, int], scheme: Scheme
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scale and zero point ``(channels,)`` for ranges ``[low, high]``; a channel of zeros gets scale 1."""
    lowest, highest = codes
    if scheme.weights is Symmetry.SYMMETRIC:
        scale = torch.maximum(low / lowest, high / highest)
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        return scale, torch.zeros_like(scale)
    scale = (high - low) / (highest - lowest)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return scale, (lowest - low / scale).round().clamp(lowest, highest)


def _round(rows: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, codes: tuple[int, int]) -> torch.Tensor:
    s, z = scale[:, None], zero_point[:, None]
    return ((rows / s).round().add_(z).clamp_(*codes).sub_(z)).mul_(s)


def _least_squares(
    rows: torch.Tensor, low: torch.Tensor, high: torch.Tensor, codes: tuple[int, int], scheme: Scheme
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the shrunk range of each row whose rounding error is least."""
    best = torch.full_like(low, torch.inf)
    factor = torch.ones_like(low)
    for shrink in _SHRINK.tolist():
        scale, zero_point = _grid(low * shrink, high * shrink, codes, scheme)
        error = (_round(rows, scale, zero_point, codes) - rows).square().sum(1)
        better = error < best
        best, factor = torch.where(better, error, best), torch.where(better, shrink, factor)
    return low * factor, high * factor
