"""The latency of one configuration term by term, by the exact rules: what a calibration weighs."""

from __future__ import annotations

from dataclasses import dataclass

from hwdse.cost.boundaries import Boundaries
from hwdse.cost.latency import lone_layer_ms, spilled_ms
from hwdse.cost.switch import switch_costs_ms
from hwdse.errors import InputError
from hwdse.graph import BitConfig, LayerGraph
from hwdse.hardware import HardwareProfile

__all__ = ["LatencyTerms", "latency_terms"]


@dataclass(frozen=True)
class LatencyTerms:
    """Milliseconds of one inference of one batch, each before calibration.

    Attributes
    ----------
    float_layers_ms, integer_layers_ms
        Layers without and with integers, from the table or the closed form.
    conversions_ms
        Tensors that change format.
    nodes_ms
        Operators without MACs.
    beside_ms
        What no factor changes: weights that stream in, changes of unit, overheads of operators without MACs.
    """

    float_layers_ms: float
    integer_layers_ms: float
    conversions_ms: float
    nodes_ms: float
    beside_ms: float = 0.0

    @property
    def layers_ms(self) -> float:
        """All layers."""
        return self.float_layers_ms + self.integer_layers_ms

    def total_ms(self, profile: HardwareProfile) -> float:
        """Return the latency: terms times the profile's calibration, and the time per inference."""
        return (
            profile.factor("float_layers") * self.float_layers_ms
            + profile.factor("integer_layers") * self.integer_layers_ms
            + profile.factor("conversions") * self.conversions_ms
            + profile.factor("nodes") * self.nodes_ms
            + self.beside_ms
            + profile.inference_us * 1e-3
        )


def latency_terms(graph: LayerGraph, profile: HardwareProfile, config: BitConfig) -> LatencyTerms:
    """Return the terms of a configuration's latency.

    Unlike a cost table, which holds terms of one and two choices, this follows the rules exactly where three or more
    layers decide what lies between them.

    Raises
    ------
    InputError
        If a layer has no precision or one that the device does not run, or the graph does not say what flows between
        its layers.
    """
    missing = [layer.name for layer in graph.layers if layer.name not in config.precisions]
    if missing:
        raise InputError(f"expected a precision for every layer, got none for {missing[0]}")
    layers = {"float_layers": 0.0, "integer_layers": 0.0}
    for layer in graph.layers:
        precision = config.precisions[layer.name]
        time_ms = lone_layer_ms(layer, precision, profile) * profile.precision_factor(precision)
        layers[profile.layer_term(layer, precision)] += time_ms
    stored = {layer.name: profile.stored(layer, config.precisions[layer.name]) for layer in graph.layers}
    rules = Boundaries(graph, profile)
    conversions = sum(rules.conversions_us(value, stored) for value in graph.values)
    nodes = sum(rules.node_us(node, stored) for node in graph.nodes)
    beside = _beside_ms(graph, profile, config)
    return LatencyTerms(layers["float_layers"], layers["integer_layers"], conversions * 1e-3, nodes * 1e-3, beside)


def _beside_ms(graph: LayerGraph, profile: HardwareProfile, config: BitConfig) -> float:
    """Return the time beside layers, conversions and nodes, without the overhead per inference."""
    candidates = tuple(dict.fromkeys(config.precisions.values()))
    chosen = [candidates.index(config.precisions[layer.name]) for layer in graph.layers]
    spilled = spilled_ms(graph, profile, candidates)
    total = float(sum(spilled[i, c] for i, c in enumerate(chosen))) + profile.nodes_us(len(graph.nodes)) * 1e-3
    switches = switch_costs_ms(graph, profile, candidates)
    if switches is not None:
        total += float(sum(switches[e, chosen[a], chosen[b]] for e, (a, b) in enumerate(graph.edges)))
    return total
