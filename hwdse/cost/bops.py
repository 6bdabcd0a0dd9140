"""Bit operations: a measure of work that needs no device. Counted, not predicted."""

from __future__ import annotations

from collections.abc import Sequence

from hwdse.cost.model import MetricCosts, per_layer
from hwdse.cost.table import Metric, Reduction
from hwdse.formats import Precision
from hwdse.graph import Layer, LayerGraph
from hwdse.hardware import HardwareProfile

__all__ = ["MODEL", "BopsModel", "layer_bops"]


def layer_bops(layer: Layer, precision: Precision) -> int:
    """Return the bit operations of a layer per sample: MACs x weight bits x activation bits.

    The bits are those of the formats, also where a wider container runs them (HAWQ-V3, equation 7, [HAWQV3]_).

    >>> layer = Layer("fc", "linear", "x", "y", (4,), (2,), 8, "fc.weight", (2, 4))
    >>> layer_bops(layer, Precision.parse("W4A8"))
    256
    """
    return layer.macs * precision.weights.bits * precision.activations.bits


class BopsModel:
    """Bit operations of one network per sample, in 1e9."""

    metric = Metric("bops_g", Reduction.SUM, "bit operations (1e9)")

    def costs(self, graph: LayerGraph, profile: HardwareProfile, candidates: Sequence[Precision]) -> MetricCosts:
        """Return the bit operations of every layer."""
        return MetricCosts(per_layer(graph, profile, candidates, cost=lambda layer, p: layer_bops(layer, p) * 1e-9))


MODEL = BopsModel()
