"""What a layer's latency is spent on: MACs, a memory level, overhead, or an entry of a measured table."""

from __future__ import annotations

from hwdse.cost.latency import compute_ms, overhead_ms, table_entry, traffic_ms
from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.graph import Layer
from hwdse.hardware import HardwareProfile

__all__ = ["COMPUTE", "OVERHEAD", "TABLE", "resources_ms"]

COMPUTE, OVERHEAD, TABLE = "compute", "overhead", "table"


def resources_ms(layer: Layer, precision: Precision, profile: HardwareProfile) -> dict[str, float]:
    """Return the latency of a layer by what bounds it; the values sum to the layer's latency.

    Keys are ``compute`` or the name of the memory level whose traffic takes longer, ``overhead``, and ``table`` where
    the latency is a table's.

    Raises
    ------
    InputError
        If the device does not run the layer at this precision.
    """
    rate = profile.rate(layer, precision)
    if rate is None:
        raise InputError(f"expected a precision that {profile.name} supports for {layer.name}, got {precision}")
    factor = profile.layer_factor(layer, precision)
    entry = table_entry(layer, precision, profile)
    if entry is not None:
        spent = {TABLE: entry.latency_ms, OVERHEAD: overhead_ms(profile) if entry.scope == "kernel" else 0.0}
    else:
        bounds = {COMPUTE: compute_ms(layer, rate, profile), **traffic_ms(layer, rate, profile)}
        slowest = max(bounds, key=bounds.__getitem__)
        spent = {slowest: bounds[slowest], OVERHEAD: overhead_ms(profile)}
    return {name: time * factor for name, time in spent.items() if time > 0.0}
