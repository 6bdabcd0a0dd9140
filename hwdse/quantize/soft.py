"""AdaRound: each weight learns whether it is rounded down or up, so that the outputs stay [Nagel2020]_.

A weight lies between two levels of its grid, ``low`` and ``high``. While it is learned it is ``low + h (high - low)``
with ``h = clip(1.2 sigmoid(v) - 0.1, 0, 1)``; in the end it is ``high`` where ``h >= 0.5``. A term that shrinks the
distance of ``h`` from 0 and 1 grows harder as time goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch

from hwdse.formats import Scheme
from hwdse.quantize.adaround_settings import AdaRoundSettings
from hwdse.quantize.runnable import IMAGES, channels_last
from hwdse.quantize.weights import QuantizedWeight

__all__ = ["Learned", "Piece", "SoftWeight", "learn"]

Tensors = tuple[torch.Tensor, ...]

_STRETCH, _SHIFT = 1.2, -0.1
"""The sigmoid is stretched to reach 0 and 1 and cut there [Nagel2020]_."""


class SoftWeight:
    """A weight between the two levels next to it; beyond the end levels it stays at the end.

    Parameters
    ----------
    full
        The weight in full precision, as stored.
    nearest
        The same rounded to nearest: gives levels, scales and zero points.
    scheme
        Who shares a scale.
    axis
        Axis of the output channels.

    Attributes
    ----------
    variable
        What is learned, ``v``, shaped as the weight.
    value
        The weight as :meth:`soften` left it, a leaf of autograd.
    """

    def __init__(self, full: torch.Tensor, nearest: QuantizedWeight, *, scheme: Scheme, axis: int = 0) -> None:
        self.nearest, self.axis = nearest, axis
        moved = full.detach().movedim(axis, 0)
        rows = moved.reshape(len(moved), -1).double()
        scale, zero_point = (_spread(s, rows.shape, scheme.block_size) for s in (nearest.scale, nearest.zero_point))
        levels = torch.tensor(nearest.levels.values)
        codes = (rows / scale + zero_point).contiguous()
        below = torch.searchsorted(levels, codes, right=True) - 1
        places = [place.clamp(0, len(levels) - 1) for place in (below, below + 1)]
        low, high = (levels[place] for place in places)
        between = high > low
        fraction = torch.where(between, (codes - low) / torch.where(between, high - low, 1.0), 0.0)

        def stored(values: torch.Tensor) -> torch.Tensor:
            dense = values.reshape(moved.shape).movedim(0, axis).to(full.dtype).contiguous()
            return channels_last(dense)

        # In single precision a value is a level times a scale, as it is when a weight is rounded to nearest.
        self._low, self._high = (stored((level - zero_point).float() * scale.float()) for level in (low, high))
        self._step = self._high - self._low
        self.variable = stored(torch.logit((fraction - _SHIFT) / _STRETCH))
        self.value = torch.empty_like(self._low).requires_grad_()
        self._sigmoid, self._stretched, self._h = (torch.empty_like(self._low) for _ in range(3))
        self.soften()

    @torch.no_grad()
    def soften(self) -> None:
        """Write the weight that ``v`` stands for."""
        torch.sigmoid(self.variable, out=self._sigmoid)
        torch.mul(self._sigmoid, _STRETCH, out=self._stretched).add_(_SHIFT)
        torch.clamp(self._stretched, 0.0, 1.0, out=self._h)
        torch.addcmul(self._low, self._h, self._step, out=self.value)

    @torch.no_grad()
    def pull(self, gradient: torch.Tensor, beta: float | None, regularisation: float) -> None:
        """Set the gradient of ``v`` from that of the weight, with the term ``sum(1 - |2h - 1|^beta)`` if it counts."""
        slope = gradient * self._step
        if beta is not None:
            side = self._h * 2.0 - 1.0
            slope.addcmul_(side.abs().pow_(beta - 1.0), side.sign(), value=-2.0 * beta * regularisation)
        slope.mul_(self._sigmoid).mul_(1.0 - self._sigmoid).mul_(_STRETCH)
        self.variable.grad = slope.mul_(self._stretched == self._h)

    def hard(self) -> torch.Tensor:
        """Return the weight on its grid."""
        return torch.where(self._h >= 0.5, self._high, self._low)


def _spread(rows: torch.Tensor, shape: torch.Size, block: int) -> torch.Tensor:
    """Return the scale, or zero point, of every value of channels ``(channels, columns)``."""
    if rows.numel() == 1:
        return rows.expand(shape)
    return rows.reshape(shape[0], -1).repeat_interleave(block or shape[1], 1)[:, : shape[1]]


@dataclass(frozen=True)
class Piece:
    """Samples of one shape.

    Attributes
    ----------
    inputs
        What is read, samples first.
    targets
        What is to be written in full precision, samples first.
    forward
        Gives what is written from some samples of the inputs and the weights.
    axes
        Of each target's channels, from the end.
    """

    inputs: Tensors
    targets: Tensors
    forward: Callable[[Tensors, Sequence[torch.Tensor]], Tensors]
    axes: tuple[int, ...]

    def run(self, index: torch.Tensor, weights: Sequence[torch.Tensor]) -> tuple[Tensors, Tensors]:
        """Return what the samples ``index`` write, and its distances from what they are to write."""
        written = self.forward(tuple(_samples(x, index) for x in self.inputs), weights)
        targets = (_samples(target, index) for target in self.targets)
        return written, tuple(y.detach() - t for y, t in zip(written, targets, strict=True))

    def gradients(self, index: torch.Tensor, weights: Sequence[torch.Tensor], unit: float = 1.0) -> Tensors:
        """Return the derivative by each weight of the error in multiples of ``unit``.

        The error is summed over channels and averaged over everything else.
        """
        with torch.enable_grad():
            written, distances = self.run(index, weights)
        for d, axis in zip(distances, self.axes, strict=True):
            d.mul_(2.0 * d.shape[axis] / d.numel() / unit)
        return torch.autograd.grad(written, list(weights), distances)

    @torch.no_grad()
    def errors(self, weights: Sequence[torch.Tensor], *, batch: int, channelwise: bool) -> torch.Tensor:
        """Return the sum of squared errors over all samples, ``(channels,)`` or ``(1,)``, float64."""
        found: torch.Tensor | float = 0.0
        for index in torch.arange(len(self.inputs[0])).split(batch):
            _, distances = self.run(index, weights)
            squares = [d.square_() for d in distances]
            for square, axis in zip(squares, self.axes, strict=True):
                sums = square.movedim(axis, 0).flatten(1).sum(1).double()
                found = found + (sums if channelwise else sums.sum().reshape(1))
        assert isinstance(found, torch.Tensor)
        return found


def _samples(table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Return samples of a tensor; images keep their channels innermost."""
    if table.ndim != IMAGES:
        return table.index_select(0, index)
    return table.movedim(1, -1).index_select(0, index).movedim(-1, 1)


@dataclass(frozen=True)
class Learned:
    """Weights on their grids.

    Attributes
    ----------
    weights
        In the order given.
    fault
        Why they all are those rounded to nearest; empty if they are not.
    """

    weights: tuple[QuantizedWeight, ...]
    fault: str = ""


def learn(
    weights: Sequence[SoftWeight], pieces: Sequence[Piece], settings: AdaRoundSettings, *, channelwise: bool = False
) -> Learned:
    """Return the weights whose rounding was learned together.

    They are kept at round-to-nearest if the error on all samples is not smaller, or a value is not finite.

    Parameters
    ----------
    weights
        At their starts.
    pieces
        All samples.
    settings
        How it is learned.
    channelwise
        True if an output channel depends on that channel of the weight alone: each is chosen by its own error then.
    """
    unit = _mean_square(pieces)
    optimizer = torch.optim.Adam([w.variable for w in weights], lr=settings.learning_rate, fused=True)
    values = [w.value for w in weights]
    for i, (piece, index) in enumerate(islice(_draws(pieces, settings), settings.iterations)):
        gradients = piece.gradients(index, values, unit)
        beta = settings.beta_at(i)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.pull(gradient, beta, settings.regularisation)
        optimizer.step()
        for weight in weights:
            weight.soften()
    kept = tuple(w.nearest for w in weights)
    if not all(bool(torch.isfinite(w.variable).all()) for w in weights):
        return Learned(kept, "values that are not finite")
    hard = [w.hard() for w in weights]
    own, others = (_errors(pieces, v, settings.batch, channelwise) for v in (hard, [k.values for k in kept]))
    better = own < others
    if not bool(better.any()):
        return Learned(kept, "no smaller error of the outputs")
    chosen = [_chosen(w, h, better) for w, h in zip(weights, hard, strict=True)]
    return Learned(tuple(replace(k, values=c) for k, c in zip(kept, chosen, strict=True)))


def _mean_square(pieces: Sequence[Piece]) -> float:
    """Return the mean square of what is to be written; 1 if that is nothing but zeros, or not finite."""
    targets = [target for piece in pieces for target in piece.targets]
    square = sum(float(t.square().sum(dtype=torch.float64)) for t in targets) / sum(t.numel() for t in targets)
    return square if 0.0 < square < math.inf else 1.0


def _errors(pieces: Sequence[Piece], weights: Sequence[torch.Tensor], batch: int, channelwise: bool) -> torch.Tensor:
    return torch.stack([p.errors(weights, batch=batch, channelwise=channelwise) for p in pieces]).sum(0)


def _chosen(weight: SoftWeight, hard: torch.Tensor, better: torch.Tensor) -> torch.Tensor:
    """Return the channels that are better, of the others those of the nearest."""
    shape = [-1 if axis == weight.axis else 1 for axis in range(hard.ndim)]
    return channels_last(torch.where(better.reshape(shape), hard, weight.nearest.values))


def _draws(pieces: Sequence[Piece], settings: AdaRoundSettings) -> Iterator[tuple[Piece, torch.Tensor]]:
    """Yield random samples without end; each comes once before one comes again."""
    generator = torch.Generator().manual_seed(settings.seed)
    while True:
        drawn = [
            (piece, index)
            for piece in pieces
            for index in torch.randperm(len(piece.inputs[0]), generator=generator).split(settings.batch)
        ]
        for place in torch.randperm(len(drawn), generator=generator).tolist():
            yield drawn[place]
