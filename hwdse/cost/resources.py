"""What a layer's latency is spent on: MACs, a memory level, overhead, or an entry of a measured table."""

from __future__ import annotations

from hwdse.cost.latency import COMPUTE, OVERHEAD, TABLE, spent_ms
from hwdse.formats import Precision
from hwdse.graph import Layer
from hwdse.hardware import HardwareProfile

__all__ = ["COMPUTE", "OVERHEAD", "TABLE", "resources_ms"]


def resources_ms(layer: Layer, precision: Precision, profile: HardwareProfile) -> dict[str, float]:
    """Return the latency of a layer by what bounds it; the values sum to the layer's latency.

    Keys are ``compute`` or the name of the memory level whose traffic takes longer, ``overhead``, and ``table`` where
    the latency is a table's.

    Raises
    ------
    InputError
        If the device does not run the layer at this precision.
    """
    factor = profile.layer_factor(layer, precision)
    spent = spent_ms(layer, precision, profile)
    return {name: time * factor for name, time in spent.items() if time > 0.0}
