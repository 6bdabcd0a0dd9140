"""Measured latencies of layer shapes: a CSV file beside a profile, looked up by exact shape and never interpolated."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from hwdse.formats import Precision, parse
from hwdse.graph import Layer
from hwdse.hardware.faults import sentences
from hwdse.hardware.quantity import Kind, Section, Text
from hwdse.hardware.rate import ActivationName, FormatName

__all__ = ["COLUMNS", "Entry", "LatencyTable", "ShapeKey", "read_table"]

Positive = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class ShapeKey:
    """What identifies a layer in a latency table.

    Attributes
    ----------
    op
        ``conv``, ``linear`` or ``matmul``.
    input_channels, output_channels
        Of all groups together; of a matmul, the contracted length and the columns of the result.
    kernel, stride
        Spatial, ``()`` for linear and matmul.
    groups
        Channel groups.
    output_size
        Spatial size of a convolution's output; leading dimensions (rows) of a linear's or matmul's.
    """

    op: str
    input_channels: int
    output_channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    groups: int
    output_size: tuple[int, ...]

    @classmethod
    def of(cls, layer: Layer) -> ShapeKey:
        """Return the key of ``layer``.

        >>> ShapeKey.of(Layer("fc", "linear", "x", "y", (512,), (10,), 5120, "fc.weight", (10, 512)))
        ShapeKey(op='linear', input_channels=512, output_channels=10, kernel=(), stride=(), groups=1, output_size=())
        """
        convolution = layer.op == "conv"
        return cls(
            op=layer.op,
            input_channels=layer.input_channels,
            output_channels=layer.output_channels if layer.weight is not None else layer.output_shape[-1],
            kernel=layer.kernel,
            stride=layer.stride,
            groups=layer.groups,
            output_size=layer.output_shape[1:] if convolution else layer.output_shape[:-1],
        )


@dataclass(frozen=True)
class Entry:
    """A latency of one layer shape.

    Attributes
    ----------
    latency_ms
        Milliseconds per inference of one batch.
    scope
        ``kernel``: the operator's kernel alone, so that the profile's overhead per layer comes on top; ``layer``: all
        that the layer adds to the network.
    kind, source
        What sort of figure it is, and the key of its citation.
    """

    latency_ms: float
    scope: str
    kind: Kind
    source: str


@dataclass(frozen=True)
class LatencyTable:
    """Latencies by shape and precision; empty for a profile without a table."""

    entries: Mapping[tuple[ShapeKey, Precision], Entry]

    def lookup(self, layer: Layer, precision: Precision) -> Entry | None:
        """Return the entry of exactly this shape and precision, or ``None``."""
        return self.entries.get((ShapeKey.of(layer), precision))

    def __len__(self) -> int:
        return len(self.entries)


class Row(Section):
    """One line of a latency table."""

    op: Literal["conv", "linear", "matmul"] = Field(description="operator")
    input_channels: Positive = Field(description="input channels of all groups; of a matmul, the contracted length")
    output_channels: Positive = Field(description="output channels; of a matmul, the columns of the result")
    kernel: tuple[Positive, ...] = Field(description="spatial kernel such as `3x3`; empty for linear and matmul")
    stride: tuple[Positive, ...] = Field(description="spatial stride such as `2x2`; empty for linear and matmul")
    groups: Positive = Field(description="channel groups")
    output_size: tuple[Positive, ...] = Field(
        description="spatial output size such as `7x7`; rows of a linear or matmul, empty for one row"
    )
    weights: FormatName = Field(description="weight format")
    activations: ActivationName = Field(description="activation format; the sign is the scheme's")
    batch: Positive = Field(description="inputs per inference; must be the profile's `batch`")
    latency_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        description="milliseconds per inference of one batch"
    )
    scope: Literal["kernel", "layer"] = Field(
        description="`kernel`: the kernel alone, overhead per layer comes on top; `layer`: everything included"
    )
    kind: Kind = Field(description="kind of figure, as in the profile")
    source: Text = Field(description="key of the profile's `[sources]`")

    @property
    def key(self) -> tuple[ShapeKey, Precision]:
        """What the row is found by."""
        shape = ShapeKey(
            self.op,
            self.input_channels,
            self.output_channels,
            self.kernel,
            self.stride,
            self.groups,
            self.output_size,
        )
        return shape, Precision(parse(self.weights), parse(self.activations))


COLUMNS = tuple(Row.model_fields)
SIZES = ("kernel", "stride", "output_size")
MOST_AXES = 8


def read_table(path: Path, *, batch: int, sources: Collection[str]) -> tuple[LatencyTable, tuple[str, ...]]:
    """Return the latency table in the CSV file ``path``, and every fault found in it.

    Parameters
    ----------
    path
        File with the columns :data:`COLUMNS`.
    batch
        Inputs per inference that every row must state.
    sources
        Keys of citations that rows may name.
    """
    try:
        lines = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline=""), strict=True)
        if tuple(lines.fieldnames or ()) != COLUMNS:
            return LatencyTable({}), (f"{path.name}: expected the columns {','.join(COLUMNS)}",)
        rows = [(lines.line_num, line) for line in lines]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return LatencyTable({}), (f"{path.name}: expected a readable CSV file in UTF-8, got {error}",)
    entries: dict[tuple[ShapeKey, Precision], Entry] = {}
    faults: list[str] = []
    for number, line in rows:
        where = f"{path.name}:{number}"
        try:
            row = Row.model_validate({column: _typed(column, text) for column, text in line.items() if column})
        except ValidationError as error:
            faults += [f"{where}: {sentence}" for sentence in sentences(error, Row)]
            continue
        faults += [f"{where}: {fault}" for fault in _row_faults(row, batch=batch, sources=sources, entries=entries)]
        entries[row.key] = Entry(row.latency_ms, row.scope, row.kind, row.source)
    return LatencyTable(entries), tuple(faults)


def _row_faults(
    row: Row, *, batch: int, sources: Collection[str], entries: Mapping[tuple[ShapeKey, Precision], Entry]
) -> list[str]:
    """Return what is wrong with a well-formed row of this profile."""
    faults = []
    if row.batch != batch:
        faults.append(f"batch: expected the profile's batch ({batch}), got {row.batch}")
    if row.source not in sources:
        faults.append(f"source: expected a key of [sources] ({', '.join(sources)}), got {row.source!r}")
    if row.key in entries:
        faults.append(f"{row.op}: expected one row per shape and precision, got {row.key[1]} of this shape again")
    return faults


def _typed(column: str, text: str | list[str] | None) -> object:
    """Return a cell as the type of its column, or as it is where it cannot be."""
    if not isinstance(text, str):
        return text
    if column in SIZES:
        parts = text.split("x") if text else []
        return tuple(map(_number, parts)) if len(parts) <= MOST_AXES else text
    if column == "kind":
        return Kind(text) if text in {kind.value for kind in Kind} else text
    return _number(text) if column not in {"op", "weights", "activations", "scope", "source"} else text


def _number(text: str) -> int | float | str:
    """Return ``text`` as a number if it is one.

    >>> _number("8"), _number("0.25"), _number("eight")
    (8, 0.25, 'eight')
    """
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text
