"""Words and units for columns, and numbers as a reader wants to see them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import floor, log10

from hwdse.front import SHARES
from hwdse.units import TIERS, UNITS

__all__ = [
    "PERCENT",
    "axis_label",
    "counted",
    "drop_text",
    "elide",
    "lower_first",
    "number",
    "on_two_lines",
    "precision_counts",
    "quality_text",
    "span_text",
    "split_column",
]

PERCENT = SHARES
"""Qualities that are shares in the tables and percent for the reader."""

WORDS = {
    "accuracy": "Accuracy",
    "activation": "Activation memory",
    "bops": "Bit operations",
    "jsd": "Jensen-Shannon divergence",
    "kl": "KL divergence",
    "sqnr": "SQNR",
    "top1": "Top-1 accuracy",
    "top5": "Top-5 accuracy",
}
UNIT_OF_QUALITY = {"jsd": "nats", "kl": "nats"} | dict.fromkeys(PERCENT, "%")


def split_column(column: str) -> tuple[str, str, str]:
    """Return the words, the unit and the tier that a column's name states; empty where it states none.

    >>> split_column("latency_ms_predicted")
    ('Latency', 'ms', 'predicted')
    >>> split_column("size_kib")
    ('Size', 'KiB', '')
    >>> split_column("kl_measured")
    ('KL divergence', 'nats', 'measured')
    """
    parts = column.split("_")
    tier = parts.pop() if parts[-1] in TIERS else ""
    unit = UNITS[parts.pop()] if len(parts) > 1 and parts[-1] in UNITS else ""
    stem = " ".join(parts)
    return WORDS.get(stem, stem[:1].upper() + stem[1:]), unit or UNIT_OF_QUALITY.get(stem, ""), tier


def on_two_lines(label: str) -> str:
    """Return an axis label with unit and tier on a line of their own, for panels that are small.

    >>> print(on_two_lines("Latency (ms, predicted)"))
    Latency
    (ms, predicted)
    """
    return label.replace(" (", "\n(", 1)


def axis_label(column: str) -> str:
    """Return words for an axis, with the unit and the tier.

    >>> axis_label("latency_ms_predicted"), axis_label("top1_measured"), axis_label("macs")
    ('Latency (ms, predicted)', 'Top-1 accuracy (%, measured)', 'Macs')
    """
    words, unit, tier = split_column(column)
    inside = ", ".join(filter(None, (unit, tier)))
    return f"{words} ({inside})" if inside else words


def number(value: float, *, digits: int = 3) -> str:
    """Return ``value`` with ``digits`` significant digits and no exponent between 0.001 and 100 000.

    >>> number(1234.5), number(0.01234), number(33.0), number(0.0), number(2.5e-7)
    ('1234', '0.0123', '33.0', '0', '2.5e-07')
    """
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e5:
        return f"{value:.{digits}g}"
    return f"{value:.{max(digits - 1 - floor(log10(abs(value))), 0)}f}"


def counted(count: int, noun: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "configuration"), counted(1200, "other")
    ('1 configuration', '1,200 others')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def span_text(values: Iterable[float]) -> str:
    """Return the smallest and the largest of ``values`` as text, or the one that all of them read as.

    >>> span_text([2.2222, 1.09, 2.0]), span_text([1.5, 1.5])
    ('1.09 to 2.22', '1.50')
    """
    shown = list(values)
    return " to ".join(dict.fromkeys(number(value) for value in (min(shown), max(shown))))


def quality_text(name: str, value: float, *, decimals: int = 2) -> str:
    """Return a quality as text: shares in percent with ``decimals``, others with one significant digit more.

    >>> quality_text("top1", 0.9174), quality_text("top1", 0.1, decimals=0), quality_text("kl", 0.0123)
    ('91.74 %', '10 %', '0.0123')
    """
    return f"{100 * value:.{decimals}f} %" if name in PERCENT else number(value, digits=decimals + 1)


def lower_first(words: str) -> str:
    """Return words as within a sentence; abbreviations stay.

    >>> lower_first("Top-1 accuracy"), lower_first("KL divergence")
    ('top-1 accuracy', 'KL divergence')
    """
    return words if words[:2].isupper() else words[:1].lower() + words[1:]


def drop_text(name: str, value: float) -> str:
    """Return a drop of a quality as text: shares in points, others as they are.

    >>> drop_text("top1", 0.01), drop_text("top1", 0.005), drop_text("kl", 0.01)
    ('1 point', '0.5 points', '0.01')
    """
    if name not in PERCENT:
        return f"{value:g}"
    points = f"{100 * value:g}"
    return f"{points} point" if points == "1" else f"{points} points"


def elide(names: Sequence[str], longest: int) -> list[str]:
    """Return ``names`` without what all start with up to a dot, each cut on the left to ``longest`` characters.

    >>> elide(["model.layer1.0.conv1", "model.layer1.0.conv2", "model.head"], 8)
    ['…0.conv1', '…0.conv2', 'head']
    """
    heads = {name.split(".")[0] for name in names}
    while len(heads) == 1 and all("." in name for name in names):
        names = [name.split(".", 1)[1] for name in names]
        heads = {name.split(".")[0] for name in names}
    return [name if len(name) <= longest else "…" + name[len(name) - longest + 1 :] for name in names]


def precision_counts(bits: str) -> str:
    """Return how many layers have each precision, the most frequent first.

    >>> precision_counts("W8A8 W4A8 W4A8")
    '2 x W4A8, 1 x W8A8'
    """
    precisions = bits.split()
    distinct = sorted(set(precisions), key=lambda text: (-precisions.count(text), text))
    return ", ".join(f"{precisions.count(text)} x {text}" for text in distinct)
