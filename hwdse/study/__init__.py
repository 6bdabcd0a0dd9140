"""The loop that spends the budget: predicted fronts, then measured evaluations from one pool for all devices."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from hwdse.capture import Capture
from hwdse.errors import InputError
from hwdse.evaluate import Evaluation, Interval
from hwdse.formats import Precision
from hwdse.front import Front, Objective
from hwdse.hardware import HardwareProfile, load_profile
from hwdse.progress import SILENT, Progress
from hwdse.quantize.origin import Origin
from hwdse.quantize.recipe import DEFAULT_RECIPE, Recipe
from hwdse.search.propose import CARED_FOR
from hwdse.study.budget import Budget, Meter
from hwdse.study.device import LOSS, DeviceProblem, Genes
from hwdse.study.fleet import FleetPlan
from hwdse.study.folder import RunFolder
from hwdse.study.measure import Laboratory, SchemeState
from hwdse.study.noise import within_noise
from hwdse.study.prepare import DEFAULT_PRECISIONS, Prepared, Question, prepare
from hwdse.study.record import Recorder
from hwdse.study.tables import front_table, measured_table

__all__ = ["Budget", "Study", "explore"]

_WRITE_EVERY_SECONDS = 2.0
_WRITING_SHARE = 0.05
"""Of the time, at most, that goes into writing."""


@dataclass
class Study:
    """What an exploration found.

    Attributes
    ----------
    prepared
        Network, data and devices.
    full_precision
        Quality of the network as it was trained.
    meter
        What was spent.
    near_front
        By device, the bits of what is off its measured front, but not significantly.
    """

    prepared: Prepared
    full_precision: Interval
    meter: Meter
    near_front: dict[str, frozenset[str]] = field(default_factory=dict)

    @property
    def problems(self) -> Mapping[str, DeviceProblem]:
        """Devices by name."""
        return self.prepared.problems

    def state(self, problem: DeviceProblem) -> SchemeState:
        """Return what is known under the scheme of ``problem``."""
        return self.prepared.states[problem.profile.scheme.key]

    def measured(self, device: str | HardwareProfile) -> pd.DataFrame:
        """Return all measured configurations that ``device`` can run."""
        problem = self._problem(device)
        return measured_table(
            problem,
            self.state(problem).measured,
            quality=self.prepared.quality,
            near_front=self.near_front.get(problem.profile.name, frozenset()),
        )

    def front(self, device: str | HardwareProfile) -> Front:
        """Return the measured front of ``device``.

        Raises
        ------
        InputError
            If the study has no such device.
        """
        problem = self._problem(device)
        table = front_table(problem, self.measured(device), quality=self.prepared.quality)
        return Front(
            table,
            objectives_of(self.prepared),
            tuple(self.prepared.captured.layer_index),
            reach={k: v for k, v in problem.space.reach().items() if k != LOSS.name},
            device=problem.profile.name,
            origin=Origin(self.state(problem).network, problem.profile),
        )

    def _problem(self, device: str | HardwareProfile) -> DeviceProblem:
        name = device if isinstance(device, str) else device.name
        if name not in self.problems:
            raise InputError(f"expected a device of this study ({', '.join(self.problems)}), got {name!r}")
        return self.problems[name]


def objectives_of(prepared: Prepared) -> tuple[Objective, ...]:
    """Return the front's objectives with their columns, quality first."""
    quality = Objective("accuracy", f"{prepared.quality}_measured", maximize=True)
    columns = next(iter(prepared.problems.values())).objectives
    costs = zip(prepared.question.costs, columns, strict=True)
    return (quality, *(Objective(name, column, maximize=False) for name, column in costs))


def explore(
    model: nn.Module,
    graph: Capture,
    *,
    calibration: Iterable[Any],
    evaluation: Evaluation,
    devices: Sequence[str | HardwareProfile],
    objectives: Sequence[str] = ("accuracy", "latency_ms", "energy_mj", "size_kib"),
    precisions: Sequence[str | Precision] = DEFAULT_PRECISIONS,
    fixed: Mapping[str, str | Precision] | None = None,
    budget: Budget | None = None,
    recipe: Recipe | None = None,
    seed: int = 0,
    loss: str = "kl",
    fleet: int = 0,
    name: str = "study",
    out: Path | None = None,
    resume: bool = False,
    experiment: Path | None = None,
    notes: Mapping[str, Any] | None = None,
    progress: Progress = SILENT,
    clock: Callable[[], float] = time.monotonic,
) -> Study:
    """Return the measured fronts of ``model`` on ``devices``, within a budget.

    The predicted front of every device comes first, from sensitivities and cost models alone. Measured evaluations
    follow: uniform precisions, then whatever promises to add most to a device's front. Devices with the same scheme
    share every evaluation. The best fronts so far are always on disk if ``out`` is given.

    Parameters
    ----------
    model
        The trained network that ``graph`` was captured from.
    graph
        From :func:`hwdse.capture`.
    calibration
        Batches of inputs, without labels.
    evaluation
        What quality is measured on, for instance :func:`hwdse.top1_on`; other samples than ``calibration``.
    devices
        Profiles or their names.
    objectives
        ``accuracy`` and the costs to minimise.
    precisions
        Candidates, intersected with what each device supports.
    fixed
        Layer or group to the precision it must have.
    budget
        Evaluations and seconds.
    recipe
        How ranges and weights are found; :data:`hwdse.quantize.recipe.DEFAULT_RECIPE` by default.
    seed
        Of every random choice.
    loss
        What predicts harm, one of :data:`hwdse.study.losses.LOSSES`.
    fleet
        Levels of harm at which one configuration for all devices is measured after the budget is spent; 0 for none.
    name
        What tables, figures and the page are titled.
    out
        Run folder; ``None`` keeps everything in memory.
    resume
        True to go on with the run in ``out``.
    experiment
        Experiment file to keep a copy of.
    notes
        Further entries for ``resolved.json``.
    progress
        Who watches.
    clock
        Seconds, for the budget.

    Raises
    ------
    InputError
        If anything given cannot be used; nothing is written then.
    RunFolderError
        If ``out`` holds another run.
    """
    _check_kinds(evaluation, devices, budget)
    meter = Meter(budget or Budget(), clock)
    if resume and out is None:
        raise InputError("expected a run folder to go on with, got none; give out")
    if fleet < 0:
        raise InputError(f"expected 0 fleet levels or more, got {fleet}")
    folder = RunFolder(out, resume=resume) if out is not None else None
    question = Question.of(
        objectives, precisions=precisions, fixed=fixed or {}, recipe=recipe or DEFAULT_RECIPE, seed=seed, loss=loss
    )
    profiles = [load_profile(d) if isinstance(d, str) else d for d in devices]
    prepared = prepare(
        model,
        graph,
        calibration,
        evaluation,
        question=question,
        profiles=profiles,
        folder=folder,
        progress=progress,
        clock=clock,
    )
    recorder = Recorder(folder, prepared, experiment=experiment, notes={"name": name, **(notes or {})})
    return _measure(prepared, meter, recorder, plan=FleetPlan(fleet, out), progress=progress, clock=clock)


def _check_kinds(evaluation: object, devices: object, budget: object) -> None:
    """Check what is most easily given as something else."""
    if not isinstance(evaluation, Evaluation):
        raise InputError(
            f"expected an evaluation such as hwdse.top1_on(batches), got {type(evaluation).__name__}; wrap the batches"
        )
    if isinstance(devices, str | HardwareProfile) or not isinstance(devices, Sequence):
        raise InputError(f"expected a list of devices, got {type(devices).__name__}; write devices=[device]")
    if budget is not None and not isinstance(budget, Budget):
        raise InputError(
            f"expected a hwdse.Budget, got {type(budget).__name__}; write budget=hwdse.Budget(evaluations=60)"
        )


def _measure(
    prepared: Prepared,
    meter: Meter,
    recorder: Recorder,
    *,
    plan: FleetPlan,
    progress: Progress,
    clock: Callable[[], float],
) -> Study:
    """Spend the budget and record what is found, at the first new evaluation, every other second, and at the end.

    A resumed run first repeats its choices from the pool, whatever the budget: nothing that was found gets lost, and
    the tables on disk stay until there is something new.
    """
    progress.start("measure", meter.budget.evaluations)
    with recorder.pool() as pool:
        laboratory = Laboratory(prepared.evaluator, pool, prepared.identity)
        network = next(iter(prepared.states.values())).network
        study = Study(prepared, laboratory.measure_reference(network, prepared.reference), meter)
        next_write = -math.inf
        for state, bits in _schedule(study):
            ceiling = _ceiling(study, state, bits)
            if meter.is_spent and (plan.holds(state, bits) or not laboratory.knows(state, bits, ceiling=ceiling)):
                break
            seconds, was_there = laboratory.measure(state, bits, ceiling=ceiling)
            meter.add(seconds, is_earlier=was_there)
            progress.advance()
            if not was_there and clock() > next_write:
                started = time.perf_counter()
                _write(study, laboratory, recorder)
                took = time.perf_counter() - started
                next_write = clock() + max(_WRITE_EVERY_SECONDS, took / _WRITING_SHARE)
        plan.measure(study, laboratory, progress)
        meter.stop()
        _write(study, laboratory, recorder)
    return study


def _write(study: Study, laboratory: Laboratory, recorder: Recorder) -> None:
    """Mark what is within noise of the fronts, and write everything."""
    for name, problem in study.problems.items():
        measured, state = study.measured(name), study.state(problem)
        near = within_noise(
            measured,
            partial(laboratory.scores, state),
            quality=study.prepared.quality,
            costs=problem.objectives,
            may_count=laboratory.evaluator.evaluation.metric.may_count,
        )
        study.near_front[name] = frozenset(measured.loc[near, "bits"])
    recorder.write(study)


def _schedule(study: Study) -> Iterator[tuple[SchemeState, str]]:
    """Yield what to measure next: uniform precisions first, then each device's best proposal in turn."""
    problems = [p for p in study.problems.values() if p.infeasible is None]
    for problem in problems:
        for genes in problem.uniforms().values():
            if (bits := problem.bits(genes)) not in study.state(problem).measured:
                yield study.state(problem), bits
    active = list(problems)
    turn = 0
    while active:
        for problem in list(active):
            proposal = _proposal(study, problem, turn)
            if proposal is None:
                active.remove(problem)
            else:
                yield study.state(problem), problem.bits(proposal)
        turn += 1


def _ceiling(study: Study, state: SchemeState, bits: str) -> float:
    """Return the harm above which a configuration is on no front, from what was measured that costs no more."""
    ceiling = -math.inf
    for problem in study.problems.values():
        known = problem.known(bits) if study.state(problem) is state else None
        if known is not None:
            columns = [problem.space.column(c) for c in problem.objectives]
            cheaper = [
                result.drop.mean
                for other, result in state.measured.items()
                if (theirs := problem.known(other)) is not None
                and (theirs.metrics[columns] <= known.metrics[columns]).all()
            ]
            ceiling = max(ceiling, min(cheaper, default=math.inf))
    return ceiling


def _proposal(study: Study, problem: DeviceProblem, turn: int) -> Genes | None:
    """Return what ``problem`` wants measured next; ``None`` if nothing is left or nothing more is to be gained."""
    state = study.state(problem)
    harms = {bits: result.drop.mean for bits, result in state.measured.items()}
    worst = max(harms.values(), default=0.0)
    proposal = problem.proposer.propose(
        problem.belief(state.model, harms), turn=turn, harm_reference=max(CARED_FOR * worst, 1e-9)
    )
    if proposal is None or proposal.gain < study.meter.budget.tolerance:
        return None
    return proposal.genes
