"""Floating-point formats against the framework's types, bit pattern by bit pattern, and the lists of the standards."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hwdse.errors import InputError
from hwdse.formats import FP32, Kind, Levels, parse
from hwdse.formats.floating import Top, minifloat_values

TYPES = {
    "fp8_e4m3": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
PATTERNS = {8: torch.uint8, 16: torch.uint16}

# Open Compute Project, "OCP Microscaling Formats (MX) Specification", version 1.0, 2023, section 5.3: the positive
# values, from the smallest subnormal to the largest normal number.
MX = {
    "fp4_e2m1": "0.5 1 1.5 2 3 4 6",
    "fp6_e2m3": (
        "0.125 0.25 0.375 0.5 0.625 0.75 0.875 1 1.125 1.25 1.375 1.5 1.625 1.75 1.875 2 2.25 2.5 2.75 3 3.25 3.5 3.75 "
        "4 4.5 5 5.5 6 6.5 7 7.5"
    ),
    "fp6_e3m2": (
        "0.0625 0.125 0.1875 0.25 0.3125 0.375 0.4375 0.5 0.625 0.75 0.875 1 1.25 1.5 1.75 2 2.5 3 3.5 4 5 6 7 8 10 12 "
        "14 16 20 24 28"
    ),
}


@pytest.mark.parametrize("name", MX)
def test_the_values_of_the_microscaling_formats(name: str) -> None:
    positive = [float(value) for value in MX[name].split()]
    assert parse(name).values.tolist() == [*(-v for v in positive[::-1]), 0.0, *positive]
    assert len(positive) == 2 ** (parse(name).bits - 1) - 1  # two codes of zero


@pytest.mark.parametrize("name", TYPES)
def test_the_values_are_all_finite_bit_patterns(name: str) -> None:
    bits = parse(name).bits
    decoded = torch.arange(2**bits).to(PATTERNS[bits]).view(TYPES[name]).double()
    assert parse(name).values.tolist() == decoded[decoded.isfinite()].unique().tolist()


@pytest.mark.parametrize("name", TYPES)
def test_rounding_is_the_frameworks(name: str, rounding: SimpleNamespace) -> None:
    levels = Levels(parse(name))
    middles = levels.midpoints.astype(np.float32)
    assert middles.tolist() == levels.midpoints.tolist()  # all of them are float32 numbers, so that ties are met
    rng = np.random.default_rng(0)
    largest = levels.values[-1]
    spread = np.exp(rng.uniform(np.log(levels.values[levels.values > 0][0] / 4), np.log(largest), 100_000))
    x = np.concatenate(
        [
            middles,
            np.nextafter(middles, np.float32(np.inf)),
            np.nextafter(middles, np.float32(-np.inf)),
            levels.values,
            spread * rng.choice([-1.0, 1.0], spread.size),
            [-3.4e38, 3.4e38, 0.0, -0.0],
        ]
    ).astype(np.float32)
    # Casts of what is too large differ from type to type; a level is never infinite.
    cast = torch.from_numpy(x).clamp(-largest, largest).to(TYPES[name]).double().numpy()
    np.testing.assert_array_equal(rounding.by_thresholds(levels, x), cast)


@pytest.mark.parametrize(
    ("name", "largest", "smallest"),
    [
        ("fp8_e4m3", 448.0, 2.0**-9),  # P. Micikevicius et al., "FP8 Formats for Deep Learning", 2022, table 1
        ("fp8_e5m2", 57344.0, 2.0**-16),
        ("fp16", 65504.0, 2.0**-24),
        ("bf16", 3.3895313892515355e38, 2.0**-133),
    ],
)
def test_published_extremes(name: str, largest: float, smallest: float) -> None:
    values = parse(name).values
    assert (values[-1], values[values > 0.0][0]) == (largest, smallest)


def test_the_largest_exponent_is_numbers_numbers_but_one_or_none() -> None:
    assert minifloat_values(2, 1, Top.FINITE)[-3:].tolist() == [3.0, 4.0, 6.0]
    assert minifloat_values(2, 1, Top.ONE_NAN)[-3:].tolist() == [2.0, 3.0, 4.0]
    assert minifloat_values(2, 1, Top.IEEE)[-3:].tolist() == [1.5, 2.0, 3.0]


@pytest.mark.parametrize("name", ["fp16", "bf16", "fp32"])
def test_the_plain_formats_have_no_scale(name: str) -> None:
    number_format = parse(name)
    assert (number_format.kind, number_format.has_scale, number_format.is_signed) == (Kind.PLAIN, False, True)
    scale, zero_point = Levels(number_format).grid([-3.0, 0.0], [1e30, 0.0])
    assert (scale.tolist(), zero_point.tolist()) == ([1.0, 1.0], [0.0, 0.0])


def test_fp32_is_no_list() -> None:
    assert parse("fp32") is FP32
    assert (FP32.bits, FP32.is_integer, FP32.is_signed) == (32, False, True)
    assert FP32.unsigned() is FP32
    with pytest.raises(InputError, match=r"expected a format of at most 2\*\*16 values to list, got fp32 with 2\*\*32"):
        _ = FP32.values
