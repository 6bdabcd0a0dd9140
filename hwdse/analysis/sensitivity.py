"""Harm of one group at one candidate, with everything else in full precision, read at the network's output.

Every method is a function of (reference output, quantized output) that returns one number per sample; all methods share
one pass. The pass reuses what a group cannot change: full precision runs once, and each candidate starts where its
group first matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils import _pytree as pytree

from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.graph import TiedGroup
from hwdse.plugins import load_plugin
from hwdse.quantize.network import QuantizedNetwork, Setting
from hwdse.quantize.program import Environment, Program

__all__ = ["Sensitivity", "kl", "measure_sensitivity", "sqnr_db"]

OutputDistance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Sensitivity:
    """Sensitivities of every (group, candidate).

    Attributes
    ----------
    groups
        Names, in row order.
    candidates
        Precisions, in column order.
    scores
        ``(groups, candidates)`` by method, the mean over samples.
    samples
        Number of samples.
    """

    groups: tuple[str, ...]
    candidates: tuple[Precision, ...]
    scores: Mapping[str, NDArray[np.float64]]
    samples: int


def kl(reference: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
    """Return the Kullback-Leibler divergence of the softmax outputs per sample, ``(samples,)``, in nats.

    The last axis holds the logits; other axes (tokens) are averaged. Sum over groups is the usual additive prediction
    of harm; divergence at the output ranks layers better than errors inside the network.
    """
    p, q = reference.double().log_softmax(-1), quantized.double().log_softmax(-1)
    # A class that the reference rules out (logit -inf) adds nothing, whatever the other says.
    divergence = torch.where(p > -torch.inf, p.exp() * (p - q), 0.0).sum(-1)
    return divergence.reshape(divergence.shape[0], -1).mean(1).clamp(min=0.0)


def sqnr_db(reference: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
    """Return the signal-to-quantization-noise ratio of the output per sample, ``(samples,)``, in dB.

    ``10 log10(E[y^2] / E[(y - y_q)^2])`` [Pandey2023]_, with the noise floored at 1e-12 of the signal (120 dB), so that
    small outputs are not compressed.
    """
    y = reference.double().reshape(reference.shape[0], -1)
    noise = (quantized.double().reshape(y.shape) - y).square().mean(1)
    signal = y.square().mean(1).clamp(min=1e-300)
    return 10.0 * torch.log10(signal / noise.clamp(min=1e-12 * signal))


def measure_sensitivity(
    network: QuantizedNetwork,
    batches: Iterable[Any],
    *,
    candidates: Sequence[Precision],
    methods: Sequence[str] = ("kl", "sqnr_db"),
    on_batch: Callable[[], None] | None = None,
) -> Sensitivity:
    """Return the sensitivity of every (group, candidate) of ``network``, without labels.

    Parameters
    ----------
    network
        Calibrated network under one scheme.
    batches
        Calibration batches.
    candidates
        Precisions to try on each group.
    methods
        Names installed under the entry-point group ``hwdse.sensitivities``.
    on_batch
        Called after each batch.

    Raises
    ------
    InputError
        If there is no batch, or a method is unknown.
    """
    distances: dict[str, OutputDistance] = {name: load_plugin("hwdse.sensitivities", name) for name in methods}
    groups = network.captured.groups
    totals = {name: np.zeros((len(groups), len(candidates))) for name in methods}
    plan = _plan(network, groups, candidates)
    samples = 0
    with torch.inference_mode():
        for batch in batches:
            reference, outputs = _outputs(network.program, batch, plan)
            for trial, output in zip(plan, outputs, strict=True):
                for name, distance in distances.items():
                    totals[name][trial.place] += float(distance(reference, output).sum())
            samples += reference.shape[0]
            if on_batch is not None:
                on_batch()
    if samples == 0:
        raise InputError("expected at least one batch of calibration data, got none; check the calibration factory")
    names = tuple(group.name for group in groups)
    return Sensitivity(names, tuple(candidates), {n: total / samples for n, total in totals.items()}, samples)


@dataclass(frozen=True)
class _Trial:
    """One group at one candidate, and the first step that it changes."""

    place: tuple[int, int]
    setting: Setting
    first: int


def _plan(network: QuantizedNetwork, groups: Sequence[TiedGroup], candidates: Sequence[Precision]) -> list[_Trial]:
    """Return all trials, those that start earliest first."""
    trials = []
    for g, group in enumerate(groups):
        for c, candidate in enumerate(candidates):
            setting = network.setting(dict.fromkeys(group.layers, candidate))
            trials.append(_Trial((g, c), setting, network.program.first_change(setting.weights, setting.quantizers)))
    return sorted(trials, key=lambda trial: trial.first)


def _outputs(
    program: Program,
    batch: Any,
    plan: Sequence[_Trial],
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return the full-precision output for ``batch`` and the output of every trial."""
    full = program.start(batch, {})
    outputs = []
    done = 0
    for trial in plan:
        program.advance(full, {}, first=done, last=trial.first)
        done = trial.first
        values = _copy(program, full)
        for position, weight in trial.setting.weights.items():
            values[position] = weight
        if trial.first == 0:
            program.quantize_inputs(values, trial.setting.quantizers)
        program.advance(values, trial.setting.quantizers, first=trial.first)
        outputs.append(first_tensor(program.result(values)))
    program.advance(full, {}, first=done)
    return first_tensor(program.result(full)), outputs


def _copy(program: Program, values: Environment) -> Environment:
    """Return ``values`` with activations of their own, those inside tuples too, since steps write in place."""
    return [
        value if constant is not None else pytree.tree_map_only(torch.Tensor, torch.clone, value)
        for value, constant in zip(values, program.constants, strict=True)
    ]


def first_tensor(output: Any) -> torch.Tensor:
    """Return the first tensor of a model's output.

    Raises
    ------
    InputError
        If there is none.
    """
    for leaf in pytree.tree_leaves(output):
        if isinstance(leaf, torch.Tensor):
            return leaf
    raise InputError(f"expected a model that returns a tensor, got {type(output).__name__}")
