"""Closed forms of cycles against the published formulas, worked out by hand."""

from __future__ import annotations

from math import prod

import pytest

from hwdse.cost.energy import layer_energy_mj
from hwdse.cost.latency import layer_latency_ms
from hwdse.formats import Precision
from hwdse.graph import Layer
from hwdse.hardware import load_profile
from hwdse.hardware.cycles import CYCLE_MODELS, diana_analog, diana_digital, gap8, ne16

P = Precision.parse
W8A8 = P("W8A8")
FINISH = 9 + 32 + 13
"""Cycles of NE16 to normalise and to stream out 32 channels."""


def conv(inputs: int, outputs: int, *size: int, kernel: tuple[int, ...] = (3, 3), groups: int = 1) -> Layer:
    weights = (outputs, inputs // groups, *kernel)
    stride = (1,) * len(size)
    return Layer(
        "c", "conv", "x", "y", (inputs, *size), (outputs, *size), prod(weights) * prod(size), "c.w", weights, 0, kernel,
        stride, groups,
    )  # fmt: skip


def pointwise(inputs: int, outputs: int, *size: int) -> Layer:
    return conv(inputs, outputs, *size, kernel=(1, 1))


def depthwise(channels: int, *size: int, kernel: tuple[int, ...] = (3, 3)) -> Layer:
    return conv(channels, channels, *size, kernel=kernel, groups=channels)


def linear(inputs: int, outputs: int, *rows: int) -> Layer:
    macs = inputs * outputs * prod(rows)
    return Layer("l", "linear", "x", "y", (*rows, inputs), (*rows, outputs), macs, "l.w", (outputs, inputs))


MATMUL = Layer("qk", "matmul", "q", "s", (4, 16, 8), (4, 16, 16), 8192, second_input="k", second_shape=(4, 8, 16))

GAP8 = [
    # ceil(Wo / 2) ceil(Ho / 8) (2 k^2 Ci + ceil(Co / 4) (15 + 14 ceil(k^2 Ci / 4)))
    (conv(16, 32, 10, 10), 5 * 2 * (2 * 9 * 16 + 8 * (15 + 14 * 36))),
    (conv(3, 10, 9, 5), 3 * 2 * (2 * 9 * 3 + 3 * (15 + 14 * 7))),
    (conv(3, 10, 5, 9), 5 * 1 * (2 * 9 * 3 + 3 * (15 + 14 * 7))),
    (conv(1, 64, 25, 5, kernel=(10, 4)), 3 * 4 * (2 * 40 * 1 + 16 * (15 + 14 * 10))),
    (pointwise(64, 64, 25, 5), 3 * 4 * (2 * 64 + 16 * (15 + 14 * 16))),
    (conv(4, 8, 50, kernel=(9,)), 25 * 1 * (2 * 9 * 4 + 2 * (15 + 14 * 9))),
    (conv(32, 32, 8, 2, groups=2), 2 * (1 * 1 * (2 * 9 * 16 + 4 * (15 + 14 * 36)))),
    # 4 ceil(C / 4) Ho Wo k^2
    (depthwise(64, 25, 5), 4 * 16 * 25 * 5 * 9),
    (depthwise(10, 4, 3), 4 * 3 * 4 * 3 * 9),
    # rows ceil(Ci / 2) ceil(Co / 4)
    (linear(64, 12), 32 * 3),
    (linear(65, 13), 33 * 4),
    (linear(65, 13, 5, 7), 5 * 7 * 33 * 4),
    (MATMUL, 4 * 16 * 4 * 4),
]


@pytest.mark.parametrize(("layer", "cycles"), GAP8)
@pytest.mark.parametrize("precision", ["W8A8", "W4A8"])
def test_gap8(layer: Layer, cycles: int, precision: str) -> None:
    assert gap8(layer, P(precision)) == cycles


NE16_PARTS = [
    # For 16 input channels 6 + 25 (load) + 6 (offset) + 6 + w Co (product) + 2; once 9 + Co and 13.
    (conv(16, 32, 3, 3), 8, 31 + 6 + (6 + 8 * 32) + 2 + 41 + 13),
    (conv(16, 32, 3, 3), 4, 31 + 6 + (6 + 4 * 32) + 2 + 41 + 13),
    (conv(16, 32, 3, 3), 2, 31 + 6 + (6 + 2 * 32) + 2 + 41 + 13),
    # 2 x 2 tiles of pixels; 2 tiles of input channels; 32 output channels and one more.
    (conv(17, 33, 4, 4), 8, 4 * (2 * (45 + 8 * 32) + 54 + 2 * (45 + 8 * 1) + 23)),
    (conv(17, 33, 4, 4), 4, 4 * (2 * (45 + 4 * 32) + 54 + 2 * (45 + 4 * 1) + 23)),
    (conv(17, 33, 4, 4), 2, 4 * (2 * (45 + 2 * 32) + 54 + 2 * (45 + 2 * 1) + 23)),
    (conv(32, 64, 3, 3, groups=2), 8, 2 * (45 + 8 * 32 + 54)),
    (conv(32, 64, 3, 3, groups=2), 2, 2 * (45 + 2 * 32 + 54)),
    # 1 x 1: 10 + 9 (load) + 6 + 6 + Co + 2 at any width; 3 x 2 tiles of pixels; 32 channels and 8 more.
    *((pointwise(16, 32, 3, 3), w, 19 + 6 + (6 + 32) + 2 + 54) for w in (8, 4, 2)),
    *((pointwise(3, 40, 7, 5), w, 6 * ((65 + 54) + (19 + 6 + (6 + 8) + 2 + 9 + 8 + 13))) for w in (8, 4, 2)),
    # Depthwise: 31 (load) + 6 + C + 6 + w C + 2 + 9 + C + 13, 16 channels at a time.
    (depthwise(16, 3, 3), 8, 31 + (6 + 16) + (6 + 8 * 16) + 2 + 25 + 13),
    (depthwise(16, 3, 3), 4, 31 + (6 + 16) + (6 + 4 * 16) + 2 + 25 + 13),
    (depthwise(16, 3, 3), 2, 31 + (6 + 16) + (6 + 2 * 16) + 2 + 25 + 13),
    (depthwise(20, 5, 4), 8, 4 * (227 + 31 + (6 + 4) + (6 + 8 * 4) + 2 + 13 + 13)),
    (depthwise(20, 5, 4), 4, 4 * (163 + 31 + (6 + 4) + (6 + 4 * 4) + 2 + 13 + 13)),
    (depthwise(20, 5, 4), 2, 4 * (131 + 31 + (6 + 4) + (6 + 2 * 4) + 2 + 13 + 13)),
    # Linear: as 1 x 1, each row a pixel, three rows per tile.
    *((linear(64, 12), w, 4 * (19 + 6 + (6 + 12) + 2) + 9 + 12 + 13) for w in (8, 4, 2)),
    *((linear(640, 128), w, 4 * (40 * 65 + 54)) for w in (8, 4, 2)),
    (linear(16, 32, 5, 7), 8, 12 * (65 + 54)),
    # 5 x 5: one pass of 3 x 3, and 25 - 9 = 16 passes of 1 x 1.
    *((conv(16, 32, 3, 3, kernel=(5, 5)), w, (45 + w * 32 + 54) + 16 * (65 + 54)) for w in (8, 4, 2)),
    # 10 x 4: three passes of 3 x 3 and 40 - 27 = 13 of 1 x 1; 9 x 2 tiles of pixels, 2 of output channels.
    (conv(1, 64, 25, 5, kernel=(10, 4)), 8, 18 * 2 * (3 * (45 + 256 + 54) + 13 * (65 + 54))),
]


@pytest.mark.parametrize(("layer", "bits", "cycles"), NE16_PARTS)
def test_ne16(layer: Layer, bits: int, cycles: int) -> None:
    assert ne16(layer, P(f"W{bits}A8")) == cycles


@pytest.mark.parametrize("bits", [8, 7, 6, 5, 4, 3, 2])
def test_a_full_ne16_tile_takes_the_published_cycles(bits: int) -> None:
    tile, twice = conv(16, 32, 3, 3), conv(32, 32, 3, 3)
    assert tile.macs == 41472
    assert ne16(tile, P(f"W{bits}A8")) - FINISH == 45 + 32 * bits
    assert ne16(twice, P(f"W{bits}A8")) - ne16(tile, P(f"W{bits}A8")) == 45 + 32 * bits
    single = pointwise(16, 32, 3, 3)
    assert single.macs == 4608
    assert ne16(single, P(f"W{bits}A8")) - FINISH == 65


@pytest.mark.parametrize(("bits", "macs_per_cycle"), [(8, 138), (4, 240), (2, 380)])
def test_many_ne16_tiles_reach_the_published_rates(bits: int, macs_per_cycle: int) -> None:
    deep = conv(16 * 1000, 32, 3, 3)
    assert deep.macs / ne16(deep, P(f"W{bits}A8")) == pytest.approx(macs_per_cycle, rel=3e-3)


DIGITAL = [
    # ceil(Co / groups / 16) Ci ceil(Wo / 16) Ho k^2 + Ho Wo (Ci + Co) / 8
    (conv(16, 32, 10, 17), 2 * 16 * 2 * 10 * 9 + 10 * 17 * 48 / 8),
    (conv(16, 32, 17, 10), 2 * 16 * 1 * 17 * 9 + 10 * 17 * 48 / 8),
    (conv(3, 17, 5, 5), 2 * 3 * 1 * 5 * 9 + 25 * 20 / 8),
    (conv(1, 64, 25, 5, kernel=(10, 4)), 4 * 1 * 1 * 25 * 40 + 125 * 65 / 8),
    (pointwise(64, 64, 25, 5), 4 * 64 * 1 * 25 + 125 * 128 / 8),
    (depthwise(64, 25, 5), 1 * 64 * 1 * 25 * 9 + 125 * 128 / 8),
    (conv(32, 64, 4, 4, groups=2), 2 * 32 * 1 * 4 * 9 + 16 * 96 / 8),
    (linear(64, 12), 1 * 64 + 76 / 8),
    (linear(640, 128), 8 * 640 + 768 / 8),
]


@pytest.mark.parametrize(("layer", "cycles"), DIGITAL)
def test_diana_digital(layer: Layer, cycles: float) -> None:
    assert diana_digital(layer, W8A8) == cycles


ANALOG = [
    # 64 output pixels; 1 x 1: u Co <= 512 and u max(64, Ci) <= 1152.
    (pointwise(64, 64, 8, 8), 8, 8 * 64, 1 * 1 * 64),  # 8 x 64 columns are all there are
    (pointwise(64, 65, 8, 8), 4, 8 * 64, 1 * 1 * 64),
    (pointwise(64, 128, 8, 8), 4, 8 * 64, 1 * 1 * 64),
    (pointwise(64, 129, 8, 8), 2, 8 * 64, 1 * 1 * 64),
    (pointwise(64, 256, 8, 8), 2, 8 * 64, 1 * 1 * 64),
    (pointwise(64, 257, 8, 8), 1, 8 * 64, 1 * 1 * 64),
    (pointwise(64, 512, 8, 8), 1, 8 * 64, 1 * 1 * 64),
    (pointwise(64, 513, 8, 8), 1, 8 * 64, 2 * 1 * 64),
    (pointwise(128, 16, 8, 8), 8, 8 * 128, 1 * 1 * 64),
    (pointwise(144, 16, 8, 8), 8, 8 * 144, 1 * 2 * 64),  # 8 x 144 rows are all there are
    (pointwise(145, 16, 8, 8), 4, 8 * 145, 1 * 2 * 64),
    (pointwise(288, 16, 8, 8), 4, 8 * 288, 1 * 3 * 64),
    (pointwise(289, 16, 8, 8), 2, 8 * 289, 1 * 3 * 64),
    (pointwise(576, 16, 8, 8), 2, 8 * 576, 1 * 5 * 64),
    (pointwise(577, 16, 8, 8), 1, 8 * 577, 1 * 5 * 64),
    # 3 x 3: (u + 2) max(64, Ci) 3 <= 1152.
    (conv(16, 16, 8, 8), 4, 8 * 16 * 9, 1 * 1 * 64),  # 6 x 64 x 3 = 1152; 10 x 64 x 3 is too many
    (conv(64, 16, 8, 8), 4, 8 * 64 * 9, 1 * 1 * 64),
    (conv(65, 16, 8, 8), 2, 8 * 65 * 9, 1 * 1 * 64),
    (conv(96, 16, 8, 8), 2, 8 * 96 * 9, 1 * 1 * 64),  # 4 x 96 x 3 = 1152
    (conv(97, 16, 8, 8), 1, 8 * 97 * 9, 1 * 1 * 64),
    (conv(128, 512, 8, 8), 1, 8 * 128 * 9, 1 * 1 * 64),  # the whole array
    # Pixels are side by side in a row: (u + columns - 1) 64 rows <= 1152.
    (conv(16, 16, 8, 8, kernel=(1, 9)), 8, 8 * 16 * 9, 1 * 1 * 64),
    (conv(16, 16, 8, 8, kernel=(9, 1)), 2, 8 * 16 * 9, 1 * 1 * 64),
    (linear(640, 12), 1, 8 * 640, 1 * 5 * 1),
]


@pytest.mark.parametrize(("layer", "unrolled", "writing", "products"), ANALOG)
def test_diana_analog(layer: Layer, unrolled: int, writing: int, products: int) -> None:
    product_cycles = 70 * 260 / 1000  # 70 ns at 260 MHz
    cycles = diana_analog(layer, P("WternaryA7"))
    assert cycles == pytest.approx(writing + products / unrolled * product_cycles)


def test_there_are_these_closed_forms() -> None:
    found = dict(CYCLE_MODELS)
    assert found == {"diana_analog": diana_analog, "diana_digital": diana_digital, "gap8": gap8, "ne16": ne16}


@pytest.mark.parametrize(
    ("device", "precision", "layer", "latency_ms"),
    [
        ("gap8", "W8A8", conv(16, 32, 10, 10), 44400 / 175e3),
        ("gap8", "W8A8", depthwise(64, 25, 5), 72000 / 175e3),
        ("diana", "W8A8", conv(16, 32, 10, 17), 6780 / 260e3),
        ("diana", "W8A7", conv(16, 32, 10, 17), 6780 / 260e3),
        ("diana", "WternaryA7", pointwise(64, 64, 8, 8), (512 + 8 * 18.2) / 260e3),
    ],
)
def test_cycles_over_the_clock_are_the_latency(device: str, precision: str, layer: Layer, latency_ms: float) -> None:
    profile = load_profile(device)
    assert profile.spec.calibration is None
    assert layer_latency_ms(layer, P(precision), profile) == pytest.approx(latency_ms)


MPIC = {  # MAC per cycle by weight and activation width [Ottavi2020]
    "W8A8": 2.1, "W4A8": 2.3, "W2A8": 2.5, "W8A4": 2.1, "W4A4": 3.5, "W2A4": 3.9, "W8A2": 2.2, "W4A2": 4.0, "W2A2": 6.5,
}  # fmt: skip


@pytest.mark.parametrize("precision", MPIC)
def test_mpic_takes_macs_over_the_rate_and_the_same_power_at_every_width(precision: str) -> None:
    layer, profile = conv(16, 32, 10, 10), load_profile("mpic")
    seconds = 16 * 32 * 9 * 100 / MPIC[precision] / 250e6
    assert layer_latency_ms(layer, P(precision), profile) == pytest.approx(seconds * 1e3)
    assert layer_energy_mj(layer, P(precision), profile) == pytest.approx(seconds * 5.38)
