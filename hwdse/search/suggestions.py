"""Configurations that a sampler of Optuna [Akiba2019]_ suggests one after another, each from all results so far."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from hwdse.search.evaluations import Evaluations
from hwdse.search.neighbours import random_neighbours
from hwdse.search.protocol import Measure, SearchResult
from hwdse.space import DesignSpace

__all__ = ["follow", "quiet_optuna"]


def follow(
    sampler: Callable[[int], BaseSampler],
    space: DesignSpace,
    objectives: Sequence[str],
    *,
    limits: Mapping[str, float] | None,
    evaluations: int,
    rng: np.random.Generator,
    initial: NDArray[np.integer] | None,
    measure: Measure | None,
) -> SearchResult:
    """Return all non-dominated configurations that a sampler suggested.

    Every group with a choice is a categorical parameter, every limit a constraint, and the study lives in memory. A
    suggestion that was evaluated before walks on, one random group at a time, until it is new. A space no larger than
    the budget is evaluated whole.

    Parameters
    ----------
    sampler
        Makes the sampler from a seed.
    space, objectives, limits, evaluations, rng, initial, measure
        As in :class:`~hwdse.search.protocol.Searcher`.

    Raises
    ------
    InputError
        If ``evaluations`` is not positive, a metric is unknown, or the measure gives no finite numbers.
    """
    known = Evaluations(space, objectives, limits=limits, budget=evaluations, measure=measure)
    if (result := known.without_search()) is not None:
        return result
    parameters = _Parameters(space)
    with quiet_optuna():
        study = optuna.create_study(
            directions=["minimize"] * len(objectives), sampler=sampler(int(rng.integers(2**31)))
        )
        study.add_trials([parameters.trial(genes, known) for genes in known.start(initial)])
        while known.left:
            trial = study.ask(parameters.distributions)
            genes = parameters.genes(trial.params)
            study.tell(trial, state=TrialState.FAIL)
            while genes in known:
                genes = random_neighbours(space, genes[None], rng)[0]
            study.add_trial(parameters.trial(genes, known))
    return known.result()


class _Parameters:
    """The groups that have a choice, as categorical parameters named by their place."""

    def __init__(self, space: DesignSpace) -> None:
        self.only = space.allowed.argmax(axis=1).astype(np.uint8)
        free = np.flatnonzero(space.allowed.sum(axis=1) > 1)
        choices = {int(g): np.flatnonzero(space.allowed[g]).tolist() for g in free}
        self.distributions: dict[str, BaseDistribution] = {
            str(g): CategoricalDistribution(allowed) for g, allowed in choices.items()
        }

    def genes(self, parameters: Mapping[str, Any]) -> NDArray[np.uint8]:
        """Return genes ``(groups,)`` of parameters; groups without a choice keep what they must have."""
        genes: NDArray[np.uint8] = self.only.copy()
        genes[[int(name) for name in parameters]] = list(parameters.values())
        return genes

    def trial(self, genes: NDArray[np.uint8], known: Evaluations) -> FrozenTrial:
        """Return the evaluated configuration ``(groups,)`` as a finished trial."""
        metrics = known.metrics(genes[None])
        return create_trial(
            params={name: int(genes[int(name)]) for name in self.distributions},
            distributions=self.distributions,
            values=metrics[0, known.columns].tolist(),
            constraints={
                limit.column: excess
                for limit, excess in zip(known.limits, known.excess(metrics)[0].tolist(), strict=True)
            },
        )


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Let only errors of Optuna through; that a part of it is experimental is no news to a user."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
