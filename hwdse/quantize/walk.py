"""Calibration data on their way through a network, layer after layer: in full precision and rounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import fx

from hwdse.capture.operators import base_name, is_view
from hwdse.capture.sites import Site
from hwdse.errors import InputError
from hwdse.formats import Scheme
from hwdse.quantize.blocks import Block
from hwdse.quantize.layout import Layout
from hwdse.quantize.moments import Means, add_layer
from hwdse.quantize.program import Program, layer_output
from hwdse.quantize.runnable import Environment, Quantizers
from hwdse.quantize.weights import QuantizedWeight

__all__ = ["KEPT_BYTES", "LayerView", "Part", "Walk"]

M = TypeVar("M", bound=Means)

KEPT_BYTES = 2**29
"""Memory for the values of batches that wait between two layers; those beyond start again from their inputs."""

_ENOUGH_ROWS = 2**16
"""Rows of a layer that are looked at, unless there are more samples: of most images not every position is needed."""


class Walk:
    """One batch on its way through the network, in full precision and rounded.

    Parameters
    ----------
    program, batch, quantizers
        What is run, on what, and what rounds activations.
    changed
        Weights and biases found so far, by position.
    """

    def __init__(self, program: Program, batch: Any, quantizers: Quantizers, changed: dict[int, torch.Tensor]) -> None:
        self.program, self.batch, self.quantizers, self.changed = program, batch, quantizers, changed
        self.place = {node: i for i, node in enumerate(program.captured.flow.nodes)}
        self.full: Environment = []
        self.rounded: Environment = []
        self.done = (0, 0)

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """The batch."""
        return (self.batch,) if isinstance(self.batch, torch.Tensor) else tuple(self.batch)

    @property
    def samples(self) -> int:
        """Samples of the batch."""
        return len(self.tensors[0])

    def reach(self, start: int, stop: int) -> None:
        """Go to step ``start`` rounded, and to step ``stop`` in full precision."""
        if not self.full:
            self.full, self.rounded = self.program.start(self.batch, {}), self.program.start(self.batch, self.changed)
            self.program.quantize_inputs(self.rounded, self.quantizers)
        self.program.advance(self.full, {}, first=self.done[0], last=stop)
        self.program.advance(self.rounded, self.quantizers, first=self.done[1], last=start)
        self.done = stop, start

    def look(self, site: Site, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what the layer of step ``i`` reads rounded, and what it should write.

        That is what it writes in full precision; where it is added to another tensor that is there already, it makes
        up for that tensor's error, too.
        """
        self.reach(i, i + 1)
        target: torch.Tensor = self.full[self.program.steps[i].output]
        beside = self._beside(site)
        if beside is not None:
            target = target + (self.full[beside] - self.rounded[beside]).reshape(target.shape)
        return self.rounded[self.place[site.operands[0]]], target

    def _beside(self, site: Site) -> int | None:
        """Return the position of a value that was computed before and that the result is added to."""
        node = layer_output(site)
        shape = self.program.captured.flow.shapes.get(node)
        while len(node.users) == 1 and is_view(next(iter(node.users))):
            node = next(iter(node.users))
        user = next(iter(node.users)) if len(node.users) == 1 else None
        if user is None or base_name(user) != "add" or user.kwargs or len(user.args) != 2:
            return None
        (other,) = [a for a in user.args if a is not node] or [None]
        flow = self.program.captured.flow
        if not isinstance(other, fx.Node) or other not in flow.activations or shape is None:
            return None
        same = flow.shapes.get(other) == flow.shapes.get(node)
        return self.place[other] if same and all(v[self.place[other]] is not None for v in self._values) else None

    @property
    def _values(self) -> tuple[Environment, Environment]:
        return self.full, self.rounded

    def put(self, own: Mapping[int, torch.Tensor], site: Site) -> None:
        """Go on with the values ``own`` of the layer at ``site``."""
        if not self.full:
            return
        for position, value in own.items():
            self.rounded[position] = value
        behind, node = [], site.operands[1]
        while node is not site.weight_node:
            behind.append(self.place[node])
            node = node.all_input_nodes[0]
        # Transpositions of the weight were computed from the one before.
        for j, step in enumerate(self.program.steps[: self.done[1]]):
            if step.output in behind:
                self.program.advance(self.rounded, {}, first=j, last=j + 1)

    @property
    def held_bytes(self) -> int:
        """Memory that its values take."""
        constants = {id(value) for value in (*self.program.constants, *self.changed.values())}
        held = {id(v): v for v in (*self.full, *self.rounded) if isinstance(v, torch.Tensor) and id(v) not in constants}
        return sum(value.numel() * value.element_size() for value in held.values())

    def forget(self) -> None:
        """Let go of all values; the next look starts from the inputs."""
        self.full, self.rounded, self.done = [], [], (0, 0)


@dataclass(frozen=True)
class LayerView:
    """A layer whose weight is to be found: what it reads and should write on the calibration data.

    Attributes
    ----------
    program
        The network.
    site, step
        The layer, and its place among the steps.
    walks
        The calibration data.
    nearest
        Its weight rounded to nearest.
    scheme
        Who shares a scale.
    """

    program: Program
    site: Site
    step: int
    walks: Sequence[Walk]
    nearest: QuantizedWeight
    scheme: Scheme

    @property
    def full(self) -> torch.Tensor:
        """Its weight in full precision, as stored."""
        assert self.site.weight is not None
        return self.program.folded[self.site.weight]

    @property
    def bias(self) -> torch.Tensor | None:
        """Its bias, if it has one of its own."""
        position = self.program.biases.get(self.site.name)
        return None if position is None else self.program.constants[position]

    @property
    def layout(self) -> Layout:
        """How its weight is a matrix."""
        return Layout.of(self.site, self.full)

    def pairs(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield, batch by batch, what it reads and what it should write, without its bias; in bounded memory."""
        bias, held = self.bias, 0
        if bias is not None and self.site.is_convolution:
            bias = bias.reshape(-1, *[1] * len(self.site.stride))
        for walk in self.walks:
            with torch.no_grad():
                x, t = walk.look(self.site, self.step)
                t = t if bias is None else t - bias
            yield x, t
            held += walk.held_bytes
            if held > KEPT_BYTES:
                walk.forget()

    def gather(self, kind: type[M]) -> M:
        """Return the moments of what it reads and should write.

        Raises
        ------
        InputError
            If there is no sample, or a value is not finite.
        """
        (moments,) = self._gathered(kind, 1)
        return moments

    def halves(self, kind: type[M]) -> tuple[M, M]:
        """Return the moments of every other sample, and those of all others, of which there may be none.

        Raises
        ------
        InputError
            If there is no sample, or a value is not finite.
        """
        one, other = self._gathered(kind, 2)
        return one, other

    def _gathered(self, kind: type[M], parts: int) -> list[M]:
        """Return moments of samples that are dealt out to ``parts`` in turn."""
        groups = self.site.groups
        found = [kind(groups, self.layout.columns, self.site.weight_shape[0] // groups) for _ in range(parts)]
        samples = sum(walk.samples for walk in self.walks)
        if samples == 0:
            raise InputError("expected calibration batches with samples, got none; check the calibration factory")
        positions, done = -(-_ENOUGH_ROWS // samples), 0
        with torch.no_grad():
            for x, t in self.pairs():
                for i, moments in enumerate(found):
                    own = slice((i - done) % parts, None, parts)
                    add_layer(moments, self.site, x[own], t[own], positions=positions)
                done += len(x)
        return found


@dataclass(frozen=True)
class Part:
    """A part of a network whose weights are to be found together.

    Attributes
    ----------
    program
        The network.
    block
        The part.
    walks
        The calibration data.
    nearest
        Gives the weight of a name, rounded to nearest.
    scheme
        Who shares a scale.
    """

    program: Program
    block: Block
    walks: Sequence[Walk]
    nearest: Callable[[str], QuantizedWeight]
    scheme: Scheme

    @property
    def layers(self) -> Iterator[LayerView]:
        """Its layers, in the order of execution."""
        steps = self.program.step_of
        for site in sorted(self.block.sites, key=lambda site: steps[layer_output(site).name]):
            step = steps[layer_output(site).name]
            yield LayerView(self.program, site, step, self.walks, self.nearest(str(site.weight)), self.scheme)
