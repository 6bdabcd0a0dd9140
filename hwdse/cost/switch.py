"""Times at the border of two layers: a change of activation format with ``[switch]``, of unit with ``[handover]``."""

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
    return switch.time_us(elements) * 1e-3 if switch is not None else 0.0


def switch_costs_ms(
    graph: LayerGraph, profile: HardwareProfile, candidates: Sequence[Precision]
) -> NDArray[np.float64] | None:
    """Return ``(edges, candidates, candidates)``: the time where producer and consumer differ in format or unit.

    The tensor is the producer's output, of one whole batch. ``None`` where the device switches for free.
    """
    handover = profile.spec.handover
    if profile.spec.switch is None and handover is None:
        return None
    formats = np.array([candidate.activations.name for candidate in candidates])
    costs = np.zeros((len(graph.edges), len(candidates), len(candidates)))
    for e, (producer, consumer) in enumerate(graph.edges):
        elements = prod(graph.layers[producer].output_shape) * profile.batch
        costs[e] = switch_ms(elements, profile) * (formats[:, None] != formats[None])
        if handover is not None:
            writes, reads = (
                np.array([profile.unit(graph.layers[i], candidate) or "" for candidate in candidates])
                for i in (producer, consumer)
            )
            costs[e] += handover.time_us(elements) * 1e-3 * (writes[:, None] != reads[None])
    return costs
