"""``hwdse explore`` and ``hwdse analyze``: what needs the network."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from hwdse.capture import Capture, capture
from hwdse.commands.answer import INFEASIBLE, default_picks, show_picks
from hwdse.commands.screen import CONSOLE, fail, print_json, watched
from hwdse.errors import InputError
from hwdse.experiment import Experiment, Inputs, load_experiment, make_inputs
from hwdse.files import is_left_over, write_csv
from hwdse.hardware import HardwareProfile, load_profile
from hwdse.progress import Progress
from hwdse.quantize.network import Recipe
from hwdse.report.write import write_report
from hwdse.study import Budget, Study, explore
from hwdse.study.folder import RunFolder
from hwdse.study.prepare import Question, prepare
from hwdse.study.tables import layers_table, sensitivity_table, statistics_table

_TABLES = ("layers.csv", "statistics.csv", "sensitivity.csv")

__all__ = ["Options", "analyze", "explore_experiment"]


@dataclass(frozen=True)
class Options:
    """What the command line overrides.

    Attributes
    ----------
    out
        Run folder.
    devices
        Devices, instead of the experiment's.
    seed
        Seed, instead of the experiment's.
    evaluations, seconds
        Budget, instead of the experiment's.
    resume
        Go on with a run.
    """

    out: Path | None
    devices: tuple[str, ...]
    seed: int | None
    evaluations: int | None
    seconds: float | None
    resume: bool


def explore_experiment(path: Path, options: Options, *, as_json: bool) -> None:
    """Explore the experiment in ``path``, draw its figures, and show one picked configuration per device.

    Exits with 3 if nothing fits any device, after the run folder is written.
    """
    experiment = load_experiment(path)
    out = options.out or Path("runs") / experiment.name
    RunFolder(out, resume=options.resume)  # whether it can be used is known before the network is loaded
    profiles = _profiles(experiment, path.parent) if not options.devices else list(map(load_profile, options.devices))
    question = _question(experiment, seed=options.seed)
    budget = _budget(experiment, options)
    with watched() as progress:
        inputs, captured = _load(experiment, path.parent, progress)
        study = explore(
            inputs.model,
            captured,
            calibration=inputs.calibration,
            evaluation=inputs.evaluation,
            devices=profiles,
            objectives=("accuracy", *question.costs),
            precisions=question.precisions,
            fixed=question.fixed,
            budget=budget,
            recipe=question.recipe,
            seed=question.seed,
            out=out,
            resume=options.resume,
            experiment=path,
            notes={"name": experiment.name, "budget": vars(budget), "max_drop": experiment.pick.max_drop},
            progress=progress,
        )
        picks = default_picks(out)
        progress.start("figures", 1)
        figures = write_report(out)
        progress.advance()
    infeasible = {name: str(p.infeasible) for name, p in study.problems.items() if p.infeasible is not None}
    if as_json:
        print_json({"run": str(out), "picks": picks, "infeasible": infeasible, "figures": list(map(str, figures))})
    else:
        _show(study, out, picks)
    for name, sentence in infeasible.items():
        fail(f"{name}: {sentence}")
    if len(infeasible) == len(profiles):
        raise typer.Exit(INFEASIBLE)


def _show(study: Study, out: Path, picks: list[dict[str, Any]]) -> None:
    """Print what an exploration found and where it lies."""
    show_picks(out, picks)
    shared = ", ".join(f"{len(state.measured)} under {key}" for key, state in study.prepared.states.items())
    CONSOLE.print(f"{study.meter.evaluations} evaluations in {study.meter.seconds:.0f} s ({shared})", markup=False)
    CONSOLE.print(f"run folder: {out}", markup=False, soft_wrap=True)
    CONSOLE.print(f"figures: {out / 'figures'}", markup=False, soft_wrap=True)


def analyze(path: Path, out: Path, *, as_json: bool) -> None:
    """Write the tables that need no budget: layers, statistics and sensitivities.

    Raises
    ------
    InputError
        If ``out`` is a file, or a folder with anything else than an earlier analysis.
    """
    experiment = load_experiment(path)
    if out.exists() and not (out.is_dir() and all(p.name in _TABLES or is_left_over(p) for p in out.iterdir())):
        raise InputError(f"expected an empty folder or an analysis, got other files in {out}; name another one")
    profiles = _profiles(experiment, path.parent)
    question = _question(experiment)
    with watched() as progress:
        inputs, captured = _load(experiment, path.parent, progress)
        prepared = prepare(
            inputs.model,
            captured,
            inputs.calibration,
            inputs.evaluation,
            question=question,
            profiles=profiles,
            folder=None,
            progress=progress,
        )
    tables = (
        layers_table(captured),
        statistics_table(captured, prepared.program, prepared.histograms),
        sensitivity_table({k: s.sensitivity for k, s in prepared.states.items()}),
    )
    for name, table in zip(_TABLES, tables, strict=True):
        write_csv(out / name, table)
    if as_json:
        print_json({name: str(out / name) for name in _TABLES})
        return
    CONSOLE.print(_ranking(prepared.states), markup=False)
    for name in _TABLES:
        CONSOLE.print(str(out / name), markup=False, soft_wrap=True)


def _load(experiment: Experiment, folder: Path, progress: Progress) -> tuple[Inputs, Capture]:
    """Call the factories and capture the network."""
    progress.start("load", 2)
    inputs = make_inputs(experiment, folder)
    progress.advance()
    with _silenced():
        captured = capture(inputs.model, inputs.example, dynamic_dims=experiment.model.dynamic_dims)
    progress.advance()
    return inputs, captured


@contextmanager
def _silenced() -> Iterator[None]:
    """Keep the exporter from logging and printing whole graphs: what a user can mend is in the error's sentence."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _profiles(experiment: Experiment, folder: Path) -> list[HardwareProfile]:
    """Return the experiment's devices; a profile's file stands relative to ``folder``, as factories do."""
    return [load_profile(folder / name if name.endswith(".toml") else name) for name in experiment.devices]


def _budget(experiment: Experiment, options: Options) -> Budget:
    """Return the experiment's budget, with what the command line overrides."""
    return Budget(
        evaluations=experiment.budget.evaluations if options.evaluations is None else options.evaluations,
        seconds=experiment.budget.seconds if options.seconds is None else options.seconds,
    )


def _question(experiment: Experiment, *, seed: int | None = None) -> Question:
    """Return what an experiment asks."""
    return Question.of(
        (*experiment.objectives.maximize, *experiment.objectives.minimize),
        precisions=experiment.space.precisions,
        fixed=experiment.space.fixed,
        recipe=Recipe(experiment.quantize.weight_ranges, experiment.quantize.activation_ranges),
        seed=experiment.seed if seed is None else seed,
    )


def _ranking(states: Any) -> str:
    """Return the most sensitive groups of the first scheme in words."""
    state = next(iter(states.values()))
    values = state.sensitivity.scores["kl"]
    rows = []
    for c, candidate in enumerate(state.sensitivity.candidates):
        order = values[:, c].argsort()[::-1][:5]
        worst = ", ".join(f"{state.sensitivity.groups[g]} {values[g, c]:.2g}" for g in order)
        rows.append(f"most sensitive at {candidate} (KL in nats): {worst}")
    return "\n".join(rows)
