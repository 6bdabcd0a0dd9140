"""One device of a study: its design space, its predicted front, and what was measured that it can run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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

__all__ = ["LOSS", "DeviceProblem"]

LOSS = Metric("loss_predicted", Reduction.SUM, "Loss (predicted)")
_TABLE_EVALUATIONS = 4000
_ARCHIVE = 1500

Genes = NDArray[np.uint8]


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

    @classmethod
    def of(
        cls,
        graph: LayerGraph,
        profile: HardwareProfile,
        *,
        sensitivity: Sensitivity,
        costs: Sequence[str],
        fixed: Mapping[str, Precision],
        seed: int,
    ) -> DeviceProblem:
        """Build the space of ``graph`` on ``profile`` and search it for the predicted front.

        Parameters
        ----------
        graph, profile
            Network and device.
        sensitivity
            Harm of every (group, candidate) under the device's scheme, by KL divergence.
        costs
            Names of the costs to minimise.
        fixed
            Layers or groups that are not free.
        seed
            Of the search.

        Raises
        ------
        InputError
            If the device runs none of the candidates, or a name is unknown.
        """
        candidates = profile.candidates(sensitivity.candidates)
        if not candidates:
            offered = ", ".join(map(str, profile.precisions))
            given = ", ".join(map(str, sensitivity.candidates))
            raise InputError(f"expected precisions that {profile.name} supports ({offered}), got {given}; add one")
        objectives = tuple(metric_column(name) for name in costs)
        limits = memory_limits(profile)
        needed = [*DEFAULT_METRICS, *(name for name in (*costs, *limits) if name not in DEFAULT_METRICS)]
        table = cost_table(graph, profile, candidates, metrics=needed)
        chosen = [sensitivity.candidates.index(c) for c in candidates]
        space = DesignSpace.from_costs(graph, table, fixed=fixed)
        space = space.with_metric(LOSS, sensitivity.scores["kl"][:, chosen])
        problem = cls(profile, graph, space, objectives, limits)
        problem._search(np.random.default_rng(seed), costs)
        return problem

    def _search(self, rng: np.random.Generator, names: Sequence[str]) -> None:
        """Fill the archive: exact fronts of loss against each cost, and NSGA-II over all of them together."""
        sample = self.space.evaluate(self.space.random(256, rng))
        columns = [self.space.columns.index(c) for c in self.objectives]
        self.warnings = collinear_pairs(sample[:, columns], list(names), device=self.profile.name)
        found = [self.space.random(0, rng)]
        for column in self.objectives:
            if self._adds_up(column):
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

    def _adds_up(self, column: str) -> bool:
        """Return True if ``column`` is a plain sum over groups, which the exact search needs."""
        metric = self.space.columns.index(column)
        return column not in self.space.peaks and not self.space.pairwise[..., metric].any()

    def _points(self, genes: Genes) -> NDArray[np.float64]:
        """Return predicted loss and objectives ``(n, 1 + objectives)``."""
        values = self.space.evaluate(genes)
        return values[:, [self.space.columns.index(c) for c in (LOSS.name, *self.objectives)]]

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
            fits &= values[:, self.space.columns.index(column)] <= limit
        return fits

    def bits(self, genes: NDArray[np.integer]) -> str:
        """Return one configuration's precisions by layer, separated by spaces."""
        return self.space.config(genes, self.graph).bits

    def genes_of(self, bits: str) -> Genes | None:
        """Return the genes of a configuration given by its bits; ``None`` if the device cannot run it."""
        index = {str(candidate): i for i, candidate in enumerate(self.space.candidates)}
        texts = dict(zip(self.graph.layer_index, bits.split(), strict=True))
        genes = np.zeros(len(self.space.groups), dtype=np.uint8)
        for g, group in enumerate(self.space.groups):
            choice = index.get(texts[group.layers[0]])
            if choice is None or not self.space.allowed[g, choice]:
                return None
            genes[g] = choice
        return genes if bool(self.fits(genes[None])[0]) else None

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
