"""The full record of what was measured: one row per runtime, machine, pattern, shape and precision, in a CSV file."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from hwdse.errors import InputError
from hwdse.files import lock, write_text
from hwdse.formats import Precision, parse
from hwdse.hardware.faults import sentences
from hwdse.hardware.lut import ShapeKey
from hwdse.hardware.measure.machine import Machine
from hwdse.hardware.measure.subject import LayerShape, Subject
from hwdse.hardware.quantity import Section, Text
from hwdse.hardware.rate import ActivationName, FormatName

__all__ = ["COLUMNS", "Measurement", "Record", "locked"]

Size = tuple[Annotated[int, Field(ge=1)], ...]
Whole = Annotated[int, Field(ge=0)]
Figure = Annotated[float, Field(ge=0, allow_inf_nan=False)]
RELU = "+relu"


class Measurement(Section):
    """One row of the record."""

    runtime: Text = Field(description="library that ran it")
    version: Text = Field(description="its version")
    cpu: Text = Field(description="processor model")
    cpu_flags: str = Field(description="vector instructions of the processor")
    threads: Annotated[int, Field(ge=1)] = Field(description="threads within one operator")
    pattern: Text = Field(description="operators computed as one, such as `conv+bias+relu`")
    op: Literal["conv", "linear", "matmul", "tensor"] = Field(description="operator of the layer, or a tensor")
    input_channels: Annotated[int, Field(ge=1)] = Field(description="as in a latency table")
    output_channels: Annotated[int, Field(ge=1)] = Field(description="as in a latency table")
    kernel: Size = Field(description="as in a latency table")
    stride: Size = Field(description="as in a latency table")
    groups: Annotated[int, Field(ge=1)] = Field(description="as in a latency table")
    input_size: Size = Field(description="spatial size of a convolution's input")
    output_size: Size = Field(description="as in a latency table; of a tensor, its axes without the channels")
    weights: FormatName = Field(description="weight format")
    activations: ActivationName = Field(description="activation format")
    block_size: Whole = Field(description="weights per scale, 0 without blocks")
    input_format: Text = Field(description="format that the call reads")
    output_format: Text = Field(description="format that the call writes")
    executed: str = Field(description="operators that really ran")
    ends: str = Field(description="boundary operators in the call, each with its number of values")
    minimum_us: Figure = Field(description="fastest call in microseconds, overhead included")
    p10_us: Figure = Field(description="tenth percentile in microseconds, overhead included")
    overhead_us: Figure = Field(description="fastest empty call in microseconds")
    share: Annotated[float, Field(ge=0, le=1)] = Field(
        description="share of the time without overhead that the pattern itself takes, by the runtime's counters"
    )
    count: Whole = Field(description="samples")
    passes: Whole = Field(description="separated passes")
    spread: Figure = Field(description="how far the two fastest passes lie apart, as a share")
    drift: Figure = Field(description="how much slower than its best the reference kernel was, as a share")
    is_stable: bool = Field(description="both within the tolerance")
    note: str = Field(description="what else to know")
    date: Text = Field(description="day of the measurement")

    @property
    def key(self) -> tuple[object, ...]:
        """What a newer row must share to replace this one: everything but the result and the input size."""
        return (
            self.runtime, self.version, self.cpu, self.cpu_flags, self.threads, self.pattern, self.shape,
            self.precision, self.block_size, self.input_format, self.output_format,
        )  # fmt: skip

    @property
    def shape(self) -> ShapeKey:
        """The layer or tensor."""
        return ShapeKey(
            self.op,
            self.input_channels,
            self.output_channels,
            self.kernel,
            self.stride,
            self.groups,
            self.output_size,
        )

    @property
    def precision(self) -> Precision:
        """The pair of formats."""
        return Precision(parse(self.weights), parse(self.activations))

    @property
    def subject(self) -> Subject:
        """What was measured."""
        if self.op == "tensor":
            return Subject(self.pattern, self.shape, self.precision, self.block_size)
        layer = LayerShape(self.shape, self.input_size, self.pattern.endswith(RELU))
        return Subject(self.pattern, layer, self.precision, self.block_size)

    @property
    def net_us(self) -> float:
        """Microseconds of the call without the overhead of an empty one, and without what is not the subject's."""
        return max(self.minimum_us - self.overhead_us, 0.0) * self.share

    @property
    def end_elements(self) -> tuple[tuple[str, int], ...]:
        """Boundary operators in the call with the values they handle."""
        parts = (part.partition(":") for part in self.ends.split())
        return tuple((name, int(elements)) for name, _, elements in parts)


COLUMNS = tuple(Measurement.model_fields)
SIZES = ("kernel", "stride", "input_size", "output_size")
CONVERT: Mapping[type, Any] = {int: int, float: float}


class Record:
    """The rows of one file, the newest of every key.

    Parameters
    ----------
    path
        CSV file; read if it is there.

    Raises
    ------
    InputError
        If the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[tuple[object, ...], Measurement] = {}
        if path.exists():
            self.add(*_read(path))

    @property
    def rows(self) -> tuple[Measurement, ...]:
        """All rows in the order of their first measurement."""
        return tuple(self._rows.values())

    def add(self, *rows: Measurement) -> None:
        """Take in rows; each replaces the row of its key."""
        for row in rows:
            self._rows[row.key] = row

    def check(self, machine: Machine, versions: Mapping[str, str]) -> None:
        """Refuse to mix measurements of two machines, or of two versions of one runtime.

        Raises
        ------
        InputError
            If a row is of another machine or version.
        """
        advice = "name another profile with --name, or keep both with --allow-other-machine"
        for row in self.rows:
            if (row.cpu, row.cpu_flags) != (machine.cpu, machine.flags):
                raise InputError(
                    f"expected measurements of this processor ({machine.cpu}; {machine.flags}) in {self.path}, got "
                    f"some of {row.cpu} ({row.cpu_flags}); {advice}"
                )
            version = versions.get(row.runtime, row.version)
            if row.version != version:
                raise InputError(
                    f"expected measurements of {row.runtime} {version} in {self.path}, got some of {row.version}; "
                    f"{advice}"
                )

    def select(self, machine: Machine, *, runtime: str, version: str, threads: int) -> tuple[Measurement, ...]:
        """Return the rows of one runtime on one machine."""
        wanted = (machine.cpu, machine.flags, runtime, version, threads)
        return tuple(
            row for row in self.rows if (row.cpu, row.cpu_flags, row.runtime, row.version, row.threads) == wanted
        )

    def save(self) -> None:
        """Write the file, whole or not at all."""
        text = io.StringIO(newline="")
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(COLUMNS)
        lines.writerows([_cell(getattr(row, column)) for column in COLUMNS] for row in self.rows)
        write_text(self.path, text.getvalue())


def _cell(value: object) -> str:
    """Return a value as a cell; numbers with all their digits."""
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return repr(value) if isinstance(value, float) else str(value)


def _read(path: Path) -> list[Measurement]:
    """Return the rows of a file."""
    try:
        lines = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline=""), strict=True)
        if tuple(lines.fieldnames or ()) != COLUMNS:
            raise InputError(f"expected the columns of a record of measurements in {path}, got others; move it away")
        return [_row(line, path, number) for number, line in enumerate(lines, 2)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"expected a record of measurements in {path}, got {error}; move it away") from error


def _row(line: Mapping[str, str | None], path: Path, number: int) -> Measurement:
    """Return one checked row."""
    try:
        return Measurement.model_validate({column: _typed(column, text) for column, text in line.items()})
    except ValidationError as error:
        fault = sentences(error, Measurement)[0]
        raise InputError(f"expected a record of measurements, got a fault in {path}:{number}: {fault}") from error


def _typed(column: str, text: object) -> object:
    """Return a cell as the type of its column, or as it is where it cannot be."""
    if not isinstance(text, str) or column not in COLUMNS:
        return text
    try:
        if column in SIZES:
            return tuple(int(part) for part in text.split("x")) if text else ()
        annotation = Measurement.model_fields[column].annotation
        if annotation is bool:
            return {"True": True, "False": False}.get(text, text)
        return CONVERT.get(annotation, str)(text) if isinstance(annotation, type) else text
    except ValueError:
        return text


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes from measuring into the same record while the context lasts.

    The lock ends with its process, however that ends: what it leaves behind is taken over.

    Raises
    ------
    InputError
        If another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        if not lock(file.fileno()):
            holder = path.read_text(encoding="utf-8").strip() or "another process"
            raise InputError(
                f"expected one measurement at a time, got {path} held by process {holder}; wait for it or end it"
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
