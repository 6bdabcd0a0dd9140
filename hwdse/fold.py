"""Folding costs per layer into costs per tied group."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hwdse.cost.table import CostTable, SumOverSets
from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.graph import LayerGraph, TiedGroup

__all__ = ["fold_edges", "fold_mask", "fold_sums", "fold_values"]


def fold_values(graph: LayerGraph, table: CostTable) -> NDArray[np.float64]:
    """Return the costs of every group, its layers added up, ``(groups, candidates, metrics)``."""
    values = np.zeros((len(graph.groups), len(table.candidates), len(table.metrics)))
    np.add.at(values, np.array(graph.group_of), np.where(table.supported[..., None], table.values, 0.0))
    return values


def fold_mask(graph: LayerGraph, table: CostTable, fixed: Mapping[str, Precision]) -> NDArray[np.bool_]:
    """Return what every group may choose, ``(groups, candidates)``: what all its layers support, and what is fixed.

    Raises
    ------
    InputError
        If a group has nothing to choose from, a fixed name is unknown, or a fixed precision cannot be had.
    """
    allowed = np.ones((len(graph.groups), len(table.candidates)), dtype=bool)
    np.logical_and.at(allowed, np.array(graph.group_of), table.supported)
    for group, row in zip(graph.groups, allowed, strict=True):
        if not row.any():
            raise InputError(
                f"expected a precision that all layers of group {group.name} support, got none "
                f"({_support(graph, table, group)}); add a precision that they share to the candidates"
            )
    for name, precision in fixed.items():
        _fix(graph, table, allowed, name, precision)
    return allowed


def _fix(graph: LayerGraph, table: CostTable, allowed: NDArray[np.bool_], name: str, precision: Precision) -> None:
    """Leave the group of ``name`` only ``precision`` in the mask ``allowed``."""
    names = [group.name for group in graph.groups]
    if name in graph.layer_index:
        g = graph.group_of[graph.layer_index[name]]
    elif name in names:
        g = names.index(name)
    else:
        close = difflib.get_close_matches(name, [*graph.layer_index, *names], n=1)
        hint = (
            f"; did you mean {close[0]}?"
            if close
            else f"; the first layers are {', '.join(list(graph.layer_index)[:5])}"
        )
        raise InputError(f"expected a layer or group to fix, got {name!r}{hint}")
    if precision not in table.candidates:
        known = ", ".join(map(str, table.candidates))
        raise InputError(f"expected {name} fixed to one of the candidates {known}, got {precision}; add it to them")
    c = table.candidates.index(precision)
    if not allowed[g, c]:
        group = graph.groups[g]
        left = ", ".join(str(table.candidates[k]) for k in np.flatnonzero(allowed[g]))
        raise InputError(
            f"expected {name} fixed to a precision that its group {group.name} can have ({left}), got {precision}; "
            f"of its layers {_support(graph, table, group)}, and one group can be fixed to one precision only"
        )
    allowed[g] = np.arange(len(table.candidates)) == c


def _support(graph: LayerGraph, table: CostTable, group: TiedGroup) -> str:
    """Return what each layer of a group supports, in words."""
    sentences = []
    for layer in group.layers:
        row = table.supported[graph.layer_index[layer]]
        sentences.append(
            f"{layer} supports {', '.join(str(table.candidates[c]) for c in np.flatnonzero(row)) or 'none'}"
        )
    return "; ".join(sentences)


def fold_edges(
    graph: LayerGraph, table: CostTable, allowed: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return edges between groups, their costs, and what edges inside a group add to its own costs.

    Parallel edges become one, whichever way they point; edges that cost nothing are left out.

    Returns
    -------
    edges
        ``(edges, 2)`` group indices, the lower one first.
    pairwise
        ``(edges, candidates, candidates, metrics)``.
    inside
        ``(groups, candidates, metrics)``.
    """
    g, c, m = len(graph.groups), len(table.candidates), len(table.metrics)
    inside = np.zeros((g, c, m))
    merged: dict[tuple[int, int], NDArray[np.float64]] = {}
    for (source, target), costs in zip(table.edges, table.switches, strict=True):
        a, b = graph.group_of[source], graph.group_of[target]
        if a == b:
            inside[a] += np.diagonal(costs).T
        else:
            total = merged.setdefault((min(a, b), max(a, b)), np.zeros((c, c, m)))
            total += costs if a < b else costs.transpose(1, 0, 2)
    kept = {}
    for (a, b), costs in sorted(merged.items()):
        used = np.where((allowed[a][:, None] & allowed[b])[..., None], costs, 0.0)
        if used.any():
            kept[a, b] = used
    edges = np.array(list(kept), dtype=np.int64).reshape(-1, 2)
    return edges, np.array(list(kept.values())).reshape(-1, c, c, m), inside


def fold_sums(graph: LayerGraph, sums: SumOverSets, allowed: NDArray[np.bool_]) -> SumOverSets:
    """Return sums over layers as sums over groups, terms ``(sets, groups, candidates)``."""
    terms = np.zeros((allowed.shape[0], len(sums.terms), allowed.shape[1]))
    np.add.at(terms, np.array(graph.group_of), sums.terms.swapaxes(0, 1))
    return SumOverSets(np.where(allowed, terms.swapaxes(0, 1), 0.0), sums.constant)
