"""The parts of the page that need no script: what was found, in words and a table, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd

from hwdse.report.drawing import look_of
from hwdse.report.page.state import RunState
from hwdse.report.tables import DeviceTables, RunTables
from hwdse.report.words import drop_text, lower_first, number, precision_counts, quality_text, split_column

__all__ = ["banners", "chips", "dot", "lede", "picks", "provenance"]


MINUS = "\N{MINUS SIGN}"


def banners(sentences: Sequence[str]) -> str:
    """Return what a reader must know first, a paragraph each."""
    return "\n".join(f'<p class="banner" role="status">{escape(sentence)}</p>' for sentence in sentences)


def dot(device: str, devices: Sequence[str]) -> str:
    """Return a dot in the colour of a device."""
    return f'<span class="dot" style="--chip:{look_of(device, devices).colour}"></span>'


def lede(tables: RunTables) -> str:
    """Return what the run looked for and how much it measured, in three sentences."""
    layers, count = len(tables.layers), len(tables.devices)
    configurations = {bits for device in tables.results.values() for bits in device.measured["bits"]}
    words, _, _ = split_column(tables.quality.column)
    parts = [split_column(column) for column in tables.costs.values()]
    modelled = [cost.lower() for cost, _, tier in parts if tier == "predicted"]
    samples, verb = tables.full_precision.samples, "is" if len(modelled) == 1 else "are"
    sentences = [
        f"Which number format should each of the {layers} layers use"
        + ("?" if count == 1 else f", on each of {count} chips?"),
        f"{len(configurations):,} configurations were tried out; their {lower_first(words)} was measured on "
        f"{samples:,} "
        + (f"samples, their {_listed(modelled)} {verb} predicted by a model of the chip." if modelled else "samples."),
    ]
    if tables.reference is not None:
        name, full = tables.quality.name, tables.full_precision
        interval = ""
        if full.low is not None and full.high is not None:
            interval = f" ({quality_text(name, full.low)} to {quality_text(name, full.high)})"
        sentences.append(f"In full precision the network reaches {quality_text(name, tables.reference)}{interval}.")
    return escape(" ".join(sentences))


def _listed(words: Sequence[str]) -> str:
    """Return words as a list within a sentence.

    >>> _listed(["energy", "latency", "size"]), _listed(["size"])
    ('energy, latency and size', 'size')
    """
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def chips(tables: RunTables) -> str:
    """Return the switch between chips: one radio button each, the first one on."""
    return "".join(
        f'<label><input type="radio" name="chip" value="{place}"{"" if place else " checked"}>'
        f"{dot(name, tables.devices)}<span>{escape(name)}</span></label>"
        for place, name in enumerate(tables.results)
    )


def picks(tables: RunTables) -> str:
    """Return the table of picked configurations, one row per chip, or why there is none."""
    quality, within = tables.quality, drop_text(tables.quality.name, tables.max_drop)
    costs = list(tables.costs.values())
    first = split_column(costs[0])[0].lower()
    heads = ["Chip", "Layers by precision", _head(quality.column), "Drop from full precision", *map(_head, costs)]
    cells = "".join(f'<th scope="col">{head}</th>' for head in heads)
    rows = "".join(_pick_row(tables, device, heads) for device in tables.results.values())
    return (
        '<section id="picks" aria-labelledby="picks-heading">\n<h2 id="picks-heading">One pick per chip</h2>\n'
        f'<p class="words">A pick is the configuration with the lowest {escape(first)} that loses at most '
        f"{escape(within)} of quality, unless it says what was asked for instead. Small print: 95&nbsp;% intervals of "
        "what was measured, 90&nbsp;% intervals of what is predicted.</p>\n"
        f'<table class="picks"><thead><tr>{cells}</tr></thead>\n<tbody>{rows}</tbody></table>\n</section>'
    )


def _head(column: str) -> str:
    """Return words for a column, its unit and tier in small print."""
    words, unit, tier = split_column(column)
    return f"{escape(words)}<small>{escape(', '.join(filter(None, (unit, tier))))}</small>"


def _label(column: str) -> str:
    """Return words for a column with its unit."""
    words, unit, _ = split_column(column)
    return escape(f"{words} ({unit})" if unit else words)


def _pick_row(tables: RunTables, device: DeviceTables, heads: Sequence[str]) -> str:
    title = escape(device.title) if device.title != device.device else ""
    title += f"<br>asked for: {escape(device.asked)}" if device.asked else ""
    chip = f'<th scope="row">{dot(device.device, tables.devices)}{escape(device.device)}<small>{title}</small></th>'
    sentence = device.emptiness or ("" if device.pick is not None else "Nothing was picked.")
    if sentence:
        return f'<tr>{chip}<td colspan="{len(heads) - 1}">{escape(sentence)}</td></tr>\n'
    row = device.picked.iloc[0]
    columns = [tables.quality.column, tables.quality.drop, *tables.costs.values()]
    values = [escape(precision_counts(row["bits"])), *(_cell(tables, device, row, column) for column in columns)]
    drop = "Drop (points)" if tables.quality.factor > 1 else "Drop"
    labels = [heads[1], _label(tables.quality.column), drop, *map(_label, tables.costs.values())]
    cells = "".join(
        f'<td data-label="{label}"><span>{value}</span></td>' for label, value in zip(labels, values, strict=True)
    )
    return f"<tr>{chip}{cells}</tr>\n"


def _cell(tables: RunTables, device: DeviceTables, row: pd.Series, column: str) -> str:
    """Return a value with its interval, where it has one, in small print."""
    quality, value = tables.quality, float(row[column])
    if column in (quality.column, quality.drop):
        scale = quality.factor
        ends = [float(row[f"{column}_{end}"]) for end in ("low", "high")]
        texts = [(f"{scale * v:.2f}" if scale > 1 else number(v)).replace("-", MINUS) for v in (value, *ends)]
        return f"{texts[0]}<small>{texts[1]} to {texts[2]}</small>"
    factor = device.factor(column, str(row["bits"])) if column in device.uncertainty else None
    interval = f"<small>{number(value / factor)} to {number(value * factor)}</small>" if factor else ""
    return number(value) + interval


def provenance(state: RunState) -> str:
    """Return where the numbers come from: versions, seed, data, budget, and the sources of each chip's profile."""
    entries = [*_run_entries(state.record, state.environment), *_profile_entries(state.record, state.devices)]
    rows = [
        f"<dt>{escape(words)}</dt><dd>{''.join(f'<p>{escape(text)}</p>' for text in texts)}</dd>"
        for words, texts in entries
        if texts
    ]
    return f"<dl>{''.join(rows)}</dl>"


def _run_entries(record: Mapping[str, Any], environment: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Return what a run's record says of it, as words and paragraphs."""
    identity, full = _mapping(record.get("identity")), _mapping(record.get("full_precision"))
    evaluations, budget = _mapping(record.get("evaluations")), _mapping(record.get("budget"))
    entries: dict[str, list[Any]] = {
        "Experiment": [record.get("experiment")],
        "Seed": [record.get("seed")],
        "Weights and ranges": [record.get("recipe")],
        "Metric": [
            f"{record.get('quality')}, {full['samples']} samples" if "samples" in full else record.get("quality")
        ],
        "Evaluations": [f"{count} under {scheme}" for scheme, count in evaluations.items()],
        "Budget": [_pairs(budget)],
        "Data fingerprint": [identity.get("data")],
        "Network fingerprint": [identity.get("network")],
        "Versions": [_pairs(_mapping(environment.get("packages")))],
        "Python": [environment.get("python")],
        "Machine": [environment.get("platform")],
        "Notes of the run": _listed_texts(record.get("warnings")),
    }
    return [(words, [str(text) for text in texts if text not in (None, "")]) for words, texts in entries.items()]


def _profile_entries(record: Mapping[str, Any], devices: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return the title, the fingerprint, the caveat and the sources of each chip's profile."""
    titles, notes = _mapping(record.get("titles")), _mapping(record.get("device_notes"))
    prints, sources = _mapping(_mapping(record.get("identity")).get("devices")), _mapping(record.get("sources"))
    entries = []
    for name in devices:
        fingerprint = f"Profile fingerprint {prints[name]}" if name in prints else ""
        cited = [f"{key}: {citation}" for key, citation in _mapping(sources.get(name)).items()]
        texts = [str(titles.get(name, "")), fingerprint, str(notes.get(name, "")), *cited]
        entries.append((name, [text for text in texts if text]))
    return entries


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _listed_texts(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
