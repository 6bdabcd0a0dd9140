"""Hessian sensitivity of weights: their squared rounding error times the average curvature of the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from hwdse.analysis.draws import Drawn
from hwdse.analysis.sensitivity import Sensitivity, part_of
from hwdse.analysis.tape import differentiable, record, sign_seeds
from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.quantize.network import QuantizedNetwork

__all__ = ["hessian_sensitivity", "hessian_traces"]


def hessian_sensitivity(
    network: QuantizedNetwork,
    batches: Iterable[Any],
    *,
    candidates: Sequence[Precision],
    rng: np.random.Generator,
    probes: int = 50,
    on_batch: Callable[[], None] | None = None,
) -> Sensitivity:
    """Return the sensitivity of every (group, candidate) by curvature, method ``hessian_predicted`` [Dong2020]_.

    ``sum_w Tr(H_w) / n_w ||Q(w) - w||^2`` over the weights of a group, each of ``n_w`` values. Errors of activations
    are not in it, nor is the direction of the weights' errors: all are taken to lie anywhere alike. A group without
    weights (a product of two activations) gets 0.

    Parameters
    ----------
    network
        Calibrated network under one scheme.
    batches, probes, on_batch
        As in :func:`hessian_traces`.
    candidates
        Precisions, of which the weights count.
    rng
        Draws the probes.

    Raises
    ------
    InputError
        If there is no batch or no probe.
    """
    traces, samples = _traces(network, batches, rng=rng, probes=probes, on_batch=on_batch)
    program = network.program
    curvature = {program.weights[name]: trace / program.folded[name].numel() for name, trace in traces.items()}
    groups = network.captured.groups
    scores = np.zeros((len(groups), len(candidates)))
    for g, group in enumerate(groups):
        for c, candidate in enumerate(candidates):
            setting = network.setting(dict.fromkeys(group.layers, part_of(candidate, "weights")))
            for position, weight in setting.weights.items():
                error = (weight.double() - program.constants[position].double()).square().sum()
                scores[g, c] += curvature[position] * float(error)
    names = tuple(group.name for group in groups)
    return Sensitivity(names, tuple(candidates), {"hessian_predicted": scores}, samples)


def hessian_traces(
    network: QuantizedNetwork,
    batches: Iterable[Any],
    *,
    rng: np.random.Generator,
    probes: int = 50,
    on_batch: Callable[[], None] | None = None,
) -> dict[str, float]:
    """Return the trace of the Hessian of the loss by each weight, by the weight's name.

    The loss is the divergence of the softmax outputs from the network's own in full precision, averaged over samples
    and tokens, so no labels are needed. There its Hessian is ``J' F J``, with the Fisher information ``F`` of the
    logits [Martens2020]_, and has the trace of ``F^(1/2) J J' F^(1/2)``. Hutchinson's estimate of that
    [Hutchinson1989]_ with random signs takes one backward pass per probe, instead of two for signs on the weights, is
    never negative, and does not mix the curvature between two weights into either.

    Parameters
    ----------
    network
        A calibrated network.
    batches
        Calibration batches, best those of :func:`hwdse.analysis.draws.draw`.
    rng
        Draws the probes.
    probes
        Number of probes per batch.
    on_batch
        Called after each batch.

    Raises
    ------
    InputError
        If there is no batch or no probe.
    """
    return _traces(network, batches, rng=rng, probes=probes, on_batch=on_batch)[0]


def _traces(
    network: QuantizedNetwork,
    batches: Iterable[Any],
    *,
    rng: np.random.Generator,
    probes: int,
    on_batch: Callable[[], None] | None,
) -> tuple[dict[str, float], int]:
    """Return the traces and the number of samples behind them."""
    if probes < 1:
        raise InputError(f"expected at least 1 probe, got {probes}; ask for more")
    program = differentiable(network.program)
    names = list(program.weights)
    weights = {program.weights[name]: program.folded[name].clone().requires_grad_() for name in names}
    totals = np.zeros(len(names))
    samples = 0
    for batch in map(Drawn.of, batches):
        _, logits = record(program, batch.tensors, weights=weights)
        scale = torch.from_numpy(np.sqrt(batch.weights)).to(logits.dtype).reshape(-1, *[1] * (logits.ndim - 1))
        for seed in sign_seeds(logits, probes, rng):
            gradients = torch.autograd.grad(
                logits, list(weights.values()), scale * seed, retain_graph=True, materialize_grads=True
            )
            squares = np.array([float(gradient.double().square().sum()) for gradient in gradients])
            totals += squares / (probes * logits[0, ..., 0].numel())
        samples += len(logits)
        if on_batch is not None:
            on_batch()
    if samples == 0:
        raise InputError("expected at least one batch of calibration data, got none; check the calibration factory")
    return dict(zip(names, (totals / samples).tolist(), strict=True)), samples
