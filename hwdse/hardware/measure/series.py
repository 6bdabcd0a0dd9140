"""Measuring many subjects: a few at a time, so that passes lie apart, and written down after every few."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from hwdse.errors import InputError
from hwdse.hardware.measure.machine import Machine
from hwdse.hardware.measure.runtime import Kernel, Runtime
from hwdse.hardware.measure.subject import LayerShape, Subject
from hwdse.hardware.measure.table import Measurement, Record
from hwdse.hardware.measure.timing import Harness
from hwdse.progress import Progress

__all__ = ["Series", "measure"]

MOST_AT_ONCE = 16
FEWEST_AT_ONCE = 4
SECONDS_AT_ONCE = 4.0
WEIGHTS_AT_ONCE = 2**26  # 256 MiB in fp32
NO_INT8_PRODUCTS = "no VNNI: int8 sums may saturate"


@dataclass
class Series:
    """What came of a series of measurements.

    Attributes
    ----------
    rows
        New rows of the record.
    left_out
        Sentence of every subject that the runtime does not run as asked.
    """

    rows: list[Measurement] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def measure(
    runtime: Runtime,
    subjects: Sequence[Subject],
    record: Record,
    *,
    threads: int,
    harness: Harness,
    machine: Machine,
    progress: Progress,
    today: Callable[[], datetime.date] = datetime.date.today,
) -> Series:
    """Measure ``subjects`` and add them to ``record``, which is saved again and again.

    Parameters
    ----------
    runtime
        Runs them.
    threads
        Threads within one operator; the caller keeps the process on that many cores.
    harness
        Times them.
    """
    series = Series()
    version = runtime.version()
    for group in _groups(subjects, harness):
        built: list[tuple[Subject, Kernel]] = []
        for subject in group:
            try:
                built.append((subject, runtime.build(subject, threads=threads)))
            except InputError as error:
                series.left_out.append(str(error))
                for _ in range(harness.passes):
                    progress.advance()
        timings = harness.time([kernel.call for _, kernel in built], on_pass=progress.advance)
        # The empty call is timed with each group: it follows the machine's clock as the others do.
        (overhead,) = harness.time([runtime.null(threads=threads).call])
        common = {
            "runtime": runtime.name,
            "version": version,
            "cpu": machine.cpu,
            "cpu_flags": machine.flags,
            "threads": threads,
            "overhead_us": overhead.minimum_us,
            "date": today().isoformat(),
        }
        new = [
            Measurement.model_validate(
                common | _subject_columns(subject) | _kernel_columns(kernel) | asdict(timing) | _note(subject, machine)
            )
            for (subject, kernel), timing in zip(built, timings, strict=True)
        ]
        record.add(*new)
        record.save()
        series.rows += new
    return series


def _groups(subjects: Sequence[Subject], harness: Harness) -> Iterator[list[Subject]]:
    """Yield the subjects in groups whose passes follow each other; few where one takes long or weighs much."""
    seconds = harness.seconds_per_pass * harness.passes
    most = max(FEWEST_AT_ONCE, min(MOST_AT_ONCE, int(SECONDS_AT_ONCE / seconds)))
    group: list[Subject] = []
    weights = 0
    for subject in subjects:
        count = subject.shape.weight_count if isinstance(subject.shape, LayerShape) else subject.elements
        if group and (len(group) == most or weights + count > WEIGHTS_AT_ONCE):
            yield group
            group, weights = [], 0
        group.append(subject)
        weights += count
    if group:
        yield group


def _subject_columns(subject: Subject) -> dict[str, Any]:
    """Return what identifies a subject, as columns of the record."""
    return asdict(subject.key) | {
        "pattern": subject.pattern,
        "input_size": subject.shape.input_size if isinstance(subject.shape, LayerShape) else (),
        "weights": subject.precision.weights.name,
        "activations": subject.precision.activations.name,
        "block_size": subject.block_size,
    }


def _kernel_columns(kernel: Kernel) -> dict[str, Any]:
    """Return what ran, as columns of the record."""
    return {
        "input_format": kernel.input_format,
        "output_format": kernel.output_format,
        "executed": kernel.executed,
        "ends": " ".join(f"{name}:{elements}" for name, elements in kernel.ends),
        "share": kernel.share(),
    }


def _note(subject: Subject, machine: Machine) -> dict[str, str]:
    """Return what else there is to know of a row."""
    is_integer = subject.precision.weights.is_integer and subject.precision.activations.is_integer
    is_weak = isinstance(subject.shape, LayerShape) and is_integer and not machine.has_int8_products
    return {"note": NO_INT8_PRODUCTS if is_weak else ""}
