"""LiteRT with XNNPACK: linear layers of real 8, 4 and 2-bit weights and int8 activations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.hardware.measure.onnxruntime import INTEGER_SCHEME
from hwdse.hardware.measure.runtime import Kernel
from hwdse.hardware.measure.subject import LayerShape, Subject

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

__all__ = ["RUNTIME", "LiteRT", "pack"]

PACKAGE = "ai-edge-litert"
FP32 = Precision.parse("fp32")
INTEGER = {Precision.parse(text): bits for text, bits in (("W8A8", 8), ("W4A8", 4), ("W2A8", 2))}
INPUT_SCALE, WEIGHT_SCALE, OUTPUT_SCALE = 0.02, 0.004, 0.05
SCHEMA_VERSION = 3
OPERATOR_VERSION = 12


def pack(codes: NDArray[np.int8], bits: int) -> bytes:
    """Return integer codes packed into bytes, the first code in the lowest bits.

    >>> pack(np.array([1, -1, 2], np.int8), 4).hex()
    'f102'
    """
    per_byte = 8 // bits
    fields = codes.reshape(-1).view(np.uint8) & (2**bits - 1)
    fields = np.pad(fields, (0, -len(fields) % per_byte)).reshape(-1, per_byte)
    shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(bits)
    packed: NDArray[np.uint8] = np.bitwise_or.reduce(fields << shifts, axis=1).astype(np.uint8)
    return packed.tobytes()


class LiteRT:
    """LiteRT's interpreter, processor only; linear layers only, since its convolutions of 4 bits are a slow path."""

    name = "litert"
    scheme: Mapping[str, object] = INTEGER_SCHEME | {"unsigned_activations": False}

    def version(self) -> str:
        """Return the version of the installed package."""
        try:
            import ai_edge_litert.interpreter  # noqa: F401 (needed below)
        except ImportError as error:
            raise InputError(f"expected LiteRT, got {error}; install it with pip install 'hwdse[litert]'") from error
        return version(PACKAGE)

    def offers(self, shape: LayerShape, precision: Precision, *, block_size: int) -> Subject | None:  # noqa: ARG002
        """Return the pattern of a linear layer."""
        if shape.key.op != "linear" or (precision != FP32 and precision not in INTEGER):
            return None
        return Subject("linear+bias", shape, precision)

    def boundaries(self) -> Sequence[Subject]:
        """Return none: single linear layers have no change of format at their ends."""
        return ()

    def nodes(self) -> Sequence[Subject]:
        """Return none."""
        return ()

    def null(self, *, threads: int) -> Kernel:
        """Return a linear layer of one weight."""
        return self.build(Subject("linear+bias", LayerShape.linear((1, 1)), FP32), threads=threads)

    def build(self, subject: Subject, *, threads: int) -> Kernel:
        """Return an interpreter of a model with one fully connected operator."""
        from ai_edge_litert.interpreter import Interpreter

        rows, features = int(np.prod(subject.key.output_size, dtype=np.int64)), subject.key.input_channels
        content = _model(rows, features, subject.key.output_channels, INTEGER.get(subject.precision, 0))
        interpreter = Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
        executed = _fill(interpreter)
        form = "int8" if subject.precision in INTEGER else "fp32"
        return Kernel(interpreter.invoke, executed, form, form)


def _fill(interpreter: Interpreter) -> str:
    """Write random values to the input, run once, and return the operators of the plan."""
    details = interpreter.get_input_details()[0]
    generator = np.random.default_rng(0)
    shape = tuple(details["shape"])
    if details["dtype"] is np.int8:
        interpreter.set_tensor(details["index"], generator.integers(-128, 128, shape, dtype=np.int8))
    else:
        interpreter.set_tensor(details["index"], generator.standard_normal(shape, dtype=np.float32))
    interpreter.invoke()
    return " ".join(str(operator["op_name"]) for operator in interpreter._get_ops_details())


def _model(rows: int, features: int, outputs: int, bits: int) -> bytes:
    """Return a flatbuffer with one fully connected operator; 0 bits are fp32."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    generator = np.random.default_rng(0)
    kinds = schema.TensorType
    if bits:
        largest = 2 ** (bits - 1) - 1
        codes = generator.integers(-largest, largest + 1, (outputs, features), dtype=np.int8)
        weight, weight_kind = pack(codes, bits), {8: kinds.INT8, 4: kinds.INT4, 2: kinds.INT2}[bits]
        bias, bias_kind, kind = np.zeros(outputs, np.int32), kinds.INT32, kinds.INT8
        scales = ([INPUT_SCALE], [WEIGHT_SCALE] * outputs, [INPUT_SCALE * WEIGHT_SCALE] * outputs, [OUTPUT_SCALE])
    else:
        weight = generator.standard_normal((outputs, features), dtype=np.float32).tobytes()
        bias, weight_kind, bias_kind, kind = np.zeros(outputs, np.float32), *(kinds.FLOAT32,) * 3
        scales = ([], [], [], [])
    model = schema.ModelT()
    model.version = SCHEMA_VERSION
    model.buffers = [schema.BufferT(), _buffer(weight), _buffer(bias.tobytes())]
    model.operatorCodes = [schema.OperatorCodeT()]
    fully_connected = schema.BuiltinOperator.FULLY_CONNECTED
    model.operatorCodes[0].builtinCode = model.operatorCodes[0].deprecatedBuiltinCode = fully_connected
    model.operatorCodes[0].version = OPERATOR_VERSION
    graph = schema.SubGraphT()
    graph.tensors = [
        _tensor("input", (rows, features), kind, 0, scales[0]),
        _tensor("weight", (outputs, features), weight_kind, 1, scales[1]),
        _tensor("bias", (outputs,), bias_kind, 2, scales[2]),
        _tensor("output", (rows, outputs), kind, 0, scales[3]),
    ]
    operator = schema.OperatorT()
    operator.inputs, operator.outputs = [0, 1, 2], [3]
    operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    operator.builtinOptions = schema.FullyConnectedOptionsT()
    graph.inputs, graph.outputs, graph.operators = [0], [3], [operator]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _buffer(content: bytes) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    buffer = schema.BufferT()
    buffer.data = np.frombuffer(content, np.uint8)
    return buffer


def _tensor(name: str, shape: Sequence[int], kind: int, buffer: int, scales: Sequence[float]) -> Any:
    """Return a tensor; several scales are those of its first axis."""
    from ai_edge_litert import schema_py_generated as schema

    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), kind, buffer
    if scales:
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = list(scales), [0] * len(scales)
    return tensor


RUNTIME = LiteRT()
