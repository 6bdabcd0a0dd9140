"""One device of a study: its design space, its predicted front, and what was measured that it can run."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwdse.analysis.sensitivity import Sensitivity
from hwdse.cost import (
    Origin,
    collinear_pairs,
    cost_table,
    memory_limits,
    metric_column,
    provenance,
    unpriced,
    worth_of_precisions,
)
from hwdse.cost.model import DEFAULT_METRICS
from hwdse.cost.table import Metric, Reduction
from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.graph import LayerGraph
from hwdse.hardware import HardwareProfile
from hwdse.hardware.schema import Accuracy
from hwdse.infeasible import Infeasible
from hwdse.parts import parts
from hwdse.search.adaptive import predicted_front
from hwdse.search.limits import as_limits, within
from hwdse.search.propose import Belief, Proposer
from hwdse.search.surrogate import Expectation, HarmModel
from hwdse.space import DesignSpace

__all__ = ["LOSS", "DeviceProblem", "Known", "device_space"]

LOSS = Metric("loss_predicted", Reduction.SUM, "Loss (predicted)")

Genes = NDArray[np.uint8]

_AT_ONCE = 4096
"""Configurations whose metrics are computed at once: more would take memory and save no time."""


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
    most = profile.spec.max_layers
    if most is not None and len(graph.layers) > most.value:
        raise InputError(
            f"expected a network of at most {most.value} layers for {profile.name}, got {len(graph.layers)}; take "
            "another device"
        )
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
    chosen
        Index of each candidate among those of the scheme, ``(candidates,)``.
    proposer
        Proposes what to measure, from the predicted front on.
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
    chosen: NDArray[np.int64]
    proposer: Proposer = field(init=False)
    infeasible: Infeasible | None = None
    warnings: tuple[str, ...] = ()
    _known: dict[str, Known | None] = field(default_factory=dict, init=False, repr=False)
    _runnable: tuple[int, NDArray[np.int64], NDArray[np.float64]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._runnable = 0, np.zeros(0, dtype=np.int64), np.zeros((0, len(self.space.columns)))

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
        chosen = np.array([sensitivity.candidates.index(c) for c in space.candidates])
        space = space.with_metric(LOSS, sensitivity.scores[loss][:, chosen])
        problem = cls(profile, graph, space, tuple(map(metric_column, costs)), memory_limits(profile), chosen)
        problem._search(np.random.default_rng(seed), costs)
        return problem

    def _search(self, rng: np.random.Generator, names: Sequence[str]) -> None:
        """Fill the archive, and say which objectives are one and the same."""
        sample = self.space.evaluate(self.space.random(256, rng))
        columns = [self.space.column(c) for c in self.objectives]
        self.warnings = (
            *collinear_pairs(sample[:, columns], list(names), device=self.profile.name),
            *unpriced(self.graph, self.profile, self.space.candidates),
            *self.profile.unnamed_notes((layer.op_class for layer in self.graph.layers), self.space.candidates),
        )
        columns_of_front = (LOSS.name, *self.objectives)
        predicted = predicted_front(self.space, columns_of_front, limits=self.limits, rng=rng)
        if predicted.infeasible is not None:
            levers = ("let layers choose from narrower precisions", "use a device with more memory")
            self.infeasible = replace(predicted.infeasible, levers=levers, origin="is what the device holds")
        self.proposer = Proposer(self.space, columns_of_front, predicted.genes, self.fits)

    @property
    def archive(self) -> Genes:
        """The predicted front over loss and all objectives, ``(n, groups)``."""
        return self.proposer.archive

    @property
    def uncertainty(self) -> Mapping[str, float]:
        """Column to the factor that 90 % of figures lie within, where the profile knows one.

        It is that of precisions that the profile was held against; :attr:`widening` has the others. Empty for a
        network much smaller or larger than those that the profile was held against.
        """
        if not self.profile.claims_for(self._macs):
            return {}
        stated = {column: self.profile.uncertainty(column) for column in self.space.columns}
        return {column: factor for column, factor in stated.items() if factor is not None}

    @property
    def widening(self) -> Mapping[str, float]:
        """Precision to what the factors grow by in a configuration that uses it, where they do."""
        candidates = self.profile.unchecked(self.space.candidates)
        return {str(candidate): self.profile.widening([candidate]) for candidate in candidates}

    @property
    def note(self) -> str:
        """How far the device's latencies can be trusted for this network, in a sentence."""
        accuracy = self.profile.spec.accuracy
        if accuracy is None:
            return self._table_note
        if not self.profile.claims_for(self._macs):
            return f"{self._table_note}; no interval: {self._unlike(accuracy)}"
        note = f"{self._table_note}; {self.profile.accuracy_claim}"
        unchecked = self.profile.unchecked(self.space.candidates)
        if unchecked:
            wider = self.profile.uncertainty("latency_ms_predicted", unchecked)
            names = ", ".join(map(str, unchecked))
            note += f"; held against {', '.join(accuracy.precisions)} alone: a factor of {wider:.3g} with {names}"
        return note

    def _unlike(self, accuracy: Accuracy) -> str:
        """Return how this network differs from those that the profile was held against, in words."""
        assert accuracy.smallest_mmacs is not None
        assert accuracy.largest_mmacs is not None
        ends = (accuracy.smallest_mmacs.value, accuracy.largest_mmacs.value, self._macs * 1e-6)
        low, high, own = (f"{value:,.0f}" if value >= 100 else f"{value:.2g}" for value in ends)
        return f"held against networks of {low} to {high} million MACs, and this one has {own}"

    @property
    def _macs(self) -> int:
        """MACs of the network."""
        return sum(layer.macs for layer in self.graph.layers)

    @property
    def _table_note(self) -> str:
        """How many layers are in the profile's table, in a sentence."""
        if not self.profile.has_measured_table:
            return self.profile.origin_note
        origins = provenance(self.graph, self.profile, self.space.candidates)
        known = int((origins == Origin.TABLE).any(axis=1).sum())
        total, name = len(self.graph.layers), self.profile.name
        where = f"in {name}'s table, batch of {self.profile.batch}"
        if known == total:
            return f"all {total} layers measured: their shapes are {where}"
        if known:
            rest = "the others come from a closed form, an order of magnitude"
            return f"{known} of {total} layers measured: those shapes are {where}; {rest}"
        return f"order of magnitude: no layer's shape is in the measured table of {name}"

    @cached_property
    def worth(self) -> tuple[str, ...]:
        """What narrower precisions buy on the device, and where they do not pay, in sentences."""
        return worth_of_precisions(self.graph, self.profile, self.space.candidates)

    def fits(self, genes: Genes) -> NDArray[np.bool_]:
        """Return ``(n,)``: True where the configuration fits the device's memories."""
        return within(self.space, as_limits(self.space, self.limits), self.space.evaluate(genes))

    def bits(self, genes: NDArray[np.integer]) -> str:
        """Return one configuration's precisions by layer, separated by spaces."""
        return self.space.config(genes, self.graph).bits

    def known(self, bits: str) -> Known | None:
        """Return genes and metrics of a configuration given by its bits; ``None`` if the device cannot run it."""
        if bits not in self._known:
            self.learn([bits])
        return self._known[bits]

    def runnable(self, measured: Collection[str]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return which of the configurations measured under its scheme the device can run, and their metrics.

        Asked again it reads only what is new: they keep their order.

        Returns
        -------
        tuple
            Places ``(n,)`` and metrics ``(n, metrics)``.
        """
        seen, places, metrics = self._runnable
        new = list(islice(measured, seen, None))
        self.learn(new)
        found = [(seen + i, known.metrics) for i, bits in enumerate(new) if (known := self.known(bits)) is not None]
        if found:
            places = np.append(places, [place for place, _ in found])
            metrics = np.concatenate([metrics, np.stack([row for _, row in found])])
        self._runnable = len(measured), places, metrics
        return places, metrics

    def learn(self, configurations: Iterable[str]) -> None:
        """Find out what is known of many configurations at once: one by one takes a hundred times as long."""
        read = {bits: self._read(bits) for bits in configurations if bits not in self._known}
        self._known |= dict.fromkeys(read)
        possible = [(bits, genes) for bits, genes in read.items() if genes is not None]
        for some in parts(possible, _AT_ONCE):
            genes = np.stack([own for _, own in some])
            rows = zip(some, self.space.evaluate(genes), self.fits(genes), strict=True)
            self._known |= {bits: Known(own, metrics) for (bits, own), metrics, runs in rows if runs}

    def _read(self, bits: str) -> Genes | None:
        """Return the genes of bits; ``None`` if a choice is not allowed."""
        texts = bits.split()
        assert len(texts) == len(self.graph.layers)
        genes = np.zeros(len(self.space.groups), dtype=np.uint8)
        for g, layer in enumerate(self._first_layers):
            choice = self._choices.get(texts[layer])
            if choice is None or not self.space.allowed[g, choice]:
                return None
            genes[g] = choice
        return genes

    @cached_property
    def _choices(self) -> dict[str, int]:
        """Place of every candidate by its name."""
        return {str(candidate): i for i, candidate in enumerate(self.space.candidates)}

    @cached_property
    def _first_layers(self) -> list[int]:
        """Place of the first layer of every group."""
        return [self.graph.layer_index[group.layers[0]] for group in self.space.groups]

    def expect(self, model: HarmModel, genes: Genes) -> Expectation:
        """Return the harm to expect of the device's ``genes`` ``(n, groups)`` under the model of its scheme."""
        return model(self.chosen[genes])

    def belief(self, model: HarmModel, measured: Mapping[str, float]) -> Belief:
        """Return what the ``measured`` harms, by bits, say to this device; what it cannot run is known to the model."""
        runnable = [(known.genes, harm) for bits, harm in measured.items() if (known := self.known(bits)) is not None]
        genes = np.array([genes for genes, _ in runnable], dtype=np.uint8).reshape(-1, len(self.space.groups))
        harms = np.array([harm for _, harm in runnable], dtype=np.float64)
        return Belief(genes, harms, lambda asked: self.expect(model, asked), model.corrected[:, self.chosen])

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
