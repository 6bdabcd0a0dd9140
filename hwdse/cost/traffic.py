"""Bytes that a layer stores and moves, in the formats that it is really stored in."""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray

from hwdse.formats import NumberFormat, Precision
from hwdse.graph import Layer, LayerGraph
from hwdse.hardware import HardwareProfile, Memory

__all__ = ["activation_bytes", "level_bytes", "packed_bytes", "spill_ms", "weight_bytes"]


def packed_bytes(elements: int, number_format: NumberFormat) -> int:
    """Return the bytes of ``elements`` values packed without gaps.

    >>> from hwdse.formats import parse
    >>> packed_bytes(5, parse("int4")), packed_bytes(3, parse("int8"))
    (3, 3)
    """
    return -(-elements * number_format.bits // 8)


def weight_bytes(layer: Layer, stored: Precision) -> int:
    """Return the bytes of a layer's packed weights; 0 for a product of two activations."""
    return packed_bytes(layer.weight_count, stored.weights)


def activation_bytes(layer: Layer, stored: Precision) -> int:
    """Return the bytes of activations that a layer reads and writes per sample.

    The output counts in the layer's own activation format; what its consumer does to it belongs to the consumer. The
    second operand of a product counts in the weight format.
    """
    elements = (prod(layer.input_shape), prod(layer.output_shape))
    own = sum(packed_bytes(count, stored.activations) for count in elements)
    return own + (packed_bytes(prod(layer.second_shape), stored.weights) if layer.second_shape else 0)


def spill_ms(graph: LayerGraph, stored: Precision, profile: HardwareProfile) -> NDArray[np.float64]:
    """Return the time ``(layers,)`` to stream in weights that are beyond a level's capacity, at every inference.

    The part that does not fit is shared among the layers by their bytes, as if all were stored in ``stored``.
    """
    sizes = np.array([weight_bytes(layer, stored) for layer in graph.layers], dtype=np.float64)
    times = np.zeros(len(sizes))
    for memory in profile.memories:
        if memory.spill_gb_per_s is not None and sizes.sum() > 0:
            beyond = max(0.0, 1.0 - memory.usable_kib * 1024 / sizes.sum())
            times += sizes * beyond / memory.spill_gb_per_s.value * 1e-6
    return times


def level_bytes(layer: Layer, stored: Precision, memory: Memory, *, batch: int) -> int:
    """Return the bytes that one inference of one batch moves to and from a memory level.

    Weights move once per batch, activations once per sample, each only where the level holds or moves them.
    """
    weights = weight_bytes(layer, stored) if "weights" in memory.traffic else 0
    activations = activation_bytes(layer, stored) * batch if "activations" in memory.traffic else 0
    return weights + activations
