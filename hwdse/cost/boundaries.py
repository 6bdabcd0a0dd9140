"""What lies between layers in one configuration: tensors that change format, and operators without MACs.

The rules are those of a runtime that holds every tensor once. A tensor is stored in the format of the layers that read
it, else in that of the convolution that wrote it, else in fp32. A convolution of integer activations writes integers, a
matmul of integer activations or a linear layer on one row writes what is asked of it, a linear layer on several rows
writes fp32. An operator without MACs runs in integers only if all tensors that it reads and writes are stored in that
integer format and the device lists it; else it runs in fp32. What turns values counts as fp32, whatever they are stored
in.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from hwdse.errors import InputError
from hwdse.formats import FP32, NumberFormat, Precision
from hwdse.graph import Layer, LayerGraph, Node, Value
from hwdse.hardware import HardwareProfile

__all__ = ["Boundaries", "Stored"]

Stored = Mapping[str, Precision]
"""Formats that each layer is stored and run in, by its name."""


class Boundaries:
    """Times between the layers of a network on a device.

    Parameters
    ----------
    graph
        With its nodes and values.
    profile
        Times of conversions and of operators without MACs; what it does not list is free.

    Raises
    ------
    InputError
        If the graph does not say what flows between its layers.
    """

    def __init__(self, graph: LayerGraph, profile: HardwareProfile) -> None:
        if graph.edges and not graph.values:
            raise InputError(
                f"expected a graph with the values between its layers, which {profile.name} has times for, got none; "
                "capture the network"
            )
        self.graph = graph
        self.profile = profile

    @cached_property
    def _reads(self) -> dict[str, list[Value]]:
        """Values that each node reads."""
        found: dict[str, list[Value]] = {}
        for value in self.graph.values:
            for name in value.nodes:
                found.setdefault(name, []).append(value)
        return found

    @cached_property
    def _writes(self) -> dict[str, list[Value]]:
        """Values that each node writes and somebody reads."""
        found: dict[str, list[Value]] = {}
        for value in self.graph.values:
            if value.node is not None:
                found.setdefault(value.node, []).append(value)
        return found

    @cached_property
    def _node(self) -> dict[str, Node]:
        return {node.name: node for node in self.graph.nodes}

    def _layer(self, name: str) -> Layer:
        return self.graph.layers[self.graph.layer_index[name]]

    def conversions_us(self, value: Value, stored: Stored) -> float:
        """Return the time of a value's format changes: from what it is written in to what it is stored and read in.

        However many read it in a format, it is converted into that format once.
        """
        held, owner = self._held(value, stored)
        written = self._written(value, stored)
        steps = {(written, held)}
        steps |= {(held, _operand(self._layer(name), value, stored)) for name in value.layers}
        steps |= {(held, self.node_format(self._node[name], stored)) for name in value.nodes}
        if owner is None:
            return 0.0
        found = [self.profile.conversion(*step, owner) for step in steps]
        elements = value.elements * self.profile.batch
        return sum(entry.time_us(elements) for entry in found if entry is not None)

    def node_us(self, node: Node, stored: Stored) -> float:
        """Return the time of an operator without MACs; an activation that follows is free in integers."""
        running = self.node_format(node, stored)
        names = [node.operator] if running != FP32 or node.activation is None else [node.operator, node.activation]
        times = (self.profile.node_times(name).get(running.name) for name in names)
        return sum(entry.time_us(node.elements * self.profile.batch) for entry in times if entry is not None)

    def node_format(self, node: Node, stored: Stored) -> NumberFormat:
        """Return the format that an operator without MACs runs in."""
        reads, writes = self._reads.get(node.name, []), self._writes.get(node.name, [])
        around = {self._held(value, stored)[0] for value in (*reads, *writes)}
        if not reads or not writes or len(around) > 1:
            return FP32
        (shared,) = around
        listed = self.profile.node_times(node.operator)
        return shared if not listed or shared.name in listed else FP32

    def _held(self, value: Value, stored: Stored) -> tuple[NumberFormat, Layer | None]:
        """Return the format that a value is stored in, and the layer whose format that is (``None`` for fp32)."""
        for name in value.layers:
            layer = self._layer(name)
            if (read := _operand(layer, value, stored)) != FP32:
                return read, layer
        writer = self._layer(value.layer) if value.layer is not None else None
        if writer is not None and writer.op == "conv" and stored[writer.name].activations != FP32:
            return stored[writer.name].activations, writer
        return FP32, None

    def _written(self, value: Value, stored: Stored) -> NumberFormat:
        """Return the format that a value is written in."""
        if value.node is not None:
            return self.node_format(self._node[value.node], stored)
        if value.layer is None or stored[value.layer].activations == FP32:
            return FP32
        layer = self._layer(value.layer)
        if layer.op == "linear" and len(layer.output_shape) > 1:
            return FP32
        return stored[value.layer].activations if layer.op == "conv" else self._held(value, stored)[0]

    def calibrated_us(self, part: Value | Node, stored: Stored) -> float:
        """Return the time of a value's conversions or of a node, times the calibration's factor of its kind."""
        if isinstance(part, Node):
            return self.profile.factor("nodes") * self.node_us(part, stored)
        return self.profile.factor("conversions") * self.conversions_us(part, stored)

    def layers_of(self, part: Value | Node) -> frozenset[str]:
        """Return the layers whose formats decide the time of a value's conversions or of a node."""
        if isinstance(part, Node):
            around = (*self._reads.get(part.name, []), *self._writes.get(part.name, []))
            return frozenset[str]().union(*map(_holders, around))
        nodes = [part.node] if part.node is not None else []
        return _holders(part).union(*(self.layers_of(self._node[name]) for name in (*nodes, *part.nodes)))


def _holders(value: Value) -> frozenset[str]:
    """Return the layers that decide what a value is stored in."""
    return frozenset(value.layers) | (frozenset() if value.layer is None else {value.layer})


def _operand(layer: Layer, value: Value, stored: Stored) -> NumberFormat:
    """Return the format that ``layer`` reads ``value`` in: a second operand has the precision's weight format."""
    precision = stored[layer.name]
    return precision.activations if layer.input == value.name else precision.weights
