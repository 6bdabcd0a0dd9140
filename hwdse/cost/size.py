"""Size of what is stored: packed weights, scales, zero points and biases. Counted, not predicted."""

from __future__ import annotations

from collections.abc import Sequence

from hwdse.cost.model import MetricCosts, per_layer
from hwdse.cost.table import Metric, Reduction
from hwdse.cost.traffic import weight_bytes
from hwdse.formats import Granularity, NumberFormat, Precision, Scheme, Symmetry
from hwdse.graph import Layer, LayerGraph
from hwdse.hardware import HardwareProfile

__all__ = [
    "MODEL",
    "SizeModel",
    "activation_parameter_bytes",
    "bias_keepers",
    "fp32_size_kib",
    "layer_size_bytes",
    "weight_keepers",
]

SCALE_BYTES = 4
BIAS_BYTES = 4
FP32_BYTES = 4
KIB = 1024


def layer_size_bytes(layer: Layer, stored: Precision, scheme: Scheme) -> int:
    """Return the bytes of a layer's weights with their scales and zero points, and of its biases.

    Weights are packed; a scale is fp32, one per tensor, output channel or block; zero points exist only for affine
    integers; a learned format keeps its values in fp32, once per tensor; biases are int32, or fp32 beside
    floating-point weights: 4 bytes either way.
    """
    bias = layer.bias_count * BIAS_BYTES
    if layer.weight is None:
        return bias
    grids = _scales(layer, scheme) * _grid_bytes(stored.weights, scheme.weights)
    return weight_bytes(layer, stored) + bias + grids + _codebook_bytes(stored.weights)


def activation_parameter_bytes(number_format: NumberFormat, scheme: Scheme) -> int:
    """Return the bytes of an activation tensor's scale and zero point.

    >>> from hwdse.formats import parse
    >>> activation_parameter_bytes(parse("int8"), Scheme(activations=Symmetry.AFFINE))
    5
    """
    return _grid_bytes(number_format, scheme.activations) + _codebook_bytes(number_format)


def fp32_size_kib(graph: LayerGraph) -> float:
    """Return the size of a network with every parameter in fp32, in KiB; shared weights count once."""
    return graph.parameter_count * FP32_BYTES / KIB


def _scales(layer: Layer, scheme: Scheme) -> int:
    """Return how many scales a layer's weights have."""
    if scheme.weight_granularity is Granularity.PER_TENSOR:
        return 1
    if scheme.weight_granularity is Granularity.PER_CHANNEL:
        return layer.output_channels
    return layer.output_channels * -(-layer.weight_count // layer.output_channels // scheme.block_size)


def _codebook_bytes(number_format: NumberFormat) -> int:
    """Return the bytes of the values of a learned format."""
    return 2**number_format.bits * FP32_BYTES if number_format.is_learned else 0


def _grid_bytes(number_format: NumberFormat, symmetry: Symmetry) -> int:
    """Return the bytes of one scale and, on an affine grid, of one zero point in whole bytes."""
    if not number_format.has_scale:
        return 0
    has_zero_point = symmetry is Symmetry.AFFINE and number_format.is_integer
    return SCALE_BYTES + (-(-number_format.bits // 8) if has_zero_point else 0)


class SizeModel:
    """Size in KiB of one network; weights and tensors that several layers share count once, at the first of them."""

    metric = Metric("size_kib", Reduction.SUM, "size (KiB)")

    def costs(self, graph: LayerGraph, profile: HardwareProfile, candidates: Sequence[Precision]) -> MetricCosts:
        """Return the sizes; other parameters stay in fp32 and are constant."""
        weights, biases = weight_keepers(graph), bias_keepers(graph)
        readers = _first_readers(graph)

        def size_kib(layer: Layer, candidate: Precision) -> float:
            stored = profile.stored(layer, candidate)
            operands = {layer.input: stored.activations}
            if layer.second_input is not None:
                operands.setdefault(layer.second_input, stored.weights)
            own = layer_size_bytes(layer, stored, profile.scheme) if layer.name in weights else 0
            if layer.name in biases - weights:
                own = layer.bias_count * BIAS_BYTES
            first = [number_format for tensor, number_format in operands.items() if readers[tensor] == layer.name]
            return (own + sum(activation_parameter_bytes(f, profile.scheme) for f in first)) / KIB

        values = per_layer(graph, profile, candidates, cost=size_kib)
        return MetricCosts(values, constant=graph.other_parameters * FP32_BYTES / KIB)


def weight_keepers(graph: LayerGraph) -> frozenset[str]:
    """Return the layers whose weights count: the first user of each, so that shared ones count once."""
    keepers: dict[str, str] = {}
    for layer in graph.layers:
        keepers.setdefault(layer.weight or layer.name, layer.name)
    return frozenset(keepers.values())


def bias_keepers(graph: LayerGraph) -> frozenset[str]:
    """Return the layers whose biases count: users of one weight may have biases of their own."""
    keepers: dict[str, str] = {}
    for layer in graph.layers:
        keepers.setdefault(layer.bias or layer.weight or layer.name, layer.name)
    return frozenset(keepers.values())


def _first_readers(graph: LayerGraph) -> dict[str, str]:
    """Return the first layer that reads each tensor; it counts the tensor's scale and zero point."""
    readers: dict[str, str] = {}
    for layer in graph.layers:
        for tensor in (layer.input, layer.second_input):
            if tensor is not None:
                readers.setdefault(tensor, layer.name)
    return readers


MODEL = SizeModel()
