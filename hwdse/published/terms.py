"""What predicted latencies and energies of rows are made of, as arrays: a fit changes factors, not layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hwdse.cost.energy import mac_energy_mj, traffic_energy_mj
from hwdse.cost.latency import beside_layers_ms, compute_ms, memory_ms, table_entry
from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.graph import LayerGraph
from hwdse.hardware import HardwareProfile
from hwdse.hardware.profile import CALIBRATED_CLASSES
from hwdse.hardware.schema import Calibration
from hwdse.published.rows import PublishedRow

__all__ = ["Terms", "Unpriceable", "terms_of"]

Vector = NDArray[np.float64]
MEASURED_FACTORS = ("float_layers", "integer_layers", "conversions", "nodes")


@dataclass(frozen=True)
class Unpriceable:
    """A row that the profile does not predict, and why."""

    row: PublishedRow
    reason: str


@dataclass(frozen=True, eq=False)
class Terms:
    """Times and energies of rows on an uncalibrated profile.

    Attributes
    ----------
    rows
        The rows, ``n`` of them.
    latencies_ms, energies_mj
        Published, ``(n,)``; NaN where no energy is.
    macs
        MACs of every row's network, ``(n,)``.
    starts
        First layer of every row, ``(n,)``.
    compute_ms, traffic_ms, table_ms
        Of every layer of every row, ``(layers,)``: either an entry of the table, or MACs and traffic.
    overheads
        How many times a layer takes the overhead per layer, ``(layers,)``: once or not at all, times its own factor.
    classes, precisions
        Name of the calibration's factor of its class (empty for none), and its precision, ``(layers,)``.
    nodes
        Operators without MACs of each row that take the overhead of a layer, ``(n,)``.
    beside_ms
        Other time between layers, ``(n,)``.
    dynamic_mj
        Energy of MACs and traffic, ``(n,)``.
    power_mw
        Power that counts for the whole time.
    us_per_layer, us_per_inference
        Of the profile.
    """

    rows: tuple[PublishedRow, ...]
    latencies_ms: Vector
    energies_mj: Vector
    macs: Vector
    starts: NDArray[np.intp]
    compute_ms: Vector
    traffic_ms: Vector
    table_ms: Vector
    overheads: Vector
    classes: NDArray[np.str_]
    precisions: NDArray[np.str_]
    nodes: Vector
    beside_ms: Vector
    dynamic_mj: Vector
    power_mw: float
    us_per_layer: float
    us_per_inference: float

    @property
    def networks(self) -> NDArray[np.str_]:
        """Network of every row, ``(n,)``."""
        return np.array([row.network for row in self.rows])

    def latency_ms(self, values: Mapping[str, float]) -> Vector:
        """Return the predicted latencies ``(n,)`` with factors and overheads by the keys of ``[calibration]``.

        A precision's factor has its precision as key; what is absent is as in the profile.
        """
        compute = self.compute_ms * values.get("compute", 1.0)
        scale = np.ones(len(compute))
        for name, value in values.items():
            compute[self.classes == name] *= value
            scale[self.precisions == name] *= value
        layers = np.maximum(compute, self.traffic_ms * values.get("traffic", 1.0)) + self.table_ms
        per_layer = values.get("us_per_layer", self.us_per_layer) * 1e-3
        layers += self.overheads * per_layer
        once = values.get("us_per_inference", self.us_per_inference) * 1e-3
        return np.add.reduceat(layers * scale, self.starts) + self.nodes * per_layer + self.beside_ms + once

    def energy_mj(self, values: Mapping[str, float]) -> Vector:
        """Return the predicted energies ``(n,)``."""
        power = self.power_mw * self.latency_ms(values) * 1e-3
        return (self.dynamic_mj + power) * values.get("energy", 1.0)

    def take(self, kept: NDArray[np.bool_]) -> Terms:
        """Return the terms of the rows where ``kept`` ``(n,)`` is True."""
        ends = np.append(self.starts[1:], len(self.compute_ms))
        chosen = np.flatnonzero(kept)
        layers = np.concatenate([np.arange(self.starts[i], ends[i]) for i in chosen]).astype(np.intp)
        lengths = (ends - self.starts)[chosen]
        per_row = ("latencies_ms", "energies_mj", "macs", "nodes", "beside_ms", "dynamic_mj")
        per_layer = ("compute_ms", "traffic_ms", "table_ms", "overheads", "classes", "precisions")
        return replace(
            self,
            rows=tuple(self.rows[i] for i in chosen),
            starts=np.append(0, np.cumsum(lengths)[:-1]).astype(np.intp),
            **{name: getattr(self, name)[chosen] for name in per_row},
            **{name: getattr(self, name)[layers] for name in per_layer},
        )


def terms_of(
    profile: HardwareProfile, rows: Sequence[PublishedRow], graph_of: Callable[[str], LayerGraph]
) -> tuple[Terms, tuple[Unpriceable, ...]]:
    """Return the terms of the rows that ``profile`` predicts, without what a fit to such rows finds, and the others.

    Factors in its calibration that runs on the device itself gave (of float and integer layers, of conversions, of
    nodes) stay.

    Parameters
    ----------
    profile
        The device.
    rows
        Published figures.
    graph_of
        Gives the layers of a network by its name.

    Raises
    ------
    InputError
        If no row is predicted, or a network is not known.
    """
    calibration = profile.spec.calibration
    own = Calibration.model_validate({key: getattr(calibration, key, None) for key in MEASURED_FACTORS})
    bare = HardwareProfile(profile.spec.model_copy(update={"calibration": own}), profile.table)
    graphs = {row.network: graph_of(row.network) for row in rows}  # a network that is not known is an error
    found: list[_RowTerms] = []
    failed: list[Unpriceable] = []
    for row in rows:
        try:
            found.append(_row_terms(bare, row, graphs[row.network]))
        except InputError as error:
            failed.append(Unpriceable(row, str(error)))
    if not found:
        raise InputError(f"expected a row that {profile.name} predicts, got none: {failed[0].reason}")
    return _collected(bare, found), tuple(failed)


@dataclass
class _RowTerms:
    """The terms of one row, with lists over its layers."""

    row: PublishedRow
    compute_ms: list[float]
    traffic_ms: list[float]
    table_ms: list[float]
    overheads: list[float]
    classes: list[str]
    precisions: list[str]
    macs: float
    nodes: float
    beside_ms: float
    dynamic_mj: float = 0.0


def _row_terms(profile: HardwareProfile, row: PublishedRow, graph: LayerGraph) -> _RowTerms:
    """Return the terms of one row.

    Raises
    ------
    InputError
        If the device does not run a layer at its precision, or the row does not fit the network.
    """
    precisions = row.precisions(graph)
    overhead = profile.spec.overhead
    nodes = float(len(graph.nodes)) if overhead is not None and overhead.counts_nodes else 0.0
    beside = _beside_ms(profile, graph, precisions)
    macs = float(sum(layer.macs for layer in graph.layers))
    found = _RowTerms(row, [], [], [], [], [], list(map(str, precisions)), macs, nodes, beside)
    for layer, precision in zip(graph.layers, precisions, strict=True):
        rate = profile.rate(layer, precision)
        if rate is None:
            raise InputError(
                f"expected a precision that {profile.name} supports for {layer.name} of {row.network} "
                f"({layer.op_class}), got {precision}"
            )
        entry = table_entry(layer, precision, profile)
        factor = profile.layer_factor(layer, precision)
        found.compute_ms.append(0.0 if entry is not None else compute_ms(layer, rate, profile) * factor)
        found.traffic_ms.append(0.0 if entry is not None else memory_ms(layer, rate, profile) * factor)
        found.table_ms.append(entry.latency_ms * factor if entry is not None else 0.0)
        found.overheads.append(factor if entry is None or entry.scope == "kernel" else 0.0)
        found.classes.append(CALIBRATED_CLASSES.get(layer.op_class, ""))
        found.dynamic_mj += mac_energy_mj(layer, rate, profile) + traffic_energy_mj(layer, rate, profile)
    return found


def _beside_ms(profile: HardwareProfile, graph: LayerGraph, precisions: Sequence[Precision]) -> float:
    """Return the time between layers, without the overhead per inference."""
    candidates = tuple(dict.fromkeys(precisions))
    beside = beside_layers_ms(graph, profile, candidates)
    chosen = [candidates.index(precision) for precision in precisions]
    once_us = profile.inference_us + profile.nodes_us(len(graph.nodes))
    total = beside.constant - once_us * 1e-3 + sum(beside.values[i, c] for i, c in enumerate(chosen))
    if beside.switches is not None:
        pairs = beside.pairs if beside.pairs is not None else graph.edges
        total += sum(beside.switches[e, chosen[a], chosen[b]] for e, (a, b) in enumerate(pairs))
    return float(total)


def _collected(profile: HardwareProfile, found: Sequence[_RowTerms]) -> Terms:
    """Return the terms of all rows as arrays."""
    lengths = [len(row.compute_ms) for row in found]
    energies = [row.row.energy_mj if row.row.energy_mj is not None else np.nan for row in found]
    return Terms(
        rows=tuple(row.row for row in found),
        latencies_ms=np.array([row.row.latency_ms for row in found]),
        energies_mj=np.array(energies, dtype=np.float64),
        macs=np.array([row.macs for row in found]),
        starts=np.append(0, np.cumsum(lengths)[:-1]).astype(np.intp),
        compute_ms=np.concatenate([row.compute_ms for row in found]),
        traffic_ms=np.concatenate([row.traffic_ms for row in found]),
        table_ms=np.concatenate([row.table_ms for row in found]),
        overheads=np.concatenate([row.overheads for row in found]),
        classes=np.concatenate([row.classes for row in found]),
        precisions=np.concatenate([row.precisions for row in found]),
        nodes=np.array([row.nodes for row in found]),
        beside_ms=np.array([row.beside_ms for row in found]),
        dynamic_mj=np.array([row.dynamic_mj for row in found]),
        power_mw=profile.power_mw,
        us_per_layer=profile.layer_us,
        us_per_inference=profile.inference_us,
    )
