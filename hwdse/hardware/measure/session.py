"""ONNX Runtime sessions whose graph passes leave every requested precision alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from hwdse.errors import InputError
from hwdse.hardware.measure.timing import Call
from hwdse.reason import reason_of

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession

__all__ = ["DISABLED_OPTIMIZERS", "bound_call", "open_optimized", "open_session"]

DISABLED_OPTIMIZERS = ("WeightBiasQuantization", "QDQPropagationTransformer")
"""Graph passes that change precisions.

The first gives a float convolution between two quantized tensors 8-bit weights; the second moves quantization in front
of operators without MACs, which then run on integers, channels first and slowly.
"""

ERRORS_ONLY = 3


def open_session(
    model: bytes | Path,
    *,
    threads: int = 1,
    disabled: Sequence[str] = DISABLED_OPTIMIZERS,
    optimized: Path | None = None,
    profile: Path | None = None,
) -> InferenceSession:
    """Return a session of ONNX Runtime on the processor.

    Parameters
    ----------
    model
        An ONNX file, or its content.
    threads
        Threads within one operator; operators run one after the other.
    disabled
        Names of the graph passes to leave out.
    optimized
        File to write the optimized graph to, so that it can be read what really runs.
    profile
        Prefix of the file that a trace of every operator is written to when profiling ends.

    Raises
    ------
    InputError
        If ONNX Runtime is not installed, the model does not load, or ``threads`` is below 1.
    """
    if threads < 1:
        raise InputError(f"expected at least 1 thread, got {threads}; correct --threads")
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(f"expected ONNX Runtime, got {error}; install it with pip install 'hwdse[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = ERRORS_ONLY
    # Threads of one session must not spin while another one is timed.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    try:
        return onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=list(disabled),
            enable_fallback=0,  # it prints, and hides the first error behind a second one
        )
    except Exception as error:  # the runtime's errors have no common class but this
        name = "the ONNX model" if isinstance(model, bytes) else f"the ONNX model {model}"
        raise InputError(f"expected {name} to load in ONNX Runtime, got {reason_of(error)}") from error


def open_optimized(
    model: bytes | Path, *, threads: int = 1, disabled: Sequence[str] = DISABLED_OPTIMIZERS
) -> tuple[InferenceSession, ModelProto]:
    """Return a session as :func:`open_session` does, and the graph that it really runs; onnx must be installed."""
    import onnx

    with TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        session = open_session(model, threads=threads, disabled=disabled, optimized=path)
        return session, onnx.load(str(path))


def bound_call(session: InferenceSession, inputs: Mapping[str, NDArray[Any]]) -> tuple[Call, list[NDArray[Any]]]:
    """Return a call of ``session`` whose inputs and outputs stay where they are in memory, and what it computes.

    The session runs once.
    """
    import onnxruntime

    results: list[NDArray[Any]] = session.run(None, dict(inputs))
    binding = session.io_binding()
    for name, value in inputs.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value))
    for output, result in zip(session.get_outputs(), results, strict=True):
        binding.bind_ortvalue_output(output.name, onnxruntime.OrtValue.ortvalue_from_numpy(result))

    def call() -> None:
        session.run_with_iobinding(binding)

    return call, results
