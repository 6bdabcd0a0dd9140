"""What holds for every figure of a kind, and how far a device's figures can be trusted: said once, beside them."""

from __future__ import annotations

from textwrap import fill

from hwdse.report.tables import RunTables

__all__ = ["READING", "guide_text"]

WIDTH = 100

READING = {
    "pareto": (
        "The line joins what is non-dominated in the panel's two axes as well. Hollow points cost no less and "
        "score lower than some point of the front, but no such point is significantly better (paired, 95 %). Thin "
        "bars: 95 % interval of the value; thick bars: full precision less the 95 % interval of the drop, paired "
        "by sample, which is what to compare with the line of full precision. Grey cloud: configurations with "
        "predicted cost and quality."
    ),
    "bits": (
        "Strips: weight / activation bits, the darker the more weight bits; other configurations are spread over "
        "the objectives of the front. Sensitivity: harm to the network with that layer's group alone quantized; "
        "filled: at the precision chosen, hollow: at its most harmful candidate; a harm of 0 stands at the lower "
        "edge. Below: each layer's share of all MACs and of all weights, in execution order."
    ),
    "parallel": (
        "Each axis reaches from the worst value on the front (below) to the best (above); one that says log is "
        "logarithmic. Lines that cross between two axes trade one objective for the other. Intervals of the "
        "quality are in the Pareto figure."
    ),
    "predicted": "Bars are 95 % intervals; rho is Spearman's rank correlation.",
    "roofline": (
        "Level lines: the highest rate of each precision used, before padding and the efficiency of a layer's "
        "class; slopes: bandwidths of the memory levels that bound a layer; diamonds: ridge points. A layer "
        "stands at its MACs per byte moved to and from the level that takes it longest, at the speed that it has "
        "with the overhead per layer; the thin line reaches up to its speed without. The area of a point grows "
        "with the layer's share of all MACs."
    ),
    "scatter": "Non-dominated is meant over all objectives together. Intervals are in the Pareto figure.",
    "devices": (
        "The line joins those that are also best in the panel; bars are 95 % intervals; dashed: full precision. "
        "Bottom: the same fronts on one axis of cost; the bar of a device says how far its whole front may be "
        "shifted."
    ),
    "attainment": (
        "Each objective is scaled from the best to the worst value measured on the device; the reference point is "
        "the worst value in every objective, and 1 would be the best in all at once, so levels of two devices are "
        "not comparable. In the order of measuring, the first of which may lie below the axis; devices with the "
        "same quantization scheme share evaluations, which count for each."
    ),
}
"""How to read a figure, by the first word of its name."""


def guide_text(tables: RunTables) -> str:
    """Return how to read the figures of a run, and what its devices' figures rest on, as text."""
    parts = [f"How to read the figures of {tables.name}. What each shows, of how many samples, is in captions.md."]
    parts.append("Axes that say predicted show a cost model, not a timing; quality is measured.")
    parts += [f"{kind}: {words}" for kind, words in READING.items()]
    for device in tables.results.values():
        said = [device.note_sentence.removeprefix(f"{device.device}: "), *(f"{words}." for words in device.worth)]
        if text := " ".join(filter(None, said)):
            parts.append(f"{device.device}: {text}")
    return "\n\n".join(fill(part, WIDTH) for part in parts) + "\n"
