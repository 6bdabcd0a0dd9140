"""OpenVINO on the processor: the same ONNX graphs, times by the share of its own operators in the counters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.hardware.measure.onnx_graphs import identity, single_operator
from hwdse.hardware.measure.onnxruntime import INTEGER_SCHEME, layer_pattern
from hwdse.hardware.measure.runtime import Kernel, whole
from hwdse.hardware.measure.subject import LayerShape, Subject
from hwdse.reason import reason_of

if TYPE_CHECKING:
    from openvino import InferRequest

__all__ = ["RUNTIME", "OpenVINO"]

LAYOUT = "Reorder"
EXECUTED = "EXECUTED"
INT8 = "I8"
WARM_UP = 3


class OpenVINO:
    """OpenVINO, processor only.

    A call goes through a thread of its own and takes 30 to 40 us more than its operators; a graph of one operator adds
    changes of layout at its ends. So the time of a layer is that of the call without an empty one, times the layer's
    share in the counters, which are means over all calls in whole microseconds: coarse for layers below 30 us. What
    OpenVINO does between layers is part of its layers, so there are no times of conversions.
    """

    name = "openvino"
    scheme: Mapping[str, object] = INTEGER_SCHEME

    def version(self) -> str:
        """Return the version of the installed package."""
        try:
            import onnx  # noqa: F401 (the graphs need it)
            import openvino
        except ImportError as error:
            raise InputError(
                f"expected OpenVINO and ONNX, got {error}; install them with pip install 'hwdse[openvino,onnx]'"
            ) from error
        return str(openvino.__version__).partition("-")[0]

    def offers(self, shape: LayerShape, precision: Precision, *, block_size: int) -> Subject | None:
        """Return the pattern of a layer; weights of 2 bits run no faster than fp32 and are left out."""
        if precision.weights.bits == 2:
            return None
        return layer_pattern(shape, precision, block_size=block_size)

    def boundaries(self) -> Sequence[Subject]:
        """Return none."""
        return ()

    def nodes(self) -> Sequence[Subject]:
        """Return none."""
        return ()

    def null(self, *, threads: int) -> Kernel:
        """Return a graph that copies one number."""
        request = _request(identity(), {"x": np.zeros(1, np.float32)}, threads=threads, block_size=0)
        return Kernel(request.infer, "Result", "fp32", "fp32")

    def build(self, subject: Subject, *, threads: int) -> Kernel:
        """Return a request for the subject's graph, after a look at what ran."""
        single = single_operator(subject, is_flat=True)
        request = _request(single.model, single.inputs, threads=threads, block_size=subject.block_size)
        for _ in range(WARM_UP):
            request.infer()
        own = [node for node in _executed(request) if node.node_type != LAYOUT]
        kinds = [node.exec_type.rpartition("_")[2] for node in own]
        is_int8 = subject.precision == Precision.parse("W8A8")
        if not own or (is_int8 and INT8 not in kinds):
            raise InputError(
                f"expected int8 for {subject.pattern} at {subject.precision}, got "
                f"{' '.join(node.exec_type for node in own) or 'nothing'} in OpenVINO; leave this shape out"
            )
        executed = " ".join(f"{node.node_type}:{node.exec_type}" for node in own)
        form = "int8" if is_int8 else "fp32"
        return Kernel(request.infer, executed, form, form, share=lambda: _share(request))


def _request(model: bytes, inputs: Mapping[str, Any], *, threads: int, block_size: int) -> InferRequest:
    """Return a request whose inputs stay where they are."""
    import openvino

    options = {
        "PERF_COUNT": True,
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "f32",  # where the processor has bf16, it is the default
    }
    if block_size:
        options["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = block_size  # integer products need groups as large as the blocks
    core = openvino.Core()
    try:
        request = core.compile_model(core.read_model(model), "CPU", options).create_infer_request()
    except RuntimeError as error:
        raise InputError(f"expected a graph that OpenVINO compiles, got {reason_of(error)}; leave it out") from error
    request.set_input_tensors([openvino.Tensor(np.ascontiguousarray(value)) for value in inputs.values()])
    return request


def _executed(request: InferRequest) -> list[Any]:
    """Return the counters of the operators that ran."""
    return [node for node in request.profiling_info if node.status.name == EXECUTED]


def _share(request: InferRequest) -> float:
    """Return the share of all operators' time that those without a change of layout take."""
    nodes = _executed(request)
    total = sum(node.real_time.total_seconds() for node in nodes)
    own = sum(node.real_time.total_seconds() for node in nodes if node.node_type != LAYOUT)
    return own / total if total > 0 else whole()


RUNTIME = OpenVINO()
