"""Objectives that say the same thing: a front over two of them is a line."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from hwdse.cost.table import CostTable
from hwdse.errors import InputError
from hwdse.graph import LayerGraph

__all__ = ["collinear_pairs", "network_totals", "random_choices"]


def random_choices(
    graph: LayerGraph, table: CostTable, *, rng: np.random.Generator, count: int = 256
) -> NDArray[np.int64]:
    """Return ``(count, layers)`` candidate indices of random configurations, each of supported choices only.

    Layers of a tied group get the same choice, drawn from those that all of them support.

    Raises
    ------
    InputError
        If the layers of a group support no candidate in common.
    """
    choices = np.zeros((count, len(graph.layers)), dtype=np.int64)
    for group in graph.groups:
        members = [graph.layer_index[name] for name in group.layers]
        (common,) = np.nonzero(table.supported[members].all(axis=0))
        if not len(common):
            raise InputError(f"expected a candidate that all of {', '.join(group.layers)} support, got none")
        choices[:, members] = rng.choice(common, size=(count, 1))
    return choices


def network_totals(table: CostTable, choices: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return ``(n, metrics)`` of configurations ``(n, layers)``: layers, constant, switches, largest live set."""
    layers = np.arange(table.values.shape[0])
    totals: NDArray[np.float64] = table.values[layers, choices].sum(axis=1) + table.constant
    for edge, (producer, consumer) in enumerate(table.edges):
        totals += table.switches[edge, choices[:, producer], choices[:, consumer]]
    for m, metric in enumerate(table.metrics):
        sums = table.peaks.get(metric.name)
        if sums is not None:
            alive = sums.terms[:, layers, choices].sum(axis=2) + sums.constant[:, None]
            totals[:, m] += alive.max(axis=0)
    return totals


def collinear_pairs(
    values: NDArray[np.float64], names: Sequence[str], *, device: str, threshold: float = 0.999
) -> tuple[str, ...]:
    """Return a warning for each pair of metrics whose correlation is beyond ``threshold`` in size.

    Parameters
    ----------
    values
        ``(n, metrics)``, one row per configuration. Metrics that do not vary correlate with nothing.
    names
        Of the metrics.
    device
        Name for the sentences.
    threshold
        Smallest absolute Pearson correlation that is a line.

    >>> latency = np.array([1.0, 2.0, 4.0])
    >>> collinear_pairs(np.stack([latency, 5.38 * latency], axis=1), ["latency_ms", "energy_mj"], device="mpic")
    ('latency_ms and energy_mj correlate at 1.000 on mpic: the front over both is one line',)
    """
    centred = values - values.mean(axis=0)
    norms = np.linalg.norm(centred, axis=0)
    varies = norms > 1e-12 * np.maximum(np.abs(values).max(axis=0), 1e-300) * np.sqrt(len(values))
    sentences = []
    for i, j in combinations(range(len(names)), 2):
        if not (varies[i] and varies[j]):
            continue
        rho = float(centred[:, i] @ centred[:, j] / (norms[i] * norms[j]))
        if abs(rho) > threshold:
            fate = "the front over both is one line" if rho > 0 else "every configuration is on the front over both"
            sentences.append(f"{names[i]} and {names[j]} correlate at {rho:.3f} on {device}: {fate}")
    return tuple(sentences)
