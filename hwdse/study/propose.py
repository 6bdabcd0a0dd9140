"""Which configuration to measure next: the one that promises to add most to a device's measured front.

Predicted loss becomes predicted quality by a monotone map fitted to everything measured under the scheme. Candidates
are the predicted front and the neighbours of the measured one, and anything else once those are measured; their worth
is the hypervolume that they would add, one cost at a time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from hwdse.pareto import non_dominated
from hwdse.study.device import LOSS, DeviceProblem, Genes

__all__ = ["LossMap", "improvement", "propose"]

_NEIGHBOUR_TRUST = 0.5


class LossMap:
    """A monotone map from predicted loss to measured harm, piecewise linear in the logarithm of the loss.

    Parameters
    ----------
    losses, harms
        ``(n,)``: predicted loss and measured harm (full-precision quality minus quality) of what was measured.
    """

    def __init__(self, losses: NDArray[np.float64], harms: NDArray[np.float64]) -> None:
        order = np.argsort(losses, kind="stable")
        self._x = _log(losses[order])
        self._y: NDArray[np.float64] = isotonic_regression(harms[order]).x if len(order) else np.zeros(0)

    def __call__(self, losses: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the harm to expect, ``(n,)``; the loss itself while nothing is measured."""
        if not len(self._x):
            return losses
        return np.interp(_log(losses), self._x, self._y)


def improvement(
    points: NDArray[np.float64], front: NDArray[np.float64], reference: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the area that each of ``points`` ``(n, 2)`` would add to what ``front`` ``(m, 2)`` dominates.

    Both objectives are minimised; only the area below ``reference`` ``(2,)`` counts.

    >>> improvement(np.array([[0.5, 0.5]]), np.zeros((0, 2)), np.array([1.0, 1.0])).tolist()
    [0.25]
    """
    front = front[(front < reference).all(axis=1)]
    front = front[non_dominated(front)] if len(front) else front
    front = front[np.argsort(front[:, 0])]
    starts = np.concatenate([[-np.inf], front[:, 0]])
    ends = np.concatenate([front[:, 0], [reference[0]]])
    ceilings = np.concatenate([[reference[1]], front[:, 1]])
    width = np.clip(ends - np.maximum(starts, points[:, :1]), 0.0, None)
    height = np.clip(np.minimum(ceilings, reference[1]) - points[:, 1:], 0.0, None)
    area: NDArray[np.float64] = (width * height).sum(axis=1)
    return area


def propose(
    problem: DeviceProblem,
    *,
    measured: Genes,
    harms: NDArray[np.float64],
    loss_map: LossMap,
    turn: int,
    harm_reference: float,
) -> Genes | None:
    """Return the genes ``(groups,)`` to measure next for ``problem``, or ``None`` if nothing new is left.

    Parameters
    ----------
    problem
        The device.
    measured, harms
        ``(n, groups)`` and ``(n,)``: what was measured that the device can run.
    loss_map
        Fitted to everything measured under the device's scheme.
    turn
        Counts the proposals for this device; the costs take turns.
    harm_reference
        Harm beyond which nobody cares for a configuration.
    """
    candidates, harm = _candidates(problem, measured, harms, loss_map)
    if not len(candidates):
        candidates = problem.anything(np.random.default_rng(turn))
        candidates = candidates[_unseen(measured, candidates)]
        harm = loss_map(problem.space.evaluate(candidates)[:, problem.space.column(LOSS.name)])
    if not len(candidates):
        return None
    values = problem.space.evaluate(candidates)
    known = problem.space.evaluate(measured)
    for shift in range(len(problem.objectives)):
        column = problem.space.column(problem.objectives[(turn + shift) % len(problem.objectives)])
        limit = max(values[:, column].max(), known[:, column].max() if len(known) else 0.0)
        reference = np.array([1.05 * limit, harm_reference])
        gain = improvement(
            np.stack([values[:, column], harm], axis=1), np.stack([known[:, column], harms], axis=1), reference
        )
        best = int(np.argmax(gain))
        if gain[best] > 1e-9 * reference.prod():
            break
    else:
        best = _remotest(_log(values[:, problem.space.column(LOSS.name)]), known, problem)
    chosen: Genes = candidates[best]
    return chosen


def _candidates(
    problem: DeviceProblem, measured: Genes, harms: NDArray[np.float64], loss_map: LossMap
) -> tuple[Genes, NDArray[np.float64]]:
    """Return unmeasured candidates ``(n, groups)`` and their predicted harm ``(n,)``."""
    loss = problem.space.column(LOSS.name)
    genes = problem.archive
    harm = loss_map(problem.space.evaluate(genes)[:, loss]) if len(genes) else np.zeros(0)
    if len(measured):
        known = problem.space.evaluate(measured)
        costs = known[:, [problem.space.column(c) for c in problem.objectives]]
        front = np.flatnonzero(non_dominated(np.column_stack([harms, costs])))
        residuals = harms[front] - loss_map(known[front, loss])
        near, parents = _neighbours(problem, measured[front])
        expected = loss_map(problem.space.evaluate(near)[:, loss]) + _NEIGHBOUR_TRUST * residuals[parents]
        genes, harm = np.concatenate([genes, near]), np.concatenate([harm, expected])
    new = _unseen(measured, genes)
    new = new[problem.fits(genes[new])]
    return genes[new], harm[new]


def _unseen(measured: Genes, genes: Genes) -> NDArray[np.int64]:
    """Return the indices of ``genes`` that are not among the ``measured``, each configuration once."""
    _, first = np.unique(np.concatenate([measured, genes]), axis=0, return_index=True)
    new: NDArray[np.int64] = np.sort(first[first >= len(measured)]) - len(measured)
    return new


def _neighbours(problem: DeviceProblem, genes: Genes) -> tuple[Genes, NDArray[np.int64]]:
    """Return all configurations that differ from one of ``genes`` in one group, and the index of that one."""
    groups = genes.shape[1]
    found, parents = [], []
    for g in range(groups):
        for choice in np.flatnonzero(problem.space.allowed[g]):
            changed = np.flatnonzero(genes[:, g] != choice)
            near = genes[changed].copy()
            near[:, g] = choice
            found.append(near)
            parents.append(changed)
    if not found:
        return np.zeros((0, groups), dtype=np.uint8), np.zeros(0, dtype=np.int64)
    return np.concatenate(found), np.concatenate(parents)


def _remotest(losses: NDArray[np.float64], known: NDArray[np.float64], problem: DeviceProblem) -> int:
    """Return the candidate whose predicted loss is farthest from all that was measured."""
    if not len(known):
        return int(np.argmin(losses))
    seen = _log(known[:, problem.space.column(LOSS.name)])
    return int(np.argmax(np.abs(losses[:, None] - seen[None, :]).min(axis=1)))


def _log(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    logarithms: NDArray[np.float64] = np.log(np.maximum(losses, 1e-12))
    return logarithms
