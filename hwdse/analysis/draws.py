"""Draws: the few calibration samples that tell most about harm, with the weight that each stands for.

A sample of which the network is sure hardly changes its output under quantization, whatever the group; most of the
mean harm comes from the few of which it is not. Drawing those more often, and weighting them down, gives the same mean
from a fraction of the forward passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hwdse.analysis.distances import first_tensor
from hwdse.errors import InputError
from hwdse.quantize.batch import samples_in, tensors_of
from hwdse.quantize.network import QuantizedNetwork, Setting

__all__ = ["Drawn", "draw", "uncertainty"]

Floats = NDArray[np.float64]

EVEN_SHARE = 0.1
"""Share of the draws that goes to all samples alike: a sure sample may still be harmed by two bits."""


@dataclass(frozen=True)
class Drawn:
    """A batch whose samples stand for others.

    Attributes
    ----------
    batch
        A tensor or a tuple of tensors, batch first.
    weights
        ``(samples,)``: how much each counts. The mean of weighted values over a draw's samples is, on average over
        draws, the mean over all samples; within one draw the weights need not be 1 on average.
    """

    batch: Any
    weights: Floats

    @classmethod
    def of(cls, batch: Any) -> Drawn:
        """Return ``batch`` itself if it is drawn, otherwise with weights of 1."""
        return batch if isinstance(batch, cls) else cls(batch, np.ones(samples_in(batch)))

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """The tensors of the batch."""
        return tensors_of(self.batch)


def draw(
    network: QuantizedNetwork, batches: Iterable[Any], *, draws: int, rng: np.random.Generator
) -> tuple[Drawn, ...]:
    """Return the samples met by ``draws`` draws from ``batches``, in batches, for any measurement of sensitivity.

    The chance of a sample goes with the square root of its :func:`uncertainty`, except for a tenth of the draws, which
    goes to all alike. That is near the chance with the least variance, which is in proportion to a sample's harm: the
    second-order harm is in proportion to the uncertainty, and the root keeps part of the weight where second order
    fails. Draws are spread evenly over a shuffled list of the samples (systematic sampling with unequal chances
    [Madow1949]_); a sample met twice is taken once, with twice the weight. Costs one forward pass in full precision.

    A harm that sure samples lack, such as a divergence, comes out well. A ratio in dB, which every sample has, is
    multiplied by the mean weight of the draw; all groups and candidates share that factor, so their order is kept.

    Parameters
    ----------
    network
        A calibrated network with class logits at its output.
    batches
        Calibration batches, tensors or tuples of tensors.
    draws
        Number of draws; never more samples than that are returned, and no more than there are.
    rng
        Shuffles the samples and places the draws.

    Raises
    ------
    InputError
        If there is no sample, or no draw.
    """
    held = [tensors_of(batch) for batch in batches]
    counts = [len(tensors[0]) for tensors in held]
    if draws < 1 or sum(counts) == 0:
        raise InputError(
            f"expected at least one draw out of at least one sample, got {draws} out of {sum(counts)}; ask for more, "
            "and check the calibration factory"
        )
    root = np.sqrt(np.concatenate([uncertainty(_logits(network, tensors)) for tensors in held]))
    even = np.full(len(root), 1.0 / len(root))
    chance = EVEN_SHARE * even + (1.0 - EVEN_SHARE) * (root / root.sum() if root.sum() > 0.0 else even)
    met = _systematic(chance, draws, rng)
    weights = met / (draws * chance) * (np.count_nonzero(met) / len(met))
    starts = np.cumsum([0, *counts])
    return tuple(_gathered(held, met > 0, weights, starts))


def uncertainty(logits: torch.Tensor) -> Floats:
    """Return how unsure the softmax of ``logits`` is, ``(samples,)`` in [0, 1): ``1 - sum_c p_c^2``, over tokens.

    The trace of the Fisher information of the logits.
    """
    p = logits.double().softmax(-1)
    rest = (p * (1.0 - p)).sum(-1)
    found: Floats = rest.reshape(len(rest), -1).mean(1).numpy()
    return found


def _logits(network: QuantizedNetwork, tensors: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return first_tensor(network.forward(tensors, Setting()))


def _systematic(chance: Floats, draws: int, rng: np.random.Generator) -> Floats:
    """Return how often each sample is met, ``(samples,)``; ``draws * chance`` on average."""
    order = rng.permutation(len(chance))
    ends = np.cumsum(chance[order])
    places = (rng.random() + np.arange(draws)) / draws * ends[-1]
    met = np.bincount(np.searchsorted(ends, places, side="right").clip(max=len(chance) - 1), minlength=len(chance))
    found = np.empty(len(chance))
    found[order] = met
    return found


def _gathered(
    held: Sequence[tuple[torch.Tensor, ...]], chosen: NDArray[np.bool_], weights: Floats, starts: NDArray[np.int64]
) -> Iterable[Drawn]:
    """Yield the chosen samples in batches no larger than the largest given; those of one shape stand together."""
    largest = max(len(tensors[0]) for tensors in held)
    alike: dict[tuple[torch.Size, ...], list[tuple[tuple[torch.Tensor, ...], Floats]]] = {}
    for tensors, start in zip(held, starts, strict=False):
        own = slice(start, start + len(tensors[0]))
        rows = torch.from_numpy(np.flatnonzero(chosen[own]))
        if len(rows):
            shapes = tuple(tensor.shape[1:] for tensor in tensors)
            taken = tuple(tensor[rows] for tensor in tensors)
            alike.setdefault(shapes, []).append((taken, weights[own][rows.numpy()]))
    for parts in alike.values():
        joined = [torch.cat(tensors) for tensors in zip(*(tensors for tensors, _ in parts), strict=True)]
        weight = np.concatenate([w for _, w in parts])
        for first in range(0, len(weight), largest):
            rows_of = slice(first, first + largest)
            yield Drawn(tuple(tensor[rows_of] for tensor in joined), weight[rows_of])
