"""The reference page of the profile format, written from the schema so that the two cannot disagree."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hwdse.hardware.faults import nested_section
from hwdse.hardware.lut import Row
from hwdse.hardware.quantity import Correlation, Count, Factor, Fraction, NonNegative, Positive, Quantity
from hwdse.hardware.schema import ProfileFile

__all__ = ["reference", "sections", "summary", "type_words"]

QUANTITIES: dict[type[BaseModel], str] = {
    Positive: "number > 0",
    NonNegative: "number >= 0",
    Fraction: "number in (0, 1]",
    Count: "whole number >= 1",
    Factor: "number >= 1",
    Correlation: "number in [-1, 1]",
}

INTRODUCTION = """\
# Hardware profiles

One TOML file per device, named after it. This page is generated from the schema
(`python -m hwdse.reference`); `hwdse profiles check FILE` lists every fault of a file at once.

Profiles are searched in the folders of `$HWDSE_PROFILES`, then in the installed package, then in this folder of the
repository; the first one of a name wins. Anything that ends in `.toml` or has a path separator is read as a file.

**Every figure is an inline table with its kind and its source**, and its unit is in its key:

```toml
macs_per_cycle = { value = 2.5, kind = "modelled", source = "Ottavi2020" }
```

Sources are the keys of the file's own `[sources]` table and have an entry in `references.bib`. A pair of formats
without a rate is not supported by the device; it is never promoted to a wider one silently. Latency, energy and
activation memory are those of one inference of one batch of `batch` inputs. A profile without a measured table is good
for an order of magnitude, and says so wherever its figures are shown.

`t(layer) = max(padded MACs x batch / (rate x efficiency), bytes / bandwidth of each memory) + us_per_layer`, or the
table's entry for exactly this shape. `E(layer) = MACs x batch x pj_per_mac + bytes x pj_per_byte + power x t`.

A network takes the sum of its layers, of the tensors that change format or unit between what writes and what reads
them, of its operators without MACs, each sum times its factor in `[calibration]`, of the weights that a level spills,
and the time per inference. In place of a rate a published closed form may give a layer's cycles, padding included.

`<name>_published.csv` beside a profile holds published figures of whole networks, which `hwdse profiles fit` fits
`[calibration]` to and `hwdse profiles validate` holds predictions against. Its columns: `network` (a name of
`hwdse.networks.reference_networks()`, or two factories, of a network and of its example, separated by a space),
`precision` (one, or one per layer separated by spaces), `latency_ms`, `energy_mj` (may be empty), `kind`, `source` (a
key of `references.bib`) and `note`.
"""

TABLE = """\
## Latency tables

A CSV file beside the profile, named by its `table` key, with exactly these columns. Shapes are looked up exactly and
never interpolated; layers that are not in the table use the closed form.
"""


def reference() -> str:
    """Return the reference page in Markdown."""
    first = [f"## Keys of the file\n\n{_keys(ProfileFile)}", f"## A figure\n\n{_keys(Quantity)}"]
    rest = [f"## `{title}`\n\n{summary(section)}\n\n{_keys(section)}" for title, section in sections(ProfileFile)]
    return "\n".join([INTRODUCTION, *first, *rest, TABLE, _keys(Row)])


def sections(root: type[BaseModel], path: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the heading of every table of a file, such as ``[scheme]`` or ``[[rates]]``, and its section, in order."""
    for name, field in root.model_fields.items():
        section = nested_section(field.annotation)
        if section is None or issubclass(section, Quantity):
            continue
        title = f"{path}{field.alias or name}"
        yield (f"[[{title}]]" if _is_list(field) else f"[{title}]"), section
        yield from sections(section, f"{title}.")


def summary(section: type[BaseModel]) -> str:
    """Return the first paragraph of a section's docstring on one line."""
    return " ".join((section.__doc__ or "").split("\n\n")[0].split())


def _keys(section: type[BaseModel]) -> str:
    """Return a table of the keys of a section."""
    fields = {field.alias or name: field for name, field in section.model_fields.items()}
    rows = [
        f"| `{key}` | {type_words(field.annotation)} | {_yes(field.is_required())} | {field.description} |"
        for key, field in fields.items()
    ]
    return "\n".join(["| key | type | required | meaning |", "|---|---|---|---|", *rows, ""])


def _yes(answer: bool) -> str:
    """Return the answer in a word."""
    return "yes" if answer else "no"


def _is_list(field: FieldInfo) -> bool:
    """Return whether a field is an array of tables."""
    return get_origin(field.annotation) is tuple


def type_words(annotation: Any) -> str:
    """Return what a key holds, in words."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_words(parts[0])
    if origin in (Union, UnionType):
        return " or ".join(type_words(part) for part in parts if part is not NoneType)
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin in (tuple, list):
        return f"list of {type_words(parts[0])}"
    if origin is dict:
        return f"table of {type_words(parts[1])}"
    if issubclass(annotation, Quantity):
        return f"figure: {QUANTITIES[annotation]}"
    if issubclass(annotation, BaseModel):
        return "table"
    if issubclass(annotation, Enum):
        return ", ".join(f"`{member.value}`" for member in annotation)
    return {str: "text", bool: "true or false", int: "whole number", float: "number"}[annotation]
