"""Ranges of channels moved from a layer to the one that alone reads it, so that all fit one scale [Nagel2019]_.

A positive factor passes through a ReLU: what a layer writes into a channel can be divided by it, if the next layer's
weights for that channel are multiplied by it. The function stays what it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from hwdse.capture.sites import Site
from hwdse.errors import InputError
from hwdse.quantize.pairs import Pair, find_pairs
from hwdse.quantize.program import Program, layer_output

__all__ = ["Equalized", "equalize"]

SETTLED = 1e-6
"""Largest logarithm of a factor in a turn over all pairs that is the last one."""

TURNS = 1000
"""Most turns."""

DEAD = torch.finfo(torch.float32).eps
"""A channel whose range is a smaller share of its layer's largest is as good as zero: it keeps its scale."""


@dataclass(frozen=True)
class Equalized:
    """A program with equalized weights, and what was done.

    Attributes
    ----------
    program
        The program with other weights and biases, in its constants and its folded weights.
    pairs
        Names of the layers of each pair, in program order.
    turns
        Turns over all pairs.
    left_out
        Why a layer's channels were not scaled against those of the next, by the layer's name.
    absorbed
        Number of channels of the first layer of a pair whose bias went into the second, by the first one's name.
    not_absorbed
        Why none could, by the first one's name; empty if there were no calibration data.
    """

    program: Program
    pairs: tuple[tuple[str, str], ...]
    turns: int
    left_out: Mapping[str, str]
    absorbed: Mapping[str, int]
    not_absorbed: Mapping[str, str]


def equalize(program: Program, batches: Iterable[Any] = ()) -> Equalized:
    """Return ``program`` with channels whose ranges are equal in the two layers of every pair.

    A channel with the largest weight ``r1`` in the first layer and ``r2`` in the second is divided by
    ``s = sqrt(r1 / r2)`` in the first, bias and all, and multiplied by it in the second; turns over all pairs go on
    until no factor is another than 1. A channel of range 0 in either keeps its scale. A layer is the first of a pair if
    one layer alone reads it, through nothing but ReLU (leaky, too), pooling, means, sums and views. Where ReLU6 or
    another bound stands between, scaling would change what is cut off: the pair is left out.

    With calibration ``batches``, a constant part of a channel's result is taken out of the first layer's bias and put
    into the second one's, as far as no value seen becomes negative: ``c = max(0, min(lowest seen, beta - 3 gamma))``,
    the last with shift and scale of the layer's batch norm, if it has one. The output stays the same on these data,
    elsewhere as long as values are not lower. It is done only where the constant reaches all that the second layer
    sums over: not where this pads with zeros, and not behind a sum.

    The given program stays as it is. Tensors between the layers of a pair change: what :func:`observe` has seen before,
    and all that was made from it, is of no use for the new program.

    Parameters
    ----------
    program
        Compiled network, batch norms folded.
    batches
        Calibration data for the biases; none keeps them where they are, but for the scale.

    Raises
    ------
    InputError
        If a weight is not finite (the layer is named).
    """
    pairs, left_out = find_pairs(program)
    layers = {name: _Layer.of(program, name) for pair in pairs for name in (pair.first, pair.second)}
    turns = _scale(pairs, layers)
    weights = {layer.weight: layer.weight_of(program.folded[layer.weight]) for layer in layers.values()}
    changed = {program.weights[name]: weight for name, weight in weights.items()}
    for name, layer in layers.items():
        if (position := program.biases.get(name)) is not None:
            bias = program.constants[position]
            changed[position] = (bias.double() / layer.rows.flatten()).to(bias.dtype)
    found = replace(program.with_constants(changed), folded={**program.folded, **weights})
    biases, absorbed, reasons = _absorb(found, pairs, layers, list(batches))
    names = tuple((pair.first, pair.second) for pair in pairs)
    return Equalized(found.with_constants(biases), names, turns, left_out, absorbed, reasons)


@dataclass
class _Layer:
    """Ranges of a layer's weights, and the factors that they have got.

    Attributes
    ----------
    site
        Where the layer stands.
    weight
        Name of its weight.
    magnitudes
        Largest magnitude over the taps of a kernel, ``(groups, outputs, inputs)`` of a group each.
    rows, columns
        What outputs were divided by, ``(groups, outputs, 1)``, and inputs multiplied by, ``(groups, 1, inputs)``.
    """

    site: Site
    weight: str
    magnitudes: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor

    @classmethod
    def of(cls, program: Program, name: str) -> _Layer:
        site = program.captured.sites[name]
        assert site.weight is not None
        magnitudes = _grouped(site, program.folded[site.weight]).abs().amax(3)
        if not bool(magnitudes.isfinite().all()):
            raise InputError(f"expected finite weights, got NaN or infinity; check the weight file (layer {name!r})")
        ones = torch.ones_like(magnitudes)
        return cls(site, site.weight, magnitudes, ones[:, :, :1].clone(), ones[:, :1].clone())

    @property
    def output_ranges(self) -> torch.Tensor:
        """Largest magnitude of every output channel, ``(channels,)``."""
        return ((self.magnitudes * self.columns).amax(2, keepdim=True) / self.rows).flatten()

    @property
    def input_ranges(self) -> torch.Tensor:
        """Largest magnitude of every input channel, ``(channels,)``."""
        return ((self.magnitudes / self.rows).amax(1, keepdim=True) * self.columns).flatten()

    def weight_of(self, stored: torch.Tensor) -> torch.Tensor:
        """Return the weight ``stored`` with the factors."""
        factors = (self.columns / self.rows)[..., None]
        moved = stored.movedim(self.site.weight_axis, 0)
        scaled = (_grouped(self.site, stored) * factors).reshape(moved.shape).movedim(0, self.site.weight_axis)
        return torch.empty_like(stored).copy_(scaled)


def _grouped(site: Site, stored: torch.Tensor) -> torch.Tensor:
    """Return a weight as ``(groups, outputs, inputs, taps)``, in float64."""
    outputs, inputs = site.weight_shape[0] // site.groups, site.weight_shape[1]
    return stored.detach().movedim(site.weight_axis, 0).double().reshape(site.groups, outputs, inputs, -1)


def _scale(pairs: list[Pair], layers: Mapping[str, _Layer]) -> int:
    """Give all layers their factors; return the number of turns over all pairs."""
    live: list[torch.Tensor] = []
    for pair in pairs:
        ranges = _ranges(pair, layers)
        live.append((ranges > DEAD * ranges.amax(1, keepdim=True)).all(0))
    turns, largest = 0, np.inf
    while largest > SETTLED and turns < TURNS:
        turns, largest = turns + 1, 0.0
        for pair, usable in zip(pairs, live, strict=True):
            first, second = _ranges(pair, layers)
            s = torch.where(usable, first / second, 1.0).sqrt()
            factors = torch.where(pair.channels < 0, 1.0, s[pair.channels])
            layers[pair.first].rows *= s.view_as(layers[pair.first].rows)
            layers[pair.second].columns *= factors.view_as(layers[pair.second].columns)
            largest = max(largest, float(s.log().abs().amax()))
    return turns


def _ranges(pair: Pair, layers: Mapping[str, _Layer]) -> torch.Tensor:
    """Return the ranges of the channels between two layers, in the first and in the second, ``(2, channels)``."""
    first, columns = layers[pair.first].output_ranges, layers[pair.second].input_ranges
    held = pair.channels >= 0
    second = torch.zeros_like(first).scatter_reduce(0, pair.channels[held], columns[held], "amax")
    return torch.stack([first, second])


def _absorb(
    program: Program, pairs: list[Pair], layers: Mapping[str, _Layer], batches: list[Any]
) -> tuple[dict[int, torch.Tensor], dict[str, int], dict[str, str]]:
    """Return new biases by position, how many channels gave some to the next layer, and why others could not."""
    if not batches:
        return {}, {}, {}
    reasons = {pair.first: _why_not(program, pair, layers) for pair in pairs}
    chosen = [pair for pair in pairs if not reasons[pair.first]]
    lowest = _lowest(program, [layers[pair.first].site for pair in chosen], batches)
    biases: dict[int, torch.Tensor] = {}
    absorbed = {}
    for pair in chosen:
        first, second = layers[pair.first], layers[pair.second]
        constant = torch.minimum(lowest[pair.first], _usual_lowest(program, first)).clamp(min=0.0)
        absorbed[pair.first] = int((constant > 0.0).sum())
        weight = _grouped(second.site, program.folded[second.weight]).sum(3)
        gain = weight @ constant[pair.channels].reshape(second.site.groups, -1, 1)
        for name, change in ((pair.first, -constant), (pair.second, gain.flatten())):
            position = program.biases[name]
            bias = biases.get(position, program.constants[position].double())
            biases[position] = bias + change
    narrow = {position: bias.to(program.constants[position].dtype) for position, bias in biases.items()}
    return narrow, absorbed, {name: reason for name, reason in reasons.items() if reason}


def _why_not(program: Program, pair: Pair, layers: Mapping[str, _Layer]) -> str:
    """Return why no bias can go from the first to the second layer; empty if it can."""
    missing = [name for name in (pair.first, pair.second) if name not in program.biases]
    if missing:
        return f"{missing[0]} has no bias of its own"
    if not pair.keeps_constants:
        return f"a constant does not reach all that {pair.second} reads"
    site = layers[pair.second].site
    padding: Any = site.node.args[4] if site.is_convolution and len(site.node.args) > 4 else 0
    sides = padding if isinstance(padding, list | tuple) else [padding]
    pads = max(site.weight_shape[2:]) > 1 if padding == "same" else padding != "valid" and any(sides)
    return f"{pair.second} pads with zeros" if pads else ""


def _lowest(program: Program, sites: list[Site], batches: list[Any]) -> dict[str, torch.Tensor]:
    """Return the lowest value that each channel of each layer was seen to have, ``(channels,)``, by its name."""
    watched = {layer_output(site).name: site for site in sites}
    found: dict[str, torch.Tensor] = {}
    with torch.inference_mode():
        for batch in batches:
            values, done = program.start(batch, {}), 0
            for i, step in enumerate(program.steps):
                if (site := watched.get(step.name)) is None:
                    continue
                program.advance(values, {}, first=done, last=i + 1)
                done = i + 1
                seen = values[step.output].movedim(1 if site.is_convolution else -1, 0).flatten(1)
                if seen.numel():
                    low = seen.amin(1).double()
                    found[site.name] = torch.minimum(low, found.get(site.name, low))
    return found


def _usual_lowest(program: Program, layer: _Layer) -> torch.Tensor:
    """Return what few values of a channel are below, by the batch norm: its shift less three times its scale."""
    if layer.site.batch_norm is None:
        return torch.full((layer.rows.numel(),), torch.inf, dtype=torch.float64)
    place = {node: i for i, node in enumerate(program.captured.flow.nodes)}
    norms: Any = layer.site.batch_norm.args[1:3]
    scale, shift = (
        torch.tensor(default) if node is None else program.constants[place[node]].double()
        for node, default in zip(norms, (1.0, 0.0), strict=True)
    )
    return (shift - 3.0 * scale.abs()) / layer.rows.flatten()
