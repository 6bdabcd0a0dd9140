"""Everything before the first measured evaluation: calibration, sensitivities, design spaces, predicted fronts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from hwdse.analysis.sensitivity import Sensitivity
from hwdse.capture import Capture
from hwdse.cost import metric_column
from hwdse.errors import InputError
from hwdse.evaluate import Evaluation, Evaluator, Scores, mean_interval
from hwdse.evaluate.batches import check_batch
from hwdse.evaluate.fingerprint import fingerprint, fingerprint_of_batches, fingerprint_of_network
from hwdse.formats import Precision, Scheme
from hwdse.hardware import HardwareProfile
from hwdse.progress import Noted, Progress
from hwdse.quantize.network import QuantizedNetwork, program_of
from hwdse.quantize.observe import observe
from hwdse.quantize.program import Program
from hwdse.quantize.recipe import Recipe
from hwdse.space import DesignSpace
from hwdse.study.device import DeviceProblem, device_space
from hwdse.study.folder import RunFolder
from hwdse.study.losses import LOSSES, find_losses
from hwdse.study.measure import Identity, SchemeState
from hwdse.study.tables import load_sensitivity
from hwdse.study.weights import weight_store
from hwdse.workers import Crew

__all__ = [
    "DEFAULT_PRECISIONS",
    "Prepared",
    "Question",
    "check_same_network",
    "identity_of_run",
    "prepare",
]

DEFAULT_PRECISIONS = ("W2A8", "W4A4", "W4A8", "W8A8")
_NAMED = 4


@dataclass(frozen=True)
class Question:
    """What is asked of an exploration.

    Attributes
    ----------
    costs
        Names of the costs to minimise.
    precisions
        Candidates of what is free.
    fixed
        Layer or group to the precision it must have.
    recipe
        How ranges and weights are found.
    seed
        Of every random choice.
    loss
        Score of a (group, candidate) whose sum predicts harm, one of :data:`hwdse.study.losses.LOSSES`.
    """

    costs: tuple[str, ...]
    precisions: tuple[Precision, ...]
    fixed: Mapping[str, Precision]
    recipe: Recipe
    seed: int
    loss: str = "kl"

    @classmethod
    def of(
        cls,
        objectives: Sequence[str],
        *,
        precisions: Sequence[str | Precision],
        fixed: Mapping[str, str | Precision],
        recipe: Recipe,
        seed: int,
        loss: str = "kl",
    ) -> Question:
        """Return the question, checked.

        Raises
        ------
        InputError
            If objectives, precisions or the loss are unknown, missing or repeated, or the seed is negative.
        """
        if loss not in LOSSES:
            raise InputError(f"expected a loss of {', '.join(LOSSES)}, got {loss!r}")
        if seed < 0:
            raise InputError(f"expected a seed of at least 0, got {seed}")
        costs = tuple(name for name in objectives if name != "accuracy")
        if "accuracy" not in objectives or not costs:
            raise InputError(f"expected accuracy and at least one cost as objectives, got {', '.join(objectives)}")
        if len({metric_column(name) for name in costs}) != len(costs):
            raise InputError(f"expected every objective once, got {', '.join(objectives)}")
        parsed = tuple(Precision.parse(p) if isinstance(p, str) else p for p in precisions)
        held = {k: Precision.parse(p) if isinstance(p, str) else p for k, p in fixed.items()}
        if not parsed:
            raise InputError("expected at least one candidate precision, got none")
        return cls(costs, tuple(dict.fromkeys(parsed)), held, recipe, seed, loss)

    @property
    def candidates(self) -> tuple[Precision, ...]:
        """All precisions that some layer may have."""
        return tuple(dict.fromkeys([*self.precisions, *self.fixed.values()]))


@dataclass
class Prepared:
    """Everything that measuring needs.

    Attributes
    ----------
    captured, program
        The network.
    question
        What is asked.
    problems
        Devices by name.
    states
        What is known under each scheme, by its key.
    evaluator
        Scores configurations.
    identity
        What all evaluations have in common.
    reference
        Scores of full precision; ``None`` where the pool of a resumed run has them.
    warnings
        What the user was told meanwhile.
    """

    captured: Capture
    program: Program
    question: Question
    problems: Mapping[str, DeviceProblem]
    states: Mapping[str, SchemeState]
    evaluator: Evaluator
    identity: Identity
    reference: Scores | None
    warnings: tuple[str, ...]

    @property
    def network(self) -> QuantizedNetwork:
        """The network under the first device's scheme; weights, streams and full precision are the same under all."""
        return next(iter(self.states.values())).network

    @property
    def quality(self) -> str:
        """Name of the quality metric."""
        return self.evaluator.evaluation.metric.name


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
    channels: bool = False,
    crew: Crew | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Prepared:
    """Return everything that measuring needs; sensitivities that ``folder`` holds already are read from it.

    With ``channels`` the calibration pass looks at the channels of activations, too. A ``crew`` shares the passes over
    calibration data.

    What can be wrong is looked at first, and what takes long comes last.

    Raises
    ------
    InputError
        If model and graph do not belong together, data are unusable, or a device cannot run the network.
    RunFolderError
        If ``folder`` holds a run about something else.
    """
    if not profiles or len({p.name for p in profiles}) != len(profiles):
        raise InputError(f"expected one device or more, each once, got {', '.join(p.name for p in profiles) or 'none'}")
    check_same_network(model, captured)
    progress = noted = Noted(progress)
    spaces = {
        profile.name: device_space(
            captured, profile, precisions=question.precisions, fixed=question.fixed, costs=question.costs
        )
        for profile in profiles
    }
    batches = list(calibration)
    for batch in batches:
        check_batch(captured, batch, "calibration")
    identity = _identity(captured, batches, evaluation, question)
    if folder is not None:
        folder.check(identity_of_run(identity, question, profiles))
    written = any(profile.scheme.quantized_outputs for profile in profiles)
    program = program_of(captured, question.recipe, batches, written=written)
    progress.start("calibrate", len(batches))
    streams = observe(program, batches, channels=channels, on_batch=progress.advance, crew=crew)
    store = weight_store(folder.path if folder is not None else None, identity.network, batches, question.recipe)
    networks = {
        profile.scheme: QuantizedNetwork(
            program, scheme=profile.scheme, streams=streams, recipe=question.recipe, batches=batches, store=store
        )
        for profile in profiles
    }
    evaluator = Evaluator(evaluation, clock)
    reference = _reference(evaluator, networks[profiles[0].scheme], folder)
    losses = partial(_sensitivity, batches=batches, question=question, folder=folder, crew=crew)
    states = _states(networks, spaces, losses, loss=question.loss, profiles=profiles, progress=progress, crew=crew)
    problems = _problems(captured, profiles, spaces, states, question=question, progress=progress)
    told = tuple(noted.sentences)
    return Prepared(captured, program, question, problems, states, evaluator, identity, reference, told)


def _reference(evaluator: Evaluator, network: QuantizedNetwork, folder: RunFolder | None) -> Scores | None:
    """Return the scores of full precision; ``None`` where the pool of a resumed run has them.

    This first evaluation shows what is wrong with samples or metric, before anything is written.
    """
    if folder is not None and folder.is_resumed:
        return None
    scores = evaluator.score(network, None)
    mean_interval(scores.per_sample, may_count=evaluator.evaluation.metric.may_count)
    return scores


def identity_of_run(identity: Identity, question: Question, profiles: Sequence[HardwareProfile]) -> dict[str, Any]:
    """Return what a resumed run must have in common with the one that it goes on with."""
    return {
        **vars(identity),
        "devices": {profile.name: _address(profile) for profile in profiles},
        "precisions": [str(p) for p in question.precisions],
        "fixed": {name: str(p) for name, p in question.fixed.items()},
        "objectives": list(question.costs),
        "seed": question.seed,
        "loss": question.loss,
    }


def _address(profile: HardwareProfile) -> str:
    """Return a text that differs where two profiles differ."""
    return fingerprint(
        {"spec": profile.spec.model_dump_json(), "table": repr(sorted(map(repr, profile.table.entries.items())))}
    )


def _identity(captured: Capture, batches: Sequence[Any], evaluation: Evaluation, question: Question) -> Identity:
    """Return what all evaluations have in common.

    Raises
    ------
    InputError
        If evaluation samples come in another order every time, which no paired difference survives.
    """
    samples = fingerprint_of_batches(evaluation.batches)
    if not isinstance(evaluation.batches, list | tuple) and fingerprint_of_batches(evaluation.batches) != samples:
        raise InputError(
            "expected the same evaluation batches in the same order every time, got others the second time; turn "
            "shuffling and random augmentation off"
        )
    data = fingerprint({"calibration": fingerprint_of_batches(batches), "evaluation": samples})
    return Identity(fingerprint_of_network(captured), data, evaluation.metric.key, question.recipe.key)


def _states(
    networks: Mapping[Scheme, QuantizedNetwork],
    spaces: Mapping[str, DesignSpace],
    losses: Callable[..., Sensitivity],
    *,
    loss: str,
    profiles: Sequence[HardwareProfile],
    progress: Progress,
    crew: Crew | None,
) -> dict[str, SchemeState]:
    """Return every scheme with the sensitivity of each candidate that one of its devices may choose."""
    states = {}
    for place, (scheme, network) in enumerate(networks.items(), start=1):
        own = Noted(progress, f" (scheme {place}/{len(networks)})") if len(networks) > 1 else progress
        chosen = [c for p in profiles if p.scheme == scheme for c in spaces[p.name].candidates]
        candidates = tuple(dict.fromkeys(chosen))
        network.find(candidates, progress=own, crew=crew)
        states[scheme.key] = SchemeState(network, losses(network, candidates, progress=own), loss)
    return states


def _problems(
    captured: Capture,
    profiles: Sequence[HardwareProfile],
    spaces: Mapping[str, DesignSpace],
    states: Mapping[str, SchemeState],
    *,
    question: Question,
    progress: Progress,
) -> dict[str, DeviceProblem]:
    """Return every device with its predicted front."""
    problems = {}
    progress.start("search", len(profiles))
    for profile in profiles:
        problem = DeviceProblem.of(
            captured,
            profile,
            space=spaces[profile.name],
            sensitivity=states[profile.scheme.key].sensitivity,
            costs=question.costs,
            seed=question.seed,
            loss=question.loss,
        )
        problems[profile.name] = problem
        for sentence in (*problem.warnings, *_bound(problem, question)):
            progress.warn(sentence)
        progress.advance()
    return problems


def _bound(problem: DeviceProblem, question: Question) -> Iterator[str]:
    """Yield a sentence for every precision that is a group's only one, though others were asked for."""
    space, held = problem.space, set(question.fixed)
    if len(space.candidates) < 2:
        return
    found: dict[Precision, list[str]] = {}
    for group, allowed in zip(space.groups, space.allowed, strict=True):
        if allowed.sum() == 1 and not held & {group.name, *group.layers}:
            found.setdefault(space.candidates[int(allowed.argmax())], []).append(group.name)
    for precision, names in found.items():
        listed = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
        yield (
            f"{problem.profile.name} has no other precision than {precision}, of those asked for, for {len(names)} of "
            f"{len(space.groups)} groups of layers ({listed})"
        )


def check_same_network(model: nn.Module, captured: Capture) -> None:
    """Check that ``captured`` holds the parameters of ``model``, and that they are numbers.

    Raises
    ------
    InputError
        If it does not, or a parameter is NaN or infinite.
    """
    held = captured.program.state_dict
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise InputError(f"expected finite parameters, got NaN or infinity in {name}; check the weight file")
        other = held.get(name)
        if other is None or other.shape != parameter.shape or not torch.equal(other, parameter):
            raise InputError(f"expected the graph of this model, got another one (parameter {name}); capture it again")


def _sensitivity(
    network: QuantizedNetwork,
    candidates: tuple[Precision, ...],
    *,
    batches: Sequence[Any],
    question: Question,
    folder: RunFolder | None,
    progress: Progress,
    crew: Crew | None,
) -> Sensitivity:
    """Return the losses in a resumed run's folder; find them if they are not there."""
    if folder is not None and folder.is_resumed and (folder.path / "sensitivity.csv").is_file():
        return load_sensitivity(
            folder.path / "sensitivity.csv",
            network.scheme.key,
            groups=tuple(group.name for group in network.captured.groups),
            candidates=candidates,
            methods=(question.loss,),
        )
    return find_losses(
        network, batches, candidates, loss=question.loss, seed=question.seed, progress=progress, crew=crew
    )
