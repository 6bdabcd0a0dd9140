"""OpenVINO, LiteRT and PyTorch: each where it is installed."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.hardware.lut import ShapeKey
from hwdse.hardware.measure.litert import pack
from hwdse.hardware.measure.machine import this_machine
from hwdse.hardware.measure.runtime import find_runtime, runtime_names
from hwdse.hardware.measure.series import measure
from hwdse.hardware.measure.subject import LayerShape
from hwdse.hardware.measure.table import Record
from hwdse.hardware.measure.timing import Harness
from hwdse.progress import SILENT

CONV, LINEAR = LayerShape.conv((32, 32), 3, 1, 14), LayerShape.linear((256, 256), rows=16)
PACKAGES = {"openvino": "openvino", "litert": "ai_edge_litert", "onnxruntime": "onnxruntime"}
OFFERED = {
    "openvino": ("fp32", "W8A8", "W8Afp32", "W4Afp32"),
    "litert": ("fp32", "W8A8", "W4A8", "W2A8"),
    "torch": ("fp32", "Wbf16Abf16"),
}
CONVS = {"openvino": ("fp32", "W8A8"), "litert": (), "torch": ("fp32", "Wbf16Abf16")}
CANDIDATES = ("fp32", "W8A8", "W4A8", "W2A8", "W8Afp32", "W4Afp32", "W2Afp32", "Wbf16Abf16", "W16A16")


def test_every_runtime_is_found_by_name() -> None:
    assert {"litert", "onnxruntime", "openvino", "torch"} <= set(runtime_names())
    for name in runtime_names():
        assert find_runtime(name).name == name
    with pytest.raises(InputError, match=r"expected one of the installed runtimes .*onnxruntime.*got 'tvm'"):
        find_runtime("tvm")


@pytest.mark.parametrize("name", OFFERED)
def test_what_each_offers(name: str) -> None:
    runtime = find_runtime(name)
    for shape, expected in ((LINEAR, OFFERED[name]), (CONV, CONVS[name])):
        found = [p for p in CANDIDATES if runtime.offers(shape, Precision.parse(p), block_size=64) is not None]
        assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("name", OFFERED)
def test_a_short_real_measurement(name: str, tmp_path) -> None:
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name])
        pytest.importorskip("onnx")
    runtime = find_runtime(name)
    threads = torch.get_num_threads()
    offers = [
        runtime.offers(shape, Precision.parse(p), block_size=64) for p in OFFERED[name] for shape in (LINEAR, CONV)
    ]
    subjects = [offer for offer in offers if offer is not None]
    try:
        series = measure(
            runtime, subjects, Record(tmp_path / "x.csv"), threads=1,
            harness=Harness(seconds_per_pass=0.005, most_passes=2), machine=this_machine(), progress=SILENT,
        )  # fmt: skip
    finally:
        torch.set_num_threads(threads)
    if "avx512_vnni" in this_machine().flags:
        assert series.left_out == []
    assert series.rows
    assert all(row.net_us > 0 and 0 < row.share <= 1 and row.executed for row in series.rows)
    assert {row.runtime for row in series.rows} == {name}


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_packed_codes_come_back(bits: int) -> None:
    largest = 2 ** (bits - 1) - 1
    codes = np.random.default_rng(0).integers(-largest, largest + 1, 11, dtype=np.int8)
    number = int.from_bytes(pack(codes, bits), "little")
    fields = [(number >> (bits * i)) & (2**bits - 1) for i in range(len(codes))]
    assert [f - 2**bits if f > largest else f for f in fields] == codes.tolist()
    assert len(pack(codes, bits)) == -(-len(codes) * bits // 8)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_a_litert_model_computes_its_layer(bits: int) -> None:
    """Against the layer written out: to one step of the output's grid."""
    pytest.importorskip("ai_edge_litert")
    from ai_edge_litert.interpreter import Interpreter

    from hwdse.hardware.measure.litert import INPUT_SCALE, OUTPUT_SCALE, WEIGHT_SCALE, _model

    interpreter = Interpreter(model_content=_model(4, 32, 6, bits))
    interpreter.allocate_tensors()
    x = np.random.default_rng(1).integers(-128, 128, (4, 32), dtype=np.int8)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    result = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    largest = 2 ** (bits - 1) - 1
    weight = np.random.default_rng(0).integers(-largest, largest + 1, (6, 32), dtype=np.int8)
    exact = (x.astype(float) @ weight.T.astype(float)) * INPUT_SCALE * WEIGHT_SCALE / OUTPUT_SCALE
    assert np.abs(result - np.clip(np.round(exact), -128, 127)).max() <= 1


def test_padding_that_differs_between_sides_is_not_offered_by_torch() -> None:
    same = LayerShape(ShapeKey("conv", 8, 8, (4, 4), (1, 1), 1, (9, 9)), (9, 9))
    assert find_runtime("torch").offers(same, Precision.parse("fp32"), block_size=64) is None


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("openvino", "openvino", r"hwdse\[openvino,onnx\]"),
        ("litert", "ai_edge_litert.interpreter", r"hwdse\[litert\]"),
    ],
)
def test_missing_packages_are_named(monkeypatch, name: str, module: str, extra: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"pip install '{extra}'"):
        find_runtime(name).version()
