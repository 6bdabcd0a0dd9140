"""Weights with learned rounding, of a layer or of a block together.

A layer reads what the layers before it write with their rounded weights, and is to write what it writes in full
precision, after its activation function [Nagel2020]_. The weights of a block are learned together, so that errors
within make up for each other [Li2021]_.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch

from hwdse.quantize.adaround_settings import AdaRoundSettings
from hwdse.quantize.blocks import Block
from hwdse.quantize.differentiable import differentiable
from hwdse.quantize.program import Program
from hwdse.quantize.rebuilt import Rebuilt
from hwdse.quantize.runnable import IMAGES, Environment
from hwdse.quantize.soft import Piece, SoftWeight, Tensors, learn
from hwdse.quantize.walk import KEPT_BYTES, Part, Walk

__all__ = ["adaround"]


@torch.inference_mode(False)
def adaround(part: Part, settings: AdaRoundSettings) -> dict[str, Rebuilt]:
    """Return the weights of a part by name; scales and biases stay.

    No layer (or block) has a larger error of its outputs on the calibration data than with weights rounded to nearest.
    Within a block activations are not rounded. In memory are what the part reads and is to write, of all samples, and
    values of batches that wait, up to a limit.
    """
    program, sites = part.program, part.block.sites
    names = [str(site.weight) for site in sites]
    weights = [
        SoftWeight(program.folded[name], part.nearest(name), scheme=part.scheme, axis=site.weight_axis)
        for name, site in zip(names, sites, strict=True)
    ]
    pieces = _pieces(differentiable(program), part.block, part.walks, settings.batch)
    learned = learn(weights, pieces, settings, channelwise=part.block.is_layer)
    return {
        name: Rebuilt(weight, is_nearest=bool(learned.fault))
        for name, weight in zip(names, learned.weights, strict=True)
    }


class _Alone:
    """A part of a program that runs by itself.

    Parameters
    ----------
    program
        Made by :func:`differentiable`.
    block
        The part.
    example
        Inputs of the network with as many samples as are ever run: sizes that the part reads were found before it.
    changed
        Weights to begin with, by position.
    """

    def __init__(self, program: Program, block: Block, example: Tensors, changed: Mapping[int, torch.Tensor]) -> None:
        self.program, self.block, self.example, self.changed = program, block, example, changed
        self.nodes = program.captured.flow.nodes
        self.weights = [program.weights[site.weight] for site in block.sites if site.weight is not None]
        self.begun: dict[int, Environment] = {}

    def __call__(self, inputs: Tensors, weights: Sequence[torch.Tensor]) -> Tensors:
        """Return what is written, packed as what is read."""
        samples = len(inputs[0])
        values = list(self._begun(samples))
        for position, x in zip(self.block.reads, inputs, strict=True):
            values[position] = self.unpacked(x, position)
        for position, weight in zip(self.weights, weights, strict=True):
            values[position] = weight
        self.run(values)
        return tuple(self.packed(values[position], position, samples) for position in self.block.writes)

    def run(self, values: Environment, *, first: int = 0) -> None:
        """Run the steps from ``first`` on."""
        for i in self.block.steps:
            if i >= first:
                self.program.advance(values, {}, first=i, last=i + 1)

    def packed(self, value: torch.Tensor, position: int, samples: int) -> torch.Tensor:
        """Return a tensor with the samples first; what they are merged with comes second."""
        moved = value.movedim(self._batch_axis(position), 0)
        return moved if len(moved) == samples else moved.unflatten(0, (samples, -1))

    def unpacked(self, value: torch.Tensor, position: int) -> torch.Tensor:
        """Return the inverse of :meth:`packed`."""
        joined = value if value.ndim == len(self._shape(position)) else value.flatten(0, 1)
        return joined.movedim(0, self._batch_axis(position))

    @property
    def axes(self) -> tuple[int, ...]:
        """Axis of the channels of each tensor that is written, from the end."""
        last = self.block.sites[-1]
        images = len(last.stride) + 2
        return tuple(
            1 - images if last.is_convolution and len(self._shape(position)) == images else -1
            for position in self.block.writes
        )

    def _batch_axis(self, position: int) -> int:
        return self.program.captured.flow.batch_axis(self.nodes[position]) or 0

    def _shape(self, position: int) -> tuple[int, ...]:
        return self.program.captured.flow.shapes[self.nodes[position]]

    @torch.no_grad()
    def _begun(self, samples: int) -> Environment:
        """Return the values before the part for some samples."""
        if samples not in self.begun:
            values = self.program.start(tuple(t[:samples] for t in self.example), self.changed)
            self.program.advance(values, {}, last=self.block.start)
            self.begun[samples] = values
        return self.begun[samples]


def _pieces(program: Program, block: Block, walks: Sequence[Walk], batch: int) -> list[Piece]:
    """Return what ``block`` reads and is to write, batches of one shape together; it will run ``batch`` samples."""
    alike: dict[tuple[torch.Size, ...], list[Walk]] = {}
    for walk in walks:
        alike.setdefault(tuple(t.shape[1:] for t in walk.tensors), []).append(walk)
    held = 0
    pieces = []
    for group in alike.values():
        ends = list(accumulate(walk.samples for walk in group))
        first = [walk.tensors for walk, end in zip(group, ends, strict=True) if end - walk.samples < batch]
        alone = _Alone(program, block, tuple(map(torch.cat, zip(*first, strict=True))), group[0].changed)
        tables = [_Table(ends[-1]) for _ in range(2)]
        for walk in group:
            with torch.no_grad():
                walk.reach(block.start, block.stop)
                tables[0].add([alone.packed(walk.rounded[p], p, walk.samples) for p in block.reads])
                values = list(walk.full)
                alone.run(values, first=block.stop)
                tables[1].add([alone.packed(values[p], p, walk.samples) for p in block.writes])
            held += walk.held_bytes
            if held > KEPT_BYTES:
                walk.forget()
        inputs, targets = (tuple(table.tensors) for table in tables)
        pieces.append(Piece(inputs, targets, alone, alone.axes))
    return pieces


class _Table:
    """Tensors of all samples, filled batch by batch."""

    def __init__(self, samples: int) -> None:
        self.samples, self.filled = samples, 0
        self.tensors: list[torch.Tensor] = []

    def add(self, values: Sequence[torch.Tensor]) -> None:
        if not self.tensors:
            self.tensors = [
                torch.empty(
                    (self.samples, *value.shape[1:]),
                    dtype=value.dtype,
                    memory_format=torch.channels_last if value.ndim == IMAGES else torch.contiguous_format,
                )
                for value in values
            ]
        for table, value in zip(self.tensors, values, strict=True):
            table[self.filled : self.filled + len(value)] = value
        self.filled += len(values[0])
