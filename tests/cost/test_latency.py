from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np
import pytest

from hwdse.cost import cost_table, network_totals, provenance
from hwdse.cost.latency import compute_ms, layer_latency_ms, memory_ms, padded_macs
from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.graph import Layer, LayerGraph
from hwdse.hardware import HardwareProfile, load_profile, parse_profile
from tests.profiles import figure, processor

P = Precision.parse
MPIC, STM32, GAP9, T4 = (load_profile(name) for name in ("mpic", "stm32h7a3", "gap9_ne16", "nvidia_t4"))
ARRAY = parse_profile(
    processor(
        tile={
            "input_channels": figure(16),
            "output_channels": figure(32),
            "output_height": figure(3),
            "output_width": figure(3),
        },
        rates=[{"weights": "int8", "activations": "int8", "gmac_per_s": figure(100)}],
    )
)


def conv(
    inputs: int, outputs: int, size: int, *, kernel: int = 3, stride: int = 1, groups: int = 1, name: str = "c"
) -> Layer:
    weights = (outputs, inputs // groups, kernel, kernel)
    macs = outputs * (inputs // groups) * kernel**2 * size**2
    return Layer(
        name, "conv", "x", "y", (inputs, size * stride, size * stride), (outputs, size, size), macs,
        f"{name}.w", weights, outputs, (kernel, kernel), (stride, stride), groups,
    )  # fmt: skip


def linear(inputs: int, outputs: int, *rows: int) -> Layer:
    macs = inputs * outputs * int(np.prod(rows))
    return Layer("l", "linear", "x", "y", (*rows, inputs), (*rows, outputs), macs, "l.w", (outputs, inputs), outputs)


def total(graph: LayerGraph, device: HardwareProfile, precision: str, *, metric: str = "latency_ms") -> float:
    table = cost_table(graph, device, [P(precision)], metrics=[metric])
    return float(network_totals(table, np.zeros((1, len(graph.layers)), dtype=np.int64))[0, 0])


def test_mpic_takes_macs_over_rate_and_clock() -> None:
    layer = conv(16, 32, 10)
    assert layer_latency_ms(layer, P("W4A8"), MPIC) == pytest.approx(layer.macs / 2.3 / 250e6 * 1e3)
    assert layer_latency_ms(layer, P("W2A2"), MPIC) == pytest.approx(layer.macs / 6.5 / 250e6 * 1e3)


@pytest.mark.parametrize(
    ("layer", "padded"),
    [
        (conv(16, 32, 3), 32 * 16 * 9 * 9),  # one full tile
        (conv(17, 33, 4), 64 * 32 * 9 * 36),
        (conv(3, 8, 7, kernel=1), 32 * 16 * 81),
        (conv(8, 8, 6, groups=8), 16 * 9 * 36),  # depthwise: channels of 16, no padding of the one input channel
        (conv(16, 16, 6, groups=16), 16 * 9 * 36),
        (conv(32, 64, 3, groups=2), 2 * 16 * 32 * 9 * 9),
        (linear(20, 10), 32 * 32),
        (linear(16, 32, 5, 7), 35 * 16 * 32),
    ],
)
def test_an_array_pads_to_its_tiles(layer: Layer, padded: int) -> None:
    assert padded_macs(layer, ARRAY.tile) == pytest.approx(padded)
    assert padded_macs(layer, None) == layer.macs


def test_a_full_ne16_tile_takes_the_modelled_cycles() -> None:
    layer = conv(16, 32, 3)
    rate = GAP9.rate(layer, P("W8A8"))
    assert rate is not None
    cycles = 45 + 32 * 8 + (9 + 32) + 13  # 41472 MACs; normalising 32 channels, streaming out
    factor = GAP9.compute_factor(layer)
    assert compute_ms(layer, rate, GAP9) == pytest.approx(cycles / 370e3 * factor, rel=1e-3)
    many = conv(16, 32, 30)
    assert layer_latency_ms(many, P("W8A8"), GAP9) == pytest.approx(100 * cycles / 370e3 * factor + 0.010, rel=1e-3)


def test_ne16_linears_gain_nothing_from_fewer_bits() -> None:
    layer = linear(640, 128)
    cycles = 4 * (40 * 65 + (9 + 32) + 13)  # 4 x 32 output channels, 40 x 16 input channels, any width of weights
    for bits in (8, 4, 2):
        expected = cycles / 370e3 * GAP9.compute_factor(layer) + 0.010
        assert layer_latency_ms(layer, P(f"W{bits}A8"), GAP9) == pytest.approx(expected)
    rate = GAP9.rate(layer, P("W8A8"))
    assert rate is not None
    assert memory_ms(layer, rate, GAP9) == pytest.approx((640 * 128 + 640 + 128) / 2.96e6)


def test_both_sides_of_the_roofline() -> None:
    raw = T4.spec.model_dump(exclude_none=True, mode="json")
    raw.pop("table")
    device = parse_profile(raw)
    wide, narrow = linear(4096, 4096, 512), linear(4096, 4096)
    compute = 8 * wide.macs / (65e12 * 0.0821) * 1e3
    assert layer_latency_ms(wide, P("W8A8"), device) == pytest.approx(compute + 0.040)
    traffic = 4096 * 4096 + 8 * 2 * 4096
    assert layer_latency_ms(narrow, P("W8A8"), device) == pytest.approx(traffic / 320e9 * 1e3 + 0.040)


def test_the_t4_table_gives_the_published_kernel_time_and_the_glue() -> None:
    layer = conv(64, 64, 56)
    assert layer_latency_ms(layer, P("W4A4"), T4) == pytest.approx(0.062437706 + 0.040, rel=1e-5)
    assert layer_latency_ms(layer, P("W8A8"), T4) == pytest.approx(0.118805863 + 0.040, rel=1e-5)
    stem = conv(3, 64, 112, kernel=7, stride=2)
    assert layer_latency_ms(stem, P("W8A8"), T4) == pytest.approx(0.367891957 + 0.040, rel=1e-5)


def test_emulated_layers_take_the_table_entry_of_their_container() -> None:
    layer = conv(64, 64, 56)
    assert layer_latency_ms(layer, P("W4A8"), T4) == layer_latency_ms(layer, P("W8A8"), T4)


def test_an_entry_of_a_whole_layer_gets_no_overhead() -> None:
    layer = conv(64, 64, 56)
    (key,) = [k for k, entry in T4.table.entries.items() if entry == T4.table.lookup(layer, P("W4A4"))]
    entry = T4.table.entries[key]
    whole = type(T4.table)({key: type(entry)(entry.latency_ms, "layer", entry.kind, entry.source)})
    assert layer_latency_ms(layer, P("W4A4"), HardwareProfile(T4.spec, whole)) == entry.latency_ms


def test_a_shape_beside_the_table_uses_the_closed_form() -> None:
    layer = conv(64, 64, 57)
    closed = 8 * layer.macs / (65e12 * 0.0993) * 1e3 + 0.040
    assert layer_latency_ms(layer, P("W8A8"), T4) == pytest.approx(closed)


def test_provenance_names_the_layers_from_the_table(resnets: Mapping[str, LayerGraph]) -> None:
    origin = provenance(resnets["resnet18"], T4, [P("W4A4"), P("W8A8"), P("fp32"), P("W2A8")])
    assert (origin[:, 0] == "table").sum() == 19  # all but the stem and the classifier, tuned in int8 only
    assert set(origin[[0, -1], 0]) == {"closed form"}
    assert set(origin[:, 1]) == {"table"}
    assert set(origin[:, 2]) == {"closed form"}
    assert set(origin[:, 3]) == {"unsupported"}


# HAWQ-V3, tables I and II: ms per batch of 8; first and last layer always int8.
PUBLISHED_T4 = {
    ("resnet18", "W4A4"): 2.2,
    ("resnet18", "W8A8"): 3.3,
    ("resnet50", "W4A4"): 5.8,
    ("resnet50", "W8A8"): 8.5,
}
INTEGER_PROGRAM_SUMS = {  # of the latencies behind the published integer programs, without stem and classifier
    ("resnet18", "W4A4"): 3.1487,
    ("resnet18", "W8A8"): 5.3437,
    ("resnet50", "W4A4"): 7.6599,
    ("resnet50", "W8A8"): 11.8654,
}


@pytest.mark.parametrize(("name", "precision"), PUBLISHED_T4)
def test_the_t4_kernels_give_back_the_end_to_end_latency(
    resnets: Mapping[str, LayerGraph], name: str, precision: str
) -> None:
    graph = resnets[name]
    table = cost_table(graph, T4, [P(precision), P("W8A8")], metrics=["latency_ms"])
    choices = np.zeros((1, len(graph.layers)), dtype=np.int64)
    choices[0, [0, -1]] = 1
    predicted = network_totals(table, choices)[0, 0]
    published = PUBLISHED_T4[name, precision]
    assert predicted == pytest.approx(published, rel=0.07)
    assert abs(predicted - published) < INTEGER_PROGRAM_SUMS[name, precision] - published


PUBLISHED = {  # MLPerf Tiny, closed division, ms and mJ: v1.2 NUCLEO_H7A3ZI_Q, v1.0 gap9_800_370
    "stm32h7a3": {
        "resnet8": (40.844668, 5.090283),
        "ds_cnn": (11.317851, 1.375599),
        "mobilenet": (23.804423, 2.965461),
        "autoencoder": (1.225484, 0.165728),
    },
    "gap9_ne16": {
        "resnet8": (0.616219, 0.040356),
        "ds_cnn": (0.475465, 0.026659),
        "mobilenet": (1.124799, 0.058356),
        "autoencoder": (0.175698, 0.007294),
    },
}
TOLERANCE = {"stm32h7a3": (0.05, 0.12), "gap9_ne16": (0.18, 0.30)}


@pytest.mark.parametrize("device", PUBLISHED)
@pytest.mark.parametrize("network", ["resnet8", "ds_cnn", "mobilenet", "autoencoder"])
def test_the_fitted_profiles_give_back_mlperf_tiny(
    mlperf_tiny: Mapping[str, LayerGraph], device: str, network: str
) -> None:
    profile = load_profile(device)
    latency, energy = PUBLISHED[device][network]
    within = TOLERANCE[device]
    assert total(mlperf_tiny[network], profile, "W8A8") == pytest.approx(latency, rel=within[0])
    assert total(mlperf_tiny[network], profile, "W8A8", metric="energy_mj") == pytest.approx(energy, rel=within[1])


FLOAT = {"resnet8": 124.223602, "mobilenet": 81.419964, "autoencoder": 5.229907}  # v1.2 NUCLEO_H7A3ZI_float


@pytest.mark.parametrize("network", FLOAT)
def test_the_stm32_gives_back_its_float_latencies(mlperf_tiny: Mapping[str, LayerGraph], network: str) -> None:
    assert total(mlperf_tiny[network], STM32, "fp32") == pytest.approx(FLOAT[network], rel=2e-3)


@pytest.mark.parametrize(("network", "latency"), [("resnet18", 9.7), ("resnet50", 26.2)])
def test_the_t4_gives_back_its_fp32_latencies(resnets: Mapping[str, LayerGraph], network: str, latency: float) -> None:
    assert total(resnets[network], T4, "fp32") == pytest.approx(latency, rel=0.1)


@pytest.mark.parametrize("precision", ["W4A8", "W2A8", "W4A4"])
def test_the_stm32_unpacks_sub_byte_operands_in_software(precision: str) -> None:
    layer = conv(16, 32, 10)
    assert layer_latency_ms(layer, P(precision), STM32) == pytest.approx(layer.macs / 0.56 / 280e6 * 1e3)


def test_below_8_bits_the_stm32_is_slower(mlperf_tiny: Mapping[str, LayerGraph]) -> None:
    graph = mlperf_tiny["ds_cnn"]
    assert total(graph, STM32, "W4A8") > total(graph, STM32, "W8A8")
    assert total(graph, STM32, "W4A8", metric="size_kib") < total(graph, STM32, "W8A8", metric="size_kib")


def test_a_precision_the_device_lacks_is_an_error() -> None:
    with pytest.raises(InputError, match="expected a precision that mpic supports for c, got fp32"):
        layer_latency_ms(conv(3, 8, 4), P("fp32"), MPIC)


def test_switches_cost_where_activation_formats_differ(chain: Callable[[Sequence[int]], Any]) -> None:
    raw = MPIC.spec.model_dump(exclude_none=True, mode="json")
    source = {"kind": "measured", "source": "Ottavi2020"}
    raw["switch"] = {"us": {"value": 3, **source}, "us_per_melement": {"value": 500, **source}}
    raw["overhead"] = {"us_per_inference": {"value": 70, **source}}
    device = parse_profile(raw)
    net = chain((3, 10, 10))
    net.conv(8, 3)
    net.conv(4, 3)
    graph = net.graph()
    candidates = [P("W8A8"), P("W4A4"), P("W4A8")]
    table = cost_table(graph, device, candidates, metrics=["latency_ms", "energy_mj"])
    time = 3e-3 + 500e-3 * 800e-6  # 800 elements are written by the first layer
    assert table.edges.tolist() == [[0, 1]]
    assert table.switches[0, :, :, 0] == pytest.approx(time * np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]]))
    assert table.switches[..., 1] == pytest.approx(table.switches[..., 0] * 5.38e-3)
    assert table.constant == pytest.approx([0.070, 0.070 * 5.38e-3])
    free = cost_table(graph, MPIC, candidates, metrics=["latency_ms"])
    assert free.switches.shape == (1, 3, 3, 1)
    assert not free.switches.any()


def test_tiles_round_up() -> None:
    assert padded_macs(conv(1, 1, 4), ARRAY.tile) == 9 * 16 * 32 * (3 * ceil(4 / 3)) ** 2
