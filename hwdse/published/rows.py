"""Rows of published figures: a network at a precision on a device, its latency and energy, and who says so."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator

from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.graph import LayerGraph
from hwdse.hardware import Kind, profile_paths
from hwdse.hardware.faults import sentences
from hwdse.reason import reason_of

__all__ = ["PublishedRow", "published_path", "read_rows"]

SUFFIX = "_published.csv"


def _precisions(text: str) -> str:
    """Return ``text`` if it is a precision, or several separated by spaces."""
    try:
        parts = [str(Precision.parse(part)) for part in text.split()]
    except InputError as error:
        raise ValueError(str(error)) from None
    if not parts:
        raise ValueError("expected a precision, or one per layer, got none")
    return " ".join(parts)


class PublishedRow(BaseModel):
    """One published figure.

    Attributes
    ----------
    network
        Name of a reference network (:func:`hwdse.networks.reference_networks`), or two factories, of a network and of
        its example inputs, separated by a space.
    precision
        One precision for all layers, or one per layer in execution order, separated by spaces.
    latency_ms, energy_mj
        Of one inference of one batch of the profile's size; the energy may be absent.
    kind
        ``measured``, or as in a profile.
    source
        Key of an entry of ``references.bib``, or any words.
    note
        Anything that should be known of it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: Annotated[str, Field(min_length=1)]
    precision: Annotated[str, AfterValidator(_precisions)]
    latency_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    energy_mj: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    kind: Annotated[Kind, Strict(False)] = Kind.MEASURED
    source: Annotated[str, Field(min_length=1)]
    note: str = ""

    @property
    def is_uniform(self) -> bool:
        """True if all layers have one precision; apart from the first and the last one, which often stay at 8 bits."""
        parts = self.precision.split()
        return len(set(parts[1:-1] if len(parts) > 2 else parts)) == 1

    @property
    def label(self) -> str:
        """The precision in a word: ``mixed`` where layers differ."""
        parts = self.precision.split()
        return parts[len(parts) // 2] if self.is_uniform else "mixed"

    def precisions(self, graph: LayerGraph) -> tuple[Precision, ...]:
        """Return the precision of every layer of ``graph``.

        Raises
        ------
        InputError
            If the row has another number of precisions than the graph has layers.
        """
        parts = [Precision.parse(part) for part in self.precision.split()]
        if len(parts) == 1:
            return tuple(parts * len(graph.layers))
        if len(parts) != len(graph.layers):
            raise InputError(
                f"expected one precision, or one for each of the {len(graph.layers)} layers of {self.network}, got "
                f"{len(parts)}; correct the row"
            )
        return tuple(parts)

    @model_validator(mode="after")
    def _few_words(self) -> Self:
        if len(self.network.split()) > 2:
            raise ValueError(f"expected a network, or two factories separated by a space, got {self.network!r}")
        return self


def published_path(name_or_path: str | Path) -> Path | None:
    """Return the file of published rows beside a profile, given by name or by file; ``None`` if there is none."""
    found = profile_paths().get(str(name_or_path), Path(name_or_path))
    path = found.with_name(f"{found.stem}{SUFFIX}")
    return path if path.is_file() else None


def read_rows(path: Path) -> tuple[PublishedRow, ...]:
    """Return the rows of a CSV file with the columns of :class:`PublishedRow`.

    Raises
    ------
    InputError
        If the file cannot be read, or a row has a fault; the first one is named with its line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"expected a CSV table of published rows in {path}, got {reason_of(error)}") from error
    lines = [(n, line) for n, line in enumerate(text.splitlines(), start=1) if line.strip() and line[0] != "#"]
    numbers = [n for n, _ in lines]
    found = list(csv.reader(line for _, line in lines))
    head = found[0] if found else []
    missing = {"network", "precision", "latency_ms", "source"} - set(head)
    if missing:
        raise InputError(
            f"expected the columns network, precision, latency_ms and source in {path}, missing "
            f"{', '.join(sorted(missing))}; the file has {', '.join(head) or 'none'}"
        )
    rows = []
    for line, cells in zip(numbers[1:], found[1:], strict=False):
        if len(cells) != len(head):
            raise InputError(f"line {line} of {path}: expected {len(head)} cells, got {len(cells)}; quote commas")
        try:
            rows.append(PublishedRow.model_validate({key: cell for key, cell in zip(head, cells, strict=True) if cell}))
        except ValidationError as error:
            raise InputError(f"line {line} of {path}: {sentences(error, PublishedRow)[0]}") from error
    if not rows:
        raise InputError(f"expected at least 1 row in {path}, got none; add one")
    return tuple(rows)
