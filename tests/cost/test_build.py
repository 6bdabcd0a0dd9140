from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import hwdse.cost.model as registry
from hwdse.cost import (
    DEFAULT_METRICS,
    CostModel,
    Metric,
    MetricCosts,
    Reduction,
    SumOverSets,
    cost_model,
    cost_table,
    metric_column,
)
from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.graph import Layer, LayerGraph, tie
from hwdse.hardware import HardwareProfile, load_profile

P = Precision.parse
MPIC, GAP9, T4, STM32 = (load_profile(name) for name in ("mpic", "gap9_ne16", "nvidia_t4", "stm32h7a3"))


@pytest.fixture
def graph(chain: Callable[[Sequence[int]], Any]) -> LayerGraph:
    net = chain((3, 16, 16))
    net.conv(8, 3)
    net.conv(8, 3, groups=8)
    net.conv(16, 1)
    net.linear(10)
    return net.graph()


def test_the_default_table_has_five_columns_in_order(graph: LayerGraph) -> None:
    table = cost_table(graph, MPIC, [P("W8A8"), P("W4A4")])
    assert [metric.name for metric in table.metrics] == [
        "size_kib", "bops_g", "latency_ms_predicted", "energy_mj_predicted", "activation_kib",
    ]  # fmt: skip
    assert table.values.shape == (4, 2, 5)
    assert table.supported.all()
    assert not table.emulated.any()
    assert table.edges.tolist() == [[0, 1], [1, 2], [2, 3]]


def test_bit_operations_are_macs_times_both_widths(graph: LayerGraph) -> None:
    table = cost_table(graph, T4, [P("W8A8"), P("W4A8"), P("W4A4"), P("fp32")], metrics=["bops_g"])
    macs = np.array([layer.macs for layer in graph.layers])
    assert table.values[..., 0] == pytest.approx(np.outer(macs, [64, 32, 16, 1024]) * 1e-9)


def test_unsupported_pairs_are_masked_and_never_nan(graph: LayerGraph) -> None:
    table = cost_table(graph, STM32, [P("W8A8"), P("W8A4"), P("W4A4"), P("W16A16")])
    assert table.supported.tolist() == [[True, False, True, False]] * 4
    assert np.isfinite(table.values).all()
    assert not table.values[:, [1, 3]].any()
    assert (table.values[:, 0, :4] > 0).all()


def test_emulation_is_marked(graph: LayerGraph) -> None:
    table = cost_table(graph, T4, [P("W8A8"), P("W4A8"), P("W4A4")])
    assert table.emulated.tolist() == [[False, True, False]] * 4


def test_an_operator_that_the_device_lacks_is_named() -> None:
    layer = Layer("attn.qk", "matmul", "q", "s", (4, 8), (4, 4), 128, second_input="k", second_shape=(8, 4))
    graph = LayerGraph((layer,), (), tie((layer,)))
    message = (
        r"expected operators that gap9_ne16 supports \(conv, pointwise, depthwise, grouped, linear\), got matmul at "
        "attn.qk; add a rate for it to the profile or choose another device"
    )
    with pytest.raises(InputError, match=message):
        cost_table(graph, GAP9, [P("W8A8")], metrics=["latency_ms"])


def test_a_layer_without_a_supported_candidate_is_named(graph: LayerGraph) -> None:
    with pytest.raises(InputError, match=r"supports for conv0 \(W8A8, W4A4, W4A8, fp32\), got W2A2; add one"):
        cost_table(graph, T4, [P("W2A2")])
    with pytest.raises(InputError, match="got none; add one"):
        cost_table(graph, T4, [])


def test_aliases_give_columns_and_columns_are_accepted() -> None:
    assert [metric_column(name) for name in DEFAULT_METRICS] == [
        "size_kib", "bops_g", "latency_ms_predicted", "energy_mj_predicted", "activation_kib",
    ]  # fmt: skip
    assert metric_column("energy_mj_predicted") == "energy_mj_predicted"
    assert isinstance(cost_model("latency_ms"), CostModel)


def test_an_unknown_metric_lists_the_known_ones(graph: LayerGraph) -> None:
    known = "activation_kib, bops_g, energy_mj, latency_ms, memory_kib, size_kib"
    with pytest.raises(InputError, match=rf"\({known}\), got 'latency'"):
        cost_table(graph, MPIC, [P("W8A8")], metrics=["latency"])


def test_a_metric_twice_is_an_error(graph: LayerGraph) -> None:
    with pytest.raises(InputError, match="expected one metric or more, each once, got"):
        cost_table(graph, MPIC, [P("W8A8")], metrics=["latency_ms", "latency_ms_predicted"])
    with pytest.raises(InputError, match="expected one metric or more, each once, got"):
        cost_table(graph, MPIC, [P("W8A8")], metrics=[])


@dataclass
class Plugin:
    values: float = 1.0
    constant: float = 0.0
    peaks: SumOverSets | None = None
    layers: int = 0
    metric: Metric = Metric("cents", Reduction.SUM, "price (cents)")  # noqa: RUF009 - a frozen value

    def costs(self, graph: LayerGraph, profile: HardwareProfile, candidates: Sequence[Precision]) -> MetricCosts:
        assert profile.name
        shape = (self.layers or len(graph.layers), len(candidates))
        return MetricCosts(np.full(shape, self.values), constant=self.constant, peaks=self.peaks)


def install(monkeypatch: pytest.MonkeyPatch, plugin: object) -> None:
    load = registry.load_plugin
    monkeypatch.setattr(registry, "plugin_names", lambda _: ("cents", "size_kib"))
    monkeypatch.setattr(registry, "load_plugin", lambda group, name: plugin if name == "cents" else load(group, name))


def test_a_plug_in_is_a_column_like_any_other(graph: LayerGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Plugin(2.5, constant=1.0))
    table = cost_table(graph, MPIC, [P("W8A8"), P("fp32")], metrics=["size_kib", "cents"])
    assert table.values[:, 0, 1].tolist() == [2.5] * 4
    assert not table.values[:, 1].any()
    assert table.constant[1] == 1.0


FAULTY: Mapping[str, tuple[object, str]] = {
    "nan": (Plugin(float("nan")), "expected finite costs of at least 0, got others from cents"),
    "negative": (Plugin(-1.0), "expected finite costs of at least 0, got others from cents"),
    "constant": (Plugin(constant=float("inf")), "expected finite costs of at least 0, got others from cents"),
    "shape": (Plugin(layers=9), r"expected cents of shape \(4, 1\), got \(9, 1\)"),
    "peaks": (
        Plugin(peaks=SumOverSets(np.zeros((1, 4, 1)), np.zeros(1))),
        "expected sums over live sets from cents if and only if it reduces by max",
    ),
    "no model": (object(), r"expected cents to have metric and costs \(a cost model\), got object"),
}


@pytest.mark.parametrize("case", FAULTY)
def test_a_faulty_plug_in_is_named(graph: LayerGraph, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    plugin, message = FAULTY[case]
    install(monkeypatch, plugin)
    with pytest.raises(InputError, match=message):
        cost_table(graph, MPIC, [P("W8A8")], metrics=["cents"])


def test_every_device_costs_the_four_mlperf_tiny_networks(mlperf_tiny: Mapping[str, LayerGraph]) -> None:
    for device in (MPIC, GAP9, T4, STM32):
        for graph in mlperf_tiny.values():
            table = cost_table(graph, device, device.precisions)
            sums = [m for m, metric in enumerate(table.metrics) if metric.reduction is Reduction.SUM]
            assert (table.values[table.supported][:, sums] > 0).all()
