"""NSGA-II [Deb2002]_ over candidate indices, seeded from the Lagrangian hull and the uniform configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.crossover import Crossover
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.evaluator import Evaluator
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.termination import NoTermination

from hwdse.errors import InputError
from hwdse.infeasible import Limit
from hwdse.pareto import non_dominated, select_spread
from hwdse.search.collect import collect
from hwdse.search.hull import additive_part, hull_genes
from hwdse.search.limits import as_columns, as_limits, limited
from hwdse.search.protocol import SearchResult
from hwdse.space import DesignSpace

__all__ = ["search"]

SMALLEST, LARGEST = 20, 400  # population: a fiftieth of the budget, within these
MATINGS = 20  # attempts at offspring that were not evaluated before


def search(
    space: DesignSpace,
    objectives: Sequence[str],
    *,
    limits: Mapping[str, float] | None = None,
    evaluations: int = 0,
    rng: np.random.Generator,
    initial: NDArray[np.integer] | None = None,
) -> SearchResult:
    """Return all non-dominated configurations that NSGA-II met; see :class:`~hwdse.search.protocol.Searcher`.

    No configuration is evaluated twice, and a space no larger than the budget is evaluated whole. Limits are
    constraints; only configurations within them are returned.

    Raises
    ------
    InputError
        If ``evaluations`` is not positive, or a metric is unknown.
    """
    if evaluations < 1:
        raise InputError(f"expected at least 1 evaluation, got {evaluations}; set the budget")
    columns, bounds = as_columns(space, objectives), as_limits(space, limits)
    if space.size <= evaluations:
        return collect(space, objectives, _every(space), limits=bounds, evaluations=space.size, exact=True)
    size = min(max(evaluations // 50, SMALLEST), LARGEST)
    seeds = _seeds(space, objectives, evaluations, size, initial, rng)
    problem = _ConfigurationProblem(space, columns, bounds, _knots(space.evaluate(seeds)[:, columns]))
    population = problem.spread(seeds, size)
    algorithm = NSGA2(
        pop_size=size,
        sampling=population,
        crossover=_UniformCrossover(),
        mutation=_LadderMutation(space, additive_part(space, columns)[..., -1]),
        eliminate_duplicates=_Unseen(problem.seen),
    )
    algorithm.mating.n_max_iterations = MATINGS
    algorithm.setup(problem, termination=NoTermination(), seed=int(rng.integers(2**31)), verbose=False)
    algorithm.ask()
    algorithm.tell(infills=population)
    while len(problem.seen) < evaluations:
        offspring = algorithm.ask()
        if offspring is None:  # everything near the population was evaluated before
            break
        offspring = offspring[: evaluations - len(problem.seen)]
        Evaluator().eval(problem, offspring)
        algorithm.tell(infills=offspring)
    genes = np.concatenate(problem.tried)
    return collect(space, objectives, genes, limits=bounds, evaluations=len(genes))


def _every(space: DesignSpace) -> NDArray[np.uint8]:
    """Return all configurations ``(size, groups)``."""
    grids = np.meshgrid(*(np.flatnonzero(row).astype(np.uint8) for row in space.allowed), indexing="ij")
    return np.stack([grid.ravel() for grid in grids], axis=1)


def _seeds(
    space: DesignSpace,
    objectives: Sequence[str],
    evaluations: int,
    size: int,
    initial: NDArray[np.integer] | None,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """Return unique genes ``(n, groups)`` to start from: ``initial``, uniform, hull, and random ones to fill up."""
    given = [] if initial is None else [np.asarray(initial)]
    uniform = [genes[None] for genes in map(space.uniform, space.candidates) if genes is not None]
    hull = hull_genes(space, objectives)
    room = max(evaluations - sum(map(len, given + uniform)), 0)
    if len(hull) > room:
        columns = as_columns(space, objectives)
        hull = hull[select_spread(space.evaluate(hull)[:, columns], room)]
    random = space.random(max(size // 10, size - len(hull)), rng)
    seeds = np.concatenate([*given, *uniform, hull, random]).astype(np.uint8)
    _, first = np.unique(seeds, axis=0, return_index=True)
    return np.asarray(seeds[np.sort(first)][:evaluations])


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
    """The design space as pymoo sees it; remembers everything that was evaluated.

    Objectives are evened out over the values of the seeds' front (``knots``). That leaves dominance as it is, and
    spreads the population along the whole front even where harm falls by orders of magnitude along it.
    """

    def __init__(
        self, space: DesignSpace, columns: list[int], limits: tuple[Limit, ...], knots: list[NDArray[np.float64]]
    ) -> None:
        super().__init__(
            n_var=len(space.groups), n_obj=len(columns), n_ieq_constr=len(limits), xl=0, xu=len(space.candidates) - 1
        )
        self.space, self.columns, self.limits, self.knots = space, columns, limits, knots
        self.seen: set[bytes] = set()
        self.tried: list[NDArray[np.uint8]] = []

    def _evaluate(self, x: NDArray[np.uint8], out: dict[str, Any], *_: Any, **__: Any) -> None:
        metrics = self.space.evaluate(x)
        objectives = metrics[:, self.columns].T
        out["F"] = np.stack([_evened(v, k) for v, k in zip(objectives, self.knots, strict=True)], axis=1)
        if self.limits:
            bounds = np.array([limit.value for limit in self.limits])
            excess = limited(self.space, self.limits, metrics) - bounds
            out["G"] = excess / np.where(bounds == 0, 1.0, np.abs(bounds))
        self.tried.append(x.copy())
        self.seen.update(row.tobytes() for row in x)

    def spread(self, seeds: NDArray[np.uint8], size: int) -> Population:
        """Evaluate all seeds and return ``size`` of them that are spread over the objectives."""
        population = Population.new("X", seeds)
        Evaluator().eval(self, population)
        return population[select_spread(population.get("F"), size)]


class _Unseen(DuplicateElimination):  # type: ignore[misc]  # pymoo ships no type information
    """Drops what was evaluated before, and copies within one generation."""

    def __init__(self, seen: set[bytes]) -> None:
        super().__init__()
        self.seen = seen

    def _do(self, pop: Population, other: Population | None, is_duplicate: NDArray[np.bool_]) -> NDArray[np.bool_]:
        taken = set() if other is None else {row.tobytes() for row in other.get("X")}
        for i, row in enumerate(pop.get("X")):
            key = row.tobytes()
            is_duplicate[i] = key in self.seen or key in taken
            if other is None:
                taken.add(key)
        return is_duplicate


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
