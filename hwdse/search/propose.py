"""Which configuration to measure next: the one that promises to add most to a measured front."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hwdse.cost.table import Metric, Reduction
from hwdse.pareto import non_dominated
from hwdse.search import exact
from hwdse.search.acquire import expected_improvement, expected_joint_improvement, spread_points
from hwdse.search.evaluations import every_configuration
from hwdse.search.neighbours import all_neighbours
from hwdse.search.surrogate import Expectation
from hwdse.space import DesignSpace

__all__ = ["CARED_FOR", "Belief", "Proposal", "Proposer"]

Floats = NDArray[np.float64]
Genes = NDArray[np.uint8]
_Gains = Callable[[Floats, Expectation], Floats]
"""From costs ``(n, costs)`` and harms to the hypervolume that configurations are expected to add, as a share."""

CARED_FOR = 0.3
"""Share of the worst measured harm beyond which nobody cares for a configuration."""

_NOTHING = 1e-9
_BEYOND = 1.05
"""The reference lies this far beyond the largest cost."""

_CLIMBERS, _CLIMBS = 20, 3
_PLACES = 512
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
    a time. Several costs take turns with the hypervolume of all together, which finds what trades one for another.

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
            Counts the proposals for this space; the costs take turns.
        harm_reference
            Harm beyond which nobody cares for a configuration.
        """
        candidates = self._candidates(belief)
        if not len(candidates):
            candidates = self._new(set(_rows(belief.measured)), self.anything(np.random.default_rng(turn)))
        if not len(candidates):
            return None
        expected = belief.expect(candidates)
        values, known = self._costs(candidates), self._costs(belief.measured)
        alone, together = _promises(belief, known, values, harm_reference, np.random.default_rng(turn))
        worth = [self._climbed(belief, gains, candidates, gains(values, expected)) for gains in alone]
        most = max(gain for _, gain in worth)
        # With several costs every other turn is that of all together.
        first = turn if together is None else turn // 2
        order = [worth[(first + shift) % len(worth)] for shift in range(len(worth))]
        if together is not None and turn % 2 == 0:
            order.insert(0, self._climbed(belief, together, candidates, together(values, expected)))
        for genes, gain in order:
            if gain > _NOTHING:
                return Proposal(genes, most)
        # Nothing promises anything: the one that is known least.
        return Proposal(candidates[int(np.argmax(expected.sd))], most)

    def _costs(self, genes: Genes) -> Floats:
        return self.space.evaluate(genes)[:, [self.space.column(name) for name in self.objectives[1:]]]

    def _climbed(self, belief: Belief, gains: _Gains, genes: Genes, gain: Floats) -> tuple[Genes, float]:
        """Return what promises most of the candidates, whose gains are ``gain``, and what is near the best of them."""
        seen = {*_rows(belief.measured), *_rows(genes)}
        for _ in range(_CLIMBS):
            kept = np.argsort(-gain, kind="stable")[:_CLIMBERS]
            genes, gain = genes[kept], gain[kept]
            near = self._new(seen, all_neighbours(self.space, genes))
            if not len(near):
                break
            added = gains(self._costs(near), belief.expect(near))
            genes, gain = np.concatenate([genes, near]), np.concatenate([gain, added])
        best = int(np.argmax(gain))
        return genes[best], float(gain[best])

    @staticmethod
    def is_stale(measured: int, fresh_from: int) -> bool:
        """Return True if the front of what was learned from ``fresh_from`` is to be found anew.

        As many again ask for the same choice, now that more of them are finished.
        """
        return measured == fresh_from or measured > _FRESH_GROWTH * fresh_from

    def refresh(self, belief: Belief) -> None:
        """Find the front as it is predicted with what was learned."""
        self._fresh, self._fresh_from = self._corrected_front(belief.corrected), len(belief.measured)

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
            front = non_dominated(np.column_stack([belief.harms, self._costs(measured)]))
            if self.is_stale(len(measured), self._fresh_from):
                self.refresh(belief)
            found += [self._fresh, all_neighbours(self.space, measured[front])]
        return self._new(set(_rows(measured)), np.concatenate(found))

    def _new(self, seen: set[bytes], genes: Genes) -> Genes:
        """Return the ``genes`` that fit and were not ``seen``, each configuration once; from now on, they were."""
        places = []
        for place, row in enumerate(_rows(genes)):  # takes a tenth of the time of numpy's unique rows
            if row not in seen:
                seen.add(row)
                places.append(place)
        new = genes[places]
        return new[self.fits(new)]

    def _corrected_front(self, corrected: Floats) -> Genes:
        """Return the exact fronts of the corrected loss and each additive cost."""
        space = self.space.with_metric(_CORRECTED, corrected)
        costs = [column for column in self.objectives[1:] if space.is_additive(column)]
        found = [exact.search(space, (_CORRECTED.name, column)).genes for column in costs]
        return np.concatenate([self._fresh[:0], *found])


def _rows(genes: Genes) -> list[bytes]:
    """Return each configuration of ``genes`` ``(n, groups)`` as bytes, which can be looked up."""
    rows: list[bytes] = np.ascontiguousarray(genes).view(f"V{genes.shape[1]}").ravel().tolist()
    return rows


def _promises(
    belief: Belief, known: Floats, values: Floats, harm_reference: float, rng: np.random.Generator
) -> tuple[list[_Gains], _Gains | None]:
    """Return what configurations add to the front of harm and each cost, and of several costs to that of all.

    Parameters
    ----------
    belief
        What is known.
    known, values
        Costs of what was measured, and of the candidates.
    harm_reference
        Harm of the reference.
    rng
        Shifts the places at which all costs are looked at.
    """
    largest = _BEYOND * np.maximum(values.max(axis=0), known.max(axis=0, initial=0.0))

    def alone(column: int, costs: Floats, harms: Expectation) -> Floats:
        front, reference = (
            np.stack([known[:, column], belief.harms], axis=1),
            np.array([largest[column], harm_reference]),
        )
        return np.asarray(expected_improvement(costs[:, column], harms, front, reference) / reference.prod())

    each: list[_Gains] = [partial(alone, column) for column in range(len(largest))]
    if len(each) == 1:
        return each, None
    least = np.concatenate([known, values]).min(axis=0)
    places = least + (largest - least) * spread_points(_PLACES, len(largest), rng)

    def together(costs: Floats, harms: Expectation) -> Floats:
        lowered = expected_joint_improvement(costs, harms, known, belief.harms, reference=harm_reference, places=places)
        return np.asarray(lowered / harm_reference)

    return each, together
