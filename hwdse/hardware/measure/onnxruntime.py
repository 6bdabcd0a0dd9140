"""ONNX Runtime on the processor: fp32, int8 weights per channel with uint8 activations, and blocked integer weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.hardware.measure.onnx_graphs import identity, single_operator
from hwdse.hardware.measure.runtime import Kernel
from hwdse.hardware.measure.session import bound_call, open_optimized, open_session
from hwdse.hardware.measure.subject import LayerShape, Subject, tensor_key

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

__all__ = ["IMAGES", "INTEGER_SCHEME", "RUNTIME", "SEQUENCES", "ONNXRuntime", "layer_pattern"]

FP32 = Precision.parse("fp32")
W8A8 = Precision.parse("W8A8")
BLOCKED = {Precision.parse(text) for text in ("W8Afp32", "W4Afp32", "W2Afp32")}
IMAGES = ((16, (14, 14)), (64, (28, 28)), (96, (56, 56)), (96, (112, 112)))
SEQUENCES = ((384, (8,)), (384, (128,)), (1536, (128,)), (768, (512,)))
BOUNDARIES = {
    "quantize": FP32,
    "dequantize": W8A8,
    "reorder_input": FP32,
    "reorder_output": FP32,
    "to_nhwc": W8A8,
    "to_nchw": W8A8,
}
IMAGE_NODES = ("add", "mul", "relu", "clip", "max_pool", "avg_pool", "global_avg_pool", "pad", "slice")
# Activations are on integers part of what writes the tensor, and the others have no kernel for integers.
FLOAT_ONLY = ("mul", "relu", "clip", "global_avg_pool", "pad", "slice")
SEQUENCE_NODES = ("gelu", "layer_norm")
ATTENTION = {
    "softmax": ((64, (4, 64)), (128, (12, 128)), (256, (8, 256)), (512, (4, 512))),
    "transpose": ((32, (16, 12)), (32, (128, 12)), (64, (128, 12)), (64, (512, 12))),
}
INTEGER_SCHEME: dict[str, object] = {
    "weights": "symmetric",
    "activations": "affine",
    "weight_granularity": "per_channel",
    "full_range": False,
    "unsigned_activations": True,
    "quantized_outputs": True,
}
BEFORE = {
    "ReorderInput": "reorder_input",
    "Transpose": "to_nhwc",
    "QuantizeLinear": "quantize",
    "DequantizeLinear": "dequantize",
}
AFTER = BEFORE | {"ReorderOutput": "reorder_output", "Transpose": "to_nchw"}


def layer_pattern(shape: LayerShape, precision: Precision, *, block_size: int) -> Subject | None:
    """Return a layer as ONNX has it at ``precision``; ``None`` where ONNX Runtime has no kernel for it."""
    if precision in BLOCKED:
        return Subject("linear+bias", shape, precision, block_size) if shape.key.op == "linear" else None
    if precision not in (FP32, W8A8):
        return None
    pattern = {"conv": "conv+bias", "linear": "linear+bias", "matmul": "matmul"}[shape.key.op]
    return Subject(f"{pattern}+relu" if shape.relu else pattern, shape, precision)


class ONNXRuntime:
    """ONNX Runtime, processor only; times are those of whole calls with the inputs and outputs bound beforehand."""

    name = "onnxruntime"
    scheme: Mapping[str, object] = INTEGER_SCHEME

    def version(self) -> str:
        """Return the version of the installed package."""
        try:
            import onnx  # noqa: F401 (the graphs need it)
            import onnxruntime
        except ImportError as error:
            raise InputError(
                f"expected ONNX and ONNX Runtime, got {error}; install them with pip install 'hwdse[onnx]'"
            ) from error
        return str(onnxruntime.__version__)

    def offers(self, shape: LayerShape, precision: Precision, *, block_size: int) -> Subject | None:
        """Return the pattern of a layer."""
        return layer_pattern(shape, precision, block_size=block_size)

    def boundaries(self) -> Sequence[Subject]:
        """Return quantization both ways and the changes of layout around convolutions."""
        return [
            Subject(name, tensor_key(*size), precision) for name, precision in BOUNDARIES.items() for size in IMAGES
        ]

    def nodes(self) -> Sequence[Subject]:
        """Return the operators without MACs that a kernel of their own computes."""
        images = [
            Subject(name, tensor_key(*size), precision)
            for name in IMAGE_NODES
            for precision in ((FP32,) if name in FLOAT_ONLY else (FP32, W8A8))
            for size in IMAGES
        ]
        sequences = dict.fromkeys(SEQUENCE_NODES, SEQUENCES) | ATTENTION
        return images + [Subject(name, tensor_key(*size), FP32) for name, sizes in sequences.items() for size in sizes]

    def null(self, *, threads: int) -> Kernel:
        """Return a graph that copies one number."""
        session = open_session(identity(), threads=threads)
        return _kernel(session, {"x": np.zeros(1, np.float32)}, executed="Identity", ends=())

    def build(self, subject: Subject, *, threads: int) -> Kernel:
        """Return a session of the subject's graph, after a look at what the optimizer made of it."""
        single = single_operator(subject)
        session, optimized = open_optimized(single.model, threads=threads)
        executed = [node.op_type for node in optimized.graph.node]
        core = next((i for i, operator in enumerate(executed) if operator in single.core), None)
        if core is None:
            raise InputError(
                f"expected {' or '.join(single.core)} for {subject.pattern} at {subject.precision}, got a graph of "
                f"{' '.join(executed)}; leave this shape out"
            )
        ends = _ends(subject.shape, executed, core) if isinstance(subject.shape, LayerShape) else ()
        return _kernel(session, single.inputs, executed=" ".join(executed), ends=ends)


def _ends(shape: LayerShape, executed: Sequence[str], core: int) -> tuple[tuple[str, int], ...]:
    """Return the boundary operators around a layer's own, with the values of its input or output."""
    key = shape.key
    size = shape.input_size if key.op == "conv" else key.output_size
    read = key.input_channels * int(np.prod(size, dtype=np.int64))
    written = key.output_channels * int(np.prod(key.output_size, dtype=np.int64))
    before = [(BEFORE[operator], read) for operator in executed[:core] if operator in BEFORE]
    return (*before, *((AFTER[operator], written) for operator in executed[core + 1 :] if operator in AFTER))


def _kernel(
    session: InferenceSession, inputs: dict[str, np.ndarray], *, executed: str, ends: tuple[tuple[str, int], ...]
) -> Kernel:
    """Return a session whose inputs and output are bound to memory that stays where it is."""
    call, (result, *_) = bound_call(session, inputs)
    first = next(iter(inputs.values()))
    return Kernel(call, executed, _format(first.dtype), _format(result.dtype), ends)


def _format(kind: np.dtype) -> str:
    """Return the activation format of an array; the sign of integers is the scheme's."""
    return "int8" if kind in (np.uint8, np.int8) else "fp32"


RUNTIME = ONNXRuntime()
