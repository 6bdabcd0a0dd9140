"""Which precisions an ONNX graph holds so that a runtime on a processor computes in them."""

from __future__ import annotations

from enum import StrEnum

from hwdse.errors import InputError
from hwdse.formats import FP32, Granularity, NumberFormat, Precision, Scheme, Symmetry
from hwdse.graph import Layer
from hwdse.quantize.network import QuantizedNetwork

__all__ = ["BLOCKED_BITS", "BLOCK_SIZES", "CONTAINER_BITS", "Manner", "manner_of", "manners"]

CONTAINER_BITS = 8
BLOCKED_BITS = (2, 4, 8)
BLOCK_SIZES = (32, 64, 128)


class Manner(StrEnum):
    """How a layer stands in the graph.

    ``float``: in fp32. ``integer``: operands with explicit quantization, at most 8 bits each. ``blocked``: packed
    weights with a scale per block beside fp32 activations (``MatMulNBits``).
    """

    FLOAT = "float"
    INTEGER = "integer"
    BLOCKED = "blocked"


def manners(network: QuantizedNetwork, precisions: dict[str, Precision]) -> dict[str, Manner]:
    """Return how every layer stands in the graph; layers without a precision are in fp32.

    Raises
    ------
    InputError
        If a layer's precision cannot be held, a layer is unknown, or tied layers differ.
    """
    network.check(precisions)
    default = Precision(FP32, FP32)
    layers = network.captured.layers
    found = {layer.name: manner_of(layer, precisions.get(layer.name, default), network.scheme) for layer in layers}
    for layer in layers:
        _check_shared(network, layer, found[layer.name])
    return found


def manner_of(layer: Layer, precision: Precision, scheme: Scheme) -> Manner:
    """Return how ``layer`` stands in the graph at ``precision``.

    Raises
    ------
    InputError
        If the precision cannot be held.
    """
    weights, activations = precision.weights, precision.activations
    blocked = scheme.weight_granularity is Granularity.PER_BLOCK
    if weights == activations == FP32:
        return Manner.FLOAT
    if _fits(weights) and _fits(activations) and not (blocked and layer.weight is not None):
        return Manner.INTEGER
    is_linear = layer.op == "linear" and weights.is_integer and weights.bits in BLOCKED_BITS and activations == FP32
    is_packed = blocked and scheme.block_size in BLOCK_SIZES and scheme.weights is Symmetry.SYMMETRIC
    if is_linear and is_packed:
        return Manner.BLOCKED
    raise InputError(
        f"expected a precision that an ONNX graph holds, got {precision} at {layer.name} ({layer.op}) under the scheme "
        f"{scheme.key}; it holds fp32, integers of at most {CONTAINER_BITS} bits on both sides without blocks, and "
        f"linear layers W2Afp32, W4Afp32, W8Afp32 with symmetric blocks of {', '.join(map(str, BLOCK_SIZES))}"
    )


def _fits(number_format: NumberFormat) -> bool:
    return number_format.is_integer and number_format.bits <= CONTAINER_BITS


def _check_shared(network: QuantizedNetwork, layer: Layer, manner: Manner) -> None:
    """Check that scales are those of this layer's output channels, and that no batch is among the weight's axes."""
    if layer.weight is None or manner is Manner.FLOAT:
        return
    site, shapes = network.captured.sites[layer.name], network.captured.flow.shapes
    assert site.weight_node is not None
    if layer.op == "linear" and len(shapes[site.weight_node]) > max(2, len(shapes[site.operands[0]])):
        raise InputError(
            f"expected weights of two dimensions, got {shapes[site.weight_node]} at {layer.name}; leave it in fp32"
        )
    axis = site.weight_axis
    if axis != network.weight_axis(layer.weight) and network.scheme.weight_granularity is not Granularity.PER_TENSOR:
        raise InputError(
            f"expected weights with a scale per output channel, got {layer.weight} at {layer.name}, whose scales are "
            "by the channels of another layer that reads it transposed; leave these layers in fp32"
        )
