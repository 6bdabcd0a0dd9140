"""What the genetic searches share: seeds, operators, and evaluating nothing twice, around an algorithm of pymoo."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.base.genetic import GeneticAlgorithm
from pymoo.core.crossover import Crossover
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.evaluator import Evaluator
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.termination import NoTermination

from hwdse.pareto import non_dominated, select_spread
from hwdse.search.evaluations import Evaluations
from hwdse.search.hull import additive_part, hull_genes
from hwdse.search.limits import as_columns
from hwdse.search.protocol import Measure, SearchResult
from hwdse.space import DesignSpace

__all__ = ["evolve"]

SMALLEST, LARGEST = 20, 400  # population: a fiftieth of the budget, within these
MATINGS = 20  # attempts at offspring that were not evaluated before


def evolve(
    algorithm: Callable[..., GeneticAlgorithm],
    space: DesignSpace,
    objectives: Sequence[str],
    *,
    limits: Mapping[str, float] | None,
    evaluations: int,
    rng: np.random.Generator,
    initial: NDArray[np.integer] | None,
    measure: Measure | None,
) -> SearchResult:
    """Return all non-dominated configurations that a genetic algorithm met.

    It starts from ``initial``, the uniform configurations, the Lagrangian hull and random ones; the hull takes at
    most half of the budget where harm is measured. Limits are constraints; only configurations within them are
    returned.

    Parameters
    ----------
    algorithm
        Makes the algorithm from its population size and operators.
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
    size = min(max(evaluations // 50, SMALLEST), LARGEST)
    hull_budget = evaluations if measure is None else evaluations // 2
    seeds = _seeds(known, space, objectives, known.start(initial), evaluations, hull_budget, size, rng)
    problem = _ConfigurationProblem(space, known, _knots(known.metrics(seeds)[:, known.columns]))
    population = problem.spread(seeds, size)
    evolution = algorithm(
        pop_size=size,
        sampling=population,
        crossover=_UniformCrossover(),
        mutation=_LadderMutation(space, additive_part(space, known.columns)[..., -1]),
        eliminate_duplicates=_Unseen(known),
    )
    evolution.mating.n_max_iterations = MATINGS
    evolution.setup(problem, termination=NoTermination(), seed=int(rng.integers(2**31)), verbose=False)
    evolution.ask()
    evolution.tell(infills=population)
    while known.left:
        offspring = evolution.ask()
        if offspring is None:  # everything near the population was evaluated before
            break
        offspring = offspring[: known.left]
        Evaluator().eval(problem, offspring)
        evolution.tell(infills=offspring)
    return known.result()


def _seeds(
    known: Evaluations,
    space: DesignSpace,
    objectives: Sequence[str],
    given: NDArray[np.uint8],
    evaluations: int,
    hull_budget: int,
    size: int,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """Return unique genes ``(n, groups)`` to start from: ``given``, uniform, hull, and random ones to fill up."""
    uniform = space.uniforms
    hull = hull_genes(space, objectives)
    room = max(hull_budget - len(given) - len(uniform), 0)
    if len(hull) > room:
        columns = as_columns(space, objectives)
        hull = hull[select_spread(space.evaluate(hull)[:, columns], room)]
    random = space.random(max(size // 10, size - len(hull)), rng)
    return known.fresh(np.concatenate([given, uniform, hull, random]))[:evaluations]


def _knots(values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return, by objective, the ascending values ``(n,)`` that the front of ``values`` takes."""
    return [np.unique(column) for column in values[non_dominated(values)].T]


def _evened(values: NDArray[np.float64], knots: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``values`` on a scale on which neighbouring ``knots`` are 1 apart, straight lines between and beyond."""
    if len(knots) == 1:
        return np.asarray(values - knots[0])
    left = np.clip(np.searchsorted(knots, values) - 1, 0, len(knots) - 2)
    return np.asarray(left + (values - knots[left]) / (knots[left + 1] - knots[left]))


class _ConfigurationProblem(Problem):  # type: ignore[misc]  # pymoo ships no type information
    """The design space as pymoo sees it.

    Objectives are evened out over the values of the seeds' front (``knots``). That leaves dominance as it is, and
    spreads the population along the whole front even where harm falls by orders of magnitude along it.
    """

    def __init__(self, space: DesignSpace, known: Evaluations, knots: list[NDArray[np.float64]]) -> None:
        super().__init__(
            n_var=len(space.groups),
            n_obj=len(known.columns),
            n_ieq_constr=len(known.limits),
            xl=0,
            xu=len(space.candidates) - 1,
        )
        self.known, self.knots = known, knots

    def _evaluate(self, x: NDArray[np.uint8], out: dict[str, Any], *_: Any, **__: Any) -> None:
        metrics = self.known.metrics(x)
        objectives = metrics[:, self.known.columns].T
        out["F"] = np.stack([_evened(v, k) for v, k in zip(objectives, self.knots, strict=True)], axis=1)
        if self.known.limits:
            out["G"] = self.known.excess(metrics)

    def spread(self, seeds: NDArray[np.uint8], size: int) -> Population:
        """Evaluate all seeds and return ``size`` of them that are spread over the objectives."""
        population = Population.new("X", seeds)
        Evaluator().eval(self, population)
        return population[select_spread(population.get("F"), size)]


class _Unseen(DuplicateElimination):  # type: ignore[misc]  # pymoo ships no type information
    """Drops what was evaluated before, and copies within one generation."""

    def __init__(self, known: Evaluations) -> None:
        super().__init__()
        self.known = known

    def do(self, pop: Population, *others: Population, **_: Any) -> Population:
        """Return the new ones of ``pop``; of ``others``, the first is the evaluated population, which is known."""
        taken = {individual.X.tobytes() for other in others[1:] for individual in other}
        fresh = []
        for i, individual in enumerate(pop):
            key = individual.X.tobytes()
            if key not in taken and individual.X not in self.known:
                taken.add(key)
                fresh.append(i)
        return pop[fresh]


class _UniformCrossover(Crossover):  # type: ignore[misc]  # pymoo ships no type information
    """Every gene from either parent; both parents' genes are allowed, so the child's are.

    Rarely used: near a front of sums, small changes of one parent find more than mixtures of two.
    """

    def __init__(self) -> None:
        super().__init__(n_parents=2, n_offsprings=2, prob=0.2)

    def _do(
        self,
        _: Problem,
        X: NDArray[np.uint8],
        *__: Any,
        random_state: np.random.Generator,
        **___: Any,
    ) -> NDArray[np.uint8]:
        swap = random_state.random(X.shape[1:]) < 0.5
        return np.stack([np.where(swap, X[1], X[0]), np.where(swap, X[0], X[1])])


class _LadderMutation(Mutation):  # type: ignore[misc]  # pymoo ships no type information
    """Moves genes up or down their group's allowed candidates, sorted by cost.

    One child in two trades: one group a rung up and another a rung down, which moves along the front instead of away
    from it. The others take a rung or a jump in about one gene, at least one.
    """

    def __init__(self, space: DesignSpace, costs: NDArray[np.float64]) -> None:
        super().__init__(prob=1.0)
        self.rungs = space.allowed.sum(axis=1)
        self.ladder = np.argsort(costs, axis=1, kind="stable").astype(np.uint8)  # not allowed is infinite: last
        self.place = np.argsort(self.ladder, axis=1, kind="stable")

    def _do(
        self,
        _: Problem,
        X: NDArray[np.uint8],
        *__: Any,
        random_state: np.random.Generator,
        **___: Any,
    ) -> NDArray[np.uint8]:
        n, groups = X.shape
        every = np.arange(groups)
        place = self.place[every, X]
        chosen = random_state.integers(0, groups, size=(2, n))
        trade = random_state.random(n) < 0.5
        direction = random_state.choice(np.array([-1, 1]), size=n)
        change = random_state.random((n, groups)) < 1 / groups
        change[np.arange(n), chosen[0]] = True
        step = random_state.choice(np.array([-1, 1]), size=(n, groups))
        jump = random_state.integers(0, self.rungs, size=(n, groups)) - place
        shift = np.where(change, np.where(random_state.random((n, groups)) < 0.7, step, jump), 0)
        rows = np.flatnonzero(trade)
        shift[rows] = 0
        shift[rows, chosen[0, rows]] += direction[rows]
        shift[rows, chosen[1, rows]] -= direction[rows]
        return self.ladder[every, np.clip(place + shift, 0, self.rungs - 1)]
