"""The design space as arrays: what every choice of every tied group costs, what is allowed, and how costs add up."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwdse.cost.table import CostTable, Metric, Reduction, SumOverSets
from hwdse.errors import InputError
from hwdse.fold import fold_edges, fold_mask, fold_sums, fold_values
from hwdse.formats import Precision
from hwdse.graph import BitConfig, LayerGraph, TiedGroup
from hwdse.lookup import Lookup, PairTerm, SetTerm

__all__ = ["DesignSpace"]


@dataclass(frozen=True, eq=False)
class DesignSpace:
    """Every bit configuration of one network on one device, by tables.

    The metrics of a configuration are ``constant``, plus ``unary`` over groups, plus ``pairwise`` over edges, plus,
    for a metric in ``peaks``, the largest of its sums. Entries that are not allowed are never read.

    Attributes
    ----------
    groups
        Tied groups, one gene each.
    candidates
        Precisions, at most 256; a gene is an index into them.
    metrics
        Names and reductions of the columns, everything minimised.
    allowed
        ``(groups, candidates)``.
    unary
        ``(groups, candidates, metrics)``.
    constant
        ``(metrics,)``, what no choice changes.
    edges
        ``(edges, 2)`` group indices.
    pairwise
        ``(edges, candidates, candidates, metrics)``, by the choice at either end.
    peaks
        Metric name to sums with terms ``(sets, groups, candidates)``.

    Raises
    ------
    InputError
        If shapes do not fit, an allowed entry is not finite, or a group has no allowed candidate.
    """

    groups: tuple[TiedGroup, ...]
    candidates: tuple[Precision, ...]
    metrics: tuple[Metric, ...]
    allowed: NDArray[np.bool_]
    unary: NDArray[np.float64]
    constant: NDArray[np.float64]
    edges: NDArray[np.int64]
    pairwise: NDArray[np.float64]
    peaks: Mapping[str, SumOverSets] = field(default_factory=dict)

    def __post_init__(self) -> None:
        g, c, m, e = len(self.groups), len(self.candidates), len(self.metrics), len(self.edges)
        if not (g and m and 1 <= c <= 256):
            raise InputError(f"expected at least 1 group, 1 to 256 candidates and 1 metric, got {g}, {c} and {m}")
        shapes = {"allowed": (g, c), "unary": (g, c, m), "constant": (m,), "edges": (e, 2), "pairwise": (e, c, c, m)}
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise InputError(f"expected {name} of shape {shape}, got {getattr(self, name).shape}")
        empty = [group.name for group, row in zip(self.groups, self.allowed, strict=True) if not row.any()]
        if empty:
            raise InputError(f"expected an allowed candidate for every group, got none for {', '.join(empty)}")
        if not (np.isfinite(self.unary[self.allowed]).all() and np.isfinite(self.constant).all()):
            raise InputError("expected finite costs for every allowed candidate, got NaN or infinity")
        if e and (self.edges.min() < 0 or self.edges.max() >= g or (self.edges[:, 0] == self.edges[:, 1]).any()):
            raise InputError(f"expected edges between two of the {g} groups, got {self.edges.tolist()}")
        self._check_peaks()

    def _check_peaks(self) -> None:
        """Check that exactly the metrics that reduce by ``max`` have sums, of the right shapes."""
        largest = {metric.name for metric in self.metrics if metric.reduction is Reduction.MAX}
        if set(self.peaks) != largest:
            raise InputError(f"expected sums (peaks) for the metrics {sorted(largest)}, got {sorted(self.peaks)}")
        for name, sums in self.peaks.items():
            shape = (len(sums.constant), len(self.groups), len(self.candidates))
            if sums.terms.shape != shape or not len(sums.constant):
                raise InputError(
                    f"expected terms of {name} of shape {shape} with 1 set or more, got {sums.terms.shape}"
                )

    @classmethod
    def from_costs(
        cls, graph: LayerGraph, table: CostTable, *, fixed: Mapping[str, Precision] | None = None
    ) -> DesignSpace:
        """Return the space of a network on a device: layers of a group added up, unsupported choices masked.

        Parameters
        ----------
        graph
            Whose groups become the genes.
        table
            Costs per layer.
        fixed
            Layer or group name to the precision it must have.

        Raises
        ------
        InputError
            If a fixed name is unknown, its precision is no candidate or not supported, or a group has no choice left.
        """
        allowed = fold_mask(graph, table, fixed or {})
        edges, pairwise, inside = fold_edges(graph, table, allowed)
        unary = np.where(allowed[..., None], fold_values(graph, table) + inside, 0.0)
        peaks = {name: fold_sums(graph, sums, allowed) for name, sums in table.peaks.items()}
        return cls(
            graph.groups, table.candidates, table.metrics, allowed, unary, table.constant.copy(), edges, pairwise, peaks
        )

    def with_metric(self, metric: Metric, values: ArrayLike, *, constant: float = 0.0) -> DesignSpace:
        """Return the space with one more additive metric, from its values ``(groups, candidates)``.

        Raises
        ------
        InputError
            If the name is taken, the metric does not add up, or the values have another shape.
        """
        v = np.asarray(values, dtype=np.float64)
        if metric.name in self.columns or metric.reduction is not Reduction.SUM:
            raise InputError(
                f"expected a new metric that reduces by sum, got {metric.name} ({metric.reduction}); "
                f"the space has {', '.join(self.columns)}"
            )
        if v.shape != self.allowed.shape:
            raise InputError(f"expected values of shape {self.allowed.shape} (groups, candidates), got {v.shape}")
        column = np.where(self.allowed, v, 0.0)[..., None]
        return replace(
            self,
            metrics=(*self.metrics, metric),
            unary=np.concatenate([self.unary, column], axis=2),
            constant=np.append(self.constant, constant),
            pairwise=np.concatenate([self.pairwise, np.zeros((*self.pairwise.shape[:3], 1))], axis=3),
        )

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the metrics, in column order."""
        return tuple(metric.name for metric in self.metrics)

    def column(self, name: str) -> int:
        """Return the column of a metric.

        Raises
        ------
        InputError
            If there is none of that name.
        """
        if name not in self.columns:
            close = difflib.get_close_matches(name, self.columns, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise InputError(f"expected a metric of the space ({', '.join(self.columns)}), got {name!r}{hint}")
        return self.columns.index(name)

    def is_additive(self, name: str) -> bool:
        """Return whether a metric is a plain sum over groups: no term of two groups, no maximum.

        Raises
        ------
        InputError
            If there is no metric of that name.
        """
        return not self.pairwise[..., self.column(name)].any() and name not in self.peaks

    @property
    def size(self) -> int:
        """Number of configurations."""
        return prod(int(count) for count in self.allowed.sum(axis=1))

    @cached_property
    def _lookup(self) -> Lookup:
        """Tables for :meth:`evaluate`; what is not allowed is NaN in the first metric."""
        unary = np.where(self.allowed[..., None], self.unary, 0.0)
        unary[..., 0][~self.allowed] = np.nan
        pairs = [PairTerm((int(a), int(b)), v) for (a, b), v in zip(self.edges, self.pairwise, strict=True)]
        sets = [
            _set_term(self.column(name), sums.terms[s], float(sums.constant[s]), self.allowed)
            for name, sums in self.peaks.items()
            for s in range(len(sums.constant))
        ]
        return Lookup(unary, self.constant, pairs=pairs, sets=sets)

    def evaluate(self, genes: ArrayLike) -> NDArray[np.float64]:
        """Return the metrics ``(n, metrics)`` of integer genes ``(n, groups)``; uint8 genes in rows are fastest.

        Raises
        ------
        InputError
            If the shape or type is wrong, or a gene is out of range or not allowed.
        """
        x = self._as_genes(genes)
        if len(x) == 0:
            return np.empty((0, len(self.metrics)))
        try:
            values = self._lookup.evaluate(x)
        except IndexError:
            values = None
        if values is None or (not self.allowed.all() and np.isnan(values[:, 0]).any()):
            raise self._bad_gene(x)
        return values

    def _as_genes(self, genes: ArrayLike) -> NDArray[np.integer]:
        """Return genes as an integer array ``(n, groups)``, its values not yet checked."""
        x = np.asarray(genes)
        if x.ndim != 2 or x.shape[1] != len(self.groups) or x.dtype.kind not in "iu":
            raise InputError(
                f"expected integer genes of shape (n, {len(self.groups)}) (i.e. (n, groups)), "
                f"got {x.dtype} of shape {x.shape}"
            )
        return x

    def _bad_gene(self, x: NDArray[np.integer]) -> InputError:
        """Return the error that names the first gene that is out of range or not allowed."""
        bad = (x < 0) | (x >= len(self.candidates))
        if bad.any():
            row, group = np.argwhere(bad)[0]
            return InputError(
                f"expected genes from 0 to {len(self.candidates) - 1} (candidates - 1), got {x[row, group]} "
                f"for group {self.groups[group].name} of configuration {row}"
            )
        row, group = np.argwhere(~self.allowed[np.arange(len(self.groups)), x])[0]
        return self._not_allowed(int(group), self.candidates[x[row, group]])

    def _not_allowed(self, group: int, precision: Precision) -> InputError:
        """Return the error that a group may not have this precision."""
        choices = ", ".join(str(self.candidates[c]) for c in np.flatnonzero(self.allowed[group]))
        return InputError(f"expected one of {choices} for group {self.groups[group].name}, got {precision}")

    def uniform(self, candidate: Precision) -> NDArray[np.uint8] | None:
        """Return the genes ``(groups,)`` that give every group ``candidate``, or ``None`` if that is not allowed.

        A group without a choice keeps what it must have, as long as some group takes ``candidate``.

        Raises
        ------
        InputError
            If ``candidate`` is not one of the space.
        """
        index = self._candidate(candidate)
        forced = self.allowed.sum(axis=1) == 1
        takes = self.allowed[:, index]
        if not (takes | forced).all() or not takes.any():
            return None
        return np.where(takes, index, self.allowed.argmax(axis=1)).astype(np.uint8)

    @property
    def uniforms(self) -> NDArray[np.uint8]:
        """The configurations ``(n, groups)`` of one candidate each, as :meth:`uniform` gives them; each once."""
        found = [genes for genes in map(self.uniform, self.candidates) if genes is not None]
        each = {genes.tobytes(): genes for genes in found}
        return np.array(list(each.values()), dtype=np.uint8).reshape(-1, len(self.groups))

    def random(self, n: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return ``n`` configurations ``(n, groups)`` drawn uniformly from the space; they may repeat."""
        # Allowed candidates first, in order: a draw below their number is then always allowed.
        choices = np.argsort(~self.allowed, axis=1, kind="stable").astype(np.uint8)
        draw = rng.integers(0, self.allowed.sum(axis=1), size=(n, len(self.groups)))
        return choices[np.arange(len(self.groups)), draw]

    def reach(self) -> dict[str, float]:
        """Return, by metric, a value that no configuration is below.

        It is the exact minimum where a metric is additive; with terms of two groups or a maximum it is a lower bound,
        since every term is minimised on its own.
        """
        lowest = np.where(self.allowed[..., None], self.unary, np.inf).min(axis=1).sum(axis=0) + self.constant
        pairs = self.allowed[self.edges[:, 0], :, None] & self.allowed[self.edges[:, 1], None, :]
        lowest += np.where(pairs[..., None], self.pairwise, np.inf).min(axis=(1, 2)).sum(axis=0)
        for name, sums in self.peaks.items():
            terms = np.where(self.allowed, sums.terms, np.inf).min(axis=2).sum(axis=1)
            lowest[self.column(name)] += (terms + sums.constant).max()
        return dict(zip(self.columns, map(float, lowest), strict=True))

    def config(self, genes: ArrayLike, graph: LayerGraph) -> BitConfig:
        """Return the bit configuration of genes ``(groups,)``.

        Raises
        ------
        InputError
            If the genes do not belong to the space, or ``graph`` has other groups.
        """
        x = self._as_genes(np.asarray(genes)[None])
        if graph.groups != self.groups:
            raise InputError("expected the graph that this space was made from, got one with other groups")
        if ((x < 0) | (x >= len(self.candidates))).any() or not self.allowed[np.arange(len(self.groups)), x].all():
            raise self._bad_gene(x)
        return graph.config([self.candidates[gene] for gene in x[0]])

    def genes(self, config: BitConfig) -> NDArray[np.uint8]:
        """Return the genes ``(groups,)`` of a bit configuration.

        Raises
        ------
        InputError
            If a layer is missing, layers of a group differ, or a precision is not allowed.
        """
        chosen = np.empty(len(self.groups), dtype=np.uint8)
        for g, group in enumerate(self.groups):
            found = {config.precisions.get(layer) for layer in group.layers}
            precision = found.pop()
            if found or precision is None:
                raise InputError(f"expected one precision for the layers {', '.join(group.layers)}, got {precision}")
            chosen[g] = self._candidate(precision)
            if not self.allowed[g, chosen[g]]:
                raise self._not_allowed(g, precision)
        return chosen

    def _candidate(self, precision: Precision) -> int:
        """Return the index of a candidate."""
        if precision not in self.candidates:
            known = ", ".join(map(str, self.candidates))
            raise InputError(f"expected one of the candidates {known}, got {precision}; add it to the precisions")
        return self.candidates.index(precision)


def _set_term(metric: int, terms: NDArray[np.float64], constant: float, allowed: NDArray[np.bool_]) -> SetTerm:
    """Return one sum of a maximum, groups whose choice does not change it moved into its constant."""
    low = np.where(allowed, terms, np.inf).min(axis=1)
    changes = np.where(allowed, terms, -np.inf).max(axis=1) > low
    groups = tuple(int(g) for g in np.flatnonzero(changes))
    return SetTerm(metric, groups, np.where(allowed, terms, 0.0)[changes], constant + float(low[~changes].sum()))
