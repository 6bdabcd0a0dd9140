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
from hwdse.search.evaluations import Evaluations, every_configuration
from hwdse.search.limits import as_limits, within
from hwdse.search.propose import CARED_FOR, Belief, Proposal, Proposer
from hwdse.search.protocol import GROUP, SearchResult
from hwdse.search.surrogate import Learner
from hwdse.space import DesignSpace

__all__ = ["ENUMERATED", "PredictedFront", "predicted_front", "search"]

Floats = NDArray[np.float64]
Genes = NDArray[np.uint8]

_TABLE_EVALUATIONS = 4000
ENUMERATED = 100_000
"""Configurations up to which the front is that of all of them."""

_ARCHIVE = 1500


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
    """Return the front over all ``objectives`` within ``limits``.

    That of every configuration of a small space; of a larger one the exact fronts of pairs, and NSGA-II over all
    together.

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

    if space.size <= ENUMERATED and len(everything := fitting(every_configuration(space))):
        return PredictedFront(_trimmed(everything[non_dominated(points(everything))], points), None)
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
    return PredictedFront(_trimmed(union, points), result.infeasible)


def _trimmed(genes: Genes, points: Callable[[Genes], Floats]) -> Genes:
    """Return at most as many of ``genes`` as an archive holds, spread over what they are worth."""
    return genes if len(genes) <= _ARCHIVE else genes[np.sort(select_spread(points(genes), _ARCHIVE))]


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
    known = Evaluations(space, objectives, limits=limits, budget=evaluations, measure=measure)
    if (result := known.without_search()) is not None:
        return result
    bounds = tuple(limit for limit in known.limits if limit.column != objectives[0])
    predicted = predicted_front(space, objectives, limits={b.column: b.value for b in bounds}, rng=rng)
    if predicted.infeasible is not None:
        return collect(space, objectives, predicted.genes, limits=bounds, evaluations=0)

    def fits(genes: Genes) -> NDArray[np.bool_]:
        return within(space, bounds, space.evaluate(genes))

    learner = Learner(space.unary[..., known.columns[0]])
    proposer = Proposer(space, objectives, predicted.genes, fits)
    first = known.fresh(np.concatenate([known.start(initial), space.uniforms]))
    known.metrics(first[fits(first)][: known.left])

    def proposal(turn: int) -> Proposal | None:
        measured = known.genes
        harms = known.metrics(measured)[:, known.columns[0]]
        model = learner.model(measured, harms, None)
        reference = max(CARED_FOR * float(harms.max(initial=0.0)), 1e-9)
        belief = Belief(measured, harms, model, model.corrected)
        return proposer.propose(belief, turn=turn, harm_reference=reference)

    turn = 0
    while known.left and (proposed := proposal(turn)) is not None:
        known.metrics(proposed.genes[None])
        turn += 1
    return known.result()
