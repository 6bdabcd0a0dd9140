"""Whole networks: which configurations are timed, and what their times say of a profile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from hwdse.commands.whole import Network, fit_whole
from hwdse.cost.calibrate import LatencyFit
from hwdse.cost.terms import latency_terms
from hwdse.errors import InputError
from hwdse.factories import load_factory
from hwdse.formats import Precision
from hwdse.hardware import HardwareProfile, parse_profile
from hwdse.hardware.measure.timing import Call, Harness, Timing
from hwdse.progress import SILENT
from tests import networks
from tests.profiles import figure, processor

FP32, W8A8 = Precision.parse("fp32"), Precision.parse("W8A8")
TRUE = LatencyFit(1.05, 0.92, 1.0, 1.0, 0.0, 0.0, 0.0, 0)


@pytest.fixture
def profile() -> HardwareProfile:
    return parse_profile(
        processor(
            rates=[
                {"weights": "fp32", "activations": "fp32", "gmac_per_s": figure(0.5)},
                {"weights": "int8", "activations": "int8", "gmac_per_s": figure(2)},
            ],
            conversions=[
                {"from": "fp32", "to": "int8", "us_per_melement": figure(3000)},
                {"from": "int8", "to": "fp32", "us_per_melement": figure(2000)},
            ],
            nodes=[{"operator": "add", "activations": "fp32", "us_per_melement": figure(3000)}],
        )
    )


class _Scripted(Network):
    """A network whose configurations are noted instead of exported."""

    asked: list[tuple[Precision, ...]]

    def call(self, precisions: Sequence[Precision], *, threads: int) -> Call:
        assert threads == 1
        self.asked.append(tuple(precisions))
        return lambda: None


class _Known(Harness):
    """A harness that knows the true time of what was asked for last."""

    def __init__(self, network: _Scripted) -> None:
        super().__init__()
        self.network = network

    def time(self, calls: Sequence[Call], **_: Any) -> list[Timing]:
        graph = self.network.graph
        times = [
            1e3 * TRUE.predict_ms(latency_terms(graph, self.network.profile, graph.config(own)))
            for own in self.network.asked[-len(calls) :]
        ]
        return [Timing(us, us, 1, 2, 0.0, 0.0, True) for us in times]


def scripted(profile: HardwareProfile) -> _Scripted:
    network = _Scripted(networks.captured("residual"), torch.zeros(1, 3, 12, 12), profile)
    network.asked = []
    return network


def test_uniform_configurations_come_first_and_the_fit_is_that_of_their_times(profile: HardwareProfile) -> None:
    network = scripted(profile)
    fit = fit_whole(network, [FP32, W8A8], 8, threads=1, harness=_Known(network), progress=SILENT)
    assert network.asked[0] == (FP32,) * len(network.graph.groups)
    assert network.asked[1] == (W8A8,) * len(network.graph.groups)
    assert len(set(network.asked)) == len(network.asked) == fit.runs == 8
    assert all(len(set(own)) == 2 for own in network.asked[2:])
    assert fit.float_layers == pytest.approx(TRUE.float_layers, abs=0.01)
    assert fit.integer_layers == pytest.approx(TRUE.integer_layers, abs=0.02)
    assert fit.error_after < 0.005 < fit.error_before


def test_what_cannot_be_calibrated_is_refused(profile: HardwareProfile) -> None:
    network = scripted(profile)
    with pytest.raises(InputError, match="expected two precisions or more that processor runs some layers"):
        fit_whole(network, [FP32], 6, threads=1, harness=Harness(), progress=SILENT)
    with pytest.raises(InputError, match="expected two precisions or more that processor runs some layers"):
        fit_whole(network, [FP32, Precision.parse("W4A8")], 6, threads=1, harness=Harness(), progress=SILENT)
    with pytest.raises(InputError, match="expected at least 4 whole networks to calibrate with, got 3"):
        fit_whole(network, [FP32, W8A8], 3, threads=1, harness=Harness(), progress=SILENT)


EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def test_a_linear_layer_is_exported_as_it_is_timed() -> None:
    """What the optimizer leaves of a sequence's layers in a network is what it leaves of each alone."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from hwdse.capture import capture
    from hwdse.deploy.onnx import explicit_model
    from hwdse.hardware.measure.onnxruntime import RUNTIME
    from hwdse.hardware.measure.session import open_session
    from hwdse.hardware.measure.subject import LayerShape

    del onnx
    encoder = load_factory("cpu_networks.py:Encoder", folder=EXPERIMENTS)
    example = torch.randn(1, 16, 64)
    model = encoder(layers=1, width=64, heads=2).eval()
    graph = capture(model, example)
    scheme = {
        "weights": "symmetric",
        "activations": "affine",
        "weight_granularity": "per_block",
        "block_size": 32,
        "full_range": False,
        "unsigned_activations": True,
    }
    rates = [
        {"weights": "fp32", "activations": "fp32", "gmac_per_s": figure(0.5)},
        {"weights": "int8", "activations": "fp32", "op_classes": ["linear"], "gmac_per_s": figure(2)},
    ]
    blocked = parse_profile(processor(name="blocked", scheme=scheme, rates=rates))
    network = Network(graph, example, blocked)
    linear = next(layer for layer in graph.layers if layer.op == "linear")
    expected = {"fp32": "MatMul Add", "W8Afp32": "MatMulNBits"}
    for text, operators in expected.items():
        precision = Precision.parse(text)
        subject = RUNTIME.offers(LayerShape.of(linear), precision, block_size=32)
        assert subject is not None
        assert RUNTIME.build(subject, threads=1).executed == operators
        choices = [precision if graph.layers[graph.layer_index[g.name]].op == "linear" else FP32 for g in graph.groups]
        whole = explicit_model(network.translation, network.quantized, graph.config(choices)).SerializeToString()
        assert optimized(whole, open_session)[: len(operators.split())] == operators.split()


def optimized(model: bytes, open_session: Any) -> list[str]:
    """Return the operators of the optimized graph, in order."""
    import tempfile

    import onnx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        open_session(model, optimized=path)
        return [node.op_type for node in onnx.load(str(path)).graph.node]
