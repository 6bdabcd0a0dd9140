"""A hardware profile: what a device supports, how fast it is, what it holds, and how far its figures can be trusted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from hwdse.formats import NumberFormat, Precision, Scheme
from hwdse.graph import Layer
from hwdse.hardware.cycles import CYCLE_MODELS
from hwdse.hardware.lut import LatencyTable
from hwdse.hardware.quantity import Kind
from hwdse.hardware.rate import OP_CLASSES, OpClass, Rate
from hwdse.hardware.schema import Conversion, Memory, NodeTime, ProfileFile, Tile

__all__ = ["CALIBRATED_CLASSES", "HardwareProfile"]

BEYOND = 5.0
"""How many times smaller or larger than the networks it was found from a network may be for a claim to hold."""

UNCHECKED = 1.5
"""Factor by which the speed of a precision may be off that has neither published figures nor an interval."""

CALIBRATED_CLASSES: Mapping[str, str] = {
    "pointwise": "pointwise",
    "depthwise": "depthwise",
    "grouped": "depthwise",
    "linear": "linear",
    "matmul": "linear",
}
"""The calibration's factor of a class of operators."""


@dataclass(frozen=True)
class HardwareProfile:
    """A device as the cost models see it.

    Latency, energy and activation memory are those of one inference of one batch of :attr:`batch` inputs.

    Attributes
    ----------
    spec
        Everything in the file, with the kind and source of each number.
    table
        Latencies by layer shape; empty where the profile has none.
    """

    spec: ProfileFile
    table: LatencyTable

    def __repr__(self) -> str:
        return f"<HardwareProfile {self.name}: {self.title}; {len(self.precisions)} precisions>"

    @property
    def name(self) -> str:
        """The name it is loaded by."""
        return self.spec.name

    @property
    def title(self) -> str:
        """The name for people."""
        return self.spec.title

    @property
    def batch(self) -> int:
        """Inputs per inference."""
        return self.spec.batch

    @property
    def memories(self) -> tuple[Memory, ...]:
        """Memory levels."""
        return self.spec.memories

    @property
    def tile(self) -> Tile | None:
        """Sizes that layers are padded to, if any."""
        return self.spec.tile

    @cached_property
    def scheme(self) -> Scheme:
        """How numbers are represented."""
        return self.spec.scheme.scheme()

    @property
    def has_measured_table(self) -> bool:
        """True if some latencies were measured layer by layer; if not, every figure is an order of magnitude."""
        return any(entry.kind is Kind.MEASURED for entry in self.table.entries.values())

    @property
    def accuracy_note(self) -> str:
        """One sentence to show wherever the device's figures are shown."""
        return f"{self.origin_note}; {self.accuracy_claim}" if self.spec.accuracy is not None else self.origin_note

    @property
    def origin_note(self) -> str:
        """What latencies come from: a measured table, or a closed form."""
        if not self.has_measured_table:
            return f"order of magnitude: {self.name} has no measured table, its figures come from a closed form"
        return (
            f"{len(self.table)} layer shapes of {self.name} are from a measured table (batch of {self.batch}), the "
            "others from a closed form: an order of magnitude"
        )

    @property
    def accuracy_claim(self) -> str:
        """What the profile says of its own predictions for whole networks, in words; empty if it says nothing."""
        accuracy = self.spec.accuracy
        if accuracy is None:
            return ""
        interval = f"90 % interval: a factor of {accuracy.latency_factor.value:.3g} either way"
        if accuracy.rows is None or accuracy.networks is None:
            return f"{interval}, by analogy" if accuracy.basis == "analogy" else interval
        seen = {"fitted": "that the fit saw", "unfitted": "that nothing was fitted to"}.get(
            accuracy.basis, "each predicted from the others"
        )
        latencies = "published latency" if accuracy.rows.value == 1 else "published latencies"
        networks = "network" if accuracy.networks.value == 1 else "networks"
        counted = f"{accuracy.rows.value} {latencies} of {accuracy.networks.value} {networks}"
        closer = "" if self.has_measured_table else "where it could be checked it is closer, "
        return f"{closer}{interval}, from {counted} {seen}"

    def claims_for(self, macs: int) -> bool:
        """Return whether the claim of accuracy is about networks of ``macs`` MACs.

        True from a fifth of the smallest network that it was found from to five times the largest, and where the
        claim names none.
        """
        accuracy = self.spec.accuracy
        if accuracy is None or accuracy.smallest_mmacs is None or accuracy.largest_mmacs is None:
            return True
        low, high = accuracy.smallest_mmacs.value / BEYOND, accuracy.largest_mmacs.value * BEYOND
        return low <= macs * 1e-6 <= high

    def uncertainty(self, column: str, candidates: Iterable[Precision] = ()) -> float | None:
        """Return the factor that 90 % of figures lie within, by cost column; ``None`` where the profile has none.

        Latency and energy are uncertain, in one direction for all configurations of a network; the rest is counted.
        Where one of ``candidates`` was not held against published figures, the factor is wider by that of its rate.
        """
        accuracy = self.spec.accuracy
        found = None
        if accuracy is not None and column.startswith("latency"):
            found = accuracy.latency_factor
        if accuracy is not None and column.startswith("energy"):
            found = accuracy.energy_factor
        return found.value * self.widening(candidates) if found is not None else None

    def unchecked(self, candidates: Iterable[Precision]) -> tuple[Precision, ...]:
        """Return those of ``candidates`` that the claim of accuracy has no figures of, though it names its precisions.

        What runs in the container of a precision that it has figures of is as good as that.
        """
        accuracy = self.spec.accuracy
        if accuracy is None or not accuracy.precisions:
            return ()
        stored = {rate.precision: rate.stored for rate in self.rates}
        return tuple(c for c in candidates if c in stored and str(stored[c]) not in accuracy.precisions)

    def widening(self, candidates: Iterable[Precision]) -> float:
        """Return by how much rates of precisions that no figure was published of may be off; 1 without any."""
        others = set(self.unchecked(candidates))
        speeds = [rate.gmac_per_s or rate.macs_per_cycle for rate in self.rates if rate.precision in others]
        ratios = [max((q.high or 0) / q.value, q.value / q.low) if q and q.low else UNCHECKED for q in speeds]
        return max([1.0, *ratios])

    @cached_property
    def rates(self) -> tuple[Rate, ...]:
        """Rates, one per pair of formats, in the file's order."""
        return tuple(pair for rate in self.spec.rates for pair in rate.pairs)

    @cached_property
    def _rates(self) -> dict[tuple[str, Precision], list[Rate]]:
        """Rates of each class and pair: those for some kernels first, then those that name the class, then others."""
        found: dict[tuple[str, Precision], list[Rate]] = {}
        for rate in sorted(self.rates, key=lambda rate: (rate.kernels is None, rate.op_classes is None)):
            for op_class in rate.op_classes or self._general_classes(rate):
                found.setdefault((op_class, rate.precision), []).append(rate)
        return found

    def _general_classes(self, rate: Rate) -> tuple[OpClass, ...]:
        """Return the classes of a rate that names none."""
        if self.spec.efficiency is None or rate.efficiency is not None:
            return OP_CLASSES
        return tuple(name for name in OP_CLASSES if getattr(self.spec.efficiency, name) is not None)

    @cached_property
    def unnamed(self) -> dict[OpClass, tuple[Precision, ...]]:
        """Classes that ``[efficiency]`` does not name, and the precisions that they are not run at for that alone."""
        general = [rate.precision for rate in self.rates if rate.op_classes is None]
        missing = {name: tuple(p for p in general if (name, p) not in self._rates) for name in OP_CLASSES}
        return {name: precisions for name, precisions in missing.items() if precisions}

    def unnamed_notes(self, classes: Iterable[str], candidates: Iterable[Precision]) -> tuple[str, ...]:
        """Return a sentence for each class that some of ``candidates`` do not run since ``[efficiency]`` lacks it."""
        wanted, offered = set(classes), set(candidates)
        found = {name: [str(p) for p in own if p in offered] for name, own in self.unnamed.items() if name in wanted}
        return tuple(
            f"{self.name} runs no {name} layer at {', '.join(texts)}, since [efficiency] has no share for {name}"
            for name, texts in found.items()
            if texts
        )

    @property
    def op_classes(self) -> tuple[OpClass, ...]:
        """Classes of operators that the device runs at some precision."""
        return tuple(name for name in OP_CLASSES if any(op_class == name for op_class, _ in self._rates))

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Precisions that the device runs for some class of operators, in the file's order."""
        return tuple(dict.fromkeys(rate.precision for rate in self.rates))

    def candidates(self, precisions: Iterable[Precision]) -> tuple[Precision, ...]:
        """Return those of ``precisions`` that the device runs for some class of operators, in their order."""
        return tuple(precision for precision in precisions if precision in self.precisions)

    def rate(self, layer: Layer, precision: Precision) -> Rate | None:
        """Return the rate of ``layer`` at ``precision``, or ``None`` if the device does not support it."""
        return next((rate for rate in self._rates.get((layer.op_class, precision), ()) if rate.runs(layer)), None)

    def supports(self, layer: Layer, precision: Precision) -> bool:
        """Return whether the device runs ``layer`` at ``precision``, natively or emulated."""
        return self.rate(layer, precision) is not None

    def unit(self, layer: Layer, precision: Precision) -> str | None:
        """Return the unit that runs ``layer`` at ``precision``; ``None`` for the main one."""
        rate = self.rate(layer, precision)
        return rate.unit if rate is not None else None

    def emulated(self, layer: Layer, precision: Precision) -> bool:
        """Return whether a wider container runs ``layer`` at ``precision``."""
        rate = self.rate(layer, precision)
        return rate is not None and rate.container is not None

    def stored(self, layer: Layer, precision: Precision) -> Precision:
        """Return the formats that ``layer`` is stored and run in: its container's where it is emulated."""
        rate = self.rate(layer, precision)
        return precision if rate is None else rate.stored

    def macs_ms(self, layer: Layer, rate: Rate, macs: float) -> float:
        """Return the time that ``macs`` of ``layer`` take at ``rate``, of one sample, without calibration.

        A closed form of cycles knows the layer's padding and takes no notice of ``macs``.
        """
        share = self._efficiency(layer, rate)
        if rate.gmac_per_s is not None:
            return macs / (rate.gmac_per_s.value * share) * 1e-6
        assert self.spec.clock_mhz is not None  # checked when it was read
        if rate.cycles is not None:
            cycles = CYCLE_MODELS[rate.cycles.model](layer, rate.precision)
        else:
            assert rate.macs_per_cycle is not None
            cycles = macs / rate.macs_per_cycle.value
        return cycles / (self.spec.clock_mhz.value * share) * 1e-3

    def pj_per_mac(self, rate: Rate) -> float:
        """Return the energy of one MAC at ``rate`` in pJ; 0 where the power alone gives the energy."""
        own = rate.pj_per_mac or (self.spec.power.pj_per_mac if self.spec.power is not None else None)
        return own.value if own is not None else 0.0

    @cached_property
    def _conversions(self) -> dict[tuple[str, str, str], Conversion]:
        """Entry of each class and pair of formats; one that names the class comes before a general one."""
        found: dict[tuple[str, str, str], Conversion] = {}
        for entry in sorted(self.spec.conversions, key=lambda entry: entry.op_classes is None):
            for op_class in entry.op_classes or OP_CLASSES:
                found.setdefault((op_class, entry.from_, entry.to), entry)
        return found

    def conversion(self, source: NumberFormat, target: NumberFormat, layer: Layer) -> Conversion | None:
        """Return what turning a tensor from ``source`` into ``target`` takes, or ``None`` if that is free.

        ``layer`` is the one whose integer format it is. Signs are the scheme's and make no difference.
        """
        return self._conversions.get((layer.op_class, _signless(source), _signless(target)))

    @cached_property
    def _nodes(self) -> dict[str, dict[str, NodeTime]]:
        found: dict[str, dict[str, NodeTime]] = {}
        for entry in self.spec.nodes:
            found.setdefault(entry.operator, {})[entry.activations] = entry
        return found

    def node_times(self, operator: str) -> Mapping[str, NodeTime]:
        """Return the times of an operator without MACs by activation format; empty if it is free in any format."""
        return self._nodes.get(operator, {})

    @property
    def has_boundaries(self) -> bool:
        """True if what lies between layers has times of its own: conversions by direction, operators without MACs."""
        return bool(self.spec.conversions or self.spec.nodes)

    def layer_term(self, layer: Layer, precision: Precision) -> Literal["float_layers", "integer_layers"]:
        """Return the term of the latency that a layer belongs to: which of the calibration's factors is its own."""
        stored = self.stored(layer, precision)
        is_integer = stored.weights.is_integer or stored.activations.is_integer
        return "integer_layers" if is_integer else "float_layers"

    def factor(self, term: Literal["float_layers", "integer_layers", "conversions", "nodes"]) -> float:
        """Return the calibration's factor of a term of the latency; 1 without calibration."""
        return self._calibrated(term)

    def compute_factor(self, layer: Layer) -> float:
        """Return the calibration's factor of the time of a layer's MACs: that of its class, times that of all."""
        term = CALIBRATED_CLASSES.get(layer.op_class)
        return self._calibrated("compute") * (self._calibrated(term) if term is not None else 1.0)

    def precision_factor(self, precision: Precision) -> float:
        """Return the calibration's factor of the latencies of layers at a precision."""
        calibration = self.spec.calibration
        own = calibration.precisions.get(str(precision)) if calibration is not None else None
        return own.value if own is not None else 1.0

    def layer_factor(self, layer: Layer, precision: Precision) -> float:
        """Return the calibration's factor of the latency of a layer: that of its term times that of its precision."""
        return self.factor(self.layer_term(layer, precision)) * self.precision_factor(precision)

    @property
    def traffic_factor(self) -> float:
        """The calibration's factor of the time of memory traffic."""
        return self._calibrated("traffic")

    @property
    def energy_factor(self) -> float:
        """The calibration's factor of the energy."""
        return self._calibrated("energy")

    @property
    def layer_us(self) -> float:
        """Microseconds that every layer takes beside MACs and traffic: the calibration's, else the overhead's."""
        return self._overhead_us("us_per_layer")

    def nodes_us(self, nodes: int) -> float:
        """Return the microseconds that so many operators without MACs take, where they take the overhead of a layer."""
        overhead = self.spec.overhead
        return nodes * self.layer_us if overhead is not None and overhead.counts_nodes else 0.0

    def _calibrated(self, term: str) -> float:
        found = getattr(self.spec.calibration, term, None)
        return found.value if found is not None else 1.0

    def _overhead_us(self, key: str) -> float:
        found = (getattr(section, key, None) for section in (self.spec.calibration, self.spec.overhead))
        return next((quantity.value for quantity in found if quantity is not None), 0.0)

    @property
    def inference_us(self) -> float:
        """Microseconds that an inference takes beside all else: the calibration's, else the overhead's, else 0."""
        return self._overhead_us("us_per_inference")

    @property
    def has_energy(self) -> bool:
        """True if the profile says anything about energy."""
        return self.spec.power is not None or any(rate.pj_per_mac is not None for rate in self.rates)

    @property
    def power_mw(self) -> float:
        """Power in mW that counts for the whole time: active, or static beside the energies per MAC and byte."""
        power = self.spec.power
        drawn = (power.active_mw or power.static_mw) if power is not None else None
        return drawn.value if drawn is not None else 0.0

    def _efficiency(self, layer: Layer, rate: Rate) -> float:
        """Return the achieved share of ``rate``; 1 where the rate is an achieved one."""
        if rate.efficiency is not None:
            return rate.efficiency.value
        if self.spec.efficiency is None:
            return 1.0
        share = getattr(self.spec.efficiency, layer.op_class)
        assert share is not None
        return float(share.value)


def _signless(number_format: NumberFormat) -> str:
    """Return the name of a format without what the scheme decides.

    >>> from hwdse.formats import parse
    >>> _signless(parse("uint8")), _signless(parse("fp32"))
    ('int8', 'fp32')
    """
    return number_format.name if number_format.is_signed else number_format.name[1:]
