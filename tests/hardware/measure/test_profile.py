from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hwdse.errors import InputError
from hwdse.formats import FP32, Precision, parse
from hwdse.graph import Layer
from hwdse.hardware import HardwareProfile, Kind, ShapeKey, check, load_profile
from hwdse.hardware.measure.profile import Content, latencies_us, lines, write_profile
from hwdse.hardware.measure.subject import LayerShape, tensor_key

SCHEME = {
    "weights": "symmetric",
    "activations": "affine",
    "weight_granularity": "per_channel",
    "full_range": False,
    "unsigned_activations": True,
}
W8A8, W4A8, W2A8 = (Precision.parse(text) for text in ("W8A8", "W4A8", "W2A8"))
CONV = LayerShape.conv((8, 16), 3, 2, 10)
LINEAR = LayerShape.linear((100, 10))
# Microseconds for any number of elements: fixed + slope per 1e6.
BOUNDARIES = {
    ("reorder_input", "fp32"): (1.0, 100.0), ("reorder_output", "fp32"): (2.0, 90.0),
    ("quantize", "fp32"): (0.5, 110.0), ("dequantize", "W8A8"): (0.25, 105.0),
    ("to_nhwc", "W8A8"): (3.0, 50.0), ("to_nchw", "W8A8"): (4.0, 60.0),
    ("add", "fp32"): (0.5, 130.0), ("add", "W8A8"): (0.7, 140.0), ("gelu", "fp32"): (1.5, 600.0),
}  # fmt: skip


@pytest.fixture
def rows(row) -> list[Any]:
    """Return two layers at two precisions, blocked weights, and operators on tensors whose lines are known."""
    found = [
        row(pattern=name, shape=tensor_key(10, (size, size)), precision=precision,
            minimum_us=2.0 + fixed + slope * 10 * size**2 * 1e-6)
        for (name, precision), (fixed, slope) in BOUNDARIES.items() for size in (10, 100)
    ]  # fmt: skip
    ends = {"fp32": "reorder_input:3200 reorder_output:1600", "W8A8": "to_nhwc:3200 to_nchw:1600"}
    return [
        *found,
        row(CONV, minimum_us=102.0, ends=ends["fp32"]),
        row(CONV, "W8A8", minimum_us=52.0, ends=ends["W8A8"]),
        row(LINEAR, minimum_us=12.0),
        row(LINEAR, "W8A8", minimum_us=7.0, is_stable=False),
        row(LINEAR, "W4Afp32", minimum_us=9.0, block_size=64),
    ]


def content(rows, machine, **changes) -> Content:
    return Content(**({"name": "chip", "rows": rows, "machine": machine, "scheme": SCHEME} | changes))


@pytest.fixture
def written(rows, machine, tmp_path: Path) -> HardwareProfile:
    path = write_profile(content(rows, machine, emulated=(W4A8, W2A8)), tmp_path)
    assert path == tmp_path / "chip.toml"
    return load_profile(path)


CONV_LAYER = Layer(
    "c", "conv", "x", "y", (8, 20, 20), (16, 10, 10), CONV.macs, "w", (16, 8, 3, 3), kernel=(3, 3), stride=(2, 2)
)
LINEAR_LAYER = Layer("l", "linear", "x", "y", (100,), (10,), 1000, "w", (10, 100))


def test_lines_are_found_again(rows) -> None:
    found = lines(rows)
    for (name, precision), (fixed, slope) in BOUNDARIES.items():
        line = found[name, Precision.parse(precision).activations.name]
        assert (line.us, line.us_per_melement, line.residual) == pytest.approx((fixed, slope, 0.0), abs=1e-9)


def test_overhead_and_the_ends_of_a_call_are_subtracted(rows) -> None:
    times = latencies_us(rows)
    assert times[CONV, Precision(FP32, FP32)] == pytest.approx(100 - (1 + 0.32) - (2 + 0.144))
    assert times[CONV, W8A8] == pytest.approx(50 - (3 + 0.16) - (4 + 0.096))
    assert times[LINEAR, W8A8] == pytest.approx(5.0)


def test_a_layer_of_which_nothing_is_left_takes_the_shortest_time(row) -> None:
    assert latencies_us([row(LINEAR, minimum_us=2.0)]) == {(LINEAR, Precision(FP32, FP32)): 0.1}


def test_of_two_patterns_of_a_shape_the_newer_counts(row) -> None:
    bare = LayerShape(CONV.key, CONV.input_size)
    assert list(latencies_us([row(CONV), row(bare, minimum_us=42.0)]).values()) == [40.0]


def test_the_table_has_every_layer(written) -> None:
    assert len(written.table) == 4
    entry = written.table.lookup(CONV_LAYER, W8A8)
    assert entry is not None
    assert entry.latency_ms == pytest.approx((50 - 3.16 - 4.096) * 1e-3, rel=1e-6)
    assert (entry.scope, entry.kind) == ("layer", Kind.MEASURED)
    assert written.table.lookup(LINEAR_LAYER, W8A8).latency_ms == pytest.approx(0.005)


def test_fewer_bits_run_in_the_container(written) -> None:
    assert set(written.precisions) == {Precision(FP32, FP32), W8A8, W4A8, W2A8}
    for precision in (W4A8, W2A8):
        assert written.emulated(CONV_LAYER, precision)
        assert written.stored(CONV_LAYER, precision) == W8A8
        assert written.rate(CONV_LAYER, precision).gmac_per_s == written.rate(CONV_LAYER, W8A8).gmac_per_s
    assert not written.emulated(CONV_LAYER, W8A8)


def test_conversions_are_chains_of_what_was_measured(written) -> None:
    int8 = parse("int8")
    to_int8 = written.conversion(FP32, int8, CONV_LAYER)
    assert (to_int8.us.value, to_int8.us_per_melement.value) == pytest.approx((2 + 0.5 + 3, 90 + 110 + 50))
    to_float = written.conversion(int8, FP32, CONV_LAYER)
    assert (to_float.us.value, to_float.us_per_melement.value) == pytest.approx((4 + 0.25 + 1, 60 + 105 + 100))
    assert written.conversion(FP32, int8, LINEAR_LAYER).time_us(10**6) == pytest.approx(110.5)
    assert written.conversion(int8, FP32, LINEAR_LAYER).time_us(10**6) == pytest.approx(105.25)


def test_operators_without_macs_have_their_times(written) -> None:
    assert set(written.node_times("add")) == {"fp32", "int8"}
    assert written.node_times("add")["int8"].time_us(10**6) == pytest.approx(140.7)
    assert written.node_times("gelu")["fp32"].time_us(10**6) == pytest.approx(601.5)
    assert written.node_times("quantize") == {}


def test_the_profile_says_what_it_is_made_of(written, machine) -> None:
    spec = written.spec
    assert spec.kind == "cpu"
    assert spec.software_stack == "fake 1.0, 1 thread"
    assert (
        spec.sources["fake_1_0"] == f"hwdse measure, fake 1.0 on {machine.cpu} ({machine.flags}), 1 thread, 2026-01-02"
    )
    assert "4 latencies of layers" in spec.note
    assert "1 of 22 did not settle" in spec.note
    assert "too few" in spec.note
    assert [(memory.name, memory.holds, memory.capacity_kib.value) for memory in spec.memories] == [
        ("L1", (), 32), ("L2", (), 1024), ("RAM", ("weights", "activations"), 8_000_000),
    ]  # fmt: skip
    assert spec.overhead.us_per_inference.value == 2.0
    assert written.scheme.unsigned_activations


def test_without_counters_power_is_a_judgement_with_its_interval(rows, machine, tmp_path: Path) -> None:
    profile = load_profile(write_profile(content(rows, machine), tmp_path))
    power = profile.spec.power.active_mw
    assert (power.kind, power.low, power.value, power.high) == ("estimate", 1500.0, 5000.0, 20000.0)
    assert "no energy counters" in profile.spec.sources[power.source]


def test_measured_power_is_in_the_profile(rows, machine, tmp_path: Path) -> None:
    profile = load_profile(write_profile(content(rows, machine, active_mw=12345.678), tmp_path))
    assert profile.power_mw == pytest.approx(12346)


def test_blocked_weights_have_a_profile_of_their_own(rows, machine, tmp_path: Path) -> None:
    profile = load_profile(write_profile(content(rows, machine, name="b", block_size=64, emulated=(W4A8,)), tmp_path))
    assert set(profile.precisions) == {Precision(FP32, FP32), Precision.parse("W4Afp32")}
    assert profile.scheme.block_size == 64
    assert profile.spec.conversions == ()
    assert profile.supports(LINEAR_LAYER, Precision.parse("W4Afp32"))
    assert not profile.supports(CONV_LAYER, Precision.parse("W4Afp32"))


def test_a_native_rate_is_not_emulated(row, machine, tmp_path: Path) -> None:
    rows = [row(LINEAR, "W8A8"), row(LINEAR, "W4A8", minimum_us=62.0), row(CONV, "W8A8")]
    profile = load_profile(write_profile(content(rows, machine, emulated=(W4A8,)), tmp_path))
    assert not profile.emulated(LINEAR_LAYER, W4A8)
    assert profile.emulated(CONV_LAYER, W4A8)
    assert profile.table.lookup(LINEAR_LAYER, W4A8).latency_ms == pytest.approx(0.060)


def test_other_shapes_have_a_closed_form(row, machine, tmp_path: Path) -> None:
    """Ten linear layers of 3 us + MACs at 40 GMAC/s give these two figures back."""
    shapes = [LayerShape.linear((100 * (i + 1), 1000)) for i in range(10)]
    rows = [row(shape, minimum_us=2 + 3 + shape.macs / 40e3) for shape in shapes]
    profile = load_profile(write_profile(content(rows, machine), tmp_path))
    rate = profile.rate(LINEAR_LAYER, Precision(FP32, FP32))
    assert profile.macs_ms(LINEAR_LAYER, rate, 40e6) == pytest.approx(1.0)
    assert profile.spec.overhead.us_per_layer.value == pytest.approx(3.0)
    assert rate.gmac_per_s.note == "fit over 10 shapes, cross-validated: median error 0%, worst 0%"


def test_names_with_quotes_stay_readable(row, machine, tmp_path: Path) -> None:
    rows = [row(LINEAR, note='says "no"\\ and\nmore')]
    path = write_profile(content(rows, machine), tmp_path)
    assert check(path) == ()
    assert 'says "no"\\ and\nmore.' in load_profile(path).spec.note


@pytest.mark.parametrize("name", ["Chip", "", "a/b", "-x"])
def test_names_that_no_file_can_have(rows, machine, name: str) -> None:
    with pytest.raises(InputError, match="expected a profile name"):
        content(rows, machine, name=name)


def test_nothing_measured(row, machine, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected measured layers for profile chip, got none"):
        content([row(tensor_key(1, (1,)))], machine)
    with pytest.raises(InputError, match="expected layers for profile chip, got none; name other precisions"):
        write_profile(content([row(LINEAR, "W4Afp32", block_size=32)], machine, block_size=64), tmp_path)


def test_the_shape_key_of_a_tensor_is_no_layer() -> None:
    with pytest.raises(InputError, match="expected a conv, linear, matmul"):
        LayerShape(ShapeKey("tensor", 1, 1, (), (), 1, (1,)))
