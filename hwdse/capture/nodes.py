"""Operators without MACs, and what flows between them and the layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

from torch import fx

from hwdse.capture.flow import Flow
from hwdse.capture.operators import PRODUCTS, base_name, is_view
from hwdse.capture.sites import Site
from hwdse.graph import Node, Value

__all__ = ["find_nodes", "operator_name"]

_CLIPS = {"relu6", "hardtanh", "clamp", "clamp_min", "clamp_max"}
_RENAMED = {
    "_softmax": "softmax",
    "_safe_softmax": "softmax",
    "_log_softmax": "log_softmax",
    "native_layer_norm": "layer_norm",
    "native_group_norm": "group_norm",
    "_native_batch_norm_legit_no_training": "batch_norm",
    "cat": "concat",
}
_POOLS = {
    f"{prefix}{sort}_pool{n}d{suffix}": f"{sort}_pool"
    for prefix in ("", "adaptive_", "_adaptive_")
    for sort in ("max", "avg")
    for n in (1, 2, 3)
    for suffix in ("", "_with_indices")
}
_TURNS = {"transpose", "permute", "t", "movedim", "swapaxes"}
"""Views that take time all the same: they write their values in another order."""

_COPIES = {"pad": "pad", "constant_pad_nd": "pad", "slice": "slice"}
"""Views that a runtime writes as tensors of their own, of another size."""

_SCALES = {"mul", "div"}
_ABSORBED = {"relu", "clip"}
_MEAN = "mean"
_IMAGE = 4
"""Axes of the smallest batch of images: samples, channels, height, width."""


def operator_name(flow: Flow, node: fx.Node) -> str:
    """Return what an operator does, in one word whatever the framework calls its variants.

    A mean over all positions of an image, and a pooling to a single one, are ``global_avg_pool``.
    """
    name = base_name(node)
    if name in _CLIPS:
        return "clip"
    source = next((flow.shapes[n] for n in node.all_input_nodes if n in flow.shapes), ())
    if name == _MEAN and len(source) >= _IMAGE and len(node.args) > 1:
        axes: Any = node.args[1]
        return "global_avg_pool" if {a % len(source) for a in axes} == set(range(2, len(source))) else name
    sort = _POOLS.get(name)
    if sort == "avg_pool" and node in flow.shapes and prod(flow.shapes[node][2:]) == 1:
        return "global_avg_pool"
    return sort or _RENAMED.get(name, name)


def find_nodes(flow: Flow, sites: Mapping[str, Site]) -> tuple[tuple[Node, ...], tuple[Value, ...]]:
    """Return the operators without MACs, and the values between them and the layers, both in execution order."""
    return _Walk(flow, sites).run()


class _Walk:
    """Goes through a program once, from what writes a value to what reads it."""

    def __init__(self, flow: Flow, sites: Mapping[str, Site]) -> None:
        self.flow = flow
        self.layer_of = {site.node: name for name, site in sites.items()}
        self.folded = {site.batch_norm: name for name, site in sites.items() if site.batch_norm is not None}
        self.nodes: dict[str, Node] = {}
        self.values: dict[fx.Node, Value] = {}
        self.taken: set[fx.Node] = set()

    def run(self) -> tuple[tuple[Node, ...], tuple[Value, ...]]:
        for node in self.flow.nodes:
            if node not in self.flow.activations or node in self.taken or node.op == "output":
                continue
            if is_view(node):
                self._view(node)
            elif base_name(node) == "getitem":
                self._one_of_several(node)
            elif node.op == "placeholder":
                self.values[node] = Value(node.name, self._elements(node))
            else:
                self._operator(node)
        read = tuple(value for value in self.values.values() if value.layers or value.nodes)
        return tuple(self.nodes.values()), read

    def _view(self, node: fx.Node) -> None:
        """Enter a view that takes time; of several turns in a row, which a runtime joins, the last one."""
        name = base_name(node)
        if name in _TURNS and not any(base_name(later) in _TURNS for later in _views_after(node)):
            self.nodes[node.name] = Node(node.name, "transpose", self._elements(node))
        elif name in _COPIES and self.flow.shapes[node] != self.flow.shapes[node.all_input_nodes[0]]:
            self._read(self._stored(node.all_input_nodes[0]), node, None)
            elements = max(self._elements(node), self._elements(node.all_input_nodes[0]))
            self.nodes[node.name] = Node(node.name, _COPIES[name], elements)
            self.values[node] = Value(node.name, self._elements(node), node=node.name)

    def _stored(self, node: fx.Node) -> fx.Node:
        """Return the value that ``node`` is a view of: a copy or its root."""
        return node if node in self.values or not is_view(node) else self._stored(node.all_input_nodes[0])

    def _operator(self, node: fx.Node) -> None:
        """Enter a layer or a node: it reads values and writes one."""
        layer = self.layer_of.get(node)
        stored = list(map(self._stored, node.all_input_nodes))
        # A layer's format is that of its root, too: what is copied keeps it.
        roots = map(self.flow.root, node.all_input_nodes) if layer is not None else ()
        for source in dict.fromkeys([*roots, *stored]):
            self._read(source, node, layer)
        result, activation = self._absorb(node)
        if layer is None:
            operands = [n for n in node.all_input_nodes if n in self.values and n in self.flow.shapes]
            elements = max(map(self._elements, [*operands, *self._results(node)]), default=0)
            self.nodes[node.name] = Node(node.name, operator_name(self.flow, node), elements, activation)
        if result in self.flow.shapes:
            own = node.name if layer is None else None
            self.values[result] = Value(result.name, self._elements(result), layer=layer, node=own)

    def _absorb(self, node: fx.Node) -> tuple[fx.Node, str | None]:
        """Return the node that ends an operator with what it takes in, and the activation among that."""
        result = node
        norm = next((user for user in node.users if user in self.folded), None)
        if norm is not None:
            (result,) = (user for user in norm.users if base_name(user) == "getitem") if norm.users else (norm,)
            self.taken |= {norm, result}
        readers = self.flow.readers(result)
        follows = readers[0] if len(readers) == 1 and readers[0].op == "call_function" else None
        activation = operator_name(self.flow, follows) if follows is not None else None
        if follows is not None and base_name(node) in PRODUCTS and _is_scale(follows):
            self.taken.add(follows)
            return follows, None
        if follows is None or activation not in _ABSORBED or operator_name(self.flow, node) in _ABSORBED:
            return result, None
        self.taken.add(follows)
        return follows, activation

    def _one_of_several(self, node: fx.Node) -> None:
        """Enter one of the results of an operator that returns several."""
        operator = node.all_input_nodes[0]
        if node in self.flow.shapes and operator.name in self.nodes:
            self.values[node] = Value(node.name, self._elements(node), node=operator.name)

    def _results(self, node: fx.Node) -> list[fx.Node]:
        """Return the tensors that an operator writes."""
        return [node] if node in self.flow.shapes else [user for user in node.users if user in self.flow.shapes]

    def _read(self, source: fx.Node, reader: fx.Node, layer: str | None) -> None:
        value = self.values.get(source)
        if value is None:
            return
        if layer is None:
            self.values[source] = replace(value, nodes=(*value.nodes, reader.name))
        else:
            self.values[source] = replace(value, layers=(*value.layers, layer))

    def _elements(self, node: fx.Node) -> int:
        return prod(self.flow.shape(node))


def _is_scale(node: fx.Node) -> bool:
    """Return whether an operator multiplies a tensor by a number."""
    return base_name(node) in _SCALES and isinstance(node.args[1], int | float)


def _views_after(node: fx.Node) -> list[fx.Node]:
    """Return the views of a view's result, and theirs."""
    direct = [user for user in node.users if is_view(user)]
    return direct + [later for user in direct for later in _views_after(user)]
