"""A streaming histogram whose range grows without losing mass."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from hwdse.errors import InputError

__all__ = ["Histogram"]

BINS = 2048
SMALLEST_WIDTH = 2.0**-126  # its inverse is a finite float32


class Histogram:
    """Counts of a tensor's values over batches, in bounded memory.

    Bins hold their left edge, have equal width, and 0 is always an edge. When a batch exceeds the range, the width
    doubles as often as needed and neighbouring bins are added up, so no value is lost or moved out of its bin. A
    value so small that its share of the width is no float32 counts as 0.

    Attributes
    ----------
    count
        Number of values seen.
    minimum, maximum
        Extremes seen, exact.
    total, total_squares
        Sum of the values and of their squares, in float64.
    """

    def __init__(self) -> None:
        self.count = 0
        self.minimum = math.inf
        self.maximum = -math.inf
        self.total = 0.0
        self.total_squares = 0.0
        self._width = 0.0
        self._first = 0
        self._counts: NDArray[np.float64] = np.zeros(BINS)

    def add(self, values: torch.Tensor) -> None:
        """Count all elements of ``values``.

        Raises
        ------
        InputError
            If a value is NaN or infinite.
        """
        if values.numel() == 0:
            return
        flat = values.detach().reshape(-1)
        flat = flat if flat.dtype in (torch.float32, torch.float64) else flat.float()
        low, high = (float(v) for v in torch.aminmax(flat))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise InputError("expected finite calibration data, got NaN or infinity; check the calibration set")
        self.count += flat.numel()
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        self.total += float(flat.sum(dtype=torch.float64))
        self.total_squares += float(torch.linalg.vector_norm(flat, dtype=torch.float64)) ** 2
        self._cover(min(low, 0.0), max(high, 0.0))
        if self._width > 0.0:
            # Exact, since the width is a power of two; torch.histc rounds, and takes longer.
            bins = flat.mul(1.0 / self._width).floor_().to(torch.int64).sub_(self._first)
            self._counts += torch.bincount(bins, minlength=BINS).numpy()
        else:
            self._counts[0] += flat.numel()

    def _cover(self, low: float, high: float) -> None:
        """Widen the range until it holds ``[low, high]``."""
        if high == low:
            return
        if self._width == 0.0:
            # A power of two makes every edge exact.
            self._width = 2.0 ** math.ceil(math.log2(max((high - low) / (BINS - 2), SMALLEST_WIDTH)))
            zeros, self._counts = self._counts[0], np.zeros(BINS)
            self._first = math.floor(low / self._width)
            self._counts[-self._first] += zeros
        while math.floor(low / self._width) < self._first or math.floor(high / self._width) >= self._first + BINS:
            self._widen(low, high)

    def _widen(self, low: float, high: float) -> None:
        """Move the range if there is room for both ends, otherwise double the bin width."""
        used = np.flatnonzero(self._counts)
        # Python's integers: a range that grows by more than 2**63 at once has bins beyond numpy's.
        ends = [int(index) + self._first for index in used[[0, -1]]] if used.size else []
        ends += [math.floor(low / self._width), math.floor(high / self._width)]
        first, last = min(ends), max(ends)
        if last - first < BINS:
            moved = np.zeros(BINS)
            moved[used + self._first - first] = self._counts[used]
            self._first, self._counts = first, moved
            return
        halved = np.zeros(BINS)
        start = self._first // 2
        np.add.at(halved, (np.arange(BINS) + self._first) // 2 - start, self._counts)
        self._first, self._counts, self._width = start, halved, self._width * 2

    @property
    def counts(self) -> NDArray[np.float64]:
        """Counts per bin, ``(2048,)``."""
        return self._counts

    @property
    def edges(self) -> NDArray[np.float64]:
        """Edges of the bins, ``(2049,)``."""
        return np.arange(self._first, self._first + BINS + 1, dtype=np.float64) * (self._width or 1.0)

    @property
    def centers(self) -> NDArray[np.float64]:
        """Middle of each bin, ``(2048,)``."""
        centers: NDArray[np.float64] = (self.edges[:-1] + self.edges[1:]) / 2
        return centers
