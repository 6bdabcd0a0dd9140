"""Cost models: numbers per (layer, candidate, metric) from a hardware profile."""

from hwdse.cost.build import cost_table
from hwdse.cost.collinear import collinear_pairs, network_totals, random_choices
from hwdse.cost.fit import LevelFit, MemoryFit, memory_fit, memory_limits
from hwdse.cost.latency import Origin, provenance
from hwdse.cost.model import DEFAULT_METRICS, CostModel, MetricCosts, cost_model, metric_column
from hwdse.cost.size import fp32_size_kib
from hwdse.cost.table import CostTable, Metric, Reduction, SumOverSets
from hwdse.cost.terms import LatencyTerms, latency_terms
from hwdse.cost.unpriced import unpriced
from hwdse.cost.worth import worth_of_precisions

__all__ = [
    "DEFAULT_METRICS",
    "CostModel",
    "CostTable",
    "LatencyTerms",
    "LevelFit",
    "MemoryFit",
    "Metric",
    "MetricCosts",
    "Origin",
    "Reduction",
    "SumOverSets",
    "collinear_pairs",
    "cost_model",
    "cost_table",
    "fp32_size_kib",
    "latency_terms",
    "memory_fit",
    "memory_limits",
    "metric_column",
    "network_totals",
    "provenance",
    "random_choices",
    "unpriced",
    "worth_of_precisions",
]
