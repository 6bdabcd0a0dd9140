"""Weights on a grid that keep a layer's output, from the second moments of what the layer reads; no data is needed.

Matrices stand as ``(groups, columns, channels)``: a channel of a group is summed from that group's columns. With the
covariance ``G`` of the columns and the covariance ``C`` of columns and outputs, weights ``w`` of a channel have the
output error ``w' G w - 2 w' C`` and a constant.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwdse.formats import Levels
from hwdse.formats.levels import SMALLEST_SCALE

__all__ = ["Damped", "Grid", "descend", "greedy", "output_error", "reconstruct", "refit"]

Array = NDArray[np.float64]

DAMPING = 0.01
"""What is added to the diagonal of a covariance, as a share of its mean: inputs that were not seen may come, too."""

FACTORS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
"""Shares of the calibrated scale to start from."""

ROUNDS = 20
"""Most turns of codes and scales."""

SETTLED = 1e-4
"""Share of the error that a turn must take away for another one."""

_PANEL = 64
"""Columns whose effect on each other is booked at once, before that on all others."""

_TINY = 1e-12
"""Share of a channel's variance that is no gain but rounding."""


@dataclass(frozen=True)
class Grid:
    """What the weights of a layer may be.

    Attributes
    ----------
    levels
        What a code stands for at scale 1.
    scale, zero_point
        ``(groups, blocks, channels)``: a block of a channel's columns has its own.
    length
        Columns per block.
    is_shared
        True if the whole layer has one scale.
    """

    levels: Levels
    scale: Array
    zero_point: Array
    length: int
    is_shared: bool = False

    def nearest(self, scaled: Array, zero_point: Array) -> Array:
        """Return the levels nearest to values in units of the scale, counted from the zero point."""
        if self.levels.lowest is None or self.levels.highest is None:
            found: Array = self.levels.values[np.searchsorted(self.levels.midpoints, scaled)]
            return found
        above: Array = np.maximum(np.rint(scaled), self.levels.lowest - zero_point)
        return np.minimum(above, self.levels.highest - zero_point)

    def spread(self, columns: int) -> tuple[Array, Array]:
        """Return scale and zero point of every weight, ``(groups, columns, channels)``."""
        scale, zero = (np.repeat(a, self.length, axis=1)[:, :columns] for a in (self.scale, self.zero_point))
        return scale, zero


@dataclass(frozen=True)
class Damped:
    """The error of a layer's output with a little of that of its weights.

    Attributes
    ----------
    covariance
        ``(groups, columns, columns)``, positive definite.
    cross
        Covariance of columns and outputs, ``(groups, columns, channels)``.
    """

    covariance: Array
    cross: Array

    @classmethod
    def of(cls, covariance: Array, cross: Array, weight: Array, share: float = DAMPING) -> Damped:
        """Return the error with that of the weights: theirs times ``share`` of the mean variance of the columns.

        ``weight`` is ``(groups, columns, channels)``. A group whose inputs never change keeps that error alone.
        """
        mean = np.diagonal(covariance, axis1=1, axis2=2).mean(1)
        damping = np.where(mean > 0.0, share * mean, 1.0)[:, None, None]
        return cls(covariance + damping * np.eye(covariance.shape[1]), cross + damping * weight)

    @cached_property
    def target(self) -> Array:
        """Weights with the least error, ``(groups, columns, channels)``."""
        return np.linalg.solve(self.covariance, self.cross).astype(np.float64, copy=False)

    @cached_property
    def order(self) -> NDArray[np.intp]:
        """Columns of each group, those of the largest variance first, ``(groups, columns)``."""
        return np.argsort(-np.diagonal(self.covariance, axis1=1, axis2=2), axis=1, kind="stable")

    @cached_property
    def moves(self) -> Array:
        """How far an error of a column moves the best values of those after it, in :attr:`order`, with the sign turned.

        ``(groups, columns, columns)``: rows of the upper Cholesky factor ``U`` of the inverse covariance, each divided
        by its diagonal.
        """
        place = self.order[:, :, None]
        ordered = np.take_along_axis(np.take_along_axis(self.covariance, place, 1), self.order[:, None, :], 2)
        # With both axes reversed, a lower factor becomes an upper one: the covariance is V V', and U the inverse of V.
        factor = np.linalg.cholesky(ordered[:, ::-1, ::-1])[:, ::-1, ::-1]
        inverse = np.linalg.inv(factor)
        upper: Array = inverse / np.diagonal(inverse, axis1=1, axis2=2)[:, :, None]
        return upper


def output_error(values: Array, covariance: Array, cross: Array) -> Array:
    """Return the mean squared error of every channel's output, less a constant, ``(groups, channels)``."""
    error: Array = (values * (covariance @ values - 2.0 * cross)).sum(1)
    return error


def greedy(damped: Damped, grid: Grid) -> Array:
    """Return codes ``(groups, columns, channels)`` that are rounded one after another [Frantar2023]_.

    Columns of the largest variance come first. Each column's error is made up for, as well as possible, by the columns
    that are not rounded yet: with the upper Cholesky factor ``U`` of the inverse covariance, an error ``e`` of column
    ``k`` moves the targets of the others by ``-e U[k, j] / U[k, k]``.
    """
    place, move = damped.order[:, :, None], damped.moves
    columns = place.shape[1]
    scale, zero = (np.take_along_axis(a, place, 1) for a in grid.spread(columns))
    rest = np.take_along_axis(damped.target, place, 1)
    codes = np.empty_like(rest)
    for start in range(0, columns, _PANEL):
        stop = min(start + _PANEL, columns)
        errors = np.empty_like(rest[:, start:stop])
        for k in range(start, stop):
            codes[:, k] = grid.nearest(rest[:, k] / scale[:, k], zero[:, k])
            errors[:, k - start] = error = rest[:, k] - codes[:, k] * scale[:, k]
            rest[:, k + 1 : stop] -= move[:, k, k + 1 : stop, None] * error[:, None]
        rest[:, stop:] -= move[:, start:stop, stop:].transpose(0, 2, 1) @ errors
    found = np.empty_like(codes)
    np.put_along_axis(found, place, codes, 1)
    return found


def descend(codes: Array, damped: Damped, grid: Grid) -> Array:
    """Return ``codes`` after each was put to its best value given the others, until none moves.

    The error is a parabola in every code, so the best one is that nearest to its vertex. No move raises the error.
    """
    codes = codes.copy()
    columns = codes.shape[1]
    scale, zero = grid.spread(columns)
    covariance = damped.covariance
    curvature = np.diagonal(covariance, axis1=1, axis2=2)[:, :, None]
    values = codes * scale
    slope = covariance @ values - damped.cross  # half the derivative of the error
    least = -_TINY * np.maximum((damped.cross * damped.target).sum(1), 0.0)
    moving = True
    while moving:
        moving = False
        for start in range(0, columns, _PANEL):
            stop = min(start + _PANEL, columns)
            before = values[:, start:stop].copy()
            for k in range(start, stop):
                best = grid.nearest((values[:, k] - slope[:, k] / curvature[:, k]) / scale[:, k], zero[:, k])
                step = (best - codes[:, k]) * scale[:, k]
                goes = step * (2.0 * slope[:, k] + curvature[:, k] * step) < least
                if not goes.any():
                    continue
                step = np.where(goes, step, 0.0)
                codes[:, k] = np.where(goes, best, codes[:, k])
                values[:, k] += step
                slope[:, start:stop] += covariance[:, start:stop, k, None] * step[:, None]
            moves = values[:, start:stop] - before
            if moves.any():
                moving = True
                slope[:, :start] += covariance[:, :start, start:stop] @ moves
                slope[:, stop:] += covariance[:, stop:, start:stop] @ moves
    return codes


def refit(codes: Array, damped: Damped, grid: Grid) -> Grid:
    """Return ``grid`` with the scales of least error for ``codes``, block after block given the blocks before.

    With codes ``c`` of a block and half the error's derivative ``h`` at scale ``s``, the least error is at
    ``s - c' h / c' G c``. A scale that would not be positive, or of codes that are all zero, stays.
    """
    columns = codes.shape[1]
    scale = grid.scale.copy()
    slope = damped.covariance @ (codes * grid.spread(columns)[0]) - damped.cross
    for block, start in enumerate(range(0, columns, grid.length)):
        own = slice(start, min(start + grid.length, columns))
        part = codes[:, own]
        product = (part * slope[:, own]).sum(1)
        square = (part * (damped.covariance[:, own, own] @ part)).sum(1)
        if grid.is_shared:
            product, square = (np.full_like(a, a.sum()) for a in (product, square))
        usable = square > 0.0
        best = scale[:, block] - product / np.where(usable, square, 1.0)
        best = np.where(usable & (best >= SMALLEST_SCALE), best, scale[:, block])
        best = best.astype(np.float32).astype(np.float64)
        slope += damped.covariance[:, :, own] @ (part * (best - scale[:, block])[:, None])
        scale[:, block] = best
    return replace(grid, scale=scale)


def reconstruct(damped: Damped, grid: Grid) -> tuple[Array, Grid]:
    """Return codes and the grid with the scales that they were found with.

    Greedy rounding from several shares of the scale, of which every channel keeps the best; then codes and scales take
    turns until the error falls no more.
    """
    has_scale = grid.levels.number_format.has_scale
    codes, grid = _started(damped, grid, FACTORS if has_scale else (1.0,))
    error = np.inf
    for _ in range(ROUNDS if has_scale else 1):
        codes = descend(codes, damped, grid)
        values = codes * grid.spread(codes.shape[1])[0]
        reached = float(output_error(values - damped.target, damped.covariance, np.zeros(())).sum())
        if reached >= error * (1.0 - SETTLED):
            break
        error = reached
        grid = refit(codes, damped, grid) if has_scale else grid
    return codes, grid


def _started(damped: Damped, grid: Grid, factors: tuple[float, ...]) -> tuple[Array, Grid]:
    """Return greedy codes and the grid they belong to, at the best of ``factors`` of every channel's scale."""
    best_codes, best_scale, least = np.zeros_like(damped.cross), grid.scale, np.full(damped.cross[:, 0].shape, np.inf)
    for factor in factors:
        scale = (grid.scale * factor).astype(np.float32).astype(np.float64)
        trial = replace(grid, scale=np.maximum(scale, SMALLEST_SCALE))
        codes = greedy(damped, trial)
        error = output_error(codes * trial.spread(codes.shape[1])[0], damped.covariance, damped.cross)
        if grid.is_shared:
            error = np.full_like(error, error.sum())
        better = error < least
        least = np.where(better, error, least)
        best_codes = np.where(better[:, None], codes, best_codes)
        best_scale = np.where(better[:, None], trial.scale, best_scale)
    return best_codes, replace(grid, scale=best_scale)
