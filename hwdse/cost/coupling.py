"""A cost that several choices decide together, as terms of one and of two choices, which exact searches can take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from math import prod

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

__all__ = ["Coupled", "Couplings", "Levels", "decouple"]

Levels = tuple[int, ...]
ASSIGNMENTS = 1024
"""Most assignments that a cost is asked for; of larger ones as many are drawn."""
UNIFORM_WEIGHT = 1000.0
"""How much more a deviation counts where all choices are alike: there the terms are exact to 1e-6 of it."""


@dataclass(frozen=True)
class Coupled:
    """Terms whose sum is the cost, or comes closest to it.

    The cost of levels ``x`` is ``constant + sum over i of single[i][x_i] + sum over i < j of pair[i, j][x_i, x_j]``.
    """

    constant: float
    single: tuple[NDArray[np.float64], ...]
    pair: dict[tuple[int, int], NDArray[np.float64]]

    def __call__(self, levels: Levels) -> float:
        """Return the sum of the terms."""
        alone = sum(float(table[level]) for table, level in zip(self.single, levels, strict=True))
        return self.constant + alone + sum(float(t[levels[i], levels[j]]) for (i, j), t in self.pair.items())


def decouple(cost: Callable[[Levels], float], counts: Sequence[int], uniform: Sequence[Levels] = ()) -> Coupled:
    """Return the terms of one and of two choices that are closest to a cost.

    A cost of at most two choices is kept as it is. One of more is fitted by least squares over all assignments, those
    of ``uniform`` exactly: what only three choices of two levels decide together is then off by a sixth of it. No term
    is negative.

    Parameters
    ----------
    cost
        Cost of an assignment of levels, at least 0.
    counts
        Number of levels of each choice.
    uniform
        Assignments that the terms must give back.
    """
    sizes = tuple(counts)
    if len(sizes) <= 2:
        table = np.array([cost(levels) for levels in product(*map(range, sizes))]).reshape(sizes)
        return _settled(0.0, [np.zeros(n) for n in sizes], {(0, 1): table}) if len(sizes) == 2 else _plain(table)
    rows = list(dict.fromkeys([*uniform, *_assignments(sizes)]))
    weights = np.where([row in set(uniform) for row in rows], UNIFORM_WEIGHT, 1.0)
    design, places = _design(np.array(rows), sizes)
    costs = np.array([cost(row) for row in rows])
    solution = nnls(design * weights[:, None], costs * weights)[0]
    parts = [solution[start:stop] for start, stop in places]
    pairs = {
        (i, j): part.reshape(sizes[i], sizes[j])
        for (i, j), part in zip(combinations(range(len(sizes)), 2), parts[1 + len(sizes) :], strict=True)
    }
    return _settled(float(parts[0][0]), parts[1 : 1 + len(sizes)], pairs)


def _plain(table: NDArray[np.float64]) -> Coupled:
    return Coupled(float(table), (), {}) if table.ndim == 0 else Coupled(0.0, (table,), {})


def _assignments(sizes: Levels) -> list[Levels]:
    """Return all assignments, or as many drawn ones as are asked for."""
    if prod(sizes) <= ASSIGNMENTS:
        return list(product(*map(range, sizes)))
    draws = np.random.default_rng(0).integers(0, sizes, size=(ASSIGNMENTS, len(sizes)))
    return [tuple(map(int, row)) for row in draws]


def _design(rows: NDArray[np.int64], sizes: Levels) -> tuple[NDArray[np.float64], list[tuple[int, int]]]:
    """Return which terms each assignment has, and from where to where each table's entries stand."""
    hot = [np.eye(size)[rows[:, i]] for i, size in enumerate(sizes)]
    pairs = [
        (hot[i][:, :, None] * hot[j][:, None]).reshape(len(rows), -1) for i, j in combinations(range(len(sizes)), 2)
    ]
    blocks = [np.ones((len(rows), 1)), *hot, *pairs]
    ends = np.cumsum([block.shape[1] for block in blocks]).tolist()
    return np.concatenate(blocks, axis=1), list(zip([0, *ends[:-1]], ends, strict=True))


def _settled(
    constant: float, single: Sequence[NDArray[np.float64]], pair: dict[tuple[int, int], NDArray[np.float64]]
) -> Coupled:
    """Return the same sum with pair terms of at least 0, the least of each row 0: the rest belongs to its choice."""
    alone = [table.copy() for table in single]
    settled = {}
    for (i, j), table in pair.items():
        least = table.min(axis=1)
        alone[i] += least
        settled[i, j] = table - least[:, None]
    return Coupled(constant, tuple(alone), settled)


@dataclass
class Couplings:
    """Sums up the terms of many coupled costs of the same choices.

    Attributes
    ----------
    single
        ``(choices, candidates)``.
    constant
        What no choice changes.
    pair
        ``(candidates, candidates)`` by two choices, the lower one first.
    """

    single: NDArray[np.float64]
    constant: float = 0.0
    pair: dict[tuple[int, int], NDArray[np.float64]] = field(default_factory=dict)

    def add(self, coupled: Coupled, choices: Sequence[int], level_of: Sequence[NDArray[np.int64]]) -> None:
        """Add terms.

        Parameters
        ----------
        coupled
            The terms.
        choices
            Which choices they are of, ascending.
        level_of
            For each of them, the level of every candidate.
        """
        self.constant += coupled.constant
        for choice, table, levels in zip(choices, coupled.single, level_of, strict=True):
            self.single[choice] += table[levels]
        for (i, j), table in coupled.pair.items():
            total = self.pair.setdefault((choices[i], choices[j]), np.zeros((self.single.shape[1],) * 2))
            total += table[np.ix_(level_of[i], level_of[j])]
