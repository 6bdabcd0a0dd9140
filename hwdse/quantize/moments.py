"""Means and second moments of what every layer with weights reads and writes, streamed over batches."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from hwdse.capture.sites import Site
from hwdse.errors import InputError

__all__ = ["Means", "SecondMoments", "add_layer", "columns_of"]

Array = NDArray[np.float64]

_PIECE = 2**22
"""Values of columns that are held at once."""


class Means:
    """Means of a layer's columns and outputs, group by group.

    Parameters
    ----------
    groups, columns, channels
        Groups of the layer; values that an output of one is summed from, and outputs, in each.

    Attributes
    ----------
    count
        Rows seen: samples, or positions of samples.
    mean, target_mean
        Means of the columns ``(groups, columns)`` and of the outputs ``(groups, channels)``.
    """

    def __init__(self, groups: int, columns: int, channels: int) -> None:
        self.count = 0
        self.mean: Array = np.zeros((groups, columns))
        self.target_mean: Array = np.zeros((groups, channels))

    def add(self, x: torch.Tensor, t: torch.Tensor) -> None:
        """Add columns ``x (groups, rows, columns)`` and outputs ``t (groups, rows, channels)``.

        Raises
        ------
        InputError
            If a value is not finite. Nothing is added then.
        """
        if x.shape[1] == 0:
            return
        piece = type(self)(x.shape[0], x.shape[2], t.shape[2])
        piece.count = x.shape[1]
        mean, target_mean = x.mean(1, keepdim=True), t.mean(1, keepdim=True)
        piece.mean, piece.target_mean = mean[:, 0].double().numpy(), target_mean[:, 0].double().numpy()
        if not (piece._multiply(x - mean, t - target_mean) and np.isfinite(piece.mean).all()):
            raise InputError("expected finite activations, got NaN or infinity; check the network and its calibration")
        self.merge(piece)

    def _multiply(self, x: torch.Tensor, t: torch.Tensor) -> bool:  # noqa: ARG002
        """Note what the deviations say beyond the means; return False if a value is not finite."""
        return bool(np.isfinite(self.target_mean).all())

    def merge(self, other: Self) -> None:
        """Add what ``other`` has seen.

        Raises
        ------
        InputError
            If the other is of another layer.
        """
        shapes = [(*m.mean.shape, m.target_mean.shape[1]) for m in (self, other)]
        if shapes[0] != shapes[1]:
            raise InputError(f"expected moments of shape {shapes[0]}, got {shapes[1]}")
        self.count += other.count
        if self.count:
            self._pool(other, other.mean - self.mean, other.target_mean - self.target_mean, other.count / self.count)

    def _pool(self, other: Self, d: Array, d_target: Array, share: float) -> None:  # noqa: ARG002
        """Add a ``share`` of all rows that is ``d`` and ``d_target`` away."""
        self.mean, self.target_mean = self.mean + share * d, self.target_mean + share * d_target


class SecondMoments(Means):
    """Means and covariances of a layer's columns and outputs, group by group.

    Deviations from a piece's own means are multiplied in the type of the data; pieces are pooled in float64
    [Chan1983]_. A mean that is large against the deviations costs no accuracy.

    Attributes
    ----------
    squares, products
        Sums of products of deviations: columns with columns ``(groups, columns, columns)``, columns with outputs
        ``(groups, columns, channels)``.
    """

    def __init__(self, groups: int, columns: int, channels: int) -> None:
        super().__init__(groups, columns, channels)
        self.squares: Array = np.zeros((groups, columns, columns))
        self.products: Array = np.zeros((groups, columns, channels))

    def _multiply(self, x: torch.Tensor, t: torch.Tensor) -> bool:
        for kind in dict.fromkeys((x.dtype, torch.float64)):  # squares of large values do not fit single precision
            a, b = x.to(kind), t.to(kind)
            self.squares, self.products = (a.mT @ a).double().numpy(), (a.mT @ b).double().numpy()
            if np.isfinite(self.squares).all() and np.isfinite(self.products).all():
                return True
        return False

    def _pool(self, other: Self, d: Array, d_target: Array, share: float) -> None:
        super()._pool(other, d, d_target, share)
        weight = (self.count - other.count) * share
        self.squares = self.squares + other.squares + weight * d[:, :, None] * d[:, None, :]
        self.products = self.products + other.products + weight * d[:, :, None] * d_target[:, None, :]

    def covariances(self, *, centred: bool) -> tuple[Array, Array]:
        """Return covariances of columns with columns and with outputs; not ``centred``, means of products."""
        covariance, cross = self.squares / self.count, self.products / self.count
        if centred:
            return covariance, cross
        x = self.mean[:, :, None]
        return covariance + x * self.mean[:, None, :], cross + x * self.target_mean[:, None, :]

    @property
    def missing(self) -> int:
        """Rows that are missing for a covariance of full rank."""
        return max(0, len(self.mean[0]) + 1 - self.count)


def add_layer(moments: Means, site: Site, x: torch.Tensor, t: torch.Tensor, *, positions: int | None = None) -> None:
    """Add what the layer at ``site`` reads, ``x``, and writes without its bias, ``t``, samples first.

    With ``positions``, at most so many positions of a sample are looked at, drawn anew for every piece of the data.

    Raises
    ------
    InputError
        If a value is not finite (the layer is named).
    """
    if len(x) == 0:
        return
    groups, columns = moments.mean.shape
    channels = moments.target_mean.shape[1]
    written = t.movedim(1, -1) if site.is_convolution else t
    there = max(1, written[0].numel() // (groups * channels))
    kept = there if positions is None else min(there, positions)
    size = max(1, _PIECE // max(1, kept * groups * columns))
    generator = torch.Generator().manual_seed(moments.count)
    for part, outputs in zip(x.split(size), written.split(size), strict=True):
        rows = outputs.reshape(len(part), there, groups, channels)
        chosen = torch.randperm(there, generator=generator)[:kept].sort().values if kept < there else None
        rows = rows if chosen is None else rows[:, chosen]
        try:
            moments.add(columns_of(site, part, chosen), rows.flatten(0, 1).transpose(0, 1))
        except InputError as error:
            raise InputError(f"{error} (layer {site.name!r})") from error


def columns_of(site: Site, x: torch.Tensor, chosen: torch.Tensor | None = None) -> torch.Tensor:
    """Return what every output at ``site`` is summed from, ``(groups, rows, columns)``.

    A convolution's rows are samples and positions; its columns are channels and taps, in the order of its weights. Of
    the positions of every sample, those ``chosen``.
    """
    if not site.is_convolution:
        rows = x.reshape(len(x), -1, x.shape[-1])
        return (rows if chosen is None else rows[:, chosen]).reshape(1, -1, x.shape[-1])
    kernel = site.weight_shape[2:]
    dimensions = len(kernel)
    # Operands of a convolution: input, weight, bias, stride, padding, dilation.
    stride, padding, dilation = (*site.node.args, *(None, None, None, 1, 0, 1)[len(site.node.args) :])[3:6]
    steps, gaps = _each(stride, dimensions), _each(dilation, dimensions)
    pads = _pads(padding, kernel, gaps)
    x = functional.pad(x, [side for pair in reversed(pads) for side in pair])
    for axis, (taps, step, gap) in enumerate(zip(kernel, steps, gaps, strict=True), start=2):
        x = x.unfold(axis, (taps - 1) * gap + 1, step)[..., ::gap]
    if chosen is None:
        x = x.flatten(2, 1 + dimensions)
    else:
        axes: tuple[slice | torch.Tensor, ...] = torch.unravel_index(chosen, tuple(x.shape[2 : 2 + dimensions]))
        x = x[(slice(None), slice(None), *axes)]
    x = x.unflatten(1, (site.groups, -1)).movedim(1, 0)  # groups, samples, channels, positions, taps
    return x.transpose(2, 3).flatten(3).flatten(1, 2)


def _each(value: Any, dimensions: int) -> list[int]:
    values = list(value) if isinstance(value, list | tuple) else [value]
    return values if len(values) == dimensions else values * dimensions


def _pads(padding: Any, kernel: tuple[int, ...], gaps: list[int]) -> list[tuple[int, int]]:
    """Return the zeros before and after each axis; the framework puts the odd one of ``same`` after."""
    if padding == "valid":
        return [(0, 0)] * len(kernel)
    if padding == "same":
        totals = [gap * (taps - 1) for taps, gap in zip(kernel, gaps, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    return [(side, side) for side in _each(padding, len(kernel))]
