"""The data flow of an exported program: shapes per sample, readers of tensors, and the places of the layers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from hwdse.capture.operators import BATCH_NORM, CONVOLUTIONS, PRODUCTS, base_name, has_macs, is_view
from hwdse.errors import CaptureError

__all__ = ["Flow", "Site"]


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


class _Shapes(fx.Interpreter):
    """Runs the program once on the example and keeps the shape of every value."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, torch.Tensor):
            self.shapes[n] = tuple(result.shape)
        return result


@dataclass
class Flow:
    """Questions that an exported program answers about its values.

    Attributes
    ----------
    program
        The program.
    shapes
        Shape of every tensor for the example.
    batch
        Batch size of the example.
    """

    program: ExportedProgram
    shapes: Mapping[fx.Node, tuple[int, ...]]
    batch: int
    _roots: dict[fx.Node, fx.Node] = field(default_factory=dict)

    @classmethod
    def of(cls, program: ExportedProgram, inputs: tuple[torch.Tensor, ...]) -> Flow:
        """Run ``program`` once on ``inputs`` and return its flow."""
        interpreter = _Shapes(program.graph_module)
        with torch.no_grad():
            interpreter.run(*flat_arguments(program, inputs))
        return cls(program, interpreter.shapes, inputs[0].shape[0])

    @property
    def nodes(self) -> list[fx.Node]:
        """Nodes in execution order."""
        return list(self.program.graph.nodes)

    @cached_property
    def parameters(self) -> dict[str, str]:
        """Qualified name of the parameter, buffer or constant behind each placeholder that is not a user input."""
        return {
            spec.arg.name: str(spec.target)
            for spec in self.program.graph_signature.input_specs
            if spec.kind is not InputKind.USER_INPUT
        }

    @cached_property
    def activations(self) -> set[fx.Node]:
        """Nodes whose values depend on the user's inputs."""
        found: set[fx.Node] = set()
        for node in self.nodes:
            is_input = node.op == "placeholder" and node.name not in self.parameters
            if (
                is_input
                or (node in self.shapes and any(n in found for n in node.all_input_nodes))
                or (base_name(node) == "getitem" and node.all_input_nodes[0] in found)
            ):
                found.add(node)
            elif node.op == "call_function" and node not in self.shapes and not base_name(node).startswith("sym_"):
                found.update({node} if any(n in found for n in node.all_input_nodes) else set())
        return found

    def root(self, node: fx.Node) -> fx.Node:
        """Return the node whose stored tensor ``node`` reads, looking through views."""
        if node not in self._roots:
            self._roots[node] = self.root(node.all_input_nodes[0]) if is_view(node) else node
        return self._roots[node]

    def readers(self, root: fx.Node) -> list[fx.Node]:
        """Return the operators that read the tensor ``root``, directly or through views."""
        found: dict[fx.Node, None] = {}
        for user in root.users:
            if is_view(user):
                found.update(dict.fromkeys(self.readers(user)))
            else:
                found[user] = None
        return list(found)

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        """Return the shape of ``node`` without the batch; a batch merged into another dimension is divided out."""
        shape = self.shapes[node]
        if node not in self.activations or not shape:
            return shape
        axis = self._batch_axis(node)
        rest = shape[axis] // self.batch
        return shape[:axis] + ((rest,) if rest > 1 else ()) + shape[axis + 1 :]

    def _batch_axis(self, node: fx.Node) -> int:
        """Return the axis that grows with the batch: the one the exporter left symbolic."""
        symbols = self._batch_symbols
        value = node.meta.get("val")
        for axis, size in enumerate(getattr(value, "shape", ())):
            if isinstance(size, torch.SymInt) and symbols & size.node.expr.free_symbols:
                return axis
        return 0

    @cached_property
    def _batch_symbols(self) -> set[Any]:
        inputs = [n for n in self.nodes if n.op == "placeholder" and n.name not in self.parameters]
        sizes = [node.meta["val"].shape[0] for node in inputs]
        return {s for size in sizes if isinstance(size, torch.SymInt) for s in size.node.expr.free_symbols}

    def sites(self) -> dict[str, Site]:
        """Return the place of every layer by its name, in execution order.

        Products of two constants are no layers: they are computed once.
        """
        found: dict[str, Site] = {}
        for node in self.nodes:
            if has_macs(node) and node in self.activations:
                site = self._site(node)
                name, count = site.name, 2
                while name in found:
                    name, count = f"{site.name}@{count}", count + 1
                found[name] = replace(site, name=name)
        uses = Counter(site.weight for site in found.values())
        # A shared weight cannot take in the batch norm of one of its users.
        return {n: site if uses[site.weight] == 1 else replace(site, batch_norm=None) for n, site in found.items()}

    def _site(self, node: fx.Node) -> Site:
        operator = base_name(node)
        args = [*node.args, None, None]
        if operator in PRODUCTS:
            i, j, k = PRODUCTS[operator]
            first, second, bias = node.args[i], node.args[j], None if k is None else node.args[k]
        else:
            first, second, bias = args[0], args[1], args[2]
        operands = (_as_node(first), _as_node(second))
        bias_node = bias if isinstance(bias, fx.Node) else None
        if operands[1] in self.activations:
            return Site(f"{_scope(node)}{node.name}", node, operands, bias_node)
        if operands[0] not in self.activations:
            raise CaptureError(
                f"expected {node.name!r} to have its weights as the second operand, got them first; "
                "write it as activation @ weights"
            )
        return self._weighted(node, operands, bias_node)

    def _weighted(self, node: fx.Node, operands: tuple[fx.Node, fx.Node], bias: fx.Node | None) -> Site:
        """Return the site of a layer whose second operand is a parameter or a constant."""
        stored, transposed = _through_transposition(operands[1])
        by_columns = base_name(node) in PRODUCTS
        shape = self.shapes[stored]
        if len(shape) < 2 or (by_columns and len(shape) != 2):
            raise CaptureError(f"expected weights of two dimensions in {node.name!r}, got shape {shape}")
        axis = int(by_columns and not transposed)
        weight = self.parameters.get(stored.name, stored.name)
        convolution = base_name(node) in CONVOLUTIONS
        return Site(
            name=_weighted_name(node, weight),
            node=node,
            operands=operands,
            bias=bias,
            weight=weight,
            weight_node=stored,
            weight_axis=axis,
            weight_shape=shape[::-1] if axis else shape,
            stride=_stride(node, len(shape) - 2) if convolution else (),
            groups=_groups(node) if convolution else 1,
            batch_norm=_folded_batch_norm(node) if convolution else None,
        )

    def macs(self, site: Site) -> int:
        """Return the multiply-accumulates per sample: outputs times the values that each is summed from."""
        outputs = prod(self.shape(site.node))
        if site.is_convolution:
            return outputs * prod(site.weight_shape[1:])
        return outputs * self.shapes[site.operands[0]][-1]

    def edges(self, sites: Mapping[str, Site]) -> tuple[tuple[int, int], ...]:
        """Return pairs (producer, consumer) of layer indices.

        The walk back from a consumer stops at layers, and at tensors that a layer reads: those are stored in that
        layer's format already.
        """
        index = {site.node: i for i, site in enumerate(sites.values())}
        quantized = {self.root(site.operands[0]) for site in sites.values()}
        found: dict[tuple[int, int], None] = {}
        for consumer, site in enumerate(sites.values()):
            for operand in site.operands if site.weight is None else site.operands[:1]:
                pending, seen = [self.root(operand)], set()
                while pending:
                    node = pending.pop()
                    if node in index:
                        found[index[node], consumer] = None
                    elif node not in seen:
                        seen.add(node)
                        sources = (self.root(n) for n in node.all_input_nodes if n in self.activations)
                        pending += [n for n in sources if n not in quantized or n in index]
        return tuple(sorted(found))

    def other_parameters(self, sites: Mapping[str, Site]) -> int:
        """Return the number of parameters that operators without MACs use (norms, embeddings)."""
        layers = {site.weight_node for site in sites.values()} | {site.bias for site in sites.values()}
        folded = {site.batch_norm for site in sites.values()}
        names = {s.arg.name for s in self.program.graph_signature.input_specs if s.kind is InputKind.PARAMETER}
        total = 0
        for node in self.nodes:
            if node.name in names and node not in layers and not set(node.users) <= folded:
                total += prod(self.shapes[node])
        return total


def flat_arguments(program: ExportedProgram, inputs: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Return what the program's placeholders take, in order: parameters, buffers, constants and ``inputs``."""
    given = iter(inputs)
    arguments: list[torch.Tensor] = []
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            arguments.append(next(given))
        elif spec.target in program.state_dict:
            arguments.append(program.state_dict[str(spec.target)])
        else:
            arguments.append(program.constants[str(spec.target)])
    return arguments


def _as_node(value: object) -> fx.Node:
    if not isinstance(value, fx.Node):
        raise CaptureError(f"expected a tensor as operand, got {value!r}")
    return value


def _through_transposition(node: fx.Node) -> tuple[fx.Node, bool]:
    """Return the stored matrix behind ``node`` and whether it is read transposed."""
    if base_name(node) in {"t", "transpose", "permute"} and node.op == "call_function":
        stored, transposed = _through_transposition(node.all_input_nodes[0])
        return stored, not transposed
    return node, False


def _module_path(node: fx.Node) -> str:
    """Return the path of the innermost module that ``node`` was traced in."""
    stack = node.meta.get("nn_module_stack") or {}
    path = str(list(stack.values())[-1][0]) if stack else ""
    return re.sub(r"@\d+", "", path)


def _scope(node: fx.Node) -> str:
    path = _module_path(node)
    return f"{path}." if path else ""


def _weighted_name(node: fx.Node, weight: str) -> str:
    """Return the module path of a layer that owns its weight; otherwise scope and operator."""
    owner = weight.rpartition(".")[0]
    if owner != _module_path(node) or weight == node.name:
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
