"""What bounds a layer on a device: its place under the roofline that the closed form of the latency is."""

from __future__ import annotations

from dataclasses import dataclass

from hwdse.cost.latency import (
    Origin,
    compute_ms,
    layer_latency_ms,
    overhead_ms,
    supported_rate,
    table_entry,
    traffic_ms,
)
from hwdse.cost.traffic import activation_bytes, level_bytes, weight_bytes
from hwdse.formats import Precision
from hwdse.graph import Layer
from hwdse.hardware import HardwareProfile, Rate

__all__ = ["Bound", "layer_bound"]

PER_MS = 1e-6
"""Billions per second in ones per millisecond, inverted: ``x / ms * PER_MS`` is in 1e9 per second."""


@dataclass(frozen=True)
class Bound:
    """One layer at one precision, for one inference of one batch.

    Attributes
    ----------
    macs
        MACs without padding.
    memory
        Name of the memory level that takes longest; empty where nothing takes time to move.
    memory_bytes
        Bytes moved to and from it; all weights and activations where nothing takes time to move.
    memory_gb_per_s
        Its bandwidth, calibrated; 0 where nothing takes time to move.
    compute_gmac_per_s
        The rate of the pair of formats, calibrated, before the efficiency of the layer's class and padding: no layer
        of that class is faster in the closed form. Where the rate is a closed form of cycles, what it gives here.
    bound_ms
        Time of MACs or of the level, whichever is longer; a measured table's entry where there is one.
    latency_ms
        The same with the overhead per layer.
    origin
        Whether the time is a table's or of the closed form.
    """

    macs: int
    memory: str
    memory_bytes: int
    memory_gb_per_s: float
    compute_gmac_per_s: float
    bound_ms: float
    latency_ms: float
    origin: Origin


def layer_bound(layer: Layer, precision: Precision, profile: HardwareProfile) -> Bound:
    """Return what bounds ``layer`` at ``precision`` on the device, by the roofline of [Williams2009]_.

    Calibrated factors are in all of it, so that where no table has the layer ``macs / bound_ms`` is at most
    ``compute_gmac_per_s`` and at most ``macs / memory_bytes`` times ``memory_gb_per_s``.

    Raises
    ------
    InputError
        If the device does not run the layer at this precision.
    """
    rate = supported_rate(layer, precision, profile)
    factor = profile.layer_factor(layer, precision)
    entry = table_entry(layer, precision, profile)
    levels = {memory.name: memory for memory in profile.memories}
    traffic = traffic_ms(layer, rate, profile)
    slowest = max(filter(traffic.get, traffic), key=traffic.__getitem__, default="")
    moved = weight_bytes(layer, rate.stored) + activation_bytes(layer, rate.stored) * profile.batch
    bandwidth = 0.0
    if slowest:
        moved = level_bytes(layer, rate.stored, levels[slowest], batch=profile.batch)
        quantity = levels[slowest].bandwidth_gb_per_s
        assert quantity is not None  # a level without one has no traffic
        bandwidth = quantity.value / (profile.traffic_factor * factor)
    latency = layer_latency_ms(layer, precision, profile)
    has_overhead = entry is None or entry.scope == "kernel"
    return Bound(
        macs=layer.macs * profile.batch,
        memory=slowest,
        memory_bytes=moved,
        memory_gb_per_s=bandwidth,
        compute_gmac_per_s=_peak_gmac_per_s(layer, rate, profile) / factor,
        bound_ms=latency - (overhead_ms(profile) * factor if has_overhead else 0.0),
        latency_ms=latency,
        origin=Origin.CLOSED_FORM if entry is None else Origin.TABLE,
    )


def _peak_gmac_per_s(layer: Layer, rate: Rate, profile: HardwareProfile) -> float:
    """Return the rate without efficiency and padding, with the calibration of the class."""
    if rate.gmac_per_s is not None:
        return rate.gmac_per_s.value / profile.compute_factor(layer)
    if rate.macs_per_cycle is not None:
        assert profile.spec.clock_mhz is not None  # checked when it was read
        return rate.macs_per_cycle.value * profile.spec.clock_mhz.value * 1e-3 / profile.compute_factor(layer)
    return layer.macs * profile.batch / compute_ms(layer, rate, profile) * PER_MS
