"""Pairs of layers whose channels can be scaled against each other: one alone feeds the other, without a bound between.

Whether channels can be followed is not read off axes but tried: a tensor whose channels hold different numbers goes
through the operators between the two layers, and every column that the second one sums over must hold one of these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from hwdse.capture.flow import Flow
from hwdse.capture.operators import base_name, is_view
from hwdse.capture.sites import Site
from hwdse.quantize.program import Program, layer_output
from hwdse.quantize.rebuildable import rebuildable

__all__ = ["Pair", "find_pairs"]

_SIGNS = frozenset({"relu", "leaky_relu", "prelu"})
"""Operators that multiply a value by a number that its sign alone decides."""

_POOLS = frozenset(
    """
    max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool2d
    avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    _adaptive_avg_pool2d _adaptive_avg_pool3d mean sum amax amin getitem
    reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d
    upsample_nearest1d upsample_nearest2d upsample_bilinear2d
    """.split()
)
"""Other operators whose result is multiplied by what all values of their operand are multiplied by, if positive."""

_CLIPS = frozenset({"hardtanh", "relu6", "clamp", "clamp_min", "clamp_max"})

_SAME = 1e-9
"""Two numbers this close differ by rounding; marks of channels are further apart."""


@dataclass(frozen=True)
class Pair:
    """Two layers, of which the first alone feeds the second.

    Attributes
    ----------
    first, second
        Names of the layers.
    channels
        Channel of the first that each input channel (column, if it is no convolution) of the second holds, -1 where it
        holds zeros.
    keeps_constants
        True if a positive constant that is added to a channel of the first layer is added to all that the second one
        reads of it.
    """

    first: str
    second: str
    channels: torch.Tensor
    keeps_constants: bool


def find_pairs(program: Program) -> tuple[list[Pair], dict[str, str]]:
    """Return the pairs in the order of their first layers, and why every other layer is the first of none."""
    usable = {site.name: site for site in rebuildable(program).values()}
    by_node = {site.node: site for site in program.captured.sites.values()}
    pairs, reasons = [], {}
    for site in program.captured.sites.values():
        if site.name not in usable:
            reasons[site.name] = "it has no weights of its own"
            continue
        found = _bias_reason(program, site) or _followed(program.captured.flow, site, by_node, usable)
        if isinstance(found, str):
            reasons[site.name] = found
        else:
            pairs.append(found)
    return pairs, reasons


def _bias_reason(program: Program, site: Site) -> str:
    """Return why the bias of the layer at ``site`` cannot be scaled; empty if it can, or there is none."""
    if site.name in program.biases:
        shape = program.constants[program.biases[site.name]].shape
        return "" if tuple(shape) == site.weight_shape[:1] else f"its bias has the shape {tuple(shape)}"
    others = [node for node in site.node.all_input_nodes if node not in site.operands]
    return "something else reads its bias, or it is computed from the inputs" if others else ""


def _followed(flow: Flow, site: Site, by_node: dict[fx.Node, Site], usable: dict[str, Site]) -> Pair | str:
    """Return the pair that begins at ``site``, or why there is none."""
    node = layer_output(site)
    shape = flow.shapes[node]
    axis = 1 if site.is_convolution else len(shape) - 1
    # Drawn by chance: a mean of several is none of them.
    marks = 1.0 + torch.rand(shape[axis], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ones: Any = torch.ones(shape, dtype=torch.float64)
    marked: Any = ones * marks.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    while True:
        users = list(node.users)
        if any(user.op == "output" for user in users):
            return "its result is an output"
        if len(users) != 1:
            return "several read its result"
        before, node = node, users[0]
        if node in by_node:
            break
        if reason := _obstacle(node, before):
            return reason
        if is_view(node) or base_name(node) in _POOLS:
            marked, ones = (_computed(flow, node, before, value) for value in (marked, ones))
    second = by_node[node]
    if second.name not in usable or second.operands[0] is not before:
        return f"{second.name} has no weights of its own for it"
    channels = _channels(second, marked, ones, marks)
    if channels is None:
        return f"its channels cannot be followed to {second.name}"
    return Pair(site.name, second.name, channels, bool(((ones - 1.0).abs() < _SAME).all()))


def _obstacle(node: fx.Node, source: fx.Node) -> str:
    """Return why channels of ``source`` cannot be scaled across ``node``; empty if they can."""
    name = base_name(node)
    if name in _CLIPS:
        low, high = ([*node.args[1:], None, None][i] for i in range(2))
        low, high = node.kwargs.get("min", low), node.kwargs.get("max", high)
        is_relu = name in {"clamp", "clamp_min"} and low == 0 and high is None
        return "" if is_relu else f"{name} bounds its result"
    passes = name in _SIGNS or name in _POOLS or is_view(node)
    return "" if passes and node.args[0] is source else f"{name} does not keep factors of its channels"


def _channels(second: Site, marked: torch.Tensor, ones: torch.Tensor, marks: torch.Tensor) -> torch.Tensor | None:
    """Return the channel that each column of what ``second`` reads holds, -1 for zeros; ``None`` if one is mixed."""
    axis = 1 if second.is_convolution else -1
    columns, weights = (value.movedim(axis, -1).flatten(0, -2) for value in (marked, ones))
    is_zero = weights == 0.0
    found = columns / torch.where(is_zero, 1.0, weights)
    low, high = torch.where(is_zero, torch.inf, found).amin(0), torch.where(is_zero, -torch.inf, found).amax(0)
    distance, nearest = (low[:, None] - marks).abs().min(1)
    empty = is_zero.all(0)
    if not (empty | ((high - low < _SAME) & (distance < _SAME))).all():
        return None
    return torch.where(empty, -1, nearest)


def _computed(flow: Flow, node: fx.Node, source: fx.Node, value: Any) -> Any:
    """Return what ``node`` computes from ``value`` in place of what ``source`` is."""

    def known(operand: fx.Node) -> Any:
        if operand is source:
            return value
        if operand in flow.shapes:
            return torch.empty(flow.shapes[operand], dtype=torch.float64)
        if base_name(operand) == "sym_size":
            return flow.shapes[operand.args[0]][operand.args[1]]  # type: ignore[index]
        function: Callable[..., Any] = operand.target  # type: ignore[assignment]
        return function(*fx.node.map_arg(operand.args, known), **fx.node.map_arg(operand.kwargs, known))

    function: Callable[..., Any] = node.target  # type: ignore[assignment]
    return function(*fx.node.map_arg(node.args, known), **fx.node.map_arg(node.kwargs, known))
