"""What a narrower precision buys on a device, in words: its share of time and size, and where it does not pay."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from hwdse.cost.latency import layer_latency_ms
from hwdse.cost.size import layer_size_bytes
from hwdse.formats import Precision
from hwdse.graph import Layer, LayerGraph
from hwdse.hardware import HardwareProfile

__all__ = ["worth_of_precisions"]

_NAMED = 3
_AS_FAST = 0.02
"""Latencies that differ by less than this share are the same."""


def worth_of_precisions(
    graph: LayerGraph, profile: HardwareProfile, candidates: Sequence[Precision]
) -> tuple[str, ...]:
    """Return a sentence for every precision but the widest: what it buys over the next wider one, layer by layer.

    Latencies are predicted, those of the layers alone; format changes between layers come on top.

    Parameters
    ----------
    graph, profile
        Network and device.
    candidates
        Precisions that may be chosen; those of equal width are compared in the order given.
    """
    ladder = sorted(candidates, key=lambda c: -(c.weights.bits + c.activations.bits))
    found = []
    for wider, narrower in pairwise(ladder):
        layers = [x for x in graph.layers if profile.supports(x, wider) and profile.supports(x, narrower)]
        if layers:
            found.append(f"{narrower} against {wider}: {_sentence(layers, profile, wider, narrower)}")
    return tuple(found)


def _sentence(layers: Sequence[Layer], profile: HardwareProfile, wider: Precision, narrower: Precision) -> str:
    """Return what ``narrower`` buys over ``wider`` in ``layers``."""
    if all(profile.stored(layer, wider) == profile.stored(layer, narrower) for layer in layers):
        stored = profile.stored(layers[0], narrower)
        return f"stored and run as {stored} in all {_layers(len(layers))}: as large and as fast, it does not pay here"
    times = np.array([[layer_latency_ms(layer, p, profile) for layer in layers] for p in (wider, narrower)])
    sizes = np.array(
        [
            [layer_size_bytes(layer, profile.stored(layer, p), profile.scheme) for layer in layers]
            for p in (wider, narrower)
        ]
    )
    speed, share = times[0].sum() / times[1].sum(), sizes[1].sum() / max(sizes[0].sum(), 1)
    text = f"{speed:.2f} times as fast over {_layers(len(layers))} together, {share:.0%} of their size"
    ratios = times[0] / times[1]
    slower = np.flatnonzero(ratios < 1.0 - _AS_FAST)
    if not len(slower):
        return text
    worst = slower[np.argsort(ratios[slower], kind="stable")][:_NAMED]
    named = ", ".join(f"{layers[i].name} {ratios[i]:.2f}" for i in worst)
    more = ", ..." if len(slower) > _NAMED else ""
    return f"{text}; slower in {_layers(len(slower))}, where it does not pay ({named}{more} times as fast)"


def _layers(count: int) -> str:
    return f"{count} layer" + "s" * (count != 1)
