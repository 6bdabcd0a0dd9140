"""Time of a change of activation format that is the same in both directions, of profiles with ``[switch]``."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from hwdse.formats import Precision
from hwdse.graph import LayerGraph
from hwdse.hardware import HardwareProfile

__all__ = ["switch_costs_ms", "switch_ms"]


def switch_ms(elements: int, profile: HardwareProfile) -> float:
    """Return the time to convert a tensor of ``elements`` values to another activation format."""
    switch = profile.spec.switch
    if switch is None:
        return 0.0
    fixed = switch.us.value if switch.us is not None else 0.0
    slope = switch.us_per_melement.value if switch.us_per_melement is not None else 0.0
    return (fixed + slope * elements * 1e-6) * 1e-3


def switch_costs_ms(
    graph: LayerGraph, profile: HardwareProfile, candidates: Sequence[Precision]
) -> NDArray[np.float64] | None:
    """Return ``(edges, candidates, candidates)``: the time where producer and consumer differ in activation format.

    The tensor is the producer's output, of one whole batch. ``None`` where the device switches for free.
    """
    if profile.spec.switch is None:
        return None
    formats = [candidate.activations for candidate in candidates]
    differs = np.array([[a != b for b in formats] for a in formats], dtype=np.float64)
    times = [
        switch_ms(prod(graph.layers[producer].output_shape) * profile.batch, profile) for producer, _ in graph.edges
    ]
    return np.array(times)[:, None, None] * differs
