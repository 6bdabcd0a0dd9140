"""Second moments of what every layer with weights reads and writes, streamed over batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from hwdse.capture.sites import Site
from hwdse.errors import InputError

__all__ = ["SecondMoments", "add_layer", "columns_of"]

Array = NDArray[np.float64]

_PIECE = 2**22
"""Values of columns that are held at once."""


class SecondMoments:
    """Means and covariances of a layer's columns and outputs, group by group.

    Deviations from a piece's own means are multiplied in the type of the data; pieces are pooled in float64
    [Chan1983]_. A mean that is large against the deviations costs no accuracy.

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
    squares, products
        Sums of products of deviations: columns with columns ``(groups, columns, columns)``, columns with outputs
        ``(groups, columns, channels)``.
    """

    def __init__(self, groups: int, columns: int, channels: int) -> None:
        self.count = 0
        self.mean: Array = np.zeros((groups, columns))
        self.target_mean: Array = np.zeros((groups, channels))
        self.squares: Array = np.zeros((groups, columns, columns))
        self.products: Array = np.zeros((groups, columns, channels))

    def add(self, x: torch.Tensor, t: torch.Tensor) -> None:
        """Add columns ``x (groups, rows, columns)`` and outputs ``t (groups, rows, channels)``.

        Raises
        ------
        InputError
            If a value is not finite. Nothing is added then.
        """
        if x.shape[1] == 0:
            return
        piece = SecondMoments(x.shape[0], x.shape[2], t.shape[2])
        piece.count = x.shape[1]
        mean, target_mean = x.mean(1, keepdim=True), t.mean(1, keepdim=True)
        x, t = x - mean, t - target_mean
        piece.mean, piece.target_mean = mean[:, 0].double().numpy(), target_mean[:, 0].double().numpy()
        piece.squares, piece.products = (x.mT @ x).double().numpy(), (x.mT @ t).double().numpy()
        if not (np.isfinite(piece.squares).all() and np.isfinite(piece.products).all()):
            raise InputError("expected finite activations, got NaN or infinity; check the network and its calibration")
        self.merge(piece)

    def merge(self, other: SecondMoments) -> None:
        """Add what ``other`` has seen.

        Raises
        ------
        InputError
            If the other is of another layer.
        """
        if other.products.shape != self.products.shape:
            raise InputError(f"expected moments of shape {self.products.shape}, got {other.products.shape}")
        total = self.count + other.count
        if total == 0:
            return
        share = other.count / total
        d, d_target = other.mean - self.mean, other.target_mean - self.target_mean
        weight = self.count * share
        self.squares = self.squares + other.squares + weight * d[:, :, None] * d[:, None, :]
        self.products = self.products + other.products + weight * d[:, :, None] * d_target[:, None, :]
        self.mean, self.target_mean = self.mean + share * d, self.target_mean + share * d_target
        self.count = total

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


def add_layer(moments: SecondMoments, site: Site, x: torch.Tensor, t: torch.Tensor) -> None:
    """Add what the layer at ``site`` reads, ``x``, and writes without its bias, ``t``, samples first.

    Raises
    ------
    InputError
        If a value is not finite (the layer is named).
    """
    groups, columns = moments.mean.shape
    channels = moments.target_mean.shape[1]
    rows = t.numel() // max(1, groups * channels * len(t))
    size = max(1, _PIECE // max(1, rows * groups * columns))
    for part, written in zip(x.split(size), t.split(size), strict=True):
        last = written.movedim(1, -1) if site.is_convolution else written
        try:
            moments.add(columns_of(site, part), last.reshape(-1, groups, channels).transpose(0, 1))
        except InputError as error:
            raise InputError(f"{error} (layer {site.name!r})") from error


def columns_of(site: Site, x: torch.Tensor) -> torch.Tensor:
    """Return what every output at ``site`` is summed from, ``(groups, rows, columns)``.

    A convolution's rows are samples and positions; its columns are channels and taps, in the order of its weights.
    """
    if not site.is_convolution:
        return x.reshape(1, -1, x.shape[-1])
    kernel = site.weight_shape[2:]
    dimensions = len(kernel)
    # Operands of a convolution: input, weight, bias, stride, padding, dilation.
    stride, padding, dilation = (*site.node.args, *(None, None, None, 1, 0, 1)[len(site.node.args) :])[3:6]
    steps, gaps = _each(stride, dimensions), _each(dilation, dimensions)
    pads = _pads(padding, kernel, gaps)
    x = functional.pad(x, [side for pair in reversed(pads) for side in pair])
    for axis, (taps, step, gap) in enumerate(zip(kernel, steps, gaps, strict=True), start=2):
        x = x.unfold(axis, (taps - 1) * gap + 1, step)[..., ::gap]
    x = x.unflatten(1, (site.groups, -1)).movedim(1, 0)  # groups, samples, channels, positions, taps
    taps_last = [0, 1, *range(3, 3 + dimensions), 2, *range(3 + dimensions, 3 + 2 * dimensions)]
    return x.permute(taps_last).flatten(2 + dimensions).flatten(1, 1 + dimensions)


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
