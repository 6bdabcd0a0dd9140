"""``hwdse explore``: measured fronts of an experiment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from hwdse.commands.answer import INFEASIBLE, default_picks, show_picks
from hwdse.commands.inputs import load, profile_files, question_of
from hwdse.commands.screen import CONSOLE, fail, print_json, watched
from hwdse.errors import InputError
from hwdse.evaluate import Pool
from hwdse.experiment import Experiment, load_experiment
from hwdse.files import read_json
from hwdse.hardware import load_profile, locate
from hwdse.progress import Progress
from hwdse.quantize.recipe import recipe_named
from hwdse.report.page.write import write_page
from hwdse.report.write import write_report
from hwdse.study import Budget, Study, explore
from hwdse.study.disk import DiskUse, check_disk
from hwdse.study.folder import RunFolder
from hwdse.workers import Workers

__all__ = ["Options", "explore_experiment"]


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
    recipe
        Name of a recipe, instead of the experiment's.
    workers
        Where evaluations are computed.
    pool
        URL of a pool that others share.
    pool_read_only
        Give it nothing.
    """

    out: Path | None
    devices: tuple[str, ...]
    seed: int | None
    evaluations: int | None
    seconds: float | None
    resume: bool
    recipe: str | None = None
    workers: Workers = field(default_factory=Workers)
    pool: str | None = field(default=None, repr=False)
    pool_read_only: bool = False


def explore_experiment(path: Path, options: Options, *, as_json: bool) -> None:
    """Explore the experiment in ``path``, draw its figures and its page, and show one picked configuration per device.

    Exits with 3 if nothing fits any device, after the run folder is written.
    """
    experiment = load_experiment(path)
    out = options.out or Path("runs") / experiment.name
    RunFolder(out, resume=options.resume)  # whether it can be used is known before the network is loaded
    files = profile_files(experiment, path.parent) if not options.devices else list(map(locate, options.devices))
    profiles = list(map(load_profile, files))
    recipe = recipe_named(options.recipe) if options.recipe is not None else None
    question = question_of(experiment, seed=options.seed, recipe=recipe)
    budget = _budget(experiment, options)
    with watched() as progress:
        pool = _pool(options, progress)
        inputs, captured = load(experiment, path.parent, progress)
        use = DiskUse.of(captured, inputs.evaluation, profiles, question, budget, fleet=experiment.fleet.evaluations)
        progress.warn(check_disk(use, out))
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
            loss=question.loss,
            fleet=experiment.fleet.evaluations,
            name=experiment.name,
            out=out,
            resume=options.resume,
            pool=pool,
            experiment=path,
            notes={
                "experiment": _place(out, path),
                "profiles": {p.name: str(file.resolve()) for p, file in zip(profiles, files, strict=True)},
                "budget": vars(budget),
                "max_drop": experiment.pick.max_drop,
            },
            workers=options.workers,
            progress=progress,
        )
        picks = default_picks(out)
        figures = write_report(out, progress=progress)
        progress.start("page", 1)
        page, _ = write_page(out)
        progress.advance()
    infeasible = {name: str(p.infeasible) for name, p in study.problems.items() if p.infeasible is not None}
    if as_json:
        found = {"run": str(out), "picks": picks, "infeasible": infeasible}
        print_json(found | {"figures": list(map(str, figures)), "page": str(page)})
    else:
        _show(study, out, picks)
        CONSOLE.print(f"page: {page}", markup=False, soft_wrap=True)
    for name, sentence in infeasible.items():
        fail(f"{name}: {sentence}")
    if len(infeasible) == len(profiles):
        raise typer.Exit(INFEASIBLE)


def _pool(options: Options, progress: Progress) -> Pool | None:
    """Return the shared pool that was asked for: whether it answers is known before the network is loaded."""
    if options.pool is None:
        if options.pool_read_only:
            raise InputError(
                "expected the URL of a pool with --pool-read-only, got none; add --pool or drop --pool-read-only"
            )
        return None
    return Pool(options.pool, read_only=options.pool_read_only, warn=progress.warn)


def _place(out: Path, path: Path) -> str:
    """Return where the experiment of the run in ``out`` stood when it began, and so its factories."""
    began = read_json(out / "resolved.json").get("experiment") if (out / "resolved.json").is_file() else None
    return began if isinstance(began, str) else str(path.resolve())


def _show(study: Study, out: Path, picks: list[dict[str, Any]]) -> None:
    """Print what an exploration found and where it lies."""
    show_picks(out, picks)
    if len(study.problems) == 1:
        for problem in study.problems.values():
            for sentence in problem.worth:
                CONSOLE.print(sentence, markup=False)
    shared = ", ".join(f"{len(state.measured)} under {key}" for key, state in study.prepared.states.items())
    earlier = f", {study.meter.earlier} of them before" if study.meter.earlier else ""
    apart = len({bits for state in study.prepared.states.values() for bits in state.measured})
    CONSOLE.print(
        f"{study.meter.evaluations} evaluations{earlier}, measured in {study.meter.seconds:.0f} s ({shared}): {apart} "
        "configurations",
        markup=False,
    )
    runnable = ", ".join(f"{name} {len(study.measured(name))}" for name in study.problems)
    CONSOLE.print(f"of these, by device that can run them: {runnable}", markup=False)
    CONSOLE.print(f"run folder: {out}", markup=False, soft_wrap=True)
    CONSOLE.print(f"figures: {out / 'figures'}", markup=False, soft_wrap=True)


def _budget(experiment: Experiment, options: Options) -> Budget:
    """Return the experiment's budget, with what the command line overrides."""
    return Budget(
        evaluations=experiment.budget.evaluations if options.evaluations is None else options.evaluations,
        seconds=experiment.budget.seconds if options.seconds is None else options.seconds,
        tolerance=experiment.budget.tolerance,
    )
