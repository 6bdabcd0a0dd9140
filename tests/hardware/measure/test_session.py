from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hwdse.errors import InputError
from hwdse.hardware.measure.onnx_graphs import identity
from hwdse.hardware.measure.session import DISABLED_OPTIMIZERS, open_session

pytest.importorskip("onnxruntime")


def test_a_session_runs_a_model_from_bytes_and_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(identity())
    for model in (identity(), path):
        assert open_session(model).run(None, {"x": np.array([3.5], np.float32)})[0].tolist() == [3.5]


def test_options_are_those_asked_for(tmp_path: Path) -> None:
    session = open_session(identity(), threads=2, optimized=tmp_path / "optimized.onnx", profile=tmp_path / "trace")
    options = session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert (tmp_path / "optimized.onnx").is_file()
    trace = Path(session.end_profiling())
    assert trace.parent == tmp_path
    assert trace.name.startswith("trace")


def weighted_between_quantized() -> bytes:
    """Return a float convolution whose input is dequantized and whose output is quantized."""
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "s": np.float32(0.1),
        "z": np.uint8(0),
        "w": np.random.default_rng(0).standard_normal((16, 16, 1, 1), dtype=np.float32),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "s", "z"], ["d"]),
        helper.make_node("Conv", ["d", "w"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, (1, 16, 4, 4))],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()


@pytest.mark.parametrize(("disabled", "is_int8"), [(DISABLED_OPTIMIZERS, False), ((), True)])
def test_a_float_layer_stays_one_only_without_the_passes(tmp_path: Path, disabled, is_int8: bool) -> None:
    import onnx

    open_session(weighted_between_quantized(), disabled=disabled, optimized=tmp_path / "o.onnx")
    operators = [node.op_type for node in onnx.load(tmp_path / "o.onnx").graph.node]
    assert ("QLinearConv" in operators) is is_int8


@pytest.mark.parametrize(
    ("model", "match"),
    [(b"no model", "expected the ONNX model to load"), (Path("/nowhere/m.onnx"), "expected the ONNX model /nowhere/m")],
)
def test_what_does_not_load(model: bytes | Path, match: str) -> None:
    with pytest.raises(InputError, match=match):
        open_session(model)


def test_no_threads() -> None:
    with pytest.raises(InputError, match="at least 1 thread, got 0"):
        open_session(identity(), threads=0)


def test_a_missing_package_is_named(monkeypatch) -> None:
    model = identity()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"pip install 'hwdse\[onnx\]'"):
        open_session(model)


BLOCKED = """
import importlib, pkgutil, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "onnx", "onnxruntime", "openvino", "ai_edge_litert", "flatbuffers"}:
            raise ImportError(f"{name} is not to be imported")
sys.meta_path.insert(0, Blocker())
package = importlib.import_module("hwdse.hardware.measure")
for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
"""


def test_nothing_is_needed_to_import_it() -> None:
    subprocess.run([sys.executable, "-c", BLOCKED], check=True, timeout=120)
