"""``hwdse explore`` and ``hwdse analyze``: what needs the network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwdse.capture import Capture, capture
from hwdse.commands.answer import default_picks, show_picks
from hwdse.commands.screen import CONSOLE, print_json, watched
from hwdse.errors import InputError
from hwdse.experiment import Experiment, Inputs, load_experiment, make_inputs
from hwdse.files import write_csv
from hwdse.hardware import load_profile
from hwdse.progress import Progress
from hwdse.quantize.network import Recipe
from hwdse.report.write import write_report
from hwdse.study import Budget, explore
from hwdse.study.prepare import Question, prepare
from hwdse.study.tables import layers_table, sensitivity_table, statistics_table

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
    """Explore the experiment in ``path``, draw its figures, and show one picked configuration per device."""
    experiment = load_experiment(path)
    out = options.out or Path("runs") / experiment.name
    names = options.devices or tuple(experiment.devices)
    profiles = [load_profile(name) for name in names]
    budget = Budget(
        evaluations=experiment.budget.evaluations if options.evaluations is None else options.evaluations,
        seconds=experiment.budget.seconds if options.seconds is None else options.seconds,
    )
    with watched() as progress:
        inputs, captured = _load(experiment, path.parent, progress)
        study = explore(
            inputs.model,
            captured,
            calibration=inputs.calibration,
            evaluation=inputs.evaluation,
            devices=profiles,
            objectives=(*experiment.objectives.maximize, *experiment.objectives.minimize),
            precisions=experiment.space.precisions,
            fixed=experiment.space.fixed,
            budget=budget,
            recipe=_recipe(experiment),
            seed=experiment.seed if options.seed is None else options.seed,
            out=out,
            resume=options.resume,
            experiment=path,
            notes={"name": experiment.name, "budget": vars(budget), "max_drop": experiment.pick.max_drop},
            progress=progress,
        )
        picks = default_picks(out)
        progress.start("figures", None)
        figures = write_report(out)
    if as_json:
        print_json({"run": str(out), "picks": picks, "figures": [str(f) for f in figures]})
        return
    show_picks(out, picks)
    shared = ", ".join(f"{len(state.measured)} under {key}" for key, state in study.prepared.states.items())
    CONSOLE.print(f"{study.meter.evaluations} evaluations in {study.meter.seconds:.0f} s ({shared})", markup=False)
    CONSOLE.print(f"run folder: {out}", markup=False, soft_wrap=True)
    CONSOLE.print(f"figures: {out / 'figures'}", markup=False, soft_wrap=True)


def analyze(path: Path, out: Path, *, as_json: bool) -> None:
    """Write the tables that need no budget: layers, statistics and sensitivities."""
    experiment = load_experiment(path)
    if out.exists() and not out.is_dir():
        raise InputError(f"expected a folder to write to, got the file {out}; name another one")
    profiles = [load_profile(name) for name in experiment.devices]
    question = Question.of(
        (*experiment.objectives.maximize, *experiment.objectives.minimize),
        precisions=experiment.space.precisions,
        fixed=experiment.space.fixed,
        recipe=_recipe(experiment),
        seed=experiment.seed,
    )
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
    tables = {
        "layers.csv": layers_table(captured),
        "statistics.csv": statistics_table(captured, prepared.program, prepared.histograms),
        "sensitivity.csv": sensitivity_table({k: s.sensitivity for k, s in prepared.states.items()}),
    }
    for name, table in tables.items():
        write_csv(out / name, table)
    if as_json:
        print_json({name: str(out / name) for name in tables})
        return
    CONSOLE.print(_ranking(prepared.states), markup=False)
    for name in tables:
        CONSOLE.print(str(out / name), markup=False, soft_wrap=True)


def _load(experiment: Experiment, folder: Path, progress: Progress) -> tuple[Inputs, Capture]:
    """Call the factories and capture the network."""
    progress.start("load", 2)
    inputs = make_inputs(experiment, folder)
    progress.advance()
    captured = capture(inputs.model, inputs.example, dynamic_dims=experiment.model.dynamic_dims)
    progress.advance()
    return inputs, captured


def _recipe(experiment: Experiment) -> Recipe:
    return Recipe(experiment.quantize.weight_ranges, experiment.quantize.activation_ranges)


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
