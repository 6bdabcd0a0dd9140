"""Which configuration to measure next: the one that promises to add most to a measured front."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hwdse.cost.table import Metric, Reduction
from hwdse.pareto import non_dominated
from hwdse.search import exact
from hwdse.search.acquire import expected_improvement
from hwdse.search.evaluations import every_configuration
from hwdse.search.neighbours import all_neighbours
from hwdse.search.surrogate import Expectation
from hwdse.space import DesignSpace

__all__ = ["CARED_FOR", "Belief", "Proposal", "Proposer"]

Floats = NDArray[np.float64]
Genes = NDArray[np.uint8]

CARED_FOR = 0.3
"""Share of the worst measured harm beyond which nobody cares for a configuration."""

_NOTHING = 1e-9
_BEYOND = 1.05
"""The reference lies this far beyond the largest cost."""

_CLIMBERS, _CLIMBS = 20, 3
_WHOLE_SPACE = 4000
_FRESH_GROWTH = 1.1
_CORRECTED = Metric("loss_corrected", Reduction.SUM, "Loss (corrected)")


@dataclass(frozen=True)
class Belief:
    """What is known of harm before the next measurement.

    Attributes
    ----------
    measured, harms
        ``(n, groups)`` and ``(n,)``.
    expect
        Harm to expect of genes.
    corrected
        Sensitivities with what was learned of them, ``(groups, candidates)``.
    """

    measured: Genes
    harms: Floats
    expect: Callable[[Genes], Expectation]
    corrected: Floats


@dataclass(frozen=True)
class Proposal:
    """What to measure next.

    Attributes
    ----------
    genes
        ``(groups,)``.
    gain
        The most hypervolume of harm and one cost that any candidate is expected to add, over all costs, as a share of
        the box below the reference.
    """

    genes: Genes
    gain: float


@dataclass
class Proposer:
    """Proposals for one design space.

    Candidates are the front as it was predicted, the front as it is predicted with what was learned, and all
    configurations that differ from a measured front in one group; anything else once those are measured. Their worth is
    the expected hypervolume that they add to harm and one cost; from the best, it is climbed to better ones a group at
    a time. The costs take turns; of several, a random mixture has its turn, too, for what trades one for another.

    Attributes
    ----------
    space
        The design space.
    objectives
        The predicted loss and the costs, columns of the space.
    archive
        Predicted front, ``(n, groups)``.
    fits
        True for each of genes ``(n, groups)`` that may be proposed.
    """

    space: DesignSpace
    objectives: Sequence[str]
    archive: Genes
    fits: Callable[[Genes], NDArray[np.bool_]]
    _fresh: Genes = field(init=False, repr=False)
    _fresh_from: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        self._fresh = np.zeros((0, len(self.space.groups)), dtype=np.uint8)

    def propose(self, belief: Belief, *, turn: int, harm_reference: float) -> Proposal | None:
        """Return what to measure next, or ``None`` if nothing new is left.

        Parameters
        ----------
        belief
            What is known.
        turn
            Counts the proposals for this space; the costs and a mixture of them take turns.
        harm_reference
            Harm beyond which nobody cares for a configuration.
        """
        candidates = self._candidates(belief)
        if not len(candidates):
            candidates = self._new(belief.measured, self.anything(np.random.default_rng(turn)))
        if not len(candidates):
            return None
        expected = belief.expect(candidates)
        values, known = self._costs(candidates), self._costs(belief.measured)
        worth = []
        for weights in self._directions(values, turn):
            promise = _Promise(belief, harm_reference, known @ weights, values @ weights)
            worth.append(self._climbed(promise, weights, candidates, promise.gains(values @ weights, expected)))
        most = max(gain for _, gain in worth)
        for shift in range(len(worth)):
            genes, gain = worth[(turn + shift) % len(worth)]
            if gain > _NOTHING:
                return Proposal(genes, most)
        # Nothing promises anything: the one that is known least.
        return Proposal(candidates[int(np.argmax(expected.sd))], most)

    def _costs(self, genes: Genes) -> Floats:
        return self.space.evaluate(genes)[:, [self.space.column(name) for name in self.objectives[1:]]]

    def _directions(self, costs: Floats, turn: int) -> Floats:
        """Return weights of the costs, a row per direction: each cost alone, and a random mixture of several."""
        alone = np.eye(costs.shape[1])
        if len(alone) == 1:
            return alone
        ranges = np.ptp(costs, axis=0)
        mixture = np.random.default_rng(turn).dirichlet(np.ones(len(alone))) / np.where(ranges > 0.0, ranges, 1.0)
        return np.concatenate([alone, mixture[None]])

    def _climbed(self, promise: _Promise, weights: Floats, genes: Genes, gain: Floats) -> tuple[Genes, float]:
        """Return what promises most of the candidates, whose gains are ``gain``, and what is near the best of them."""
        belief = promise.belief
        for _ in range(_CLIMBS):
            kept = np.argsort(-gain, kind="stable")[:_CLIMBERS]
            genes, gain = genes[kept], gain[kept]
            near = self._new(np.concatenate([belief.measured, genes]), all_neighbours(self.space, genes))
            if not len(near):
                break
            added = promise.gains(self._costs(near) @ weights, belief.expect(near))
            genes, gain = np.concatenate([genes, near]), np.concatenate([gain, added])
        best = int(np.argmax(gain))
        return genes[best], float(gain[best])

    def anything(self, rng: np.random.Generator) -> Genes:
        """Return configurations that fit, ``(n, groups)``: all of a small space, random ones of a large one."""
        is_small = self.space.size <= _WHOLE_SPACE
        genes = every_configuration(self.space) if is_small else self.space.random(_WHOLE_SPACE, rng)
        return genes[self.fits(genes)]

    def _candidates(self, belief: Belief) -> Genes:
        """Return unmeasured candidates ``(n, groups)``."""
        measured = belief.measured
        found = [self.archive]
        if len(measured):
            known = self.space.evaluate(measured)
            costs = known[:, [self.space.column(c) for c in self.objectives[1:]]]
            front = non_dominated(np.column_stack([belief.harms, costs]))
            if len(measured) > _FRESH_GROWTH * self._fresh_from:
                self._fresh, self._fresh_from = self._corrected_front(belief.corrected), len(measured)
            found += [self._fresh, all_neighbours(self.space, measured[front])]
        return self._new(measured, np.concatenate(found))

    def _new(self, measured: Genes, genes: Genes) -> Genes:
        """Return the ``genes`` that fit and are not among the ``measured``, each configuration once."""
        _, first = np.unique(np.concatenate([measured, genes]), axis=0, return_index=True)
        new = genes[np.sort(first[first >= len(measured)]) - len(measured)]
        return new[self.fits(new)]

    def _corrected_front(self, corrected: Floats) -> Genes:
        """Return the exact fronts of the corrected loss and each additive cost."""
        space = self.space.with_metric(_CORRECTED, corrected)
        costs = [column for column in self.objectives[1:] if space.is_additive(column)]
        found = [exact.search(space, (_CORRECTED.name, column)).genes for column in costs]
        return np.concatenate([self._fresh[:0], *found])


class _Promise:
    """What a measurement is expected to add to the front of harm and one cost.

    Parameters
    ----------
    belief
        What is known.
    harm_reference
        Harm of the reference.
    known, values
        The cost of what was measured, and of the candidates.
    """

    def __init__(self, belief: Belief, harm_reference: float, known: Floats, values: Floats) -> None:
        self.belief = belief
        largest = max(values.max(), known.max(initial=0.0))
        self._reference = np.array([_BEYOND * largest, harm_reference])
        self._front = np.stack([known, belief.harms], axis=1)

    def gains(self, costs: Floats, harms: Expectation) -> Floats:
        """Return the hypervolume that configurations are expected to add, ``(n,)``, as a share of the box."""
        added = expected_improvement(costs, harms, self._front, self._reference)
        return np.asarray(added / self._reference.prod())
