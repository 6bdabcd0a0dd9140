"""Everything that one pass over the batches of a tensor collects."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from hwdse.calibrate.histogram import Histogram, extremes
from hwdse.calibrate.moments import Moments
from hwdse.errors import InputError

__all__ = ["Stream"]

AVERAGING = 0.01
CHANNEL_BINS = 2**18
FEWEST_BINS, MOST_BINS = 64, 2048


class Stream:
    """Distribution of a tensor over its batches, in memory that does not grow with them.

    Parameters
    ----------
    channel_axis
        Axis of the channels, counted from the end if negative; None if channels are not told apart.

    Attributes
    ----------
    tensor
        Histogram of the whole tensor: one row, 16,384 bins.
    channels, channel_moments
        Histogram and moments with one row per channel; None without a channel axis and before the first batch. A
        channel has 2,048 bins, fewer where all would have more than 2**18, and 64 at least.
    """

    def __init__(self, channel_axis: int | None = None) -> None:
        self.channel_axis = channel_axis
        self.tensor = Histogram()
        self.channels: Histogram | None = None
        self.channel_moments: Moments | None = None
        self._moments = Moments()
        self._range = _MovingRange()

    @property
    def moments(self) -> Moments:
        """Moments of the whole tensor; with a channel axis those of the channels, pooled."""
        return self._moments if self.channel_moments is None else self.channel_moments.pooled()

    @property
    def ema(self) -> tuple[float, float]:
        """Exponential moving averages of the smallest and largest value of each batch.

        ``m <- m + 0.01 (x - m)`` from the first batch on; infinity and minus infinity before it.
        """
        low, high = self._range.value
        return float(low), float(high)

    def add(self, x: torch.Tensor) -> None:
        """Add one batch, of any shape; an empty one is none.

        Raises
        ------
        InputError
            If a value is not finite or no float32 could hold it, or there is no such channel axis, or it has another
            length than before. Nothing is added then.
        """
        if x.numel() == 0:
            return
        low, high = extremes(x)
        if self.channel_axis is None:
            self._moments.add(x)
        else:
            channels, moments = self._channels(self._length(x, self.channel_axis))
            channels.add(x, self.channel_axis)
            moments.add(x, self.channel_axis)
        self.tensor.add(x)
        self._range.merge(_MovingRange(np.array([low, high])))

    def merge(self, other: Stream) -> None:
        """Add what ``other`` has seen: the batches that follow those of this stream.

        Raises
        ------
        InputError
            If the channels of the two are not the same.
        """
        if other.channel_axis != self.channel_axis:
            raise InputError(f"expected a stream with channel axis {self.channel_axis}, got {other.channel_axis}")
        if other.channels is not None and other.channel_moments is not None:
            channels, moments = self._channels(other.channels.rows)
            channels.merge(other.channels)
            moments.merge(other.channel_moments)
        self.tensor.merge(other.tensor)
        self._moments.merge(other._moments)
        self._range.merge(other._range)

    def _channels(self, rows: int) -> tuple[Histogram, Moments]:
        if self.channels is None or self.channel_moments is None:
            bins = MOST_BINS
            while bins > FEWEST_BINS and rows * bins > CHANNEL_BINS:
                bins //= 2
            self.channels = Histogram(rows, bins)
            self.channel_moments = Moments(rows)
        return self.channels, self.channel_moments

    @staticmethod
    def _length(x: torch.Tensor, axis: int) -> int:
        if not -x.ndim <= axis < x.ndim:
            raise InputError(f"expected a tensor with a channel axis {axis}, got one of shape {tuple(x.shape)}")
        return x.shape[axis]


class _MovingRange:
    """Exponential moving average of ``(low, high)`` that can be continued by another of the batches that follow."""

    def __init__(self, first: NDArray[np.float64] | None = None) -> None:
        self.batches = int(first is not None)
        self.first = np.array([np.inf, -np.inf]) if first is None else first
        self.value = self.first

    def merge(self, later: _MovingRange) -> None:
        """Continue with the batches of ``later``.

        The later average started at its first batch instead of here: of ``n`` batches, ``(1 - c)^n`` of the difference
        between the two starts is left.
        """
        if later.batches == 0:
            return
        if self.batches == 0:
            self.first, self.value = later.first, later.value
        else:
            self.value = later.value + (1.0 - AVERAGING) ** later.batches * (self.value - later.first)
        self.batches += later.batches
