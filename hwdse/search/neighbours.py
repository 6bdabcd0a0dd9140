"""Configurations that differ from others by the choice of one group."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwdse.space import DesignSpace

__all__ = ["all_neighbours", "random_neighbours"]


def random_neighbours(space: DesignSpace, genes: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return ``genes`` ``(n, groups)``, each with another choice for one group; some group must have one."""
    rungs = space.allowed.sum(axis=1)
    choices = np.argsort(~space.allowed, axis=1, kind="stable").astype(np.uint8)  # allowed first
    place = np.argsort(choices, axis=1, kind="stable")
    rows, groups = np.arange(len(genes)), rng.choice(np.flatnonzero(rungs > 1), size=len(genes))
    shift = rng.integers(1, rungs[groups])
    there = genes.copy()
    there[rows, groups] = choices[groups, (place[groups, genes[rows, groups]] + shift) % rungs[groups]]
    return there


def all_neighbours(space: DesignSpace, genes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return all configurations that differ from one of ``genes`` ``(n, groups)`` in one group, with repetitions."""
    found = [genes[:0]]
    for group, allowed in enumerate(space.allowed):
        for choice in np.flatnonzero(allowed):
            near = genes[genes[:, group] != choice]
            near[:, group] = choice
            found.append(near)
    return np.concatenate(found)
