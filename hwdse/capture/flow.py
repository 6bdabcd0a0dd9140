"""The data flow of an exported program: shapes per sample, readers of tensors, and what is computed once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from hwdse.capture.operators import base_name, is_view
from hwdse.errors import CaptureError

__all__ = ["Flow", "flat_arguments", "mixed_samples", "where"]


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
    def inputs(self) -> tuple[fx.Node, ...]:
        """The user's inputs, in order."""
        return tuple(n for n in self.nodes if n.op == "placeholder" and n.name not in self.parameters)

    @cached_property
    def activations(self) -> set[fx.Node]:
        """Nodes whose values depend on the user's inputs."""
        found: set[fx.Node] = set()
        for node in self.nodes:
            if (
                node in self.inputs
                or (node in self.shapes and any(n in found for n in node.all_input_nodes))
                or (base_name(node) == "getitem" and node.all_input_nodes[0] in found)
            ):
                found.add(node)
            elif node.op == "call_function" and node not in self.shapes and not base_name(node).startswith("sym_"):
                found.update({node} if any(n in found for n in node.all_input_nodes) else set())
        return found

    @cached_property
    def fixed(self) -> set[fx.Node]:
        """Nodes whose values depend on neither the inputs nor their sizes nor chance: they are computed once."""
        found: set[fx.Node] = set()
        for node in self.nodes:
            if node.op == "placeholder" and node.name in self.parameters:
                found.add(node)
            elif node.op == "call_function" and all(n in found for n in node.all_input_nodes):
                tags = getattr(node.target, "tags", ())
                found.update(() if torch.Tag.nondeterministic_seeded in tags else {node})
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
        axis = self.batch_axis(node) if node in self.activations else None
        if axis is None:
            return shape
        rest = shape[axis] // self.batch
        return shape[:axis] + ((rest,) if rest > 1 else ()) + shape[axis + 1 :]

    def batch_axis(self, node: fx.Node) -> int | None:
        """Return the axis that grows with the batch: the one the exporter left symbolic; ``None`` without one.

        Raises
        ------
        CaptureError
            If there are two: what a sample costs would depend on the others.
        """
        sizes = enumerate(getattr(node.meta.get("val"), "shape", ()))
        axes = [
            axis
            for axis, size in sizes
            if isinstance(size, torch.SymInt) and self._batch_symbols & size.node.expr.free_symbols
        ]
        if len(axes) > 1:
            raise mixed_samples(node)
        return axes[0] if axes else None

    @cached_property
    def _batch_symbols(self) -> set[Any]:
        sizes = [node.meta["val"].shape[0] for node in self.inputs]
        return {s for size in sizes if isinstance(size, torch.SymInt) for s in size.node.expr.free_symbols}


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


def where(trace: str | None) -> str:
    """Return the place in the user's own code that a stack ``trace`` last names, as text to append.

    >>> where('File "net.py", line 3, in forward')
    ' at net.py:3'
    """
    places = re.findall(r'File "([^"]+)", line (\d+)', trace or "")
    own = [place for place in places if "/torch/" not in place[0]] or places
    return f" at {own[-1][0]}:{own[-1][1]}" if own else ""


def mixed_samples(node: fx.Node) -> CaptureError:
    """Return the error of an operator that sums or pairs samples of a batch."""
    return CaptureError(
        f"expected operators that treat every sample alike, got {node.name!r}, whose cost per sample depends on the "
        f"batch{where(node.stack_trace)}; capture the part before it"
    )
