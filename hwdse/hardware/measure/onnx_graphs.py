"""ONNX graphs of one layer or one operator: what a runtime gets to see of a subject, with random weights and inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hwdse.errors import InputError
from hwdse.hardware.measure.subject import LayerShape, Subject

if TYPE_CHECKING:
    from onnx import NodeProto

__all__ = ["SingleOperator", "identity", "single_operator"]

OPSET = 21
IR_VERSION = 10
MICROSOFT = "com.microsoft"
BLOCKED_LAYOUT = "com.microsoft.nchwc"
INPUT_SCALE, WEIGHT_SCALE, OUTPUT_SCALE = 0.02, 0.004, 0.05
INT8_ACCURACY = 4  # MatMulNBits then rounds its input to int8, block by block, and multiplies integers

Array = NDArray[Any]


@dataclass(frozen=True)
class SingleOperator:
    """A model and what it reads.

    Attributes
    ----------
    model
        The ONNX file's content.
    inputs
        Arrays by the name of the graph's input.
    core
        Operator types of which one must be left in the optimized graph for it to be what was asked.
    """

    model: bytes
    inputs: dict[str, Array]
    core: tuple[str, ...]


@dataclass
class _Graph:
    """A graph under construction.

    With an open batch the first axis of every input is left open, as in an exported network: what the optimizer joins
    depends on it. A flat graph has the rows of a sequence as one matrix, else it is as an exported network has it.
    """

    generator: np.random.Generator
    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    inputs: dict[str, Array] = field(default_factory=dict)
    open_batch: bool = False
    is_flat: bool = False

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Append a node and return the name of what it writes."""
        from onnx import helper

        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, domain=domain, **attributes))
        return name

    def constant(self, value: Array | np.generic) -> str:
        """Return the name of a constant; a scalar stays without dimensions."""
        name = f"constant_{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def floats(self, *shape: int, scale: float = 1.0) -> Array:
        """Return random numbers."""
        return (self.generator.standard_normal(shape, dtype=np.float32) * np.float32(scale)).astype(np.float32)

    def integers(self, kind: type[np.integer[Any]], *shape: int) -> Array:
        """Return random codes; of int8 not the lowest one, as the restricted range has it."""
        low, high = (-127, 127) if kind is np.int8 else (0, 255)
        return self.generator.integers(low, high + 1, shape, dtype=kind)

    def feed(self, value: Array) -> str:
        """Return the name of a new input of the graph."""
        name = f"x{len(self.inputs)}"
        self.inputs[name] = value
        return name

    def grid(self, scale: float, zero_point: int) -> tuple[str, str]:
        """Return the names of a scale and a zero point of one uint8 tensor, both without dimensions."""
        return self.constant(np.float32(scale)), self.constant(np.uint8(zero_point))

    def quantize(self, name: str, zero_point: int) -> str:
        return self.add("QuantizeLinear", name, *self.grid(OUTPUT_SCALE, zero_point))

    def dequantized_input(self, *shape: int, zero_point: int = 0) -> str:
        name = self.feed(self.integers(np.uint8, *shape))
        return self.add("DequantizeLinear", name, *self.grid(INPUT_SCALE, zero_point))

    def dequantized_weight(self, *shape: int, axis: int, has_zero: bool = True) -> str:
        """Return an int8 weight with one scale per entry of ``axis``, dequantized."""
        channels = shape[axis]
        scales = self.constant(np.full(channels, WEIGHT_SCALE, np.float32))
        zeros = [self.constant(np.zeros(channels, np.int8))] if has_zero else []
        return self.add("DequantizeLinear", self.constant(self.integers(np.int8, *shape)), scales, *zeros, axis=axis)

    def dequantized_bias(self, channels: int) -> str:
        scales = self.constant(np.full(channels, INPUT_SCALE * WEIGHT_SCALE, np.float32))
        bias = self.generator.integers(-1000, 1000, channels, dtype=np.int32)
        return self.add(
            "DequantizeLinear", self.constant(bias), scales, self.constant(np.zeros(channels, np.int32)), axis=0
        )

    def done(self, output: str, kind: int, core: tuple[str, ...]) -> SingleOperator:
        from onnx import helper, numpy_helper

        graph = helper.make_graph(
            self.nodes,
            "single_operator",
            [
                helper.make_tensor_value_info(
                    name,
                    helper.np_dtype_to_tensor_dtype(value.dtype),
                    ("n", *value.shape[1:]) if self.open_batch else value.shape,
                )
                for name, value in self.inputs.items()
            ],
            [helper.make_tensor_value_info(output, kind, None)],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        opsets = [
            helper.make_opsetid("", OPSET),
            helper.make_opsetid(MICROSOFT, 1),
            helper.make_opsetid(BLOCKED_LAYOUT, 1),
        ]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        return SingleOperator(model.SerializeToString(), self.inputs, core)


def identity() -> bytes:
    """Return a model that copies one number of fp32."""
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1,)) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    content: bytes = model.SerializeToString()
    return content


def single_operator(subject: Subject, *, is_flat: bool = False) -> SingleOperator:
    """Return the ONNX graph of ``subject``, in its own formats at both ends, the same at every call.

    Parameters
    ----------
    subject
        The layer or operator.
    is_flat
        True to have the rows of a linear layer as one matrix of a fixed size, with a bias of int32 beside integers;
        else such a layer is as an exported network has it.

    Raises
    ------
    InputError
        If onnx is not installed, or no graph of this pattern is known.
    """
    try:
        import onnx  # noqa: F401 (needed below)
    except ImportError as error:
        raise InputError(f"expected onnx, got {error}; install it with pip install 'hwdse[onnx]'") from error
    graph = _Graph(np.random.default_rng(0), is_flat=is_flat)
    if isinstance(subject.shape, LayerShape):
        name = subject.shape.key.op
        formats = (subject.precision.weights.name, subject.precision.activations.name)
        kind = "fp32" if formats == ("fp32", "fp32") else "int8" if formats == ("int8", "int8") else "blocked"
    else:
        name, kind = subject.pattern, subject.precision.activations.name
    make = GRAPHS.get((name, kind))
    if make is None:
        raise InputError(f"expected a pattern with a graph, got {subject.pattern} at {subject.precision}; leave it out")
    return make(graph, subject)


def _layer(subject: Subject) -> LayerShape:
    assert isinstance(subject.shape, LayerShape)
    return subject.shape


def _conv_attributes(shape: LayerShape) -> dict[str, Any]:
    before, after = shape.pads
    return {
        "kernel_shape": shape.key.kernel,
        "strides": shape.key.stride,
        "pads": (*before, *after),
        "group": shape.key.groups,
    }


def _conv_shapes(shape: LayerShape) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of a convolution's input and weight."""
    key = shape.key
    weight = (key.output_channels, key.input_channels // key.groups, *key.kernel)
    return (1, key.input_channels, *shape.input_size), weight


def _conv(graph: _Graph, subject: Subject) -> SingleOperator:
    from onnx import TensorProto

    shape = _layer(subject)
    x, w = _conv_shapes(shape)
    fan_in = shape.weight_count / shape.key.output_channels
    weight = graph.constant(graph.floats(*w, scale=fan_in**-0.5))
    bias = graph.constant(graph.floats(w[0]))
    out = graph.add("Conv", graph.feed(graph.floats(*x)), weight, bias, **_conv_attributes(shape))
    out = graph.add("Relu", out) if shape.relu else out
    return graph.done(out, TensorProto.FLOAT, ("Conv", "FusedConv"))


def _conv_int8(graph: _Graph, subject: Subject) -> SingleOperator:
    from onnx import TensorProto

    shape = _layer(subject)
    x, w = _conv_shapes(shape)
    operands = (
        graph.dequantized_input(*x),
        graph.dequantized_weight(*w, axis=0),
        graph.dequantized_bias(w[0]),
    )
    out = graph.add("Conv", *operands, **_conv_attributes(shape))
    out = graph.add("Relu", out) if shape.relu else out
    out = graph.quantize(out, 0 if shape.relu else 128)  # a ReLU is only absorbed where zero is code 0
    return graph.done(out, TensorProto.UINT8, ("QLinearConv",))


def _rows(shape: LayerShape) -> int:
    return int(np.prod(shape.key.output_size, dtype=np.int64))


def _linear(graph: _Graph, subject: Subject) -> SingleOperator:
    from onnx import TensorProto

    shape = _layer(subject)
    features, outputs = shape.key.input_channels, shape.key.output_channels
    weight = graph.constant(graph.floats(features, outputs, scale=features**-0.5))
    bias = graph.constant(graph.floats(outputs))
    if graph.is_flat or not shape.key.output_size:
        x = graph.feed(graph.floats(_rows(shape), features))
        return graph.done(graph.add("Gemm", x, weight, bias), TensorProto.FLOAT, ("Gemm",))
    out = graph.add("Add", graph.add("MatMul", _sequence(graph, shape), weight), bias)
    return graph.done(out, TensorProto.FLOAT, ("MatMul", "Gemm"))


def _sequence(graph: _Graph, shape: LayerShape) -> str:
    """Return the name of a linear layer's fp32 input, of any length of the batch unless the graph is flat."""
    if graph.is_flat:
        return graph.feed(graph.floats(_rows(shape), shape.key.input_channels))
    graph.open_batch = True
    return graph.feed(graph.floats(1, *shape.key.output_size, shape.key.input_channels))


def _linear_int8(graph: _Graph, subject: Subject) -> SingleOperator:
    from onnx import TensorProto

    shape = _layer(subject)
    features, outputs = shape.key.input_channels, shape.key.output_channels
    if shape.key.output_size and not graph.is_flat:
        # A sequence's layer writes floats: its bias is one, and what reads it may round it.
        graph.open_batch = True
        x = graph.dequantized_input(1, *shape.key.output_size, features)
        product = graph.add("MatMul", x, graph.dequantized_weight(features, outputs, axis=1, has_zero=False))
        out = graph.add("Add", product, graph.constant(graph.floats(outputs)))
        return graph.done(out, TensorProto.FLOAT, ("MatMulIntegerToFloat", "QLinearMatMul"))
    operands = (
        graph.dequantized_input(_rows(shape), features),
        graph.dequantized_weight(features, outputs, axis=1),
        graph.dequantized_bias(outputs),
    )
    # As one Gemm with a bias of int32: a MatMul with an Add behind becomes a float product of dequantized weights.
    out = graph.quantize(graph.add("Gemm", *operands), 128)
    return graph.done(out, TensorProto.UINT8, ("QGemm",))


def _linear_blocked(graph: _Graph, subject: Subject) -> SingleOperator:
    from onnx import TensorProto

    shape, bits, block = _layer(subject), subject.precision.weights.bits, subject.block_size
    features, outputs = shape.key.input_channels, shape.key.output_channels
    blocks = -(-features // block)
    packed = graph.constant(graph.integers(np.uint8, outputs, blocks, block * bits // 8))
    scales = graph.constant(np.full((outputs, blocks), WEIGHT_SCALE, np.float32))
    out = graph.add(
        "MatMulNBits",
        _sequence(graph, shape),
        packed,
        scales,
        "",
        "",
        graph.constant(graph.floats(outputs)),
        domain=MICROSOFT,
        K=features,
        N=outputs,
        bits=bits,
        block_size=block,
        accuracy_level=INT8_ACCURACY,
    )
    return graph.done(out, TensorProto.FLOAT, ("MatMulNBits",))


def _matmul_shapes(shape: LayerShape) -> tuple[tuple[int, ...], tuple[int, ...]]:
    *batch, rows = shape.key.output_size or (1,)
    first = (1, *batch, rows, shape.key.input_channels)
    return first, (1, *batch, shape.key.input_channels, shape.key.output_channels)


def _matmul(graph: _Graph, subject: Subject) -> SingleOperator:
    from onnx import TensorProto

    first, second = (graph.feed(graph.floats(*x)) for x in _matmul_shapes(_layer(subject)))
    return graph.done(graph.add("MatMul", first, second), TensorProto.FLOAT, ("MatMul",))


def _matmul_int8(graph: _Graph, subject: Subject) -> SingleOperator:
    from onnx import TensorProto

    first, second = (graph.dequantized_input(*x, zero_point=128) for x in _matmul_shapes(_layer(subject)))
    out = graph.quantize(graph.add("MatMul", first, second), 128)
    return graph.done(out, TensorProto.UINT8, ("QLinearMatMul",))


def _tensor(graph: _Graph, subject: Subject, *, last: bool, kind: type[Any] = np.float32) -> str:
    """Return the name of an input tensor with the channels first or last."""
    key = subject.key
    shape = (1, *key.output_size, key.input_channels) if last else (1, key.input_channels, *key.output_size)
    return graph.feed(graph.floats(*shape) if kind is np.float32 else graph.integers(np.uint8, *shape))


def _on_tensor(
    operator: str, *, last: bool, kind: type[Any] = np.float32, domain: str = "", **attributes: Any
) -> Callable[[_Graph, Subject], SingleOperator]:
    """Return a maker of graphs of an operator that reads one tensor and writes one of the same type."""

    def make(graph: _Graph, subject: Subject) -> SingleOperator:
        from onnx import helper

        x = _tensor(graph, subject, last=last, kind=kind)
        output = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        return graph.done(graph.add(operator, x, domain=domain, **attributes), output, (operator,))

    return make


def _quantize(graph: _Graph, subject: Subject) -> SingleOperator:
    from onnx import TensorProto

    return graph.done(graph.quantize(_tensor(graph, subject, last=False), 0), TensorProto.UINT8, ("QuantizeLinear",))


def _dequantize(graph: _Graph, subject: Subject) -> SingleOperator:
    from onnx import TensorProto

    x = _tensor(graph, subject, last=False, kind=np.uint8)
    out = graph.add("DequantizeLinear", x, *graph.grid(INPUT_SCALE, 0))
    return graph.done(out, TensorProto.FLOAT, ("DequantizeLinear",))


def _reorder_output(graph: _Graph, subject: Subject) -> SingleOperator:
    make = _on_tensor("ReorderOutput", last=False, domain=BLOCKED_LAYOUT, channels=subject.key.input_channels)
    return make(graph, subject)


def _of_two(operator: str) -> Callable[[_Graph, Subject], SingleOperator]:
    """Return a maker of graphs of an operator on two tensors of one shape."""

    def make(graph: _Graph, subject: Subject) -> SingleOperator:
        from onnx import TensorProto

        operands = [_tensor(graph, subject, last=False) for _ in range(2)]
        return graph.done(graph.add(operator, *operands), TensorProto.FLOAT, (operator,))

    return make


def _add_int8(graph: _Graph, subject: Subject) -> SingleOperator:
    from onnx import TensorProto

    names = [
        name
        for _ in range(2)
        for name in (_tensor(graph, subject, last=True, kind=np.uint8), *graph.grid(INPUT_SCALE, 128))
    ]
    out = graph.add("QLinearAdd", *names, *graph.grid(OUTPUT_SCALE, 128), domain=MICROSOFT)
    return graph.done(out, TensorProto.UINT8, ("QLinearAdd",))


def _avg_pool_int8(graph: _Graph, subject: Subject) -> SingleOperator:
    from onnx import TensorProto

    x = _tensor(graph, subject, last=True, kind=np.uint8)
    grids = (*graph.grid(INPUT_SCALE, 0), *graph.grid(INPUT_SCALE, 0))
    out = graph.add("QLinearAveragePool", x, *grids, domain=MICROSOFT, channels_last=1, **AVERAGE)
    return graph.done(out, TensorProto.UINT8, ("QLinearAveragePool",))


def _global_avg_pool(graph: _Graph, subject: Subject) -> SingleOperator:
    """Return the mean over all positions: networks are exported with it instead of a pooling."""
    from onnx import TensorProto

    axes = graph.constant(np.array([2, 3], np.int64))
    out = graph.add("ReduceMean", _tensor(graph, subject, last=False), axes, keepdims=1)
    return graph.done(out, TensorProto.FLOAT, ("ReduceMean",))


def _pad(graph: _Graph, subject: Subject) -> SingleOperator:
    """Return zeros beside as many channels as there were."""
    from onnx import TensorProto

    key = subject.key
    half = key.input_channels // 2
    x = graph.feed(graph.floats(1, key.input_channels - half, *key.output_size))
    ends = [0] * (2 + len(key.output_size))
    pads = graph.constant(np.array([*ends, 0, half, *ends[2:]], np.int64))
    return graph.done(graph.add("Pad", x, pads), TensorProto.FLOAT, ("Pad",))


def _slice(graph: _Graph, subject: Subject) -> SingleOperator:
    """Return every other column."""
    from onnx import TensorProto

    last = np.iinfo(np.int64).max
    numbers = [graph.constant(np.array([number], np.int64)) for number in (0, last, -1, 2)]
    out = graph.add("Slice", _tensor(graph, subject, last=False), *numbers)
    return graph.done(out, TensorProto.FLOAT, ("Slice",))


def _gelu(graph: _Graph, subject: Subject) -> SingleOperator:
    """Return a GELU with the bias of the linear layer before it, which it takes in."""
    from onnx import TensorProto

    bias = graph.constant(graph.floats(subject.key.input_channels))
    out = graph.add("Gelu", graph.add("Add", _tensor(graph, subject, last=True), bias))
    return graph.done(out, TensorProto.FLOAT, ("BiasGelu",))


def _clip(graph: _Graph, subject: Subject) -> SingleOperator:
    from onnx import TensorProto

    bounds = (graph.constant(np.float32(0)), graph.constant(np.float32(1)))
    out = graph.add("Clip", _tensor(graph, subject, last=False), *bounds)
    return graph.done(out, TensorProto.FLOAT, ("Clip",))


def _layer_norm(graph: _Graph, subject: Subject) -> SingleOperator:
    from onnx import TensorProto

    x = _tensor(graph, subject, last=True)
    width = subject.key.input_channels
    scale, shift = (graph.constant(graph.floats(width)) for _ in range(2))
    out = graph.add("LayerNormalization", x, scale, shift, axis=-1)
    return graph.done(out, TensorProto.FLOAT, ("LayerNormalization",))


POOL: dict[str, Any] = {"kernel_shape": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)}
AVERAGE: dict[str, Any] = {"kernel_shape": (2, 2), "strides": (2, 2)}

GRAPHS: dict[tuple[str, str], Callable[[_Graph, Subject], SingleOperator]] = {
    ("conv", "fp32"): _conv,
    ("conv", "int8"): _conv_int8,
    ("linear", "fp32"): _linear,
    ("linear", "int8"): _linear_int8,
    ("linear", "blocked"): _linear_blocked,
    ("matmul", "fp32"): _matmul,
    ("matmul", "int8"): _matmul_int8,
    ("quantize", "fp32"): _quantize,
    ("dequantize", "int8"): _dequantize,
    ("reorder_input", "fp32"): _on_tensor("ReorderInput", last=False, domain=BLOCKED_LAYOUT),
    ("reorder_output", "fp32"): _reorder_output,
    ("to_nhwc", "int8"): _on_tensor("Transpose", last=False, kind=np.uint8, perm=(0, 2, 3, 1)),
    ("to_nchw", "int8"): _on_tensor("Transpose", last=True, kind=np.uint8, perm=(0, 3, 1, 2)),
    ("add", "fp32"): _of_two("Add"),
    ("mul", "fp32"): _of_two("Mul"),
    ("add", "int8"): _add_int8,
    ("relu", "fp32"): _on_tensor("Relu", last=False),
    ("clip", "fp32"): _clip,
    ("max_pool", "fp32"): _on_tensor("MaxPool", last=False, domain=BLOCKED_LAYOUT, **POOL),
    ("max_pool", "int8"): _on_tensor("NhwcMaxPool", last=True, kind=np.uint8, domain=MICROSOFT, **POOL),
    ("avg_pool", "fp32"): _on_tensor("AveragePool", last=False, domain=BLOCKED_LAYOUT, **AVERAGE),
    ("avg_pool", "int8"): _avg_pool_int8,
    ("global_avg_pool", "fp32"): _global_avg_pool,
    ("pad", "fp32"): _pad,
    ("slice", "fp32"): _slice,
    ("transpose", "fp32"): _on_tensor("Transpose", last=True, perm=(0, 2, 1, 3)),
    ("gelu", "fp32"): _gelu,
    ("softmax", "fp32"): _on_tensor("Softmax", last=True, axis=-1),
    ("layer_norm", "fp32"): _layer_norm,
}
"""Graphs by pattern (a layer's operator, or an operator on a tensor) and format."""
