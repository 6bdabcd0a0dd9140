"""Everything before the first measured evaluation: calibration, sensitivities, design spaces, predicted fronts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from hwdse.analysis.sensitivity import Sensitivity, measure_sensitivity
from hwdse.calibrate import Histogram
from hwdse.capture import Capture
from hwdse.cost import metric_column
from hwdse.errors import InputError
from hwdse.evaluate import Evaluation, Evaluator
from hwdse.evaluate.fingerprint import fingerprint, fingerprint_of_batches, fingerprint_of_network
from hwdse.formats import Precision, Scheme
from hwdse.hardware import HardwareProfile
from hwdse.progress import Progress
from hwdse.quantize.network import QuantizedNetwork, Recipe, observe
from hwdse.quantize.program import Program
from hwdse.study.device import DeviceProblem
from hwdse.study.folder import RunFolder
from hwdse.study.measure import Identity, SchemeState
from hwdse.study.tables import read_sensitivity

__all__ = ["DEFAULT_PRECISIONS", "Prepared", "Question", "prepare"]

DEFAULT_PRECISIONS = ("W2A8", "W4A4", "W4A8", "W8A8")
_SENSITIVITY_SAMPLES = 256


@dataclass(frozen=True)
class Question:
    """What is asked of an exploration.

    Attributes
    ----------
    costs
        Names of the costs to minimise.
    precisions
        Candidates.
    fixed
        Layer or group to the precision it must have.
    recipe
        How ranges are found.
    seed
        Of every random choice.
    """

    costs: tuple[str, ...]
    precisions: tuple[Precision, ...]
    fixed: Mapping[str, Precision]
    recipe: Recipe
    seed: int

    @classmethod
    def of(
        cls,
        objectives: Sequence[str],
        *,
        precisions: Sequence[str | Precision],
        fixed: Mapping[str, str | Precision],
        recipe: Recipe,
        seed: int,
    ) -> Question:
        """Return the question, checked.

        Raises
        ------
        InputError
            If objectives or precisions are unknown, missing or repeated.
        """
        costs = tuple(name for name in objectives if name != "accuracy")
        if "accuracy" not in objectives or not costs:
            raise InputError(f"expected accuracy and at least one cost as objectives, got {', '.join(objectives)}")
        if len({metric_column(name) for name in costs}) != len(costs):
            raise InputError(f"expected every objective once, got {', '.join(objectives)}")
        parsed = tuple(Precision.parse(p) if isinstance(p, str) else p for p in precisions)
        held = {k: Precision.parse(p) if isinstance(p, str) else p for k, p in fixed.items()}
        candidates = tuple(dict.fromkeys([*parsed, *held.values()]))
        if not parsed:
            raise InputError("expected at least one candidate precision, got none")
        return cls(costs, candidates, held, recipe, seed)


@dataclass
class Prepared:
    """Everything that measuring needs.

    Attributes
    ----------
    captured, program
        The network.
    question
        What is asked.
    histograms
        Calibration statistics of every point.
    problems
        Devices by name.
    states
        What is known under each scheme, by its key.
    evaluator
        Scores configurations.
    identity
        What all evaluations have in common.
    """

    captured: Capture
    program: Program
    question: Question
    histograms: Mapping[str, Histogram]
    problems: Mapping[str, DeviceProblem]
    states: Mapping[str, SchemeState]
    evaluator: Evaluator
    identity: Identity

    @property
    def quality(self) -> str:
        """Name of the quality metric."""
        return self.identity.metric


def prepare(
    model: nn.Module,
    captured: Capture,
    calibration: Iterable[Any],
    evaluation: Evaluation,
    *,
    question: Question,
    profiles: Sequence[HardwareProfile],
    folder: RunFolder | None,
    progress: Progress,
) -> Prepared:
    """Return everything that measuring needs; sensitivities that ``folder`` holds already are read from it.

    Raises
    ------
    InputError
        If model and graph do not belong together, data are unusable, or a device cannot run the network.
    """
    if not profiles or len({p.name for p in profiles}) != len(profiles):
        raise InputError(f"expected one device or more, each once, got {', '.join(p.name for p in profiles) or 'none'}")
    check_same_network(model, captured)
    batches = list(calibration)
    program = Program.of(captured)
    progress.start("calibrate", len(batches))
    histograms = observe(program, batches, on_batch=progress.advance)
    data = fingerprint(
        {"calibration": fingerprint_of_batches(batches), "evaluation": fingerprint_of_batches(evaluation.batches)}
    )
    identity = Identity(fingerprint_of_network(captured), data, evaluation.metric.name, question.recipe.key)
    states = {}
    for scheme, candidates in _candidates_by_scheme(profiles, question.precisions).items():
        network = QuantizedNetwork(program, scheme=scheme, histograms=histograms, recipe=question.recipe)
        states[scheme.key] = SchemeState(
            network, _sensitivity(network, batches, candidates, folder=folder, identity=identity, progress=progress)
        )
    progress.start("search", len(profiles))
    problems = {}
    for profile in profiles:
        problems[profile.name] = DeviceProblem.of(
            captured,
            profile,
            sensitivity=states[profile.scheme.key].sensitivity,
            costs=question.costs,
            fixed=question.fixed,
            seed=question.seed,
        )
        for sentence in problems[profile.name].warnings:
            progress.warn(sentence)
        progress.advance()
    return Prepared(captured, program, question, histograms, problems, states, Evaluator(evaluation), identity)


def check_same_network(model: nn.Module, captured: Capture) -> None:
    """Check that ``captured`` holds the parameters of ``model``.

    Raises
    ------
    InputError
        If it does not.
    """
    held = captured.program.state_dict
    for name, parameter in model.named_parameters():
        other = held.get(name)
        if other is None or other.shape != parameter.shape or not torch.equal(other, parameter):
            raise InputError(f"expected the graph of this model, got another one (parameter {name}); capture it again")


def _candidates_by_scheme(
    profiles: Sequence[HardwareProfile], precisions: Sequence[Precision]
) -> dict[Scheme, tuple[Precision, ...]]:
    """Return for each scheme the candidates that one of its devices supports."""
    found: dict[Scheme, set[Precision]] = {}
    for profile in profiles:
        found.setdefault(profile.scheme, set()).update(profile.candidates(precisions))
    return {scheme: tuple(p for p in precisions if p in supported) for scheme, supported in found.items()}


def _sensitivity(
    network: QuantizedNetwork,
    batches: Sequence[Any],
    candidates: Sequence[Precision],
    *,
    folder: RunFolder | None,
    identity: Identity,
    progress: Progress,
) -> Sensitivity:
    groups = tuple(group.name for group in network.captured.groups)
    if folder is not None and folder.is_resumed:
        kept = _kept(folder, network, groups, tuple(candidates), identity)
        if kept is not None:
            return kept
    sample = first_samples(batches, _SENSITIVITY_SAMPLES)
    progress.start("sensitivity", len(sample))
    if not candidates:
        return Sensitivity(groups, (), {"kl": np.zeros((len(groups), 0))}, 0)
    return measure_sensitivity(network, sample, candidates=candidates, on_batch=progress.advance)


def _kept(
    folder: RunFolder,
    network: QuantizedNetwork,
    groups: tuple[str, ...],
    candidates: tuple[Precision, ...],
    identity: Identity,
) -> Sensitivity | None:
    """Return the sensitivities in a resumed run's folder, if they are complete and of the same network and data."""
    if not folder.holds(identity) or not (folder.path / "sensitivity.csv").is_file():
        return None
    table = pd.read_csv(folder.path / "sensitivity.csv", float_precision="round_trip")
    return read_sensitivity(table, network.scheme.key, groups=groups, candidates=candidates)


def first_samples(batches: Sequence[Any], samples: int) -> list[Any]:
    """Return the first batches that together hold at least ``samples`` samples, or all."""
    taken, count = [], 0
    for batch in batches:
        if count >= samples:
            break
        taken.append(batch)
        count += (batch if isinstance(batch, torch.Tensor) else batch[0]).shape[0]
    return taken
