"""Latency of one inference of one batch: from a measured table where one has the shape, else from a roofline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from functools import cache
from math import prod

import numpy as np
from numpy.typing import NDArray

from hwdse.cost.between import between_ms
from hwdse.cost.model import MetricCosts, per_layer
from hwdse.cost.switch import switch_costs_ms
from hwdse.cost.table import Metric, Reduction
from hwdse.cost.traffic import level_bytes, spill_ms
from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.graph import Layer, LayerGraph
from hwdse.hardware import Entry, HardwareProfile, Rate, Tile

__all__ = [
    "MODEL",
    "LatencyModel",
    "Origin",
    "beside_layers_ms",
    "compute_ms",
    "layer_latency_ms",
    "lone_layer_ms",
    "memory_ms",
    "overhead_ms",
    "padded_macs",
    "provenance",
    "spent_ms",
    "spilled_ms",
    "table_entry",
    "traffic_ms",
]


COMPUTE, OVERHEAD, TABLE = "compute", "overhead", "table"
"""What a layer's latency is spent on, beside the names of memory levels."""


class Origin(StrEnum):
    """Where a layer's latency comes from."""

    TABLE = "table"
    CLOSED_FORM = "closed form"
    UNSUPPORTED = "unsupported"


def padded_macs(layer: Layer, tile: Tile | None) -> float:
    """Return the MACs per sample that the hardware spends, each dimension rounded up to its tile.

    ``MACs x ceil(Ci / Ti) Ti / Ci x ceil(Co / To) To / Co x ceil(Ho / Th) Th / Ho x ceil(Wo / Tw) Tw / Wo``, channels
    per group, as in the cycle models of DORY and PLiNIO ([PLiNIO]_). Of a depthwise layer all channels together are
    rounded up to the input channels' tile. Only convolutions have an output height and width.
    """
    if tile is None:
        return float(layer.macs)
    outputs = layer.output_channels if layer.weight is not None else layer.output_shape[-1]
    if layer.op_class == "depthwise":
        dimensions = [(outputs, tile.input_channels)]
    else:
        dimensions = [(layer.input_channels // layer.groups, tile.input_channels)]
        dimensions.append((outputs // layer.groups, tile.output_channels))
    if layer.op == "conv":
        sizes = (tile.output_width, tile.output_height)
        dimensions += zip(reversed(layer.output_shape[1:]), sizes, strict=False)
    return layer.macs * prod(-(-size // to.value) * to.value / size for size, to in dimensions if to is not None)


def compute_ms(layer: Layer, rate: Rate, profile: HardwareProfile) -> float:
    """Return the time of a layer's MACs: padded MACs of the batch / (rate x efficiency of its class).

    The tile is the main unit's; another unit computes no padding. A closed form of cycles takes the place of MACs and
    rate. The calibration's factors are in it.
    """
    macs = padded_macs(layer, profile.tile if rate.unit is None else None)
    return profile.macs_ms(layer, rate, macs) * profile.batch * profile.compute_factor(layer)


def traffic_ms(layer: Layer, rate: Rate, profile: HardwareProfile) -> dict[str, float]:
    """Return the time of a layer's traffic by memory level: bytes of the batch / bandwidth, calibrated."""
    return {
        memory.name: profile.traffic_factor
        * level_bytes(layer, rate.stored, memory, batch=profile.batch)
        / memory.bandwidth_gb_per_s.value
        * 1e-6
        for memory in profile.memories
        if memory.bandwidth_gb_per_s is not None
    }


def memory_ms(layer: Layer, rate: Rate, profile: HardwareProfile) -> float:
    """Return the time of a layer's traffic on the slowest memory level."""
    return max(traffic_ms(layer, rate, profile).values(), default=0.0)


def overhead_ms(profile: HardwareProfile) -> float:
    """Return the time that every layer adds beside its MACs and traffic."""
    return profile.layer_us * 1e-3


def layer_latency_ms(layer: Layer, precision: Precision, profile: HardwareProfile) -> float:
    """Return the latency of a layer: what it takes alone, times the calibration's factors of its sort and precision.

    Raises
    ------
    InputError
        If the device does not run the layer at this precision.
    """
    return lone_layer_ms(layer, precision, profile) * profile.layer_factor(layer, precision)


def lone_layer_ms(layer: Layer, precision: Precision, profile: HardwareProfile) -> float:
    """Return the latency of a layer alone: its table entry, else ``max(compute, memory levels) + overhead``.

    A table entry of a bare kernel gets the overhead too, one of a whole layer does not. The roofline is that of Vela
    and of [Williams2009]_.

    Raises
    ------
    InputError
        If the device does not run the layer at this precision.
    """
    return sum(spent_ms(layer, precision, profile).values())


def supported_rate(layer: Layer, precision: Precision, profile: HardwareProfile) -> Rate:
    """Return the rate of a layer at a precision.

    Raises
    ------
    InputError
        If the device does not run the layer at this precision.
    """
    rate = profile.rate(layer, precision)
    if rate is None:
        raise InputError(f"expected a precision that {profile.name} supports for {layer.name}, got {precision}")
    return rate


def spent_ms(layer: Layer, precision: Precision, profile: HardwareProfile) -> dict[str, float]:
    """Return the latency of a layer alone by what bounds it: a table entry, or MACs or the slowest level; overhead.

    Raises
    ------
    InputError
        If the device does not run the layer at this precision.
    """
    rate = supported_rate(layer, precision, profile)
    entry = table_entry(layer, precision, profile)
    if entry is not None:
        return {TABLE: entry.latency_ms, OVERHEAD: overhead_ms(profile) if entry.scope == "kernel" else 0.0}
    bounds = {COMPUTE: compute_ms(layer, rate, profile), **traffic_ms(layer, rate, profile)}
    slowest = max(bounds, key=bounds.__getitem__)
    return {slowest: bounds[slowest], OVERHEAD: overhead_ms(profile)}


def provenance(graph: LayerGraph, profile: HardwareProfile, candidates: Sequence[Precision]) -> NDArray[np.str_]:
    """Return ``(layers, candidates)`` of :class:`Origin`: which latencies are from the table."""

    def origin(layer: Layer, candidate: Precision) -> Origin:
        if not profile.supports(layer, candidate):
            return Origin.UNSUPPORTED
        return Origin.CLOSED_FORM if table_entry(layer, candidate, profile) is None else Origin.TABLE

    return np.array([[str(origin(layer, candidate)) for candidate in candidates] for layer in graph.layers])


def table_entry(layer: Layer, precision: Precision, profile: HardwareProfile) -> Entry | None:
    """Return the table entry of a layer: exactly this shape, in the formats that really run."""
    return profile.table.lookup(layer, profile.stored(layer, precision)) if len(profile.table) else None


class LatencyModel:
    """Latency in ms of one inference of one batch."""

    metric = Metric("latency_ms_predicted", Reduction.SUM, "latency per inference of one batch (ms, predicted)")

    def costs(self, graph: LayerGraph, profile: HardwareProfile, candidates: Sequence[Precision]) -> MetricCosts:
        """Return the latencies of the layers, of what lies between them, and the overhead per inference.

        Raises
        ------
        InputError
            If the device has times for what lies between layers and the graph does not say what that is.
        """
        values = per_layer(graph, profile, candidates, cost=lambda layer, p: layer_latency_ms(layer, p, profile))
        beside = beside_layers_ms(graph, profile, candidates)
        return replace(beside, values=values + beside.values)


def beside_layers_ms(graph: LayerGraph, profile: HardwareProfile, candidates: Sequence[Precision]) -> MetricCosts:
    """Return all time that is not a layer's own: format changes, operators without MACs, overhead per inference.

    Raises
    ------
    InputError
        As :meth:`LatencyModel.costs`.
    """
    spilled = spilled_ms(graph, profile, candidates)
    if profile.has_boundaries:
        between = between_ms(graph, profile, candidates)
        between = replace(between, values=between.values + spilled)
    else:
        between = MetricCosts(spilled, switches=switch_costs_ms(graph, profile, candidates))
    once_us = profile.inference_us + profile.nodes_us(len(graph.nodes))
    return replace(between, constant=between.constant + once_us * 1e-3)


def spilled_ms(graph: LayerGraph, profile: HardwareProfile, candidates: Sequence[Precision]) -> NDArray[np.float64]:
    """Return ``(layers, candidates)``: the time of weights that no level has room for; 0 where not supported."""
    values = np.zeros((len(graph.layers), len(candidates)))
    if any(memory.spill_gb_per_s is not None for memory in profile.memories):
        by_format = cache(lambda stored: spill_ms(graph, stored, profile))
        for c, candidate in enumerate(candidates):
            for i, layer in enumerate(graph.layers):
                if (rate := profile.rate(layer, candidate)) is not None:
                    values[i, c] = by_format(rate.stored)[i]
    return values


MODEL = LatencyModel()
