"""A streaming histogram of several rows, whose ranges grow without losing mass."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from hwdse.errors import InputError

__all__ = ["Histogram", "extremes", "pieces"]

PIECE = 2**19
"""Values that are worked on at once: few enough for a cache, enough for what a call costs."""

LARGEST = float(torch.finfo(torch.float32).max)
SMALLEST_SPAN = 2.0**-960  # the width of its bins has a finite inverse


class Histogram:
    """Counts of the values of each row over batches, in bounded memory.

    The bins of a row hold their left edge and have equal width, a power of two, and 0 is an edge. They are the
    narrowest that hold the row's extremes and 0: when a batch exceeds the range, the width doubles as often as needed
    and neighbours are added up, so no value is lost or moved out of its bin, and the order of batches has no influence.
    Exact zeros are counted apart: half of what follows a ReLU is no sample of a density. (A negative float64 above
    ``-2**-900`` may be counted on the other side of 0.)

    Parameters
    ----------
    rows
        Rows that are counted at once: channels, or 1 for a whole tensor.
    bins
        Bins of a row, at least 4.

    Attributes
    ----------
    count, zeros
        Values seen, zeros included, and exact zeros among them, ``(rows,)``.
    minimum, maximum
        Extremes seen, exact, ``(rows,)``; infinity and minus infinity of a row without values.
    counts
        Values other than 0 in each bin, ``(rows, bins)``.

    Raises
    ------
    InputError
        If there are no rows or fewer than 4 bins.
    """

    def __init__(self, rows: int = 1, bins: int = 16384) -> None:
        if rows < 1 or bins < 4:
            raise InputError(f"expected a histogram with 1 row and 4 bins at least, got {rows} and {bins}")
        self.rows, self.bins = rows, bins
        self.count: NDArray[np.int64] = np.zeros(rows, np.int64)
        self.zeros: NDArray[np.int64] = np.zeros(rows, np.int64)
        self.minimum: NDArray[np.float64] = np.full(rows, np.inf)
        self.maximum: NDArray[np.float64] = np.full(rows, -np.inf)
        self.counts: NDArray[np.int64] = np.zeros((rows, bins), np.int64)
        self._exponent, self._first = _frame(self.minimum, self.maximum, bins)

    @property
    def widths(self) -> NDArray[np.float64]:
        """Width of the bins of each row, ``(rows,)``; 1 where all values are 0."""
        widths: NDArray[np.float64] = np.ldexp(1.0, self._exponent)
        return widths

    @property
    def edges(self) -> NDArray[np.float64]:
        """Edges of the bins, ``(rows, bins + 1)``."""
        edges: NDArray[np.float64] = np.ldexp(
            self._first[:, None] + np.arange(self.bins + 1, dtype=np.float64), self._exponent[:, None]
        )
        return edges

    def add(self, values: torch.Tensor, axis: int = 0) -> None:
        """Count ``values``, whose ``axis`` runs over the rows; one row takes any shape.

        Raises
        ------
        InputError
            If a value is not finite or no float32 could hold it, or the axis has another length. Nothing is counted
            then.
        """
        offset = np.arange(self.rows) * self.bins
        for piece in pieces(values, rows=self.rows, axis=axis):
            self._cover(piece.amin(1).numpy(), piece.amax(1).numpy())
            zeros = piece.shape[1] - torch.count_nonzero(piece, dim=1).numpy()
            # Exact in float64, since the width is a power of two; torch.histc rounds, and takes longer.
            places = piece.mul_(_column(1.0 / self.widths)).floor_().sub_(_column(self._first - offset))
            counts = torch.bincount(places.to(torch.int32).view(-1), minlength=self.counts.size)
            self.counts += counts.numpy().reshape(self.counts.shape)
            self.counts[np.arange(self.rows), -self._first] -= zeros
            self.zeros += zeros
            self.count += piece.shape[1]

    def merge(self, other: Histogram) -> None:
        """Add what ``other`` has seen; the result is that of having seen both.

        Raises
        ------
        InputError
            If the other has other rows or bins.
        """
        if (other.rows, other.bins) != (self.rows, self.bins):
            raise InputError(
                f"expected a histogram of {self.rows} rows and {self.bins} bins, got {other.rows} and {other.bins}"
            )
        other._pour_into(self)

    def pooled(self) -> Histogram:
        """Return the histogram of all rows as one: that of having seen them in one row."""
        pooled = Histogram(1, self.bins)
        self._pour_into(pooled)
        return pooled

    def coarse(self, bins: int) -> Histogram:
        """Return the same values in at most ``bins`` bins: that of having seen them with so many."""
        coarse = Histogram(self.rows, min(bins, self.bins))
        self._pour_into(coarse)
        return coarse

    def _pour_into(self, target: Histogram) -> None:
        """Add this to ``target``, which has as many rows or one for all, and no more bins."""
        one = target.rows == 1
        target._cover(
            self.minimum.min(keepdims=True) if one else self.minimum,
            self.maximum.max(keepdims=True) if one else self.maximum,
        )
        row, place = np.nonzero(self.counts)
        to = np.zeros_like(row) if one else row
        target._put(to, self._first[row] + place, self._exponent[row], self.counts[row, place])
        target.zeros += self.zeros.sum(keepdims=True) if one else self.zeros
        target.count += self.count.sum(keepdims=True) if one else self.count

    def _cover(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> None:
        """Widen the range of each row until it holds ``[low, high]``."""
        np.minimum(self.minimum, low, out=self.minimum)
        np.maximum(self.maximum, high, out=self.maximum)
        exponent, first = _frame(self.minimum, self.maximum, self.bins)
        changed = np.flatnonzero((exponent != self._exponent) | (first != self._first))
        held = self.counts[changed]
        line, place = np.nonzero(held)
        row = changed[line]
        number, old = self._first[row] + place, self._exponent[row]
        self.counts[changed] = 0
        self._exponent, self._first = exponent, first
        self._put(row, number, old, held[line, place])

    def _put(
        self, row: NDArray[np.intp], number: NDArray[np.int64], exponent: NDArray[np.int64], counts: NDArray[np.int64]
    ) -> None:
        """Add what bins of width ``2**exponent`` hold, the bin above 0 having number 0, to bins as wide or wider."""
        # A shift of 63 joins all numbers on either side of 0.
        shift = np.minimum(self._exponent[row] - exponent, 63)
        np.add.at(self.counts.reshape(-1), row * self.bins + (number >> shift) - self._first[row], counts)


def _frame(
    minimum: NDArray[np.float64], maximum: NDArray[np.float64], bins: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the exponent of the narrowest bins that hold the extremes and 0, and the number of the first bin."""
    low, high = np.minimum(minimum, 0.0), np.maximum(maximum, 0.0)
    span = high - low
    exponent = np.frexp(np.maximum(span, SMALLEST_SPAN) / bins)[1]
    exponent = np.where(span > 0.0, exponent, 0).astype(np.int64)
    # The span fits by its length; by its place it may touch a bin more.
    last, first = (np.floor(np.ldexp(end, -exponent)) for end in (high, low))
    exponent += last - first >= bins
    return exponent, np.floor(np.ldexp(low, -exponent)).astype(np.int64)


def _column(values: NDArray[np.floating | np.integer]) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float64))[:, None]


def extremes(values: torch.Tensor) -> tuple[float, float]:
    """Return the smallest and the largest of ``values``, of which there is one at least.

    Raises
    ------
    InputError
        If a value is not finite, or no float32 could hold it.
    """
    low, high = (float(v) for v in torch.aminmax(values.detach()))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError("expected finite calibration data, got NaN or infinity; check the calibration set")
    if max(-low, high) > LARGEST:
        largest = f"{max(low, high, key=abs):g}"
        raise InputError(f"expected finite calibration data in float32, got {largest}; check the calibration set")
    return low, high


def pieces(values: torch.Tensor, *, rows: int, axis: int = 0) -> Iterator[torch.Tensor]:
    """Yield ``values`` as tables ``(rows, n)`` of float64 that fit a cache; the caller may overwrite them.

    All pieces share memory: each is to be used up before the next.

    Raises
    ------
    InputError
        If a value is not finite or no float32 could hold it, or ``axis`` is not of length ``rows``.
    """
    if values.numel() == 0:
        return
    table = _outer_rows_inner(values.detach(), rows, axis)
    extremes(table)
    columns = max(1, PIECE // rows)
    scratch = torch.empty(min(columns * rows, table.numel()), dtype=torch.float64)
    for part in table.split(max(1, columns // table.shape[2])):
        for piece in part.split(columns, 2):
            outer, _, inner = piece.shape
            held = scratch[: piece.numel()].view(rows, outer, inner)
            yield held.copy_(piece.movedim(1, 0)).view(rows, -1)


def _outer_rows_inner(values: torch.Tensor, rows: int, axis: int) -> torch.Tensor:
    """Return ``values`` as ``(outer, rows, inner)``."""
    if rows == 1:
        return values.reshape(1, 1, -1)
    if not -values.ndim <= axis < values.ndim or values.shape[axis] != rows:
        raise InputError(f"expected {rows} rows along axis {axis}, got a tensor of shape {tuple(values.shape)}")
    axis %= values.ndim
    return values.reshape(math.prod(values.shape[:axis]), rows, -1)
