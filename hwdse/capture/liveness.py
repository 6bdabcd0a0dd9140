"""Which tensors are stored, in whose format, and which of them are in memory at the same time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import fx

from hwdse.capture.flow import Flow
from hwdse.capture.operators import BATCH_NORM, base_name, is_elementwise, is_view
from hwdse.capture.sites import Site
from hwdse.graph import LiveSet, Tensor

__all__ = ["Storage"]


@dataclass
class Storage:
    """Buffers of a program.

    A view shares its operand's buffer. An elementwise operator writes over an operand of the same shape that nobody
    else reads, so a convolution with its batch norm, residual addition and ReLU fills one buffer. A buffer is named
    after the last value in it. Values that do not depend on the inputs are constants, not activations.
    """

    flow: Flow
    buffers: dict[fx.Node, fx.Node]
    owners: dict[fx.Node, str | None]

    @classmethod
    def of(cls, flow: Flow, sites: Mapping[str, Site]) -> Storage:
        """Assign a buffer to every activation of ``flow``, and an owner to every buffer."""
        first: dict[fx.Node, fx.Node] = {}
        last: dict[fx.Node, fx.Node] = {}
        for node in flow.nodes:
            if node not in flow.activations or node.op == "output":
                continue
            buffer = first[over] if (over := _written_over(flow, node)) is not None else node
            first[node] = buffer
            if not is_view(node):
                last[buffer] = node
        buffers = {node: last[buffer] for node, buffer in first.items()}
        return cls(flow, buffers, _owners(flow, sites, buffers))

    def name_of(self, node: fx.Node) -> str:
        """Return the name of the stored tensor that ``node`` ends up in."""
        return str(self.buffers[node].name)

    def tensors(self) -> tuple[Tensor, ...]:
        """Return the stored tensors in execution order."""
        names = dict.fromkeys(self.buffers.values())
        return tuple(Tensor(n.name, self.flow.shape(n), self.owners[n]) for n in names if n in self.flow.shapes)

    def live_sets(self) -> tuple[LiveSet, ...]:
        """Return, for each operator that opens a buffer, the tensors in memory while it runs."""
        order = [node for node in self.flow.nodes if node in self.buffers]
        position_of = {node: position for position, node in enumerate(order)}
        opened: dict[fx.Node, int] = {}
        closed: dict[fx.Node, int] = {}
        for position, node in enumerate(order):
            # Results of an operator that returns several are written while it runs, not when one is picked.
            written = position_of[node.all_input_nodes[0]] if base_name(node) == "getitem" else position
            opened.setdefault(self.buffers[node], written)
            for operand in (n for n in node.all_input_nodes if n in self.buffers):
                closed[self.buffers[operand]] = position
        for operand in self.flow.program.graph.output_node().all_input_nodes:
            if operand in self.buffers:
                closed[self.buffers[operand]] = len(order)
        stored = [b for b in opened if b in self.flow.shapes]
        sets = []
        for position, node in enumerate(order):
            if not is_view(node):
                live = tuple(b.name for b in stored if opened[b] <= position <= closed.get(b, opened[b]))
                sets.append(LiveSet(node.name, live))
        return tuple(sets)


def _written_over(flow: Flow, node: fx.Node) -> fx.Node | None:
    """Return the operand whose buffer ``node`` uses: that of a view, or of a value that only ``node`` reads."""
    operands = [n for n in node.all_input_nodes if n in flow.activations]
    if is_view(node) or (base_name(node) == "getitem" and base_name(operands[0]) == BATCH_NORM):
        return operands[0]
    if not is_elementwise(node):
        return None
    for operand in operands:
        root = flow.root(operand)
        alone = root.op != "placeholder" and flow.readers(root) == [node]
        same_size = base_name(node) == BATCH_NORM or flow.shape(operand) == flow.shape(node)
        if alone and same_size and flow.shape(root) == flow.shape(operand):
            return operand
    return None


def _owners(flow: Flow, sites: Mapping[str, Site], buffers: Mapping[fx.Node, fx.Node]) -> dict[fx.Node, str | None]:
    """Return the layer whose activation format each buffer is stored in: its reader, or the next one downstream."""
    layer_of = {site.node: site.name for site in sites.values()}
    owners: dict[fx.Node, str | None] = {}
    nearest: dict[fx.Node, str | None] = {}
    for node in reversed(list(flow.nodes)):
        if node not in buffers:
            continue
        readers = flow.readers(flow.root(node)) if not is_view(node) else []
        direct = [layer_of[r] for r in readers if r in layer_of]
        later = [nearest[r] for r in readers if r not in layer_of and nearest.get(r) is not None]
        nearest[node] = (direct or later or [None])[0]
        if buffers[node] is node:
            owners[node] = nearest[node]
    return owners
