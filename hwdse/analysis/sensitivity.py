"""Harm of one group at one candidate, with everything else in full precision, read at the network's output.

Every method is a function of (reference output, quantized output) that returns one number per sample; all methods share
one pass. The pass reuses what a group cannot change: full precision runs once, and each candidate starts where its
group first matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import starmap
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils import _pytree as pytree

from hwdse.analysis.distances import cosine, first_tensor, jsd, kl, sqnr_db
from hwdse.analysis.draws import Drawn
from hwdse.analysis.robustness import Settled
from hwdse.errors import InputError
from hwdse.formats import FP32, Precision
from hwdse.graph import TiedGroup
from hwdse.plugins import load_plugin
from hwdse.quantize.network import QuantizedNetwork, Setting
from hwdse.quantize.runnable import Environment, Runnable
from hwdse.workers import Crew

__all__ = [
    "Part",
    "Sensitivity",
    "Trial",
    "cosine",
    "first_tensor",
    "harms_by_batch",
    "jsd",
    "kl",
    "measure_harms",
    "measure_sensitivity",
    "part_of",
    "sqnr_db",
    "trials",
    "without_labels",
]

OutputDistance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Harm = Callable[[torch.Tensor, torch.Tensor, Any], torch.Tensor]
Part = Literal["both", "weights", "activations"]
Floats = NDArray[np.float64]


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
    per_sample
        ``(groups, candidates, samples)`` by method, whose mean over samples is the score: what each sample adds, times
        its weight where samples have weights. Empty where they were not kept, as in a table on disk.
    """

    groups: tuple[str, ...]
    candidates: tuple[Precision, ...]
    scores: Mapping[str, Floats]
    samples: int
    per_sample: Mapping[str, Floats] = field(default_factory=dict, repr=False)


def measure_sensitivity(
    network: QuantizedNetwork,
    batches: Iterable[Any],
    *,
    candidates: Sequence[Precision],
    methods: Sequence[str] = ("kl", "sqnr_db"),
    part: Part = "both",
    stop_when_settled: Settled | None = None,
    on_batch: Callable[[], None] | None = None,
    crew: Crew | None = None,
) -> Sensitivity:
    """Return the sensitivity of every (group, candidate) of ``network``, without labels.

    Parameters
    ----------
    network
        Calibrated network under one scheme.
    batches
        Calibration batches, or those of :func:`hwdse.analysis.draws.draw`, whose samples count by their weights.
    candidates
        Precisions to try on each group.
    methods
        Names installed under the entry-point group ``hwdse.sensitivities``.
    part
        What of a candidate is quantized: ``both``, the ``weights`` alone (and the second operand of a product of two
        activations), or the ``activations`` alone.
    stop_when_settled
        Stop after the batch with which the order of the groups by the first method is settled; by default all batches
        are used.
    on_batch
        Called after each batch.
    crew
        Who runs the batches; ``None`` for this process, as always where the next batch depends on the last.

    Raises
    ------
    InputError
        If there is no batch or no method, or a method or part is unknown.
    """
    distances: dict[str, OutputDistance] = {name: load_plugin("hwdse.sensitivities", name) for name in methods}
    return measure_harms(
        network,
        ((batch, None) for batch in batches),
        {name: without_labels(distance) for name, distance in distances.items()},
        candidates=candidates,
        part=part,
        stop_when_settled=stop_when_settled,
        on_batch=on_batch,
        crew=crew,
    )


def without_labels(distance: OutputDistance) -> Harm:
    """Return the harm that is the distance of two outputs, whatever the labels."""
    return partial(_distance, distance)


def _distance(distance: OutputDistance, reference: torch.Tensor, quantized: torch.Tensor, _: Any) -> torch.Tensor:
    return distance(reference, quantized)


def measure_harms(
    network: QuantizedNetwork,
    pairs: Iterable[tuple[Any, Any]],
    harms: Mapping[str, Harm],
    *,
    candidates: Sequence[Precision],
    part: Part = "both",
    stop_when_settled: Settled | None = None,
    on_batch: Callable[[], None] | None = None,
    crew: Crew | None = None,
) -> Sensitivity:
    """Return the harm of every (group, candidate), :func:`measure_sensitivity` for any function of two outputs.

    Parameters
    ----------
    network, candidates, part, stop_when_settled, on_batch, crew
        As in :func:`measure_sensitivity`.
    pairs
        Batches with their labels.
    harms
        Functions (reference output, quantized output, labels) to ``(samples,)`` by name.

    Raises
    ------
    InputError
        If there is no batch, no function, a part is unknown, or a function does not return one number per sample.
    """
    if not harms:
        raise InputError("expected at least one method, got none; name one such as kl")
    groups = network.captured.groups
    plan = trials(network, candidates, part=part)
    found: dict[str, list[Floats]] = {name: [] for name in harms}
    samples = 0
    size = len(groups), len(candidates)
    for scores in harms_by_batch(
        network, pairs, harms, plan=plan, size=size, crew=crew if stop_when_settled is None else None
    ):
        for name, values in scores.items():
            found[name].append(values)
        samples += values.shape[-1]
        if on_batch is not None:
            on_batch()
        if stop_when_settled is not None and stop_when_settled.holds(np.concatenate(found[next(iter(found))], -1)):
            break
    if samples == 0:
        raise InputError("expected at least one batch of calibration data, got none; check the calibration factory")
    names = tuple(group.name for group in groups)
    per_sample = {name: np.concatenate(parts, axis=-1) for name, parts in found.items()}
    scores = {name: values.mean(axis=-1) for name, values in per_sample.items()}
    return Sensitivity(names, tuple(candidates), scores, samples, per_sample)


def harms_by_batch(
    network: QuantizedNetwork,
    pairs: Iterable[tuple[Any, Any]],
    harms: Mapping[str, Harm],
    *,
    plan: Sequence[Trial],
    size: tuple[int, int],
    crew: Crew | None,
) -> Iterator[dict[str, Floats]]:
    """Yield the harm of every trial of ``plan`` to every sample of each batch.

    By name ``(groups, candidates, samples)``, of which ``size`` are the first two; what no trial tries is undefined.
    Other parameters as in :func:`measure_harms`.
    """
    items = ((network.program.runnable, batch, labels, plan, harms, size) for batch, labels in pairs)
    if crew is None:
        yield from starmap(_harms_of_batch, items)
    else:
        yield from crew.map(_harms_of_batch, items, about="a batch of trials")


def _harms_of_batch(
    network: Runnable,
    batch: Any,
    labels: Any,
    plan: Sequence[Trial],
    harms: Mapping[str, Harm],
    size: tuple[int, int],
) -> dict[str, Floats]:
    """Return the harm of every trial to every sample of a batch, ``(groups, candidates, samples)`` by name."""
    inputs, weights = (batch.batch, batch.weights) if isinstance(batch, Drawn) else (batch, 1.0)
    with torch.inference_mode():
        reference, outputs = trial_outputs(network, inputs, plan)
        shape = (*size, len(reference))
        scores = {name: np.empty(shape) for name in harms}
        for trial, output in zip(plan, outputs, strict=True):
            for name, harm in harms.items():
                scores[name][trial.group, trial.columns] = _one_each(name, harm(reference, output, labels), shape)
    return {name: values * weights for name, values in scores.items()}


def _one_each(name: str, values: torch.Tensor, shape: tuple[int, ...]) -> Floats:
    if tuple(values.shape) != shape[-1:]:
        raise InputError(
            f"expected one number for each of {shape[-1]} samples from {name!r}, got shape {tuple(values.shape)}; "
            "average over everything but the samples"
        )
    return values.double().numpy()


def part_of(precision: Precision, part: Part) -> Precision:
    """Return ``precision`` with the other part in full precision.

    Raises
    ------
    InputError
        If ``part`` is none of both, weights and activations.

    >>> str(part_of(Precision.parse("W4A8"), "weights"))
    'W4Afp32'
    """
    if part not in get_args(Part):
        raise InputError(f"expected the part {', '.join(get_args(Part))}, got {part!r}; correct it")
    weights = FP32 if part == "activations" else precision.weights
    return Precision(weights, FP32 if part == "weights" else precision.activations)


@dataclass(frozen=True)
class Trial:
    """One group at one candidate, or at several that differ in nothing that is quantized.

    Attributes
    ----------
    group
        Index of the group.
    columns
        Indices of the candidates.
    setting
        Weights and quantizers.
    first
        Index of the first step that changes.
    """

    group: int
    columns: list[int]
    setting: Setting
    first: int


def trials(network: QuantizedNetwork, candidates: Sequence[Precision], *, part: Part = "both") -> list[Trial]:
    """Return all trials, those that start earliest first."""
    columns: dict[Precision, list[int]] = {}
    for c, candidate in enumerate(candidates):
        columns.setdefault(part_of(candidate, part), []).append(c)
    found = [
        _trial(network, g, group, precision, places)
        for g, group in enumerate(network.captured.groups)
        for precision, places in columns.items()
    ]
    return sorted(found, key=lambda trial: trial.first)


def _trial(network: QuantizedNetwork, g: int, group: TiedGroup, precision: Precision, columns: list[int]) -> Trial:
    setting = network.setting(dict.fromkeys(group.layers, precision))
    return Trial(g, columns, setting, network.program.first_change(setting.constants, setting.quantizers))


def trial_outputs(program: Runnable, batch: Any, plan: Sequence[Trial]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return the full-precision output for ``batch`` and the output of every trial of ``plan``, earliest first."""
    full = program.start(batch, {})
    outputs = []
    done = 0
    for trial in plan:
        program.advance(full, {}, first=done, last=trial.first)
        done = trial.first
        values = _copy(program, full)
        for position, weight in trial.setting.constants.items():
            values[position] = weight
        if trial.first == 0:
            program.quantize_inputs(values, trial.setting.quantizers)
        program.advance(values, trial.setting.quantizers, first=trial.first)
        outputs.append(first_tensor(program.result(values)))
    program.advance(full, {}, first=done)
    return first_tensor(program.result(full)), outputs


def _copy(program: Runnable, values: Environment) -> Environment:
    """Return ``values`` with activations of their own, those inside tuples too, since steps write in place."""
    return [
        value if constant is not None else pytree.tree_map_only(torch.Tensor, torch.clone, value)
        for value, constant in zip(values, program.constants, strict=True)
    ]
