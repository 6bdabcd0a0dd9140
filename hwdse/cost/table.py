"""What every cost model returns: one number per (layer, candidate, metric), what is supported, and what is shared."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from hwdse.formats import Precision

__all__ = ["CostTable", "Metric", "Reduction", "SumOverSets"]


class Reduction(StrEnum):
    """How a metric's per-layer numbers become the network's: added up, or the largest over sets of layers."""

    SUM = "sum"
    MAX = "max"


@dataclass(frozen=True)
class Metric:
    """A cost with its unit in its name; smaller is better.

    Attributes
    ----------
    name
        Column name, with the unit and, unless it is counted exactly, its tier: ``latency_ms_predicted``.
    reduction
        How it is combined over layers.
    label
        Words for a figure's axis, with the unit.
    """

    name: str
    reduction: Reduction
    label: str


@dataclass(frozen=True)
class SumOverSets:
    """Terms of a metric that is the largest of several sums (peak memory over live sets).

    The value of a configuration is ``max over s of constant[s] + sum over layers l of terms[s, l, choice of l]``.

    Attributes
    ----------
    terms
        ``(sets, layers, candidates)``.
    constant
        ``(sets,)``.
    """

    terms: NDArray[np.float64]
    constant: NDArray[np.float64]


@dataclass(frozen=True)
class CostTable:
    """Costs of one network on one device.

    Attributes
    ----------
    metrics
        In column order. ``values`` has a column for each, 0 for those that reduce by ``max``.
    candidates
        Precisions, in column order.
    values
        ``(layers, candidates, metrics)``; entries that are not supported are 0 and must not be read.
    supported
        ``(layers, candidates)``, False where the device cannot run this layer at this precision.
    emulated
        ``(layers, candidates)``, True where a wider container runs it (no speed-up, perhaps not even smaller).
    constant
        ``(metrics,)``: what no choice changes.
    edges
        ``(edges, 2)`` layer indices: the graph's edges (producer, consumer), then further pairs that decide a cost
        together.
    switches
        ``(edges, candidates, candidates, metrics)``: what two layers' choices cost together, such as a
        precision switch between producer and consumer.
    peaks
        For each metric that reduces by ``max``, its terms by live set.
    """

    metrics: tuple[Metric, ...]
    candidates: tuple[Precision, ...]
    values: NDArray[np.float64]
    supported: NDArray[np.bool_]
    emulated: NDArray[np.bool_]
    constant: NDArray[np.float64]
    edges: NDArray[np.int64]
    switches: NDArray[np.float64]
    peaks: dict[str, SumOverSets] = field(default_factory=dict)
