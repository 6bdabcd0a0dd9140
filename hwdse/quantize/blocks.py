"""Parts of a program whose weights are learned together: single layers, or blocks that one tensor enters and leaves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

from torch import fx

from hwdse.capture.operators import base_name
from hwdse.capture.sites import Site
from hwdse.quantize.program import Program, layer_output
from hwdse.quantize.rebuildable import rebuildable

__all__ = ["Block", "blocks", "single_layers"]

ACTIVATIONS = frozenset(
    """
    relu relu6 hardtanh clamp clamp_min leaky_relu elu selu celu gelu silu mish hardswish hardsigmoid sigmoid tanh
    softplus
    """.split()
)
"""Functions of single values that belong to the layer or block before them."""


@dataclass(frozen=True)
class Block:
    """A part of a program.

    Attributes
    ----------
    start, stop
        The part's steps are ``start`` to ``stop - 1``.
    steps
        What it takes to run it: these, transpositions of its weights before, and a layer's activation function after.
    reads, writes
        Positions of the tensors that enter and leave.
    sites
        Its layers with weights that they alone read.
    is_layer
        True for one layer, with its activation function or without.
    """

    start: int
    stop: int
    steps: tuple[int, ...]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    sites: tuple[Site, ...]
    is_layer: bool


def single_layers(program: Program) -> list[Block]:
    """Return every layer with the activation function that only it feeds, in the order of execution."""
    place = {node: i for i, node in enumerate(program.captured.flow.nodes)}
    step_of = program.step_of
    found = []
    for site in rebuildable(program).values():
        node = layer_output(site)
        i = step_of[node.name]
        after = _activations(node)
        steps = (*_before(program, site), i, *(step_of[n.name] for n in after))
        writes = (place[(node, *after)[-1]],)
        found.append(Block(i, i + 1, steps, (place[site.operands[0]],), writes, (site,), is_layer=True))
    return sorted(found, key=lambda block: block.start)


def blocks(program: Program) -> list[Block]:
    """Return the parts between cuts that hold layers, in the order of execution [Li2021]_.

    A cut is where one tensor alone, samples first, is passed on: a residual block, or an attention with its shortcut,
    comes out whole, a layer in a chain by itself. Activation functions behind belong to a block; what else lies between
    two blocks belongs to none.
    """
    sites = {program.step_of[layer_output(site).name]: site for site in rebuildable(program).values()}
    nodes = program.captured.flow.nodes
    found: list[Block] = []
    for (start, reads), (stop, writes) in pairwise(_cuts(program)):
        own = tuple(sites[i] for i in range(start, stop) if i in sites)
        steps = tuple(range(start, stop))
        if own:
            before = {i for site in own for i in _before(program, site) if i < start}
            found.append(Block(start, stop, (*sorted(before), *steps), reads, writes, own, is_layer=stop - start == 1))
        elif (
            found
            and found[-1].stop == start
            and all(base_name(nodes[program.steps[i].output]) in ACTIVATIONS for i in steps)
        ):
            found[-1] = replace(found[-1], stop=stop, steps=(*found[-1].steps, *steps), writes=writes)
    return found


def _cuts(program: Program) -> list[tuple[int, tuple[int, ...]]]:
    """Return where a program can be cut, as numbers of steps before, with the tensors that are passed on there."""
    flow = program.captured.flow
    nodes = flow.nodes
    live = {position for position, _ in program.inputs}
    found = [(0, tuple(sorted(live)))]
    for i, step in enumerate(program.steps, start=1):
        live = (live | {step.output}) - set(step.frees)
        passed = tuple(sorted(position for position in live if nodes[position] in flow.activations))
        if i == len(program.steps) or (len(passed) == 1 and _holds_samples(program, nodes[passed[0]])):
            found.append((i, passed))
    return found


def _holds_samples(program: Program, node: fx.Node) -> bool:
    """Return True for a tensor whose first axis is that of the samples."""
    flow = program.captured.flow
    return node in flow.shapes and flow.batch_axis(node) == 0 and flow.shapes[node][0] == flow.batch


def _before(program: Program, site: Site) -> list[int]:
    """Return the steps that transpose the weight of a layer."""
    names, node = set(), site.operands[1]
    while node is not site.weight_node:
        names.add(node.name)
        node = node.all_input_nodes[0]
    return [i for i, step in enumerate(program.steps) if step.name in names]


def _activations(node: fx.Node) -> list[fx.Node]:
    """Return the activation functions that ``node``, and then each other, alone feed."""
    found: list[fx.Node] = []
    while len(node.users) == 1:
        (user,) = node.users
        if base_name(user) not in ACTIVATIONS or user.all_input_nodes != [node]:
            break
        found.append(node := user)
    return found
