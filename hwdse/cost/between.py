"""Time between the layers as a cost model's terms: per layer, and per pair of layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwdse.cost.boundaries import Boundaries, Stored
from hwdse.cost.coupling import Couplings, Levels, decouple
from hwdse.cost.model import MetricCosts
from hwdse.formats import Precision
from hwdse.graph import Layer, LayerGraph, Node, Value
from hwdse.hardware import HardwareProfile

__all__ = ["between_ms"]


def between_ms(graph: LayerGraph, profile: HardwareProfile, candidates: Sequence[Precision]) -> MetricCosts:
    """Return the calibrated time between layers, as terms of one tied group and of two.

    A group's terms stand at its first layer. What up to two groups decide is exact; what more of them decide (an
    addition and the tensors around it) is exact where all choose alike, and closest to the truth elsewhere.

    Raises
    ------
    InputError
        If the graph does not say what flows between its layers.
    """
    rules = Boundaries(graph, profile)
    groups = tuple(_Group.of(graph, profile, candidates, members=group.layers) for group in graph.groups)
    together: dict[tuple[int, ...], list[Value | Node]] = {}
    parts: tuple[Value | Node, ...] = (*graph.values, *graph.nodes)
    for part in parts:
        of = {graph.group_of[graph.layer_index[name]] for name in rules.layers_of(part)}
        together.setdefault(tuple(sorted(g for g in of if groups[g].count > 1)), []).append(part)
    fixed = {name: formats for group in groups for name, formats in group.stored[0].items()}
    couplings = Couplings(np.zeros((len(groups), len(candidates))))
    for chosen, shared in together.items():
        own = [groups[g] for g in chosen]

        def cost(levels: Levels, own: Sequence[_Group] = own, parts: Sequence[Value | Node] = shared) -> float:
            stored: Stored = fixed | {
                k: v for g, level in zip(own, levels, strict=True) for k, v in g.stored[level].items()
            }
            return sum(rules.calibrated_us(part, stored) for part in parts) * 1e-3

        common = np.logical_and.reduce([group.allowed for group in own], axis=0, initial=True)
        alike = [tuple(int(group.level_of[c]) for group in own) for c in np.flatnonzero(common)]
        couplings.add(decouple(cost, [g.count for g in own], alike), chosen, [g.level_of for g in own])
    supported = [[profile.supports(layer, candidate) for candidate in candidates] for layer in graph.layers]
    return _costs(graph, couplings, np.array(supported))


@dataclass(frozen=True)
class _Group:
    """What a tied group's choice is between layers: candidates with the same stored formats are one level.

    Attributes
    ----------
    allowed
        ``(candidates,)``: what all its layers support.
    level_of
        ``(candidates,)``; 0 for candidates that are not allowed.
    stored
        For each level, the formats of the group's layers.
    """

    allowed: NDArray[np.bool_]
    level_of: NDArray[np.int64]
    stored: tuple[Stored, ...]

    @property
    def count(self) -> int:
        return len(self.stored)

    @classmethod
    def of(
        cls, graph: LayerGraph, profile: HardwareProfile, candidates: Sequence[Precision], *, members: Iterable[str]
    ) -> _Group:
        layers = [graph.layers[graph.layer_index[name]] for name in members]
        rows = [[profile.supports(layer, candidate) for candidate in candidates] for layer in layers]
        allowed: NDArray[np.bool_] = np.all(np.array(rows, dtype=np.bool_), axis=0)
        found: dict[tuple[str, ...], Stored] = {}
        level_of = np.zeros(len(candidates), dtype=np.int64)
        for c in np.flatnonzero(allowed).tolist() or [0]:
            stored = {layer.name: profile.stored(layer, candidates[c]) for layer in layers}
            seen = tuple(_seen(layer, stored[layer.name]) for layer in layers)
            found.setdefault(seen, stored)
            level_of[c] = list(found).index(seen)
        return cls(allowed, level_of, tuple(found.values()))


def _seen(layer: Layer, stored: Precision) -> str:
    """Return what a layer's formats are to its neighbours: weights are nobody's but those of a product are."""
    return str(stored) if layer.weight is None else stored.activations.name


def _costs(graph: LayerGraph, couplings: Couplings, supported: NDArray[np.bool_]) -> MetricCosts:
    """Return couplings of groups as costs of layers: each group's at its first layer, 0 where not supported."""
    first = [graph.layer_index[group.layers[0]] for group in graph.groups]
    values = np.zeros((len(graph.layers), couplings.single.shape[1]))
    values[first] = couplings.single
    pairs = tuple((first[a], first[b]) for a, b in couplings.pair)
    switches = np.array(list(couplings.pair.values())).reshape(-1, *(couplings.single.shape[1],) * 2)
    return MetricCosts(np.where(supported, values, 0.0), couplings.constant, switches, pairs=pairs)
