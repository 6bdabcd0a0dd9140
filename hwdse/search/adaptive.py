"""Measure, learn, measure where it promises most: the search of an exploration, for any function that measures harm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwdse.errors import InputError
from hwdse.infeasible import Infeasible
from hwdse.pareto import non_dominated, select_spread
from hwdse.plugins import load_plugin
from hwdse.search import exact
from hwdse.search.collect import collect
from hwdse.search.limits import as_limits, within
from hwdse.search.propose import CARED_FOR, Belief, Proposer
from hwdse.search.protocol import GROUP, SearchResult
from hwdse.search.surrogate import HarmModel
from hwdse.space import DesignSpace

__all__ = ["Learner", "PredictedFront", "predicted_front", "search"]

Floats = NDArray[np.float64]
Genes = NDArray[np.uint8]

_TABLE_EVALUATIONS = 4000
_ARCHIVE = 1500
_FEW, _GROWTH = 20, 1.1


@dataclass(frozen=True)
class PredictedFront:
    """The front as tables predict it.

    Attributes
    ----------
    genes
        ``(n, groups)``.
    infeasible
        What stands in the way, if there is none.
    """

    genes: Genes
    infeasible: Infeasible | None


def predicted_front(
    space: DesignSpace, objectives: Sequence[str], *, limits: Mapping[str, float], rng: np.random.Generator
) -> PredictedFront:
    """Return the front over all ``objectives`` within ``limits``: exact ones of pairs, and NSGA-II over all together.

    Parameters
    ----------
    space
        The design space.
    objectives
        Metric columns: the predicted loss, then the costs.
    limits
        Metric column to its largest admissible value.
    rng
        Source of every random choice.
    """
    bounds = as_limits(space, limits)

    def points(genes: Genes) -> Floats:
        return space.evaluate(genes)[:, [space.column(c) for c in objectives]]

    def fitting(genes: Genes) -> Genes:
        return genes[within(space, bounds, space.evaluate(genes))]

    found = [space.random(0, rng)]
    found += [exact.search(space, (objectives[0], c)).genes for c in objectives[1:] if space.is_additive(c)]
    initial = fitting(np.concatenate(found))
    if len(initial) > _ARCHIVE // 4:
        initial = initial[select_spread(points(initial), _ARCHIVE // 4)]
    result = load_plugin(GROUP, "nsga2")(
        space,
        objectives,
        limits=limits,
        evaluations=_TABLE_EVALUATIONS,
        rng=rng,
        initial=initial if len(initial) else None,
    )
    union = fitting(np.unique(np.concatenate([initial, result.genes.astype(initial.dtype)]), axis=0))
    if len(union):
        union = union[non_dominated(points(union))]
    if len(union) > _ARCHIVE:
        union = union[np.sort(select_spread(points(union), _ARCHIVE))]
    return PredictedFront(union, result.infeasible)


class Learner:
    """A model of harm that is fitted to more and more measurements of one network.

    How wide its priors are is found anew whenever there are a tenth more measurements, from the first so many: the
    model depends on the order of measuring alone, also after an interruption.

    Parameters
    ----------
    losses
        Sensitivities ``(groups, candidates)``.
    """

    def __init__(self, losses: Floats) -> None:
        self._losses = losses
        self._widths: dict[int, Floats] = {}

    def model(self, genes: Genes, harms: Floats, errors: Floats | None) -> HarmModel:
        """Return the model of all that was measured, ``(n, groups)``, ``(n,)`` and ``(n,)``."""
        n = _last_fit(len(harms))
        if n not in self._widths:
            first = None if errors is None else errors[:n]
            self._widths[n] = HarmModel(self._losses, genes[:n], harms[:n], errors=first).widths
        return HarmModel(self._losses, genes, harms, errors=errors, widths=self._widths[n])


def _last_fit(n: int) -> int:
    """Return the largest number up to ``n`` at which the priors are found anew.

    >>> [_last_fit(n) for n in (0, 7, 20, 21, 22, 23, 24, 100)]
    [0, 7, 20, 20, 22, 22, 24, 94]
    """
    if n <= _FEW:
        return n
    last = _FEW
    while (following := int(last * _GROWTH)) <= n:
        last = following
    return last


def search(
    space: DesignSpace,
    objectives: Sequence[str],
    *,
    limits: Mapping[str, float] | None = None,
    evaluations: int = 0,
    rng: np.random.Generator,
    initial: NDArray[np.integer] | None = None,
    measure: Callable[[Genes], Floats] | None = None,
) -> SearchResult:
    """Return the front of all that was measured; see :class:`~hwdse.search.protocol.Searcher`.

    ``initial`` and the uniform configurations are measured first; then, one by one, what promises the largest expected
    hypervolume under a model of harm that is fitted to all that was measured.

    Raises
    ------
    InputError
        If ``evaluations`` is not positive, there is nothing to ``measure``, or a metric is unknown.
    """
    if measure is None:
        raise InputError("expected a function that measures harm, got none; use exact or nsga2 for tables alone")
    if evaluations < 1:
        raise InputError(f"expected at least 1 evaluation, got {evaluations}; set the budget")
    bounds = as_limits(space, limits)
    predicted = predicted_front(space, objectives, limits=limits or {}, rng=rng)
    if predicted.infeasible is not None:
        return collect(space, objectives, predicted.genes[:0], limits=bounds, evaluations=0)

    def fits(genes: Genes) -> NDArray[np.bool_]:
        return within(space, bounds, space.evaluate(genes))

    losses = space.unary[..., space.column(objectives[0])]
    learner = Learner(losses)
    proposer = Proposer(space, objectives, predicted.genes, fits)
    measured = _first(space, initial, fits)[:evaluations]
    harms = measure(measured)
    turn = 0
    while len(measured) < evaluations:
        model = learner.model(measured, harms, None)
        proposal = proposer.propose(
            Belief(measured, harms, model, model.corrected),
            turn=turn,
            harm_reference=max(CARED_FOR * float(harms.max(initial=0.0)), 1e-9),
        )
        if proposal is None:
            break
        measured = np.concatenate([measured, proposal.genes[None]])
        harms = np.concatenate([harms, measure(proposal.genes[None])])
        turn += 1
    values = space.evaluate(measured)[:, [space.column(c) for c in objectives]]
    values[:, 0] = harms
    best = np.flatnonzero(non_dominated(values))
    best = best[np.argsort(values[best, -1], kind="stable")]
    return SearchResult(measured[best], values[best], evaluations=len(measured))


def _first(
    space: DesignSpace, initial: NDArray[np.integer] | None, fits: Callable[[Genes], NDArray[np.bool_]]
) -> Genes:
    """Return what is measured first, ``(n, groups)``, each once: what was given, and the uniform configurations."""
    uniform = [genes[None] for genes in map(space.uniform, space.candidates) if genes is not None]
    given = [] if initial is None else [np.asarray(initial, dtype=np.uint8)]
    genes = np.concatenate([*given, *uniform, np.zeros((0, len(space.groups)), dtype=np.uint8)]).astype(np.uint8)
    _, first = np.unique(genes, axis=0, return_index=True)
    genes = genes[np.sort(first)]
    return genes[fits(genes)] if len(genes) else genes
