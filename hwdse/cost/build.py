"""The cost table of a network on a device: every requested metric side by side, with what is supported."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hwdse.cost.model import DEFAULT_METRICS, MetricCosts, cost_model
from hwdse.cost.table import CostTable, Metric, Reduction
from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.graph import Layer, LayerGraph
from hwdse.hardware import HardwareProfile

__all__ = ["cost_table", "supported_mask"]


def cost_table(
    graph: LayerGraph,
    profile: HardwareProfile,
    candidates: Sequence[Precision],
    *,
    metrics: Sequence[str] | None = None,
) -> CostTable:
    """Return what every layer costs at every candidate precision on a device.

    Parameters
    ----------
    graph
        The network; its layers and edges order the table.
    profile
        The device. Latency, energy and activation memory are those of one inference of one batch of its size.
    candidates
        Precisions, in column order; those that the device does not support for a layer are masked.
    metrics
        Names of installed cost models, such as ``latency_ms``; by default size, bit operations, latency, energy and
        peak activation memory.

    Raises
    ------
    InputError
        If a metric is unknown, the device cannot run a layer at any candidate, or a cost is negative or not finite.
    """
    models = [cost_model(name) for name in (DEFAULT_METRICS if metrics is None else metrics)]
    columns = tuple(model.metric for model in models)
    if not columns or len({metric.name for metric in columns}) != len(columns):
        raise InputError(f"expected one metric or more, each once, got {[metric.name for metric in columns]}")
    supported = supported_mask(graph, profile, candidates)
    parts = [model.costs(graph, profile, candidates) for model in models]
    for metric, part in zip(columns, parts, strict=True):
        _check(metric, part, supported)
    pairs = tuple(dict.fromkeys([*graph.edges, *(pair for part in parts for pair in part.pairs or ())]))
    return CostTable(
        metrics=columns,
        candidates=tuple(candidates),
        values=np.stack([np.where(supported, part.values, 0.0) for part in parts], axis=2),
        supported=supported,
        emulated=np.array([[profile.emulated(layer, c) for c in candidates] for layer in graph.layers], dtype=np.bool_),
        constant=np.array([part.constant for part in parts], dtype=np.float64),
        edges=np.array(pairs, dtype=np.int64).reshape(-1, 2),
        switches=_switches(graph, pairs, supported, parts),
        peaks={m.name: part.peaks for m, part in zip(columns, parts, strict=True) if part.peaks is not None},
    )


def supported_mask(graph: LayerGraph, profile: HardwareProfile, candidates: Sequence[Precision]) -> NDArray[np.bool_]:
    """Return ``(layers, candidates)``: True where the device runs the layer at the candidate.

    Raises
    ------
    InputError
        If a layer's operator is none that the device runs, or no candidate is supported for a layer.
    """
    mask = np.array([[profile.supports(layer, c) for c in candidates] for layer in graph.layers], dtype=np.bool_)
    for layer, row in zip(graph.layers, mask, strict=True):
        if not row.any():
            raise InputError(_unsupported(layer, profile, candidates))
    return mask


def _unsupported(layer: Layer, profile: HardwareProfile, candidates: Sequence[Precision]) -> str:
    """Return why a device cannot run a layer at any candidate."""
    if layer.op_class not in profile.op_classes:
        known = ", ".join(profile.op_classes)
        return (
            f"expected operators that {profile.name} supports ({known}), got {layer.op_class} at {layer.name}; "
            "add a rate for it to the profile or choose another device"
        )
    offered = ", ".join(str(precision) for precision in profile.precisions if profile.supports(layer, precision))
    if not offered:
        shape = f"{layer.op_class}, kernel {'x'.join(map(str, layer.kernel)) or 'none'}, {layer.input_channels} to "
        return (
            f"expected layers that {profile.name} runs, got {layer.name} ({shape}{layer.output_channels} channels), "
            "which it runs at no precision; add a rate for it to the profile or choose another device"
        )
    given = ", ".join(map(str, candidates)) or "none"
    return f"expected a precision that {profile.name} supports for {layer.name} ({offered}), got {given}; add one"


def _check(metric: Metric, part: MetricCosts, supported: NDArray[np.bool_]) -> None:
    """Check what a cost model returned: a shape per layer and candidate, costs finite and not negative."""
    if part.values.shape != supported.shape:
        raise InputError(f"expected {metric.name} of shape {supported.shape}, got {part.values.shape}")
    if (metric.reduction is Reduction.MAX) != (part.peaks is not None):
        raise InputError(f"expected sums over live sets from {metric.name} if and only if it reduces by max")
    numbers = [part.values[supported], np.array([part.constant])]
    numbers += [part.switches] if part.switches is not None else []
    numbers += [part.peaks.terms, part.peaks.constant] if part.peaks is not None else []
    if not all(np.isfinite(values).all() and (values >= 0).all() for values in numbers):
        raise InputError(f"expected finite costs of at least 0, got others from {metric.name}; check its cost model")


def _switches(
    graph: LayerGraph, pairs: Sequence[tuple[int, int]], supported: NDArray[np.bool_], parts: Sequence[MetricCosts]
) -> NDArray[np.float64]:
    """Return ``(pairs, candidates, candidates, metrics)``; 0 where either end is not supported."""
    count = supported.shape[1]
    table = np.zeros((len(pairs), count, count, len(parts)))
    place = {pair: p for p, pair in enumerate(pairs)}
    for m, part in enumerate(parts):
        if part.switches is not None:
            own = graph.edges if part.pairs is None else part.pairs
            table[[place[pair] for pair in own], :, :, m] = part.switches
    for p, (first, second) in enumerate(pairs):
        table[p, ~np.outer(supported[first], supported[second])] = 0.0
    return table
