"""One configuration for several devices: the smallest largest regret, by one integer program over all of their tables.

The regret of a device is what the shared configuration costs on it over the best that it could have for itself. The
largest of these is one more variable that none of them exceeds, so the optimum is exact [Kouvelis1997]_.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hwdse.cost.table import Metric, Reduction, SumOverSets
from hwdse.errors import InputError
from hwdse.infeasible import Limit
from hwdse.search.integer_program import least_largest
from hwdse.search.limits import as_limits, within
from hwdse.space import DesignSpace

__all__ = ["minimax"]

Genes = NDArray[np.uint8]


def minimax(
    spaces: Sequence[DesignSpace], *, cost: str, best: Sequence[float], limits: Sequence[Mapping[str, float]]
) -> Genes | None:
    """Return the configuration whose largest cost over ``best`` is smallest, as genes of every space.

    Parameters
    ----------
    spaces
        One per device, of the same groups; the choice is among the candidates that all of them allow.
    cost
        Metric to compare, in every space; terms of two groups and largest sums count in full.
    best
        What each device could have for itself, positive, ``(spaces,)``.
    limits
        For each space, metric to its largest admissible value; a limit on harm is one of them.

    Returns
    -------
    genes
        ``(spaces, groups)``: row ``d`` is the configuration in the candidates of space ``d``. ``None`` if no
        configuration that all devices can run meets all limits.

    Raises
    ------
    InputError
        If groups differ, a metric is unknown, or numbers do not fit the spaces.
    """
    _check(spaces, best, limits)
    places, allowed = _common(spaces)
    if not allowed.any(axis=1).all():
        return None
    bounds = [as_limits(space, ours) for space, ours in zip(spaces, limits, strict=True)]
    joint, costs, limited = _joined(spaces, places, allowed, cost=cost, best=best, bounds=bounds)

    def of_each(shared: Genes) -> Genes:
        return np.stack([place[shared] for place in places]).astype(np.uint8)

    def meets(shared: Genes) -> bool:
        rows = zip(spaces, bounds, of_each(shared), strict=True)
        return all(within(space, ours, space.evaluate(row[None]))[0] for space, ours, row in rows)

    found = least_largest(joint, costs, limited, meets=meets)
    return of_each(found) if found is not None else None


def _check(spaces: Sequence[DesignSpace], best: Sequence[float], limits: Sequence[Mapping[str, float]]) -> None:
    """Check that there is a number and a set of limits for every space, and that all have the same groups."""
    if not spaces or len(best) != len(spaces) or len(limits) != len(spaces):
        raise InputError(
            f"expected 1 space or more, each with its best and its limits, got {len(spaces)}, {len(best)} and "
            f"{len(limits)}"
        )
    if not all(0 < value < np.inf for value in best):
        raise InputError(f"expected positive finite costs as best, got {list(best)}; leave the other devices out")
    for one, other in pairwise(spaces):
        if one.groups != other.groups:
            differing = next(
                (f"{a.name} and {b.name}" for a, b in zip(one.groups, other.groups, strict=False) if a != b),
                f"{len(one.groups)} and {len(other.groups)}",
            )
            raise InputError(
                f"expected the same tied groups on every device, got {differing}; compare devices that tie the same "
                "layers"
            )


def _common(spaces: Sequence[DesignSpace]) -> tuple[list[NDArray[np.intp]], NDArray[np.bool_]]:
    """Return where the common candidates stand in each space, and which are allowed in all, ``(groups, common)``."""
    common = [c for c in spaces[0].candidates if all(c in space.candidates for space in spaces)]
    places = [np.array([space.candidates.index(c) for c in common], dtype=np.intp) for space in spaces]
    masks = [space.allowed[:, place] for space, place in zip(spaces, places, strict=True)]
    return places, np.logical_and.reduce(masks)


def _joined(
    spaces: Sequence[DesignSpace],
    places: Sequence[NDArray[np.intp]],
    allowed: NDArray[np.bool_],
    *,
    cost: str,
    best: Sequence[float],
    bounds: Sequence[Sequence[Limit]],
) -> tuple[DesignSpace, list[str], list[Limit]]:
    """Return one space with the metrics of all, the names of its costs relative to the best, and its limits."""
    common = allowed.shape[1]
    ends = [tuple(map(int, edge)) for space in spaces for edge in space.edges]
    edges = {edge: i for i, edge in enumerate(dict.fromkeys(ends))}
    metrics, unary, constant, tables = [], [], [], []
    peaks: dict[str, SumOverSets] = {}
    costs: list[str] = []
    limited: list[Limit] = []

    def add(d: int, name: str, word: str, unit: float) -> str:
        space, place, column = spaces[d], places[d], spaces[d].column(name)
        joint = f"{word} {name} of device {d}"
        unary.append(np.where(allowed, space.unary[:, place, column], 0.0) / unit)
        constant.append(space.constant[column] / unit)
        pairs = np.zeros((len(edges), common, common))
        for edge, table in zip(space.edges, space.pairwise[:, place][:, :, place, column], strict=True):
            pairs[edges[tuple(map(int, edge))]] += table / unit
        tables.append(pairs)
        reduction = space.metrics[column].reduction
        metrics.append(Metric(joint, reduction, joint))
        if reduction is Reduction.MAX:
            sums = space.peaks[name]
            peaks[joint] = SumOverSets(np.where(allowed, sums.terms[:, :, place], 0.0) / unit, sums.constant / unit)
        return joint

    for d, (value, ours) in enumerate(zip(best, bounds, strict=True)):
        costs.append(add(d, cost, "relative", float(value)))
        limited += [replace(limit, column=add(d, limit.column, "limited", 1.0)) for limit in ours]
    space = DesignSpace(
        groups=spaces[0].groups,
        candidates=tuple(spaces[0].candidates[i] for i in places[0]),
        metrics=tuple(metrics),
        allowed=allowed,
        unary=np.stack(unary, axis=-1),
        constant=np.array(constant),
        edges=np.array(list(edges), dtype=np.int64).reshape(-1, 2),
        pairwise=np.stack(tables, axis=-1),
        peaks=peaks,
    )
    return space, costs, limited
