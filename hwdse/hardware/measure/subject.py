"""What is measured: a layer of one shape at one precision, or an operator without MACs on one tensor."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.graph import Layer
from hwdse.hardware.lut import ShapeKey

__all__ = ["LAYER_OPS", "LayerShape", "Subject", "tensor_key"]

LAYER_OPS = ("conv", "linear", "matmul")


@dataclass(frozen=True)
class LayerShape:
    """A layer as far as its time depends on it.

    Attributes
    ----------
    key
        What a latency table finds it by.
    input_size
        Spatial size of a convolution's input, ``()`` otherwise.
    relu
        True if a ReLU (or a clip at zero) follows that a runtime computes in the same pass.
    """

    key: ShapeKey
    input_size: tuple[int, ...] = ()
    relu: bool = False

    def __post_init__(self) -> None:
        key = self.key
        counts = (key.input_channels, key.output_channels, key.groups, *key.kernel, *key.stride, *key.output_size)
        if key.op not in LAYER_OPS or min(counts + self.input_size) < 1:
            raise InputError(f"expected a {', '.join(LAYER_OPS)} with sizes of at least 1, got {self}; leave it out")
        if key.input_channels % key.groups or key.output_channels % key.groups:
            raise InputError(f"expected channels that {key.groups} groups divide, got {self}; leave it out")

    @classmethod
    def of(cls, layer: Layer) -> LayerShape:
        """Return the shape of ``layer``; a convolution with a ReLU, which costs nothing in the same pass."""
        is_conv = layer.op == "conv"
        return cls(ShapeKey.of(layer), layer.input_shape[1:] if is_conv else (), relu=is_conv)

    @classmethod
    def conv(cls, channels: tuple[int, int], kernel: int, stride: int, size: int, *, groups: int = 1) -> LayerShape:
        """Return a square convolution with ReLU whose output has ``size`` rows and its input ``stride`` times more."""
        key = ShapeKey("conv", *channels, (kernel, kernel), (stride, stride), groups, (size, size))
        return cls(key, (size * stride, size * stride), relu=True)

    @classmethod
    def linear(cls, features: tuple[int, int], *, rows: int = 1) -> LayerShape:
        """Return a linear layer on ``rows`` rows per sample."""
        return cls(ShapeKey("linear", *features, (), (), 1, (rows,) if rows > 1 else ()))

    @property
    def op_class(self) -> str:
        """Class that decides the efficiency, as :attr:`hwdse.graph.Layer.op_class` has it."""
        key = self.key
        if key.op != "conv":
            return key.op
        if key.groups > 1:
            return "depthwise" if key.groups == key.input_channels else "grouped"
        return "pointwise" if prod(key.kernel) == 1 else "conv"

    @property
    def macs(self) -> int:
        """Multiply-accumulates per sample."""
        key = self.key
        return prod(key.kernel) * (key.input_channels // key.groups) * key.output_channels * prod(key.output_size)

    @property
    def weight_count(self) -> int:
        """Number of weights; of a matmul, of the second operand's values."""
        key = self.key
        return prod(key.kernel) * (key.input_channels // key.groups) * key.output_channels

    @property
    def pads(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Zeros before and after every spatial axis of the input: equal ones where they give the output size."""
        key = self.key
        axes = zip(self.input_size, key.kernel, key.stride, key.output_size, strict=True)
        pairs = [_pads(*axis) for axis in axes]
        return tuple(before for before, _ in pairs), tuple(after for _, after in pairs)


def _pads(size: int, kernel: int, stride: int, output: int) -> tuple[int, int]:
    """Return the zeros before and after one axis.

    >>> _pads(56, 3, 2, 28), _pads(9, 4, 1, 9), _pads(8, 1, 2, 4)
    ((1, 1), (1, 2), (0, 0))
    """
    missing = max(0, (output - 1) * stride + kernel - size)
    half = -(-missing // 2)
    if (size + 2 * half - kernel) // stride + 1 == output:
        return half, half
    return missing - half, half


@dataclass(frozen=True)
class Subject:
    """One entry of a table of measurements.

    Attributes
    ----------
    pattern
        Operators that the runtime computes as one, such as ``conv+relu``; for a tensor, the operator's name.
    shape
        The layer, or the tensor as a key made by :func:`tensor_key`.
    precision
        Formats of the operands; of an operator on a tensor, its activation format counts.
    block_size
        Weights per scale where the precision has blocked weights, else 0.
    """

    pattern: str
    shape: LayerShape | ShapeKey
    precision: Precision
    block_size: int = 0

    @property
    def key(self) -> ShapeKey:
        """Shape of the layer or tensor."""
        return self.shape if isinstance(self.shape, ShapeKey) else self.shape.key

    @property
    def elements(self) -> int:
        """Values of the largest tensor that an operator without MACs reads or writes."""
        return self.key.input_channels * prod(self.key.output_size)


def tensor_key(channels: int, size: tuple[int, ...]) -> ShapeKey:
    """Return the key of a tensor that an operator without MACs reads, channels and the sizes of the other axes.

    >>> tensor_key(64, (7, 7)).op
    'tensor'
    """
    return ShapeKey("tensor", channels, channels, (), (), 1, size)
