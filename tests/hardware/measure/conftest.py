"""A clock that only moves when work is done, a runtime whose times are known, and rows made by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest

from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.hardware.lut import ShapeKey
from hwdse.hardware.measure.machine import Cache, Machine
from hwdse.hardware.measure.runtime import Kernel
from hwdse.hardware.measure.subject import LayerShape, Subject, tensor_key
from hwdse.hardware.measure.table import Measurement

FP32, W8A8 = Precision.parse("fp32"), Precision.parse("W8A8")
MACHINE = Machine("Chip 9, 4 cores", "avx2 avx512_vnni", (Cache("L1", 32), Cache("L2", 1024)), 8_000_000)


class Clock:
    """Nanoseconds that work adds to."""

    def __init__(self) -> None:
        self.ns = 0
        self.log: list[str] = []

    def __call__(self) -> int:
        return self.ns

    def work(self, name: str, us: float | Callable[[], float]) -> Callable[[], None]:
        """Return a call that takes ``us`` microseconds and is noted in the log."""

        def call() -> None:
            self.log.append(name)
            self.ns += round(1000 * (us() if callable(us) else us))

        return call


class FakeRuntime:
    """Takes 10 us for an empty call, 1 us per 1e6 MACs, and 2 us + 3 us per 1e6 elements on tensors."""

    name = "fake"
    scheme: ClassVar[dict[str, object]] = {
        "weights": "symmetric",
        "activations": "affine",
        "weight_granularity": "per_channel",
        "full_range": False,
        "unsigned_activations": True,
    }

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.refused: set[ShapeKey] = set()
        self.built: list[Subject] = []

    def version(self) -> str:
        return "1.0"

    def offers(self, shape: LayerShape, precision: Precision, *, block_size: int) -> Subject | None:  # noqa: ARG002
        return Subject(shape.key.op, shape, precision, 0) if precision in (FP32, W8A8) else None

    def boundaries(self) -> Sequence[Subject]:
        return [Subject("quantize", tensor_key(10, (size, size)), FP32) for size in (10, 30)]

    def nodes(self) -> Sequence[Subject]:
        return [Subject("add", tensor_key(10, (size, size)), FP32) for size in (10, 30)]

    def null(self, *, threads: int) -> Kernel:  # noqa: ARG002
        return Kernel(self.clock.work("null", 10.0), "Nothing", "fp32", "fp32")

    def build(self, subject: Subject, *, threads: int) -> Kernel:  # noqa: ARG002
        if subject.key in self.refused:
            raise InputError(f"expected a shape that runs, got {subject.key}")
        self.built.append(subject)
        shape = subject.shape
        us = 10 + shape.macs * 1e-6 if isinstance(shape, LayerShape) else 12 + 3e-6 * subject.elements
        name = subject.precision.activations.name
        return Kernel(self.clock.work(subject.pattern, us), "Work", name, name)


def make_row(shape: LayerShape | ShapeKey, precision: str = "fp32", **changes: Any) -> Measurement:
    """Return a row of the record with an overhead of 2 us."""
    layer = shape if isinstance(shape, LayerShape) else None
    key = shape.key if isinstance(shape, LayerShape) else shape
    formats = Precision.parse(precision)
    values: dict[str, Any] = {
        "runtime": "fake", "version": "1.0", "cpu": MACHINE.cpu, "cpu_flags": MACHINE.flags, "threads": 1,
        "pattern": "conv+bias+relu" if layer is not None and layer.relu else key.op,
        "op": key.op, "input_channels": key.input_channels, "output_channels": key.output_channels,
        "kernel": key.kernel, "stride": key.stride, "groups": key.groups,
        "input_size": layer.input_size if layer is not None else (), "output_size": key.output_size,
        "weights": formats.weights.name, "activations": formats.activations.name, "block_size": 0,
        "input_format": formats.activations.name, "output_format": formats.activations.name, "executed": "Work",
        "ends": "", "minimum_us": 102.0, "p10_us": 104.5, "overhead_us": 2.0, "share": 1.0, "count": 1000, "passes": 2,
        "spread": 0.01, "drift": 0.002, "is_stable": True, "note": "", "date": "2026-01-02",
    }  # fmt: skip
    return Measurement.model_validate(values | changes)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def runtime(clock: Clock) -> FakeRuntime:
    return FakeRuntime(clock)


@pytest.fixture
def machine() -> Machine:
    return MACHINE


@pytest.fixture
def row() -> Callable[..., Measurement]:
    return make_row
