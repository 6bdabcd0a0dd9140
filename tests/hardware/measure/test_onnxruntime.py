from __future__ import annotations

import sys

import numpy as np
import pytest

from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.hardware.lut import ShapeKey
from hwdse.hardware.measure import onnxruntime as module
from hwdse.hardware.measure.machine import this_machine
from hwdse.hardware.measure.onnx_graphs import SingleOperator, single_operator
from hwdse.hardware.measure.onnxruntime import RUNTIME
from hwdse.hardware.measure.runtime import find_runtime
from hwdse.hardware.measure.series import measure
from hwdse.hardware.measure.session import open_session
from hwdse.hardware.measure.subject import LayerShape, Subject
from hwdse.hardware.measure.table import Record
from hwdse.hardware.measure.timing import Harness
from hwdse.progress import SILENT

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

LAYERS = {
    "conv": LayerShape.conv((16, 24), 3, 2, 7),
    "plain": LayerShape(ShapeKey("conv", 16, 24, (3, 3), (1, 1), 1, (7, 7)), (7, 7)),
    "stem": LayerShape.conv((3, 16), 3, 1, 8),
    "pointwise": LayerShape.conv((32, 16), 1, 1, 9),
    "depthwise": LayerShape.conv((32, 32), 3, 1, 9, groups=32),
    "grouped": LayerShape.conv((32, 32), 3, 1, 9, groups=4),
    "even": LayerShape(ShapeKey("conv", 8, 8, (4, 4), (1, 1), 1, (9, 9)), (9, 9), relu=True),
    "line": LayerShape(ShapeKey("conv", 8, 8, (3,), (2,), 1, (10,)), (20,), relu=True),
    "linear": LayerShape.linear((48, 20)),
    "rows": LayerShape.linear((64, 20), rows=5),
    "matmul": LayerShape(ShapeKey("matmul", 12, 10, (), (), 1, (3, 7))),
}
NATIVE = ("fp32", "W8A8")


def subject(name: str, precision: str, *, block_size: int = 32) -> Subject:
    offered = RUNTIME.offers(LAYERS[name], Precision.parse(precision), block_size=block_size)
    assert offered is not None
    return offered


def run(single: SingleOperator) -> np.ndarray:
    result: np.ndarray = open_session(single.model).run(None, single.inputs)[0]
    return result


@pytest.mark.parametrize("precision", NATIVE)
@pytest.mark.parametrize("name", LAYERS)
def test_graphs_compute_what_the_standard_says(name: str, precision: str) -> None:
    """The standard's own evaluator is the oracle: to one step of the output's grid, and almost always equal."""
    from onnx.reference import ReferenceEvaluator

    single = single_operator(subject(name, precision))
    expected = ReferenceEvaluator(onnx.load_from_string(single.model)).run(None, single.inputs)[0]
    result = run(single)
    if expected.dtype == np.float32:
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)
    else:
        difference = np.abs(result.astype(int) - expected.astype(int))
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.02
        assert len(np.unique(expected)) > 8  # neither constant nor clipped


@pytest.mark.parametrize("precision", NATIVE)
@pytest.mark.parametrize("name", LAYERS)
def test_graphs_have_the_shape_of_the_layer(name: str, precision: str) -> None:
    shape = LAYERS[name]
    single = single_operator(subject(name, precision))
    result, key = run(single), shape.key
    if key.op == "conv":
        assert result.shape == (1, key.output_channels, *key.output_size)
        assert single.inputs["x0"].shape == (1, key.input_channels, *shape.input_size)
    else:
        assert result.size == key.output_channels * int(np.prod(key.output_size))
        assert result.shape[-1] == key.output_channels
    sizes = [int(np.prod(constant.dims)) for constant in onnx.load_from_string(single.model).graph.initializer]
    if key.op != "matmul":
        assert shape.weight_count in sizes
        assert key.output_channels in sizes  # the bias
    assert not any(list(constant.dims) == [1] for constant in onnx.load_from_string(single.model).graph.initializer)


def test_a_layer_without_relu_keeps_what_is_negative() -> None:
    """Zero is code 128 there, and code 0 behind a ReLU."""
    plain, relu = (run(single_operator(subject(name, "W8A8"))) for name in ("plain", "conv"))
    assert (plain < 128).mean() == pytest.approx(0.5, abs=0.2)
    assert (relu == 0).mean() == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize(("bits", "block"), [(8, 32), (4, 32), (4, 64), (4, 128), (2, 64)])
def test_blocked_weights_are_multiplied_as_packed(bits: int, block: int) -> None:
    """Codes lie in the low bits first, around a zero point in the middle; inputs are rounded to int8 by block."""
    shape = LayerShape.linear((100, 20), rows=3)
    single = single_operator(Subject("linear+bias", shape, Precision.parse(f"W{bits}Afp32"), block))
    constants = [onnx.numpy_helper.to_array(c) for c in onnx.load_from_string(single.model).graph.initializer]
    packed, scales, bias = constants
    fields = (packed[..., None] >> (np.arange(8 // bits, dtype=np.uint8) * bits)) & (2**bits - 1)
    codes = fields.reshape(20, -1, block).astype(float) - 2 ** (bits - 1)
    weight = (codes * scales[..., None]).reshape(20, -1)[:, :100]
    expected = single.inputs["x0"] @ weight.T + bias
    error = np.abs(run(single) - expected).max() / np.abs(expected).max()
    assert 1e-4 < error < 0.02  # products of integers; those of floats would be exact to 1e-6


@pytest.mark.parametrize(
    ("name", "precision", "executed", "ends"),
    [
        ("conv", "fp32", "ReorderInput Conv ReorderOutput", (("reorder_input", 3136), ("reorder_output", 1176))),
        ("conv", "W8A8", "Transpose QLinearConv Transpose", (("to_nhwc", 3136), ("to_nchw", 1176))),
        ("plain", "W8A8", "Transpose QLinearConv Transpose", (("to_nhwc", 784), ("to_nchw", 1176))),
        ("rows", "fp32", "MatMul Add", ()),
        ("rows", "W8A8", "MatMulIntegerToFloat Add", ()),
        ("linear", "W8A8", "QGemm", ()),
        ("rows", "W4Afp32", "MatMulNBits", ()),
        ("matmul", "W8A8", "QLinearMatMul", ()),
    ],
)
def test_what_runs_and_what_is_only_at_the_ends(name: str, precision: str, executed: str, ends) -> None:
    if "avx2" not in this_machine().flags:
        pytest.skip("layouts of other processors differ")
    kernel = RUNTIME.build(subject(name, precision), threads=1)
    assert kernel.executed == executed
    assert kernel.ends == ends
    form = "int8" if precision == "W8A8" else "fp32"
    assert kernel.input_format == form
    assert kernel.output_format == ("fp32" if name == "rows" else form)  # a sequence's layer writes floats
    kernel.call()
    assert kernel.share() == 1.0


SMALL = [offered for offered in [*RUNTIME.boundaries(), *RUNTIME.nodes()] if offered.elements < 10_000]


@pytest.mark.parametrize("offered", SMALL, ids=lambda offered: f"{offered.pattern}-{offered.precision}")
def test_operators_on_tensors_run_alone(offered: Subject) -> None:
    kernel = RUNTIME.build(offered, threads=1)
    assert len(kernel.executed.split()) == 1
    assert kernel.ends == ()
    kernel.call()


@pytest.mark.parametrize(("precision", "operator"), [("fp32", "Gemm"), ("W8A8", "QGemm")])
def test_a_flat_graph_has_the_rows_of_a_sequence_as_one_matrix(precision: str, operator: str, tmp_path) -> None:
    single = single_operator(subject("rows", precision), is_flat=True)
    assert single.inputs["x0"].shape == (5, 64)
    open_session(single.model, optimized=tmp_path / "optimized.onnx")
    assert [node.op_type for node in onnx.load(str(tmp_path / "optimized.onnx")).graph.node] == [operator]


STANDARD = [
    offered
    for offered in SMALL
    if offered.pattern in ("mul", "pad", "slice", "transpose", "gelu", "softmax", "layer_norm", "global_avg_pool")
]


@pytest.mark.parametrize("offered", STANDARD, ids=lambda offered: offered.pattern)
def test_operators_compute_what_the_standard_says_of_tensors_of_that_size(offered: Subject) -> None:
    from onnx.reference import ReferenceEvaluator

    single = single_operator(offered)
    (expected,) = ReferenceEvaluator(onnx.load_from_string(single.model)).run(None, single.inputs)
    result = run(single)
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-5)
    assert max(result.size, *(value.size for value in single.inputs.values())) == offered.elements


def test_a_linear_layer_on_a_sequence_is_that_of_a_network_with_any_batch() -> None:
    """With a fixed batch the optimizer would make one product with bias of it, which no exported network has."""
    model = onnx.load_from_string(single_operator(subject("rows", "fp32")).model)
    assert [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == ["n", 5, 64]
    single = onnx.load_from_string(single_operator(subject("linear", "fp32")).model)
    assert [node.op_type for node in single.graph.node] == ["Gemm"]


def test_each_operator_is_offered_at_four_sizes_in_ascending_order() -> None:
    sizes: dict[tuple[str, str], list[int]] = {}
    for offered in [*RUNTIME.boundaries(), *RUNTIME.nodes()]:
        sizes.setdefault((offered.pattern, str(offered.precision)), []).append(offered.elements)
    assert all(len(set(found)) == 4 and found == sorted(found) for found in sizes.values())
    assert ("add", "W8A8") in sizes
    assert {(name, "fp32") for name in ("mul", "pad", "slice", "transpose", "softmax", "gelu")} <= sizes.keys()
    assert ("relu", "W8A8") not in sizes


@pytest.mark.parametrize(
    ("name", "precision"), [("conv", "W4A8"), ("conv", "W4Afp32"), ("matmul", "W4Afp32"), ("conv", "W16A16")]
)
def test_what_would_only_be_pretended_is_not_offered(name: str, precision: str) -> None:
    assert RUNTIME.offers(LAYERS[name], Precision.parse(precision), block_size=32) is None


def test_a_layer_that_stays_float_is_refused(monkeypatch) -> None:
    silently_float = single_operator(subject("conv", "fp32"))
    sabotaged = SingleOperator(silently_float.model, silently_float.inputs, ("QLinearConv",))
    monkeypatch.setattr(module, "single_operator", lambda _: sabotaged)
    with pytest.raises(InputError, match=r"expected QLinearConv for conv\+bias\+relu at W8A8, got a graph of .*Conv"):
        RUNTIME.build(subject("conv", "W8A8"), threads=1)


def test_a_pattern_without_a_graph_is_refused() -> None:
    with pytest.raises(InputError, match="expected a pattern with a graph, got fold"):
        single_operator(Subject("fold", ShapeKey("tensor", 8, 8, (), (), 1, (4,)), Precision.parse("fp32")))


def test_missing_packages_are_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"expected ONNX and ONNX Runtime.*pip install 'hwdse\[onnx\]'"):
        RUNTIME.version()


def test_a_short_real_measurement(tmp_path) -> None:
    """A convolution with 36 times the work takes longer, and nothing takes less than an empty call."""
    runtime = find_runtime("onnxruntime")
    small, large = LayerShape.conv((16, 16), 3, 1, 8), LayerShape.conv((32, 32), 3, 1, 24)
    subjects = [Subject("conv+bias+relu", shape, Precision.parse(p)) for shape in (small, large) for p in NATIVE]
    record = Record(tmp_path / "x.csv")
    harness = Harness(seconds_per_pass=0.01)
    series = measure(runtime, subjects, record, threads=1, harness=harness, machine=this_machine(), progress=SILENT)
    assert series.left_out == []
    small_fp32, small_int8, large_fp32, large_int8 = (row.net_us for row in series.rows)
    assert large_fp32 > 3 * small_fp32 > 0
    assert large_int8 > 3 * small_int8 > 0
    assert all(0.1 < row.overhead_us < row.minimum_us <= row.p10_us for row in series.rows)
