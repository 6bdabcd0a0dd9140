"""The range whose grid has the least error of a power, found by looking."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwdse.calibrate.distribution import Distribution
from hwdse.formats import Levels

__all__ = ["least_error_range"]

Rows = NDArray[np.float64]

# Shares of the seen range, half an octave apart, widest first so that the widest of equally good ones wins.
_SHARES = np.exp2(np.arange(4, -13, -1) / 2)

# Octaves to either side of the best so far: first beyond its neighbours, then twice between those of the finer ones.
_ROUNDS = tuple(np.linspace(end, -end, count + 2)[1:-1, None] for end, count in ((1.0, 8), (1 / 5, 6), (1 / 18, 4)))

# How the octaves move the low and the high end. An affine grid of few levels has its optimum near some zero point; the
# next zero point is reached only if one end moves out while the other moves in.
_MOVES = ((1, 1), (-1, 1), (0, 1), (1, 0))


def least_error_range(distribution: Distribution, levels: Levels, *, power: float) -> tuple[Rows, Rows]:
    """Return the range of each row, ``(rows,)`` each, whose grid has the least sum of ``|x - q(x)|^power``.

    The seen range is shrunk to 1/64 in steps of half an octave, and then finely around the best. The values of an
    affine grid are also clipped at equal magnitudes, since one end may hold an outlier, and its ends are moved one by
    one. No range is wider than seen, except where a level that is not the largest may stand beyond the values: a list
    of values is tried at up to four times the range.
    """
    low, high = np.minimum(distribution.minimum, 0.0), np.maximum(distribution.maximum, 0.0)
    if not levels.number_format.has_scale:
        return low, high
    shares = (_SHARES[_SHARES <= 1.0] if levels.is_uniform else _SHARES)[:, None]
    lows, highs = shares * low, shares * high
    moves: tuple[tuple[int, int], ...] = _MOVES[:1]
    two_sided = ~distribution.is_one_sided
    if levels.is_affine and two_sided.any():
        clipped = distribution.limited(-shares * distribution.largest, shares * distribution.largest)
        lows, highs = np.concatenate([lows, clipped[0]]), np.concatenate([highs, clipped[1]])
        moves = _MOVES

    def best(lows: Rows, highs: Rows) -> tuple[Rows, Rows, Rows]:
        """Return the first best of the ranges ``(candidates, rows)`` of each row, and its error."""
        errors = distribution.rough_error(levels, *levels.grid(lows, highs), power=power)
        chosen = np.argmin(errors, axis=0), np.arange(distribution.rows)
        return lows[chosen], highs[chosen], errors[chosen]

    low, high, error = best(lows, highs)
    for octaves in _ROUNDS:
        for outwards_low, outwards_high in moves:
            # A row finds the same whatever the others hold: the one end of a one-sided row moves once a round.
            steps = octaves if outwards_low == outwards_high else octaves * two_sided
            lows, highs = low * np.exp2(outwards_low * steps), high * np.exp2(outwards_high * steps)
            if levels.is_uniform:
                lows, highs = distribution.limited(lows, highs)
            new_low, new_high, new_error = best(lows, highs)
            better = new_error < error
            low, high = np.where(better, new_low, low), np.where(better, new_high, high)
            error = np.where(better, new_error, error)
    return low, high
