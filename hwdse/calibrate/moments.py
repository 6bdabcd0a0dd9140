"""Streaming moments of several rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hwdse.calibrate.histogram import pieces
from hwdse.errors import InputError

__all__ = ["Moments"]

Floats = NDArray[np.float64]


class Moments:
    """Sums over the values of each row from which mean, variance, skewness and kurtosis follow.

    Every piece of data has its deviations from its own mean summed up, in float64, and pieces are pooled by the exact
    update formulas of [Chan1983]_ for the second moment and [Pebay2008]_ for higher ones, so a mean that is large
    against the standard deviation costs no accuracy. The moments of a constant are exact: its deviations are 0.

    Parameters
    ----------
    rows
        Rows that are summed at once: channels, or 1 for a whole tensor.

    Attributes
    ----------
    count, zeros
        Values seen, zeros included, and exact zeros among them, ``(rows,)``.
    mean
        Mean of each row, ``(rows,)``; 0 of a row without values.
    m2, m3, m4
        Sums of the second, third and fourth powers of the deviations from the mean, ``(rows,)``.
    magnitude_sum
        Sum of ``|x|``, ``(rows,)``.
    minimum, maximum
        Extremes seen, ``(rows,)``; infinity and minus infinity of a row without values.

    Raises
    ------
    InputError
        If there are no rows.
    """

    def __init__(self, rows: int = 1) -> None:
        if rows < 1:
            raise InputError(f"expected moments of 1 row at least, got {rows}")
        self.rows = rows
        self.count: NDArray[np.int64] = np.zeros(rows, np.int64)
        self.zeros: NDArray[np.int64] = np.zeros(rows, np.int64)
        self.mean: Floats = np.zeros(rows)
        self.m2: Floats = np.zeros(rows)
        self.m3: Floats = np.zeros(rows)
        self.m4: Floats = np.zeros(rows)
        self.magnitude_sum: Floats = np.zeros(rows)
        self.minimum: Floats = np.full(rows, np.inf)
        self.maximum: Floats = np.full(rows, -np.inf)

    @property
    def mean_square(self) -> Floats:
        """Mean of ``x^2``, ``(rows,)``; 0 of a row without values."""
        return self.mean**2 + self.m2 / np.maximum(self.count, 1)

    @property
    def mean_magnitude(self) -> Floats:
        """Mean of ``|x|``, ``(rows,)``; 0 of a row without values."""
        return self.magnitude_sum / np.maximum(self.count, 1)

    def add(self, values: torch.Tensor, axis: int = 0) -> None:
        """Add ``values``, whose ``axis`` runs over the rows; one row takes any shape.

        Raises
        ------
        InputError
            If a value is not finite or no float32 could hold it, or the axis has another length. Nothing is added then.
        """
        for piece in pieces(values, rows=self.rows, axis=axis):
            self.merge(_of_piece(piece))

    def merge(self, other: Moments) -> None:
        """Add what ``other`` has seen.

        Raises
        ------
        InputError
            If the other has other rows.
        """
        if other.rows != self.rows:
            raise InputError(f"expected moments of {self.rows} rows, got {other.rows}")
        stacked = {name: np.stack([values, vars(other)[name]]) for name, values in self._arrays().items()}
        vars(self).update(_pool(**stacked))

    def pooled(self) -> Moments:
        """Return the moments of all rows as one."""
        pooled = Moments()
        vars(pooled).update(_pool(**{name: values[:, None] for name, values in self._arrays().items()}))
        return pooled

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {name: values for name, values in vars(self).items() if name != "rows"}


def _of_piece(piece: torch.Tensor) -> Moments:
    """Return the moments of one table ``(rows, n)`` of float64, which is overwritten."""
    moments = Moments(piece.shape[0])
    moments.count += piece.shape[1]
    moments.zeros += piece.shape[1] - torch.count_nonzero(piece, dim=1).numpy()
    moments.minimum, moments.maximum = piece.amin(1).numpy(), piece.amax(1).numpy()
    powers = piece.abs()
    moments.magnitude_sum = powers.sum(1).numpy()
    # Deviations from a value of the row first: those of a constant are 0, and its mean is exact.
    start = piece[:, :1].clone()
    shift = piece.sub_(start).mean(1, keepdim=True)
    moments.mean = (start + shift)[:, 0].numpy()
    deviations = piece.sub_(shift)
    squares = torch.mul(deviations, deviations, out=powers)
    moments.m2 = squares.sum(1).numpy()
    moments.m3 = deviations.mul_(squares).sum(1).numpy()
    moments.m4 = squares.mul_(squares).sum(1).numpy()
    return moments


def _pool(
    *,
    count: NDArray[np.int64],
    zeros: NDArray[np.int64],
    mean: Floats,
    m2: Floats,
    m3: Floats,
    m4: Floats,
    magnitude_sum: Floats,
    minimum: Floats,
    maximum: Floats,
) -> dict[str, NDArray[Any]]:
    """Return the arrays ``(rows,)`` of several parts ``(parts, rows)`` together."""
    total = count.sum(0)
    # Around one part's mean, so that equal means stay what they are.
    centre = mean[0] + (count / np.maximum(total, 1) * (mean - mean[0])).sum(0)
    d = mean - centre
    return {
        "count": total,
        "zeros": zeros.sum(0),
        "mean": centre,
        "m2": (m2 + count * d**2).sum(0),
        "m3": (m3 + 3 * d * m2 + count * d**3).sum(0),
        "m4": (m4 + 4 * d * m3 + 6 * d**2 * m2 + count * d**4).sum(0),
        "magnitude_sum": magnitude_sum.sum(0),
        "minimum": minimum.min(0),
        "maximum": maximum.max(0),
    }
