"""A hardware profile made of measurements: rates, a table of latencies, conversions, operators without MACs."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hwdse.errors import InputError
from hwdse.files import write_text
from hwdse.formats import Precision
from hwdse.hardware.load import check
from hwdse.hardware.lut import COLUMNS as TABLE_COLUMNS
from hwdse.hardware.lut import ShapeKey
from hwdse.hardware.measure.fit import Line, RateFit, fit_line, fit_rates, in_words
from hwdse.hardware.measure.machine import Machine
from hwdse.hardware.measure.subject import LayerShape
from hwdse.hardware.measure.table import Measurement
from hwdse.hardware.rate import OP_CLASSES
from hwdse.hardware.schema import SCHEMA_VERSION
from hwdse.hardware.toml_text import keys_text

__all__ = ["Content", "Factors", "is_container", "latencies_us", "lines", "write_profile"]

W8A8 = Precision.parse("W8A8")
SHORTEST_US = 0.1  # of a layer, where the fixed costs of a call explain all of its time
IMAGE_CLASSES = ("conv", "pointwise", "depthwise", "grouped")
# What a tensor goes through between two layers, by direction and by the layer's sort.
CHAINS = {
    ("fp32", "int8", True): ("reorder_output", "quantize", "to_nhwc"),
    ("int8", "fp32", True): ("to_nchw", "dequantize", "reorder_input"),
    ("fp32", "int8", False): ("quantize",),
    ("int8", "fp32", False): ("dequantize",),
}
BOUNDARIES = frozenset(name for chain in CHAINS.values() for name in chain)
WHOLE = "whole_networks"
JUDGED = "judged"
WHOLE_NETWORKS = {"uncalibrated": (1.12, 1.2, 1.5), "calibrated": (1.05, 1.1, 1.3)}
"""Factors that whole networks are within: seen elsewhere, claimed, at the worst."""
CORE_MW = (1500.0, 5000.0, 20000.0)
"""Power of a busy core: least, plausible and most, from a server's share of its package to a desktop's."""

NAME = re.compile(r"^[a-z0-9][a-z0-9_.-]*$")


@dataclass(frozen=True)
class Factors:
    """A calibration, found by whoever knows networks.

    Attributes
    ----------
    values
        Figures by the keys of ``[calibration]``.
    words
        How well they fit.
    citation
        What was run.
    """

    values: Mapping[str, float]
    words: str
    citation: str


@dataclass(frozen=True)
class Content:
    """What a profile is made of.

    Attributes
    ----------
    name
        Of the profile.
    rows
        Measurements of one runtime on one machine with one number of threads.
    machine
        The machine.
    scheme
        Keys of the profile's ``[scheme]``.
    emulated
        Integer precisions to offer that run in an int8 container.
    block_size
        Weights per scale of the blocked weights that the profile is about; 0: of those with a scale per channel.
    active_mw
        Mean power of the processor while it measured, where the processor counts its energy.
    calibration
        What runs of whole networks say of the sums of single measurements.
    """

    name: str
    rows: Sequence[Measurement]
    machine: Machine
    scheme: Mapping[str, object]
    emulated: Sequence[Precision] = ()
    block_size: int = 0
    active_mw: float | None = None
    calibration: Factors | None = None

    def __post_init__(self) -> None:
        if not NAME.match(self.name):
            raise InputError(f"expected a profile name of a-z, 0-9, _, . and -, got {self.name!r}; change --name")
        if not any(row.op != "tensor" for row in self.rows):
            raise InputError(f"expected measured layers for profile {self.name}, got none; name other precisions")


def is_container(precision: Precision) -> bool:
    """Return whether integer codes of ``precision`` fit into int8 ones, of which it is a part.

    >>> [is_container(Precision.parse(text)) for text in ("W4A8", "W8A8", "W4Afp32", "W4A16")]
    [True, False, False, False]
    """
    formats = (precision.weights, precision.activations)
    return precision != W8A8 and all(one.is_integer and one.bits <= 8 for one in formats)


def lines(rows: Iterable[Measurement]) -> dict[tuple[str, str], Line]:
    """Return the time by elements of each operator on a tensor and format, without the overhead of a call."""
    found: dict[tuple[str, str], list[Measurement]] = {}
    for row in rows:
        if row.op == "tensor":
            found.setdefault((row.pattern, row.activations), []).append(row)
    return {
        key: fit_line([row.subject.elements for row in own], [max(row.net_us, SHORTEST_US) for row in own])
        for key, own in found.items()
    }


def latencies_us(rows: Sequence[Measurement]) -> dict[tuple[LayerShape, Precision], float]:
    """Return the time of each layer in its own formats, the newest where a shape was measured in two patterns.

    The overhead of a call and the boundary operators at the call's ends are subtracted.
    """
    by_name = {name: line for (name, _), line in lines(rows).items() if name in BOUNDARIES}
    newest: dict[tuple[ShapeKey, Precision], tuple[LayerShape, float]] = {}
    for row in rows:
        subject = row.subject
        if not isinstance(subject.shape, LayerShape):
            continue
        ends_us = sum(by_name[name].time_us(count) for name, count in row.end_elements if name in by_name)
        newest[row.shape, row.precision] = (subject.shape, max(row.net_us - ends_us, SHORTEST_US))
    return {(shape, precision): time for (_, precision), (shape, time) in newest.items()}


def write_profile(content: Content, folder: Path) -> Path:
    """Write ``<name>.toml`` and its table ``<name>.csv`` to ``folder`` and return the profile's path.

    Raises
    ------
    InputError
        If nothing of what was measured belongs into the profile.
    """
    draft = _Draft(content)
    table, profile = draft.table(), draft.toml()
    write_text(folder / f"{content.name}.csv", table)
    path = write_text(folder / f"{content.name}.toml", profile)
    faults = check(path)
    assert not faults, faults
    return path


@dataclass
class _Draft:
    """A profile under construction."""

    content: Content
    rows: list[Measurement] = field(init=False)
    times: dict[tuple[LayerShape, Precision], float] = field(init=False)
    fit: RateFit = field(init=False)
    source: str = field(init=False)

    def __post_init__(self) -> None:
        content = self.content
        self.rows = [row for row in content.rows if self._belongs(row)]
        if not any(row.op != "tensor" for row in self.rows):
            raise InputError(f"expected layers for profile {content.name}, got none; name other precisions")
        self.times = latencies_us(self.rows)
        groups = [(shape.op_class, precision) for shape, precision in self.times]
        self.fit = fit_rates(groups, [shape.macs for shape, _ in self.times], list(self.times.values()))
        self.source = re.sub(r"[^A-Za-z0-9]", "_", f"{self.rows[0].runtime}_{self.rows[0].version}")

    def _belongs(self, row: Measurement) -> bool:
        """Return whether a row's weights have the scales that the profile is about; float ones always do."""
        if row.op == "tensor" or row.weights == "fp32":
            return True
        return row.block_size == self.content.block_size

    def table(self) -> str:
        """Return the latency table as CSV."""
        text = io.StringIO(newline="")
        out = csv.DictWriter(text, TABLE_COLUMNS, lineterminator="\n")
        out.writeheader()
        for (shape, precision), time_us in self.times.items():
            key = shape.key
            sizes = {name: "x".join(map(str, getattr(key, name))) for name in ("kernel", "stride", "output_size")}
            plain = {name: getattr(key, name) for name in ("op", "input_channels", "output_channels", "groups")}
            formats = {"weights": precision.weights.name, "activations": precision.activations.name}
            result = {"latency_ms": f"{time_us * 1e-3:.7g}", "scope": "layer", "kind": "measured"}
            out.writerow(plain | sizes | formats | result | {"batch": 1, "source": self.source})
        return text.getvalue()

    def toml(self) -> str:
        """Return the profile as TOML."""
        sections = [self._head(), self._scheme(), *self._rates(), *self._memories(), self._overhead()]
        sections += [*self._conversions(), *self._nodes(), *self._power(), *self._calibration(), self._accuracy()]
        return "\n".join(sections)

    def _head(self) -> str:
        row, machine = self.rows[0], self.content.machine
        threads = f"{row.threads} thread" if row.threads == 1 else f"{row.threads} threads"
        days = sorted({row.date for row in self.rows})
        span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
        unstable = sum(not row.is_stable for row in self.rows)
        closed = in_words(np.concatenate([*self.fit.errors.values(), np.empty(0)]))
        note = (
            f"{len(self.times)} latencies of layers, single calls with warm caches, fastest sample of separated "
            f"passes; {unstable} of {len(self.rows)} did not settle. Layers in their own formats at both "
            "ends; format and layout changes between layers are in [[conversions]]. Closed form for other shapes, "
            f"{closed}."
        )
        notes = sorted({row.note for row in self.rows if row.note})
        values = {
            "schema_version": SCHEMA_VERSION,
            "name": self.content.name,
            "title": f"{machine.cpu}, {threads}",
            "kind": "cpu",
            "software_stack": f"{row.runtime} {row.version}, {threads}",
            "note": " ".join([note, *(f"{text}." for text in (*notes, *self._fit_words()))]),
            "batch": 1,
            "table": f"{self.content.name}.csv",
        }
        citation = f"hwdse measure, {row.runtime} {row.version} on {machine.cpu} ({machine.flags}), {threads}, {span}"
        sources = {self.source: citation}
        if self.content.calibration is not None:
            sources[WHOLE] = f"{self.content.calibration.citation} with {citation.removeprefix('hwdse measure, ')}"
        if self.content.active_mw is None:
            sources[JUDGED] = "a judgement, as the machine has no energy counters; energies are an order of magnitude"
        if self._caches() or self.content.machine.memory_kib:
            sources["system"] = f"what the operating system says of {machine.cpu}"
        return keys_text(values) + "\n[sources]\n" + keys_text(sources)

    def _scheme(self) -> str:
        scheme = dict(self.content.scheme)
        if self.content.block_size:
            scheme |= {"weight_granularity": "per_block", "block_size": self.content.block_size}
        return "[scheme]\n" + keys_text(scheme)

    def _rates(self) -> list[str]:
        """Return one rate per precision and class; those of the container again for what it emulates."""
        sections = []
        order = {str(op_class): i for i, op_class in enumerate(OP_CLASSES)}
        groups = sorted(self.fit.gmac_per_s, key=lambda group: (str(group[1]), order[group[0]]))
        for group in groups:
            op_class, precision = group
            shapes = "1 shape" if self.fit.counts[group] == 1 else f"{self.fit.counts[group]} shapes"
            note = f"fit over {shapes}, {in_words(self.fit.errors[group])}"
            contained = self.content.emulated if precision == W8A8 else ()
            emulated = [one for one in contained if (op_class, one) not in self.fit.gmac_per_s]
            for offered in (precision, *emulated):
                keys: dict[str, object] = {
                    "weights": offered.weights.name,
                    "activations": offered.activations.name,
                    "op_classes": [op_class],
                    "gmac_per_s": self._figure(self.fit.gmac_per_s[group], note=note),
                }
                if offered != precision:
                    keys["container"] = "int8"
                sections.append("[[rates]]\n" + keys_text(keys))
        return sections

    def _caches(self) -> list[dict[str, object]]:
        return [{"name": cache.name, "holds": [], "kib": cache.capacity_kib} for cache in self.content.machine.caches]

    def _memories(self) -> list[str]:
        """Return the caches, which hold nothing for good, and the main memory, which holds everything."""
        levels = self._caches()
        if self.content.machine.memory_kib:
            levels.append({"name": "RAM", "holds": ["weights", "activations"], "kib": self.content.machine.memory_kib})
        return [
            "[[memories]]\n"
            + keys_text(
                {
                    "name": level["name"],
                    "holds": level["holds"],
                    "capacity_kib": {"value": level["kib"], "kind": "datasheet", "source": "system"},
                }
            )
            for level in levels
        ]

    def _overhead(self) -> str:
        call = min(row.overhead_us for row in self.rows)
        keys = {
            "us_per_layer": self._figure(self.fit.us_per_layer, note="of shapes that are not in the table"),
            "us_per_inference": self._figure(call, note="an empty call"),
        }
        return "[overhead]\n" + keys_text(keys)

    def _conversions(self) -> list[str]:
        """Return the changes of format as chains of boundary operators, where all of a chain were measured."""
        stored = {precision.activations.name for _, precision in self.times}
        by_name = {name: line for (name, _), line in lines(self.rows).items()}
        present = {shape.op_class for shape, _ in self.times}
        sections = []
        for (source, target, is_image), chain in CHAINS.items():
            classes = [name for name in OP_CLASSES if name in present and (name in IMAGE_CLASSES) == is_image]
            if not classes or not {source, target} <= stored or any(name not in by_name for name in chain):
                continue
            line = sum((by_name[name] for name in chain), Line(0.0, 0.0, 0.0))
            head = {"from": source, "to": target, "op_classes": classes}
            sections.append("[[conversions]]\n" + keys_text(head | self._line(line, " + ".join(chain))))
        return sections

    def _nodes(self) -> list[str]:
        stored = {precision.activations.name for _, precision in self.times}
        return [
            "[[nodes]]\n" + keys_text({"operator": name, "activations": activations} | self._line(line))
            for (name, activations), line in lines(self.rows).items()
            if name not in BOUNDARIES and activations in stored
        ]

    def _line(self, line: Line, *notes: str) -> dict[str, object]:
        """Return the two figures of a line."""
        fit = f"fit with at most {line.residual:.0%} error at the measured sizes"
        note = "; ".join([*notes, fit])
        return {
            "us": self._figure(line.us, note=note),
            "us_per_melement": self._figure(line.us_per_melement, note=note),
        }

    def _power(self) -> list[str]:
        """Return the power that energies are made of: counted, or a judgement that says so."""
        if self.content.active_mw is None:
            low, value, high = (self.rows[0].threads * one for one in CORE_MW)
            figure: dict[str, object] = {"value": value, "kind": "estimate", "source": JUDGED, "low": low, "high": high}
            return [
                "[power]\n" + keys_text({"active_mw": figure | {"note": "busy cores of laptops, desktops and servers"}})
            ]
        figure = self._figure(self.content.active_mw, note="mean of all packages while layers were measured")
        return ["[power]\n" + keys_text({"active_mw": figure})]

    def _fit_words(self) -> tuple[str, ...]:
        factors = self.content.calibration
        return (f"Calibrated on whole networks: {factors.words}",) if factors is not None else ()

    def _calibration(self) -> list[str]:
        factors = self.content.calibration
        if factors is None:
            return []
        figures = {
            key: {"value": round(value, 6), "kind": "derived", "source": WHOLE, "note": factors.words}
            for key, value in factors.values.items()
        }
        return ["[calibration]\n" + keys_text(figures)]

    def _accuracy(self) -> str:
        """Return how far latencies of whole networks may be off: what they were elsewhere, as none is known here."""
        word = "uncalibrated" if self.content.calibration is None else "calibrated"
        low, value, high = WHOLE_NETWORKS[word]
        note = f"nine of ten {word} predictions for four networks on a Zen 4 core were within {low:.3g}"
        common = {"kind": "estimate", "source": self.source}
        figures = {"latency_factor": {"value": value, "low": low, "high": high, **common, "note": note}}
        if self.content.active_mw is None:
            power = max(CORE_MW[1] / CORE_MW[0], CORE_MW[2] / CORE_MW[1])
            note = "the latency's times that of a power that is a judgement"
            figures["energy_factor"] = {
                "value": power * value,
                "low": power,
                "high": power * high,
                **common,
                "note": note,
            }
        return "[accuracy]\n" + keys_text({"basis": "analogy", **figures})

    def _figure(self, value: float, *, note: str) -> dict[str, object]:
        return {"value": float(f"{value:.5g}"), "kind": "measured", "source": self.source, "note": note}
