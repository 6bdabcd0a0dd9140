"""The places of the layers in a program: their operands, weights and names, what they cost, and who feeds whom."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from torch import fx
from torch.export.graph_signature import InputKind

from hwdse.capture.flow import Flow, mixed_samples, where
from hwdse.capture.operators import BATCH_NORM, CONVOLUTIONS, PRODUCTS, base_name, has_macs
from hwdse.errors import CaptureError

__all__ = ["Site", "edges", "find_sites", "macs", "other_parameters"]


@dataclass(frozen=True)
class Site:
    """Where a layer stands in the program.

    Attributes
    ----------
    name
        The layer's name.
    node
        The convolution, linear or matrix product.
    operands
        Nodes of the first operand and of the second (weight or activation).
    bias
        Node of the bias, if there is one.
    weight
        Qualified name of the weight parameter; ``None`` if the second operand is an activation.
    weight_node
        The node that holds the parameter, before any transposition.
    weight_axis
        Axis of the output channels in the stored parameter.
    weight_shape
        Shape with the output channels first.
    batch_norm
        The batch norm that only this layer feeds, to be folded into it.
    """

    name: str
    node: fx.Node
    operands: tuple[fx.Node, fx.Node]
    bias: fx.Node | None = None
    weight: str | None = None
    weight_node: fx.Node | None = None
    weight_axis: int = 0
    weight_shape: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    groups: int = 1
    batch_norm: fx.Node | None = None

    @property
    def is_convolution(self) -> bool:
        """True for a convolution."""
        return base_name(self.node) in CONVOLUTIONS


def find_sites(flow: Flow) -> dict[str, Site]:
    """Return the place of every layer by its name, in execution order.

    Products of two constants are no layers: they are computed once.
    """
    found: dict[str, Site] = {}
    for node in flow.nodes:
        if has_macs(node) and node in flow.activations:
            site = _site(flow, node)
            name, count = site.name, 2
            while name in found:
                name, count = f"{site.name}@{count}", count + 1
            found[name] = replace(site, name=name)
    # A shared weight cannot take in the batch norm of one of its users.
    return {
        name: site if site.weight_node is None or len(site.weight_node.users) == 1 else replace(site, batch_norm=None)
        for name, site in found.items()
    }


def _site(flow: Flow, node: fx.Node) -> Site:
    operator = base_name(node)
    args = [*node.args, None, None]
    if operator in PRODUCTS:
        i, j, k = PRODUCTS[operator]
        first, second, bias = node.args[i], node.args[j], None if k is None else node.args[k]
    else:
        first, second, bias = args[0], args[1], args[2]
    operands = (_as_node(first), _as_node(second))
    if operands[0] not in flow.activations:
        raise CaptureError(
            f"expected {node.name!r} to have its weights as the second operand, got them first"
            f"{where(node.stack_trace)}; write it as activation @ weights"
        )
    if operands[1] not in flow.activations:
        fixed_bias = bias if isinstance(bias, fx.Node) and bias in flow.fixed else None
        return _weighted(flow, node, operands=operands, bias=fixed_bias)
    if operator in CONVOLUTIONS:
        raise CaptureError(
            f"expected convolution weights that are parameters, got {operands[1].name!r}, computed from the "
            f"inputs, for {node.name!r}{where(node.stack_trace)}; write it as a matrix product"
        )
    return Site(f"{_scope(node)}{node.name}", node, operands)


def _weighted(flow: Flow, node: fx.Node, *, operands: tuple[fx.Node, fx.Node], bias: fx.Node | None) -> Site:
    """Return the site of a layer whose second operand is a parameter or a constant."""
    stored, transposed = _through_transposition(flow, operands[1])
    by_columns = base_name(node) in PRODUCTS
    shape = flow.shapes[stored]
    if len(shape) < 2 or (by_columns and prod(shape[:-2]) != 1):
        raise CaptureError(
            f"expected weights of two dimensions in {node.name!r}, got shape {shape}{where(node.stack_trace)}; "
            "write it as one product per matrix"
        )
    if stored not in flow.fixed:
        raise CaptureError(
            f"expected weights that are the same for every input, got {stored.name!r}, which depends on the "
            f"inputs' sizes, for {node.name!r}{where(node.stack_trace)}; compute it once and keep it as a buffer"
        )
    columns = by_columns != transposed
    convolution = base_name(node) in CONVOLUTIONS
    return Site(
        name=_weighted_name(node, flow.parameters.get(stored.name)),
        node=node,
        operands=operands,
        bias=bias,
        weight=flow.parameters.get(stored.name, stored.name),
        weight_node=stored,
        weight_axis=len(shape) - 1 if columns else 0,
        weight_shape=shape[:-3:-1] if columns else shape,
        stride=_stride(node, len(shape) - 2) if convolution else (),
        groups=_groups(node) if convolution else 1,
        batch_norm=_folded_batch_norm(node) if convolution else None,
    )


def _through_transposition(flow: Flow, node: fx.Node) -> tuple[fx.Node, bool]:
    """Return the stored matrix behind ``node`` and whether it is read transposed."""
    if base_name(node) not in {"t", "transpose", "permute"} or len(flow.shapes[node]) != 2:
        return node, False
    stored, transposed = _through_transposition(flow, node.all_input_nodes[0])
    axes: Any = node.args[1] if base_name(node) == "permute" else node.args[1:]
    # Each names where the first axis comes from: t(), transpose(a, b), permute([a, b]).
    swaps = {"t": 1, "transpose": sum(axes) % 2 if axes else 1, "permute": axes[0] % 2 if axes else 1}
    return stored, transposed != bool(swaps[base_name(node)])


def macs(flow: Flow, site: Site) -> int:
    """Return the multiply-accumulates per sample: outputs times the values that each is summed from."""
    outputs = prod(flow.shape(site.node))
    if site.is_convolution:
        return outputs * prod(site.weight_shape[1:])
    first = site.operands[0]
    if flow.batch_axis(first) == len(flow.shapes[first]) - 1:
        raise mixed_samples(site.node)
    return outputs * flow.shapes[first][-1]


def edges(flow: Flow, sites: Mapping[str, Site]) -> tuple[tuple[int, int], ...]:
    """Return pairs (producer, consumer) of layer indices.

    The walk back from a consumer stops at layers, and at tensors that a layer reads: those are stored in that
    layer's format already.
    """
    index = {site.node: i for i, site in enumerate(sites.values())}
    quantized = {flow.root(site.operands[0]) for site in sites.values()}
    found: dict[tuple[int, int], None] = {}
    for consumer, site in enumerate(sites.values()):
        for operand in site.operands if site.weight is None else site.operands[:1]:
            pending, seen = [flow.root(operand)], set()
            while pending:
                node = pending.pop()
                if node in index:
                    found[index[node], consumer] = None
                elif node not in seen:
                    seen.add(node)
                    sources = (flow.root(n) for n in node.all_input_nodes if n in flow.activations)
                    pending += [n for n in sources if n not in quantized or n in index]
    return tuple(sorted(found))


def other_parameters(flow: Flow, sites: Mapping[str, Site]) -> int:
    """Return the number of parameters that operators without MACs use (norms, embeddings)."""
    layers = {site.weight_node for site in sites.values()} | {site.bias for site in sites.values()}
    folded = {site.batch_norm for site in sites.values()}
    names = {s.arg.name for s in flow.program.graph_signature.input_specs if s.kind is InputKind.PARAMETER}

    def is_used(node: fx.Node) -> bool:
        """Return True if a step of the program reads ``node``, or something computed once from it."""
        return any(is_used(u) if u in flow.fixed else u not in folded for u in node.users if u not in layers)

    parameters = [node for node in flow.nodes if node.name in names and node not in layers]
    return sum(prod(flow.shapes[node]) for node in parameters if is_used(node))


def _as_node(value: object) -> fx.Node:
    if not isinstance(value, fx.Node):
        raise CaptureError(f"expected a tensor as operand, got {value!r}")
    return value


def _module_path(node: fx.Node) -> str:
    """Return the path of the innermost module that ``node`` was traced in."""
    stack = node.meta.get("nn_module_stack") or {}
    path = str(list(stack.values())[-1][0]) if stack else ""
    return re.sub(r"@\d+", "", path)


def _scope(node: fx.Node) -> str:
    path = _module_path(node)
    return f"{path}." if path else ""


def _weighted_name(node: fx.Node, weight: str | None) -> str:
    """Return the module path of a layer that owns its weight; otherwise scope and operator."""
    if weight is None or weight.rpartition(".")[0] != _module_path(node):
        return f"{_scope(node)}{node.name}"
    return re.sub(r"[._]weight$", "", weight) or weight


def _stride(node: fx.Node, dimensions: int) -> tuple[int, ...]:
    stride: Any = node.args[3] if len(node.args) > 3 else node.kwargs.get("stride", 1)
    values = list(stride) if isinstance(stride, list | tuple) else [stride]
    return tuple(int(v) for v in (values if len(values) == dimensions else values * dimensions))


def _groups(node: fx.Node) -> int:
    groups = node.args[6] if len(node.args) > 6 else node.kwargs.get("groups", 1)
    return int(groups)  # type: ignore[arg-type]


def _folded_batch_norm(node: fx.Node) -> fx.Node | None:
    """Return the batch norm that is the only user of ``node``."""
    users = list(node.users)
    return users[0] if len(users) == 1 and base_name(users[0]) == BATCH_NORM else None
