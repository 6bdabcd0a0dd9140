"""What lies between a network's layers that a device has no time for: it must be said, since it is predicted free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import permutations

from hwdse.formats import Precision
from hwdse.graph import LayerGraph
from hwdse.hardware import HardwareProfile

__all__ = ["unpriced"]


def unpriced(graph: LayerGraph, profile: HardwareProfile, candidates: Sequence[Precision]) -> tuple[str, ...]:
    """Return a sentence for operators without MACs, and one for changes of format, that the device has no time for.

    None for a device without times for what lies between layers: its note says what its figures cover. An operator that
    is listed without fp32 counts, since it runs in fp32 beside a layer in it.

    Parameters
    ----------
    graph
        The network, with its nodes.
    profile
        The device.
    candidates
        Precisions that layers may have.
    """
    if not profile.has_boundaries:
        return ()
    advice = f"they are predicted to take no time on {profile.name}; measure it with this network, if that was not done"
    sentences = []
    names = [name for node in graph.nodes for name in (node.operator, node.activation) if name is not None]
    missing = Counter(name for name in names if "fp32" not in profile.node_times(name))
    if missing:
        listed = ", ".join(f"{name} ({count})" for name, count in missing.items())
        sentences.append(f"expected times of all operators without MACs, got none of {listed}: {advice}")
    stored = {
        layer.op_class: {profile.stored(layer, c).activations for c in candidates if profile.supports(layer, c)}
        for layer in graph.layers
    }
    formats = dict.fromkeys(f for own in stored.values() for f in own)
    changes = dict.fromkeys(
        f"{source.name} to {target.name} for {layer.op_class}"
        for layer in graph.layers
        for source, target in permutations(formats, 2)
        # Of two formats one is the layer's; another layer's, or an operator's without MACs, is the other one.
        if {source, target} & {f for f in stored[layer.op_class] if f.is_integer}
        and profile.conversion(source, target, layer) is None
    )
    if changes:
        sentences.append(f"expected times of all changes of format, got none of {', '.join(changes)}: {advice}")
    return tuple(sentences)
