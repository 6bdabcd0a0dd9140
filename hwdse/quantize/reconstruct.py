"""Weights on a grid that keep a layer's output, from the second moments of what the layer reads; no data is needed.

Matrices stand as ``(groups, columns, channels)``: a channel of a group is summed from that group's columns. With the
covariance ``G`` of the columns and the covariance ``C`` of columns and outputs, weights ``w`` of a channel have the
output error ``w' G w - 2 w' C`` and a constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwdse.formats import Levels
from hwdse.formats.levels import SMALLEST_SCALE

__all__ = ["DAMPINGS", "Damped", "Grid", "damping_of", "descend", "greedy", "output_error", "reconstruct", "refit"]

Array = NDArray[np.float64]

DAMPINGS = (0.01, 0.03, 0.1, 0.3)
"""What is added to the diagonal of a covariance, as a share of its mean: inputs that were not seen may come, too."""

FACTORS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
"""Shares of the calibrated scale to start from."""

ROUNDS = 20
"""Most turns of codes and scales, with few levels."""

ROUNDS_OF_MANY = 4
"""Most turns with more levels, where the error is small from the start."""

SETTLED = 1e-4
"""Share of the error that a turn must take away for another one."""

_FEW_LEVELS = 8
"""Levels up to which a channel may do best at any of these; with more it does well near the calibrated scale."""

_HALVED_AFTER = 3
"""Turn after which the worse half of the starts is given up."""

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
    copies
        How often all channels stand one after another, with other scales.
    """

    levels: Levels
    scale: Array
    zero_point: Array
    length: int
    is_shared: bool = False
    copies: int = 1

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
    def of(cls, covariance: Array, cross: Array, weight: Array, share: float = DAMPINGS[0]) -> Damped:
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

    def repeated(self, copies: int) -> Damped:
        """Return the error of ``copies`` of all channels one after another."""
        return Damped(self.covariance, np.tile(self.cross, copies))

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


def damping_of(halves: Sequence[tuple[Array, Array]], weight: Array) -> float:
    """Return the share of :data:`DAMPINGS` with which weights that suit one half of the data suit the other best.

    Where data are few, or where they are to make up for errors of their inputs, weights of the least error on the data
    are not those of the least error. What is damped is noise, which halves with twice the data: so half of what a half
    needs is returned. Of fewer than two halves it is the smallest share.

    Parameters
    ----------
    halves
        Covariance of the columns, and that of columns and outputs, of each.
    weight
        In full precision, ``(groups, columns, channels)``.
    """
    if len(halves) < 2:
        return DAMPINGS[0]

    def error(share: float) -> float:
        targets = [Damped.of(covariance, cross, weight, 2.0 * share).target for covariance, cross in halves]
        return sum(float(output_error(t, *h).sum()) for t, h in zip(targets, halves[::-1], strict=True))

    return min(DAMPINGS, key=error)


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
    least = -_TINY * np.maximum((damped.cross * damped.target).sum(1, keepdims=True), 0.0)

    def moves(own: slice) -> tuple[Array, NDArray[np.bool_]]:
        """Return the best codes of columns, and where they are gains."""
        bend = curvature[:, own]
        best = grid.nearest((values[:, own] - slope[:, own] / bend) / scale[:, own], zero[:, own])
        step = (best - codes[:, own]) * scale[:, own]
        return best, step * (2.0 * slope[:, own] + bend * step) < least

    moving = True
    while moving:
        moving = False
        for start in range(0, columns, _PANEL):
            panel = slice(start, min(start + _PANEL, columns))
            (promising,) = np.nonzero(moves(panel)[1].any((0, 2)))
            if not promising.size:
                continue
            moving = True
            before = values[:, panel].copy()
            for k in start + promising:
                column = slice(k, k + 1)
                best, goes = moves(column)
                step = np.where(goes, (best - codes[:, column]) * scale[:, column], 0.0)
                codes[:, column] = np.where(goes, best, codes[:, column])
                values[:, column] += step
                slope[:, panel] += covariance[:, panel, column] * step
            moved = values[:, panel] - before
            slope[:, : panel.start] += covariance[:, : panel.start, panel] @ moved
            slope[:, panel.stop :] += covariance[:, panel.stop :, panel] @ moved
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
            product, square = (_summed(a, grid.copies) for a in (product, square))
        usable = square > 0.0
        best = scale[:, block] - product / np.where(usable, square, 1.0)
        best = np.where(usable & (best >= SMALLEST_SCALE), best, scale[:, block])
        best = best.astype(np.float32).astype(np.float64)
        slope += damped.covariance[:, :, own] @ (part * (best - scale[:, block])[:, None])
        scale[:, block] = best
    return replace(grid, scale=scale)


def _summed(of_channels: Array, copies: int) -> Array:
    """Return the sum over all channels of a copy at each of them, ``(groups, channels)``."""
    apart = of_channels.reshape(len(of_channels), copies, -1)
    return np.broadcast_to(apart.sum((0, 2), keepdims=True), apart.shape).reshape(of_channels.shape)


def reconstruct(damped: Damped, grid: Grid) -> tuple[Array, Grid]:
    """Return codes and the grid with the scales that they were found with.

    Greedy rounding from several shares of the scale; from each, codes and scales take turns until the error falls no
    more. Every channel goes on with the better half of its starts after some turns, and keeps the best that it came to:
    there are many minima, and the first is seldom a good one.
    """
    has_scale = grid.levels.number_format.has_scale
    is_narrow = grid.levels.values.size <= _FEW_LEVELS
    factors = FACTORS[: len(FACTORS) if is_narrow else 2] if has_scale else (1.0,)
    scales = [(grid.scale * factor).astype(np.float32).astype(np.float64) for factor in factors]
    trials = replace(
        grid,
        scale=np.maximum(np.concatenate(scales, axis=2), SMALLEST_SCALE),
        zero_point=np.tile(grid.zero_point, len(factors)),
        copies=len(factors),
    )
    wide = damped.repeated(len(factors))
    codes = greedy(wide, trials)
    least = np.inf
    for turn in range((ROUNDS if is_narrow else ROUNDS_OF_MANY) if has_scale else 1):
        codes = descend(codes, wide, trials)
        values = codes * trials.spread(codes.shape[1])[0]
        reached = float(output_error(values - wide.target, wide.covariance, np.zeros(())).sum())
        if reached >= least * (1.0 - SETTLED):
            break
        least = reached
        if turn == _HALVED_AFTER and trials.copies > 1:
            codes, trials = _best(codes, damped, trials, trials.copies // 2)
            wide, least = damped.repeated(trials.copies), np.inf
        trials = refit(codes, wide, trials) if has_scale else trials
    return _best(codes, damped, trials, 1)


def _best(codes: Array, damped: Damped, trials: Grid, count: int) -> tuple[Array, Grid]:
    """Return the codes and scales of every channel's best ``count`` copies."""
    wide = damped.repeated(trials.copies)
    error = output_error(codes * trials.spread(codes.shape[1])[0], wide.covariance, wide.cross)
    error = _summed(error, trials.copies) if trials.is_shared else error
    order = error.reshape(len(error), trials.copies, -1).argsort(axis=1, kind="stable")[:, None, :count]
    codes, scale, zero_point = (
        np.take_along_axis(a.reshape(*a.shape[:2], trials.copies, -1), order, 2).reshape(*a.shape[:2], -1)
        for a in (codes, trials.scale, trials.zero_point)
    )
    return codes, replace(trials, scale=scale, zero_point=zero_point, copies=count)
