"""The captured program as a list of steps: batch norm folded, channels last, in place where nobody else reads.

A step list is faster than the module it came from, can start in the middle, and lets a configuration swap weights and
quantizers by pointer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import fx

from hwdse.capture import Capture
from hwdse.capture.flow import flat_arguments
from hwdse.capture.operators import base_name, is_elementwise, is_view
from hwdse.capture.sites import Site
from hwdse.quantize.runnable import Quantizers, Runnable, Slot, Step, channels_last

__all__ = ["Program", "layer_output", "reads"]

_RESHAPES = {"view", "_unsafe_view"}
_CLIPS = {"relu", "relu6", "hardtanh", "clamp", "clamp_min"}
"""Operators that a runtime computes within the convolution before them, by where its output's codes end."""

_CHECKS = {"_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range_for_size"}


@dataclass(kw_only=True)
class Program(Runnable):
    """An executable form of a captured network.

    Attributes
    ----------
    captured
        Where it came from.
    weights
        Position of each layer's weight by the parameter's name.
    folded
        Full-precision weight (batch norm folded) by the parameter's name.
    biases
        Position of each layer's bias by the layer's name, where it has one that nothing else reads.
    written
        Name under which the result of each convolution may be quantized, after a ReLU or clip that only it feeds, by
        the layer's name; empty unless asked for.
    """

    captured: Capture
    weights: dict[str, int] = field(default_factory=dict)
    folded: dict[str, torch.Tensor] = field(default_factory=dict)
    biases: dict[str, int] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)

    @cached_property
    def runnable(self) -> Runnable:
        """The steps alone, for where the captured network is not."""
        return Runnable(**{f.name: getattr(self, f.name) for f in fields(Runnable)})

    @property
    def points(self) -> tuple[str, ...]:
        """Names of the tensors that layers read, and of those in :attr:`written`, where activations are quantized."""
        of_steps = (name for step in self.steps for name in (step.second, step.point))
        return tuple(dict.fromkeys(name for name in (*(p for _, p in self.inputs), *of_steps) if name))

    def with_constants(self, changed: Mapping[int, torch.Tensor]) -> Program:
        """Return the program with other constants, by position."""
        return replace(self, constants=[changed.get(i, value) for i, value in enumerate(self.constants)])

    def first_change(self, weights: Mapping[int, torch.Tensor], quantizers: Quantizers) -> int:
        """Return the index of the first step whose result differs under ``weights`` and ``quantizers``."""
        if any(point in quantizers for _, point in self.inputs if point):
            return 0
        changed = set(weights)
        for i, step in enumerate(self.steps):
            reads = {slot.position for slot in _slots([step.arguments, list(step.keywords.values())])}
            if step.point in quantizers or step.second in quantizers or reads & changed:
                return i
        return len(self.steps)

    @cached_property
    def step_of(self) -> dict[str, int]:
        """Number of the step that computes the node of a name."""
        return {step.name: i for i, step in enumerate(self.steps)}

    @classmethod
    def of(cls, captured: Capture, *, written: bool = False) -> Program:
        """Compile ``captured``; with ``written`` the results of convolutions can be quantized, too."""
        return _Compiler(captured, written=written).compile()


class _Compiler:
    """Turns a captured program into steps; state only while compiling."""

    def __init__(self, captured: Capture, *, written: bool) -> None:
        self.captured = captured
        results = {name: _result(site) for name, site in captured.sites.items() if written and site.is_convolution}
        self.program = Program(
            captured=captured,
            structure=captured.program.call_spec.out_spec,
            written={name: node.name for name, node in results.items()},
        )
        self.nodes = list(captured.program.graph.nodes)
        self.position = {node: i for i, node in enumerate(self.nodes)}
        self.site_of = {site.node: site for site in captured.sites.values()}
        self.weight_nodes = {site.weight_node for site in captured.sites.values() if site.weight_node is not None}
        self.flow = captured.flow
        self.points = {self.flow.root(site.operands[0]) for site in captured.sites.values()} | set(results.values())
        self.known: dict[fx.Node, Any] = {}

    def compile(self) -> Program:
        signature = self.captured.program.graph_signature
        arguments = flat_arguments(self.captured.program, [torch.empty(0)] * len(signature.user_inputs))
        placeholders = [node for node in self.nodes if node.op == "placeholder"]
        self.program.constants = [None] * len(self.nodes)
        with torch.no_grad():
            for node, value in zip(placeholders, arguments, strict=True):
                self._placeholder(node, value)
            for site in self.captured.sites.values():
                self._fold(site)
            self._find_biases()
            for node in self.nodes:
                if node.op == "call_function":
                    self._operator(node)
        output = self.captured.program.graph.output_node()
        self.program.outputs = [self._argument(a) for a in output.args[0]]
        self._free()
        return self.program

    def _placeholder(self, node: fx.Node, value: torch.Tensor) -> None:
        if node.name in self.flow.parameters:
            self.known[node] = value.detach()
            self.program.constants[self.position[node]] = value.detach()
        else:
            point = node.name if node in self.points else ""
            self.program.inputs.append((self.position[node], point))

    def _fold(self, site: Site) -> None:
        """Put the layer's weight and bias, with its batch norm folded in, among the constants."""
        if site.weight_node is None or site.weight is None:
            return
        weight = self._once(site.weight_node)
        if site.batch_norm is not None:
            gamma, beta, mean, variance = (self._once(n) for n in site.batch_norm.args[1:5])
            epsilon = float(site.batch_norm.args[6])  # type: ignore[arg-type]
            factor = (variance.double() + epsilon).rsqrt() * (1.0 if gamma is None else gamma.double())
            bias = 0.0 if site.bias is None else self._once(site.bias).double()
            shape = (-1,) + (1,) * (weight.ndim - 1)
            weight = (weight.double() * factor.reshape(shape)).to(weight.dtype)
            shift = 0.0 if beta is None else beta.double()
            folded_bias = (shift + (bias - mean.double()) * factor).to(weight.dtype)
            self.program.constants[self.position[site.batch_norm]] = folded_bias
        weight = channels_last(weight)
        position = self.position[site.weight_node]
        self.program.constants[position] = weight
        self.program.weights[site.weight] = position
        self.program.folded[site.weight] = weight

    def _find_biases(self) -> None:
        """Note the biases that can be changed with a weight."""
        for name, site in self.captured.sites.items():
            if site.batch_norm is not None:
                self.program.biases[name] = self.position[site.batch_norm]
            elif site.bias is not None and list(site.bias.users) == [site.node]:
                self.program.biases[name] = self.position[site.bias]

    def _operator(self, node: fx.Node) -> None:
        site = self.site_of.get(node)
        if base_name(node) in _CHECKS or node in self.weight_nodes:
            return
        if self._is_constant(node):
            self.program.constants[self.position[node]] = self._once(node)
        elif self._is_folded_batch_norm(node):
            return
        elif site is not None:
            self._layer(node, site)
        else:
            self._plain(node)

    def _is_folded_batch_norm(self, node: fx.Node) -> bool:
        source = node.args[0]
        folded = {s.batch_norm for s in self.captured.sites.values() if s.batch_norm is not None}
        return node in folded or (base_name(node) == "getitem" and source in folded)

    def _layer(self, node: fx.Node, site: Site) -> None:
        """Add a convolution, linear or matrix product; one with a folded batch norm writes where the norm would."""
        arguments = [self._argument(a) for a in node.args]
        if site.batch_norm is not None:
            arguments += [None] * (3 - len(arguments))
            arguments[2] = Slot(self.position[site.batch_norm])
        second = f"{site.name}.second" if site.weight is None else ""
        keywords = {k: self._argument(v) for k, v in node.kwargs.items() if k != "bias" or site.batch_norm is None}
        self._append(node.target, layer_output(site), tuple(arguments), keywords, second=second)

    def _plain(self, node: fx.Node) -> None:
        arguments = tuple(self._argument(a) for a in node.args)
        keywords = {k: self._argument(v) for k, v in node.kwargs.items()}
        function: Any = node.target
        if base_name(node) in _RESHAPES:
            function = torch.reshape
        elif (in_place := self._in_place(node)) is not None:
            function, arguments = in_place[0], tuple(self._argument(a) for a in in_place[1])
        self._append(function, node, arguments, keywords, is_relu=base_name(node) == "relu")

    def _in_place(self, node: fx.Node) -> tuple[Any, tuple[Any, ...]] | None:
        """Return the operator that writes over an operand that nobody else reads, with its arguments."""
        if not is_elementwise(node) or node.kwargs:
            return None
        args = node.args
        name, overload = base_name(node), node.target._overloadname  # type: ignore[union-attr]
        if name == "relu" and self._is_free(node, args[0]):
            return torch.relu_, args
        packet = getattr(torch.ops.aten, f"{name}_", None)
        if name not in {"add", "mul", "sub", "div", "silu", "hardtanh", "clamp", "sigmoid", "tanh"} or packet is None:
            return None
        if self._is_free(node, args[0]):
            return getattr(packet, overload), args
        if name in {"add", "mul"} and len(args) == 2 and self._is_free(node, args[1]):
            return getattr(packet, overload), (args[1], args[0])
        return None

    def _is_free(self, node: fx.Node, operand: object) -> bool:
        """Return True if ``operand`` is a fresh tensor of the result's shape and type that only ``node`` reads."""
        if not isinstance(operand, fx.Node) or operand not in self.flow.activations or operand.op == "placeholder":
            return False
        fresh = operand not in self.points and not is_view(operand) and list(operand.users) == [node]
        same = self.flow.shapes.get(operand) == self.flow.shapes.get(node)
        return fresh and same and operand.meta["val"].dtype == node.meta["val"].dtype

    def _append(
        self,
        function: Any,
        output: fx.Node,
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        **flags: Any,
    ) -> None:
        point = output.name if output in self.points else ""
        self.program.steps.append(
            Step(output.name, function, arguments, keywords, self.position[output], point=point, **flags)
        )

    def _argument(self, argument: Any) -> Any:
        if isinstance(argument, fx.Node):
            return Slot(self.position[argument])
        if isinstance(argument, list | tuple):
            return [self._argument(a) for a in argument]
        return argument

    def _is_constant(self, node: fx.Node) -> bool:
        """Return True if every operand is a constant that no configuration changes."""
        operands = node.all_input_nodes
        folded = all(n in self.known and n not in self.weight_nodes for n in operands)
        return folded and node not in self.flow.activations and base_name(node) != "sym_size"

    def _once(self, node: Any) -> Any:
        """Return the value of a node that no input changes; ``None`` for an operand that is not given."""
        if node is not None and node not in self.known:
            arguments, keywords = fx.node.map_arg(node.args, self._once), fx.node.map_arg(node.kwargs, self._once)
            self.known[node] = node.target(*arguments, **keywords)
        return None if node is None else self.known[node]

    def _free(self) -> None:
        """Give every step the values that it is the last to read."""
        kept = {slot.position for slot in _slots(self.program.outputs)}
        kept |= {i for i, value in enumerate(self.program.constants) if value is not None}
        last: dict[int, int] = {}
        for i, step in enumerate(self.program.steps):
            for slot in _slots([step.arguments, list(step.keywords.values())]):
                last[slot.position] = i
            last.setdefault(step.output, i)
        freed: dict[int, list[int]] = {}
        for position, i in last.items():
            if position not in kept:
                freed.setdefault(i, []).append(position)
        steps = self.program.steps
        for i, positions in freed.items():
            steps[i] = replace(steps[i], frees=tuple(positions))


def layer_output(site: Site) -> fx.Node:
    """Return the node whose value the step of a layer computes: the folded batch norm's result, if there is one."""
    if site.batch_norm is None:
        return site.node
    return next(user for user in site.batch_norm.users if user.args[1] == 0)


def _result(site: Site) -> fx.Node:
    """Return the node whose value the convolution at ``site`` writes: with its batch norm, ReLU and clip."""
    node = layer_output(site)
    users = list(node.users)
    bounds = users[0].args[1:] if users else ()
    is_clipped = len(users) == 1 and base_name(users[0]) in _CLIPS
    return users[0] if is_clipped and not any(isinstance(bound, fx.Node) for bound in bounds) else node


def reads(arguments: Sequence[Any], position: int) -> bool:
    """Return True if the value at ``position`` is among the ``arguments`` of a step."""
    return any(slot.position == position for slot in _slots(arguments))


def _slots(arguments: Sequence[Any]) -> list[Slot]:
    found: list[Slot] = []
    for argument in arguments:
        if isinstance(argument, Slot):
            found.append(argument)
        elif isinstance(argument, list | tuple):
            found += _slots(argument)
    return found
