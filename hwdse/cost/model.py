"""What a cost model is, and how they are found: built-in ones and plug-ins by the same entry points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hwdse.cost.table import Metric, SumOverSets
from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.graph import Layer, LayerGraph
from hwdse.hardware import HardwareProfile
from hwdse.plugins import load_plugin, plugin_names

__all__ = [
    "DEFAULT_METRICS",
    "GROUP",
    "CostModel",
    "MetricCosts",
    "cost_model",
    "metric_column",
    "per_layer",
]

GROUP = "hwdse.cost_models"
DEFAULT_METRICS = ("size_kib", "bops_g", "latency_ms", "energy_mj", "activation_kib")


@dataclass(frozen=True)
class MetricCosts:
    """One metric of one network on one device.

    Attributes
    ----------
    values
        ``(layers, candidates)``; 0 where not supported, and for a metric that reduces by ``max``.
    constant
        What no choice changes.
    switches
        ``(edges, candidates, candidates)`` by producer's and consumer's choice; ``None`` where switching is free.
    peaks
        Sums by live set of a metric that reduces by ``max``.
    pairs
        Layer indices that ``switches`` are of; ``None``: the graph's edges.
    """

    values: NDArray[np.float64]
    constant: float = 0.0
    switches: NDArray[np.float64] | None = None
    peaks: SumOverSets | None = None
    pairs: tuple[tuple[int, int], ...] | None = None


@runtime_checkable
class CostModel(Protocol):
    """A cost. Built-in ones and those of other packages are entry points of the group ``hwdse.cost_models``.

    The name of the entry point is what users write (``latency_ms``); the metric's name is the column.
    """

    @property
    def metric(self) -> Metric:
        """Column name with unit and tier, reduction, and label."""

    def costs(self, graph: LayerGraph, profile: HardwareProfile, candidates: Sequence[Precision]) -> MetricCosts:
        """Return the costs of every layer at every candidate that the device supports."""


def cost_model(name: str) -> CostModel:
    """Return the cost model installed as ``name``; a column's name is as good as the model's.

    Raises
    ------
    InputError
        If there is none, or what is installed is no cost model.
    """
    known = plugin_names(GROUP)
    own = name if name in known else next((k for k in known if metric_column(k) == name), name)
    model = load_plugin(GROUP, own)
    if not isinstance(model, CostModel):
        raise InputError(f"expected {name} to have metric and costs (a cost model), got {type(model).__name__}")
    return model


def metric_column(name: str) -> str:
    """Return the column of the cost model that users call ``name``.

    Raises
    ------
    InputError
        If there is none.
    """
    return cost_model(name).metric.name


def per_layer(
    graph: LayerGraph,
    profile: HardwareProfile,
    candidates: Sequence[Precision],
    *,
    cost: Callable[[Layer, Precision], float],
) -> NDArray[np.float64]:
    """Return ``(layers, candidates)``: ``cost`` where the device supports the choice, else 0."""
    return np.array(
        [
            [cost(layer, candidate) if profile.supports(layer, candidate) else 0.0 for candidate in candidates]
            for layer in graph.layers
        ],
        dtype=np.float64,
    ).reshape(len(graph.layers), len(candidates))
