"""The loop that spends the budget: predicted fronts, then measured evaluations from one pool for all devices."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from hwdse.capture import Capture
from hwdse.errors import InputError
from hwdse.evaluate import Evaluation, Interval, Pool
from hwdse.evaluate.executor import Executor, Here
from hwdse.evaluate.metrics import commonest_share
from hwdse.evaluate.remote import HELD, Remote, shared_mib
from hwdse.formats import Precision
from hwdse.front import Front, Objective
from hwdse.hardware import HardwareProfile, load_profile
from hwdse.progress import SILENT, Progress
from hwdse.quantize.origin import Origin
from hwdse.quantize.recipe import DEFAULT_RECIPE, Recipe
from hwdse.study.budget import Budget, Meter, steady
from hwdse.study.device import LOSS, DeviceProblem
from hwdse.study.fleet import FleetPlan
from hwdse.study.folder import RunFolder
from hwdse.study.loop import Writer, settle, take_over
from hwdse.study.measure import Laboratory, SchemeState
from hwdse.study.prepare import DEFAULT_PRECISIONS, Prepared, Question, prepare
from hwdse.study.record import Recorder
from hwdse.study.schedule import ahead, choices
from hwdse.study.tables import front_table, measured_table
from hwdse.workers import Workers, engage

__all__ = ["Budget", "Study", "explore"]


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
    commonest
        Accuracy of always giving the commonest answer; ``None`` where quality is no accuracy.
    """

    prepared: Prepared
    full_precision: Interval
    meter: Meter
    near_front: dict[str, frozenset[str]] = field(default_factory=dict)
    commonest: float | None = None

    def __repr__(self) -> str:
        devices = ", ".join(self.problems)
        return f"<Study of {devices}: {self.meter.evaluations} evaluations in {self.meter.seconds:.0f} s>"

    @property
    def doubt(self) -> str:
        """A sentence where full precision is not shown to beat always giving the commonest answer; else empty."""
        quality, guess = self.full_precision, self.commonest
        if guess is None or quality.low > guess:
            return ""
        return (
            f"in full precision the network has {quality.mean:.1%} right ({quality.low:.1%} to {quality.high:.1%} on "
            f"{quality.samples} samples), no better than always the commonest class, {guess:.1%}: is it trained, and "
            "are the labels its own? What follows compares guesses"
        )

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
    pool: str | Pool | None = None,
    experiment: Path | None = None,
    notes: Mapping[str, Any] | None = None,
    workers: Workers | None = None,
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
    pool
        Shares evaluations with other studies: ``postgresql://user:password@host/database``, or an open pool, which is
        closed at the end. The study keeps all that it saw in ``out``, too.
    experiment
        Experiment file to keep a copy of.
    notes
        Further entries for ``resolved.json``.
    workers
        Where evaluations are computed: in this process by default. The front does not depend on it.
    progress
        Who watches.
    clock
        Seconds, for the budget; it may jump back.

    Raises
    ------
    InputError
        If anything given cannot be used; nothing is written then.
    WorkerError
        If no worker can finish an evaluation.
    RunFolderError
        If ``out`` holds another run, or another process explores into it.
    PoolError
        If the shared pool cannot be reached or used.
    """
    _check_kinds(evaluation, devices, budget, workers)
    workers = workers or Workers()
    clock = steady(clock)
    meter = Meter(budget or Budget(), clock, workers=workers.number)
    if resume and out is None:
        raise InputError("expected a run folder to go on with, got none; give out")
    if fleet < 0:
        raise InputError(f"expected 0 fleet levels or more, got {fleet}")
    folder = RunFolder(out, resume=resume) if out is not None else None
    if resume and folder is not None and not folder.is_resumed:
        progress.warn(f"expected a run in {out} to go on with, got none; a new one begins")
    question = Question.of(
        objectives, precisions=precisions, fixed=fixed or {}, recipe=recipe or DEFAULT_RECIPE, seed=seed, loss=loss
    )
    shared = Pool(pool, warn=progress.warn) if isinstance(pool, str) else pool
    profiles = [load_profile(d) if isinstance(d, str) else d for d in devices]
    crew = engage(workers, held=HELD, progress=progress)
    with crew or nullcontext():
        prepared = prepare(
            model,
            graph,
            calibration,
            evaluation,
            question=question,
            profiles=profiles,
            folder=folder,
            progress=progress,
            crew=crew,
            clock=clock,
        )
        if crew is not None:
            progress.warn(_working(prepared, workers))
        recorder = Recorder(
            folder, prepared, experiment=experiment, notes={"name": name, **(notes or {})}, shared=shared
        )
        executor = Here(prepared.evaluator) if crew is None else Remote(crew, prepared.evaluator.evaluation)
        return _measure(prepared, meter, recorder, executor, plan=FleetPlan(fleet, out), progress=progress, clock=clock)


def _working(prepared: Prepared, workers: Workers) -> str:
    """Return who works, and with how much memory, in a sentence."""
    copies = sum(len({c.weights for c in s.sensitivity.candidates}) for s in prepared.states.values())
    shared = shared_mib(prepared.program.runnable, prepared.evaluator.evaluation, copies)
    noun = "worker" if workers.number == 1 else "workers"
    limit = (
        "without a limit to" if workers.memory_limit_mib is None else f"and at most {workers.memory_limit_mib} MiB for"
    )
    return (
        f"{workers.number} {noun} with one thread each; network, data and weights take about {shared:.0f} MiB once per "
        f"machine, {limit} what each computes"
    )


def _check_kinds(evaluation: object, devices: object, budget: object, workers: object) -> None:
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
    if workers is not None and not isinstance(workers, Workers):
        raise InputError(
            f"expected hwdse.Workers, got {type(workers).__name__}; write workers=hwdse.Workers('processes', 2)"
        )


def _measure(
    prepared: Prepared,
    meter: Meter,
    recorder: Recorder,
    executor: Executor,
    *,
    plan: FleetPlan,
    progress: Progress,
    clock: Callable[[], float],
) -> Study:
    """Spend the budget and record what is found, at first, every other second, and at the end.

    A resumed run first repeats its choices from the pool, whatever the budget: nothing that was found gets lost, and
    the tables on disk stay until there is something new.
    """
    progress.start("measure", meter.budget.evaluations)
    with recorder.pool() as pool, recorder.choices() as chosen:
        laboratory = Laboratory(executor, prepared.evaluator.evaluation.metric, pool, prepared.identity)
        network = next(iter(prepared.states.values())).network
        reference = laboratory.measure_reference(network, prepared.reference)
        study = Study(prepared, reference, meter, commonest=commonest_share(prepared.evaluator.evaluation))
        if study.doubt:
            progress.warn(study.doubt)
        taken = take_over(study, laboratory, chosen.earlier, plan, progress)
        writer = Writer(study, laboratory, recorder, clock, goes_on=taken > 0)
        for choice in choices(study, chosen.earlier, taken):
            if choice is None:
                settle(study, laboratory, writer, progress)
                continue
            known = partial(laboratory.knows, choice.state, choice.bits, ceiling=choice.ceiling)
            if meter.is_spent and (plan.holds(choice.state, choice.bits) or not known()):
                break
            if choice.is_new:
                chosen.add(choice.chosen(meter))
            meter.begin()
            laboratory.begin(choice.state, choice.bits, ceiling=choice.ceiling)
            while laboratory.under_way >= ahead(meter.begun):
                settle(study, laboratory, writer, progress)
        while laboratory.under_way:
            settle(study, laboratory, writer, progress)
        plan.measure(study, laboratory, progress)
        meter.stop()
        writer.write()
    return study
