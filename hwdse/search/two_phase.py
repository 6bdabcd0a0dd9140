"""The published two-phase search [Pandey2023]_ for one target: a list by sensitivity, and a walk along it.

Phase 1 sorts all choices of all groups by a score that was taken with nothing else quantized. Phase 2 applies them one
after another and finds the last point of that walk whose measured quality still meets the target.

A later entry of the list may name a group again. Applied as it stands it would raise the group where the score does
not fall with the bits; here an entry counts only if it makes its group narrower, so that along the walk no group ever
gets wider. In reverse the same points are walked from the narrow end, and no group ever gets narrower.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_FLOOR
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.infeasible import Infeasible, Reason
from hwdse.search.greedy import last_meeting
from hwdse.search.protocol import Measure
from hwdse.space import DesignSpace
from hwdse.units import beside, with_unit

__all__ = ["Direction", "Method", "TwoPhaseResult", "search", "sensitivity_list"]

Method = Literal["brute_force", "binary", "interpolation"]
Direction = Literal["forward", "reverse"]


@dataclass(frozen=True, eq=False)
class TwoPhaseResult:
    """The walk, what was measured of it, and the point that was chosen.

    Attributes
    ----------
    entries
        ``(entries, 2)``: group and candidate of the whole list of phase 1, least sensitive first.
    applied
        ``(points - 1,)``: the entry that leads to each point after the first; the others would have widened a group.
    path
        ``(points, groups)`` uint8: genes of all points, from the baseline to the narrowest.
    quality
        ``(points,)``: measured quality, NaN where it was not measured.
    chosen
        The point that was chosen, ``None`` if the target cannot be met.
    measurements
        How many points were measured.
    infeasible
        What stands in the way, if the target cannot be met.
    """

    entries: NDArray[np.intp]
    applied: NDArray[np.intp]
    path: NDArray[np.uint8]
    quality: NDArray[np.float64]
    chosen: int | None
    measurements: int
    infeasible: Infeasible | None = None

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Which points were measured, ``(points,)``."""
        return ~np.isnan(self.quality)

    @property
    def genes(self) -> NDArray[np.uint8] | None:
        """The chosen genes ``(groups,)``, ``None`` if the target cannot be met."""
        return None if self.chosen is None else self.path[self.chosen]


def search(
    space: DesignSpace,
    scores: ArrayLike,
    *,
    baseline: Precision,
    measure: Measure,
    target: float,
    method: Method = "binary",
    direction: Direction = "forward",
    bit_operations: str = "bops_g",
) -> TwoPhaseResult:
    """Return the narrowest point of the walk that still meets ``target``, and what it took to find it.

    Both ends come first. If the baseline misses the target, nothing is searched; if the narrowest point meets it, that
    is the answer. In reverse the narrowest point is measured first, and the baseline only if that misses.

    Between the ends, ``binary`` halves and ``interpolation`` divides in proportion to the qualities at both ends; they
    assume that quality falls along the walk. Where it does not, they give a point that meets the target and whose next
    point misses it, one of several. ``brute_force`` measures point by point: forward up to the first that misses, which
    is the published rule and leaves out what recovers behind it; in reverse down to the first that meets, which is the
    last of all that do. No point is measured twice.

    Parameters
    ----------
    space
        The design space.
    scores
        ``(groups, candidates)``, larger is better: quality of the network with this group alone quantized, such as a
        signal-to-noise ratio in dB. What is not allowed, and the baseline, are not read.
    baseline
        Precision that every group starts from; a group without a choice keeps what it must have.
    measure
        Quality of the whole network, larger is better, of genes ``(n, groups)``.
    target
        Smallest acceptable quality.
    method, direction
        How, and from which end, the last point that meets the target is searched.
    bit_operations
        Metric whose reduction orders entries of equal score and bits, the larger one first.

    Raises
    ------
    InputError
        If scores or measured qualities are not finite numbers of the right shape, a name is unknown, or the baseline
        is not allowed everywhere.
    """
    for word, known in ((method, get_args(Method)), (direction, get_args(Direction))):
        if word not in known:
            raise InputError(f"expected one of {', '.join(known)}, got {word!r}")
    if not np.isfinite(target):
        raise InputError(f"expected a finite target, got {target}")
    entries = sensitivity_list(space, scores, baseline=baseline, bit_operations=bit_operations)
    path, applied = _walk(space, _start(space, baseline), entries, bit_operations)
    quality = _Quality(path, measure)
    chosen = _last(quality, target, method, direction)
    infeasible = _unreached(quality, target) if chosen is None else None
    measurements = int((~np.isnan(quality.values)).sum())
    return TwoPhaseResult(entries, applied, path, quality.values, chosen, measurements, infeasible)


def sensitivity_list(
    space: DesignSpace, scores: ArrayLike, *, baseline: Precision, bit_operations: str = "bops_g"
) -> NDArray[np.intp]:
    """Return phase 1, ``(entries, 2)``: group and candidate of every allowed choice but the baseline.

    Sorted by score, then bits of weights and activations together, then reduction of bit operations, all descending,
    then by group. Parameters are those of :func:`search`.

    Raises
    ------
    InputError
        If scores are not finite numbers of the right shape, the metric is unknown, or the baseline is not allowed
        everywhere.
    """
    start = _start(space, baseline)
    s = np.asarray(scores, dtype=np.float64)
    if s.shape != space.allowed.shape:
        raise InputError(f"expected scores of shape {space.allowed.shape} (groups, candidates), got {s.shape}")
    groups, candidates = np.nonzero(space.allowed)
    other = candidates != start[groups]
    groups, candidates = groups[other], candidates[other]
    if not np.isfinite(s[groups, candidates]).all():
        raise InputError("expected a finite score for every allowed choice, got NaN or infinity")
    bits, operations = _bits(space), space.unary[..., space.column(bit_operations)]
    reduction = operations[groups, start[groups]] - operations[groups, candidates]
    order = np.lexsort((groups, -reduction, -bits[candidates], -s[groups, candidates]))
    return np.stack([groups[order], candidates[order]], axis=1)


def _start(space: DesignSpace, baseline: Precision) -> NDArray[np.uint8]:
    """Return the genes ``(groups,)`` of the baseline."""
    start = space.uniform(baseline)
    if start is None:
        raise InputError(f"expected a baseline that every group may have, got {baseline}; choose another one")
    return start


def _bits(space: DesignSpace) -> NDArray[np.int64]:
    """Return the bits of weights and activations together, ``(candidates,)``."""
    return np.array([p.weights.bits + p.activations.bits for p in space.candidates])


def _walk(
    space: DesignSpace, start: NDArray[np.uint8], entries: NDArray[np.intp], bit_operations: str
) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """Return the points ``(points, groups)`` and the entries that lead to them.

    Narrower is fewer bits, or as many with fewer bit operations.
    """
    bits, operations = _bits(space), space.unary[..., space.column(bit_operations)]
    path, applied = [start], []
    for k, (g, c) in enumerate(entries):
        now = path[-1][g]
        if (bits[c], operations[g, c]) < (bits[now], operations[g, now]):
            point = path[-1].copy()
            point[g] = c
            path.append(point)
            applied.append(k)
    return np.array(path), np.array(applied, dtype=np.intp)


class _Quality:
    """Measured quality of the points of a walk, each measured when it is first asked for."""

    def __init__(self, path: NDArray[np.uint8], measure: Measure) -> None:
        self.path, self.measure = path, measure
        self.values = np.full(len(path), np.nan)

    def __call__(self, point: int) -> float:
        if np.isnan(self.values[point]):
            found = np.asarray(self.measure(self.path[point : point + 1].copy()), dtype=np.float64)
            if found.shape != (1,) or not np.isfinite(found[0]):
                raise InputError(f"expected a measure that gives 1 finite number for 1 configuration, got {found}")
            self.values[point] = found[0]
        return float(self.values[point])


def _last(quality: _Quality, target: float, method: Method, direction: Direction) -> int | None:
    """Return the last point that meets the target, ``None`` if the baseline misses it."""
    narrowest = len(quality.path) - 1
    ends = (0, narrowest) if direction == "forward" else (narrowest, 0)
    for end in ends:
        meets = quality(end) >= target
        if meets and end == narrowest:
            return narrowest
        if not meets and end == 0:
            return None
    if method != "brute_force":
        return last_meeting(quality, narrowest + 1, target, method=method)
    if direction == "forward":
        return next(point for point in range(narrowest) if quality(point + 1) < target)
    return next(point for point in range(narrowest - 1, -1, -1) if quality(point) >= target)


def _unreached(quality: _Quality, target: float) -> Infeasible:
    """Return that the target is not met, with the best that was measured."""
    best = float(np.nanmax(quality.values))
    lowered = with_unit("", beside(best, target, ROUND_FLOOR))
    levers = (f"lower the target from {with_unit('', target)} to {lowered}", "start from a wider baseline")
    return Infeasible(
        reason=Reason.UNMEASURED,
        limit="quality",
        requested=target,
        best=best,
        gap=target - best,
        conflict=("quality",),
        relaxations={"quality": best},
        levers=levers,
    )
