"""One device of a study: its design space, its predicted front, and what was measured that it can run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwdse.analysis.sensitivity import Sensitivity
from hwdse.cost import Origin, collinear_pairs, cost_table, memory_limits, metric_column, provenance
from hwdse.cost.model import DEFAULT_METRICS
from hwdse.cost.table import Metric, Reduction
from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.graph import LayerGraph
from hwdse.hardware import HardwareProfile
from hwdse.infeasible import Infeasible
from hwdse.pareto import non_dominated, select_spread
from hwdse.plugins import load_plugin
from hwdse.search.protocol import GROUP as SEARCHERS
from hwdse.space import DesignSpace

__all__ = ["LOSS", "DeviceProblem", "Known", "device_space"]

LOSS = Metric("loss_predicted", Reduction.SUM, "Loss (predicted)")
_TABLE_EVALUATIONS = 4000
_ARCHIVE = 1500

Genes = NDArray[np.uint8]


class Known(NamedTuple):
    """A configuration that the device can run: its genes ``(groups,)`` and its metrics ``(metrics,)``."""

    genes: Genes
    metrics: NDArray[np.float64]


def device_space(
    graph: LayerGraph,
    profile: HardwareProfile,
    *,
    precisions: Sequence[Precision],
    fixed: Mapping[str, Precision],
    costs: Sequence[str],
) -> DesignSpace:
    """Return what ``graph`` costs on ``profile`` in every configuration that may be chosen.

    Parameters
    ----------
    graph, profile
        Network and device.
    precisions
        Candidates of the groups that are free.
    fixed
        Layers or groups that are not free; their precisions need not be among ``precisions``.
    costs
        Names of the costs to minimise.

    Raises
    ------
    InputError
        If the device does not run what is asked, or a name is unknown.
    """
    offered = ", ".join(map(str, profile.precisions))
    for name, precision in fixed.items():
        if not profile.candidates([precision]):
            raise InputError(
                f"expected {name} fixed to a precision that {profile.name} supports ({offered}), got {precision}; fix "
                "it to another one, or leave the device out"
            )
    candidates = profile.candidates(dict.fromkeys([*precisions, *fixed.values()]))
    if not profile.candidates(precisions):
        given = ", ".join(map(str, precisions))
        raise InputError(f"expected precisions that {profile.name} supports ({offered}), got {given}; add one")
    beside = [name for name in DEFAULT_METRICS if name != "energy_mj" or profile.has_energy]
    # A cost may be asked for by its column's name, and none may be in the table twice.
    needed = {metric_column(name): name for name in (*beside, *costs, *memory_limits(profile))}
    table = cost_table(graph, profile, candidates, metrics=list(needed.values()))
    space = DesignSpace.from_costs(graph, table, fixed=fixed)
    free = [not {group.name, *group.layers} & set(fixed) for group in graph.groups]
    allowed = space.allowed & ~np.outer(free, [c not in precisions for c in candidates])
    return replace(space, allowed=allowed)


@dataclass
class DeviceProblem:
    """What a study knows of one device.

    Attributes
    ----------
    profile
        The device.
    graph
        The network.
    space
        Its design space, with the predicted loss as the last metric.
    objectives
        Columns of the costs that the front trades, in the user's order.
    limits
        Column to the most that fits the device's memories.
    archive
        ``(n, groups)``: the predicted front over loss and all objectives.
    infeasible
        What stands in the way, if nothing fits the device.
    warnings
        Sentences for the user.
    """

    profile: HardwareProfile
    graph: LayerGraph
    space: DesignSpace
    objectives: tuple[str, ...]
    limits: Mapping[str, float]
    archive: Genes = field(init=False)
    infeasible: Infeasible | None = None
    warnings: tuple[str, ...] = ()
    _known: dict[str, Known | None] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(
        cls,
        graph: LayerGraph,
        profile: HardwareProfile,
        *,
        space: DesignSpace,
        sensitivity: Sensitivity,
        costs: Sequence[str],
        seed: int,
        loss: str = "kl",
    ) -> DeviceProblem:
        """Search ``space`` for the predicted front.

        Parameters
        ----------
        graph, profile
            Network and device.
        space
            From :func:`device_space`.
        sensitivity
            Harm of every (group, candidate) under the device's scheme.
        costs
            Names of the costs to minimise.
        seed
            Of the search.
        loss
            The score whose sum over the groups predicts harm.
        """
        chosen = [sensitivity.candidates.index(c) for c in space.candidates]
        space = space.with_metric(LOSS, sensitivity.scores[loss][:, chosen])
        problem = cls(profile, graph, space, tuple(map(metric_column, costs)), memory_limits(profile))
        problem._search(np.random.default_rng(seed), costs)
        return problem

    def _search(self, rng: np.random.Generator, names: Sequence[str]) -> None:
        """Fill the archive: exact fronts of loss against each cost, and NSGA-II over all of them together."""
        sample = self.space.evaluate(self.space.random(256, rng))
        columns = [self.space.column(c) for c in self.objectives]
        self.warnings = collinear_pairs(sample[:, columns], list(names), device=self.profile.name)
        found = [self.space.random(0, rng)]
        for column in self.objectives:
            if self.space.is_additive(column):
                result = load_plugin(SEARCHERS, "exact")(self.space, (LOSS.name, column), rng=rng)
                found.append(result.genes)
        initial = np.concatenate(found)
        initial = initial[self.fits(initial)]
        if len(initial) > 400:
            initial = initial[select_spread(self._points(initial), 400)]
        result = load_plugin(SEARCHERS, "nsga2")(
            self.space,
            (LOSS.name, *self.objectives),
            limits=self.limits,
            evaluations=_TABLE_EVALUATIONS,
            rng=rng,
            initial=initial if len(initial) else None,
        )
        self.infeasible = result.infeasible
        union = np.unique(np.concatenate([initial, result.genes.astype(initial.dtype)]), axis=0)
        union = union[self.fits(union)]
        if len(union):
            union = union[non_dominated(self._points(union))]
        if len(union) > _ARCHIVE:
            union = union[np.sort(select_spread(self._points(union), _ARCHIVE))]
        self.archive = union

    def _points(self, genes: Genes) -> NDArray[np.float64]:
        """Return predicted loss and objectives ``(n, 1 + objectives)``."""
        values = self.space.evaluate(genes)
        return values[:, [self.space.column(c) for c in (LOSS.name, *self.objectives)]]

    @property
    def note(self) -> str:
        """How far the device's latencies can be trusted for this network, in a sentence."""
        if not self.profile.has_measured_table:
            return self.profile.accuracy_note
        origins = provenance(self.graph, self.profile, self.space.candidates)
        known = int((origins == Origin.TABLE).any(axis=1).sum())
        total = len(self.graph.layers)
        rest = f"batch of {self.profile.batch}; the others come from a closed form, an order of magnitude"
        if known:
            return f"{known} of {total} layers measured: those shapes are in {self.profile.name}'s table, {rest}"
        return f"order of magnitude: no layer's shape is in the measured table of {self.profile.name}"

    def fits(self, genes: Genes) -> NDArray[np.bool_]:
        """Return ``(n,)``: True where the configuration fits the device's memories."""
        values = self.space.evaluate(genes)
        fits = np.ones(len(genes), dtype=np.bool_)
        for column, limit in self.limits.items():
            fits &= values[:, self.space.column(column)] <= limit
        return fits

    def bits(self, genes: NDArray[np.integer]) -> str:
        """Return one configuration's precisions by layer, separated by spaces."""
        return self.space.config(genes, self.graph).bits

    def genes_of(self, bits: str) -> Genes | None:
        """Return the genes of a configuration given by its bits; ``None`` if the device cannot run it."""
        known = self.known(bits)
        return None if known is None else known.genes

    def known(self, bits: str) -> Known | None:
        """Return genes and metrics of a configuration given by its bits; ``None`` if the device cannot run it."""
        if bits not in self._known:
            genes = self._read(bits)
            runs = genes is not None and bool(self.fits(genes[None])[0])
            self._known[bits] = (
                Known(genes, self.space.evaluate(genes[None])[0]) if genes is not None and runs else None
            )
        return self._known[bits]

    def _read(self, bits: str) -> Genes | None:
        """Return the genes of bits; ``None`` if a choice is not allowed."""
        index = {str(candidate): i for i, candidate in enumerate(self.space.candidates)}
        texts = dict(zip(self.graph.layer_index, bits.split(), strict=True))
        genes = np.zeros(len(self.space.groups), dtype=np.uint8)
        for g, group in enumerate(self.space.groups):
            choice = index.get(texts[group.layers[0]])
            if choice is None or not self.space.allowed[g, choice]:
                return None
            genes[g] = choice
        return genes

    def anything(self, rng: np.random.Generator) -> Genes:
        """Return configurations that fit, ``(n, groups)``: all of a small space, random ones of a large one."""
        if self.space.size <= _TABLE_EVALUATIONS:
            choices = [np.flatnonzero(row) for row in self.space.allowed]
            genes = np.array(list(product(*choices)), dtype=np.uint8)
        else:
            genes = self.space.random(_TABLE_EVALUATIONS, rng)
        return genes[self.fits(genes)]

    def uniforms(self) -> dict[str, Genes]:
        """Return the configurations in which every free group has the same precision and that fit, widest first."""
        found: dict[str, Genes] = {}
        order = sorted(
            range(len(self.space.candidates)),
            key=lambda c: -(self.space.candidates[c].weights.bits + self.space.candidates[c].activations.bits),
        )
        free = self.space.allowed.sum(axis=1) > 1
        for choice in order:
            if self.space.allowed[free, choice].all() and free.any():
                genes = self.space.allowed.argmax(axis=1).astype(np.uint8)
                genes[free] = choice
                if bool(self.fits(genes[None])[0]):
                    found[str(self.space.candidates[choice])] = genes
        return found
