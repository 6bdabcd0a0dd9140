"""Writes a study's tables to its run folder, as often as wanted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from hwdse.cost import fp32_size_kib
from hwdse.evaluate import Evaluations, Pool, SharedPool
from hwdse.files import inside, write_csv
from hwdse.study.analysis import statistics_table
from hwdse.study.chosen import Chosen, ChosenFile
from hwdse.study.folder import RunFolder
from hwdse.study.prepare import Prepared, identity_of_run
from hwdse.study.tables import (
    costs_table,
    front_table,
    interactions_table,
    layers_table,
    predicted_table,
    resources_table,
    roofline_table,
    sensitivity_table,
)

if TYPE_CHECKING:
    from hwdse.study import Study

__all__ = ["Recorder"]


class Recorder:
    """Keeps a run folder up to date; without a folder it writes nothing.

    Parameters
    ----------
    folder
        Where to, or ``None``.
    prepared
        The study's network, data and devices.
    experiment
        Experiment file to keep a copy of.
    notes
        Further entries for ``resolved.json``.
    shared
        Pool that others share; closed with the run's own.
    """

    def __init__(
        self,
        folder: RunFolder | None,
        prepared: Prepared,
        *,
        experiment: Path | None,
        notes: Mapping[str, Any],
        shared: Pool | None = None,
    ) -> None:
        self._folder = folder
        self._prepared = prepared
        self._experiment = experiment
        self._notes = notes if shared is None else {**notes, "pool": shared.name}
        self._shared = shared
        profiles = [problem.profile for problem in prepared.problems.values()]
        self._identity = identity_of_run(prepared.identity, prepared.question, profiles)

    @property
    def keeps(self) -> bool:
        """Whether there is a folder to write to."""
        return self._folder is not None

    @contextmanager
    def pool(self) -> Iterator[Evaluations]:
        """Open the run's pool, with the shared one behind it; nobody else explores into the folder meanwhile.

        Before that, write what is known before anything is measured.
        """
        with ExitStack() as stack:
            if self._folder is not None:
                stack.enter_context(self._folder.held())
                self._folder.open(self._identity, self._resolved(None), self._experiment)
                self._write_prepared(self._folder.path)
            own = stack.enter_context(closing(Pool(self._folder.pool_path if self._folder is not None else None)))
            yield own if self._shared is None else SharedPool(own, stack.enter_context(closing(self._shared)))

    def choices(self) -> ChosenFile:
        """Open the file of the run's choices; only while the pool is open."""
        return ChosenFile(None if self._folder is None else self._folder.path / "choices.csv", self._is_possible)

    def _is_possible(self, chosen: Chosen) -> bool:
        """Return True if a session of this run can have made a choice."""
        states, problems = self._prepared.states, self._prepared.problems
        made = not chosen.device or (chosen.device in problems and problems[chosen.device].infeasible is None)
        return made and chosen.scheme in states and states[chosen.scheme].has(chosen.bits)

    def write(self, study: Study, tables: Mapping[str, pd.DataFrame]) -> None:
        """Write everything that changes while measuring; ``tables`` hold what was measured, by device."""
        if self._folder is None:
            return
        for name, problem in study.problems.items():
            measured = tables[name]
            path = inside(self._folder.path, name)
            model = study.state(problem).model if len(measured) else None
            predicted = predicted_table(problem, model=model, full_precision=study.full_precision.mean)
            write_csv(path / "predicted.csv", predicted)
            # In this order: killed in between, every row of the front is still among the measured ones.
            write_csv(path / "measured.csv", measured)
            write_csv(path / "front.csv", front_table(problem, measured, quality=self._prepared.quality))
        write_csv(self._folder.path / "interactions.csv", interactions_table(self._prepared.states))
        self._folder.resolve(self._identity, self._resolved(study))

    def _write_prepared(self, path: Path) -> None:
        prepared = self._prepared
        write_csv(path / "layers.csv", layers_table(prepared.captured))
        write_csv(path / "statistics.csv", statistics_table(prepared.network))
        sensitivities = {key: state.sensitivity for key, state in prepared.states.items()}
        write_csv(path / "sensitivity.csv", sensitivity_table(sensitivities))
        for name, problem in prepared.problems.items():
            write_csv(inside(path, name, "costs.csv"), costs_table(problem))
            write_csv(inside(path, name, "resources.csv"), resources_table(problem))
            write_csv(inside(path, name, "roofline.csv"), roofline_table(problem))

    def _resolved(self, study: Study | None) -> dict[str, Any]:
        prepared = self._prepared
        first = next(iter(prepared.problems.values()))
        columns = {"accuracy": f"{prepared.quality}_measured"}
        columns |= dict(zip(prepared.question.costs, first.objectives, strict=True))
        resolved: dict[str, Any] = {
            **self._notes,
            "seed": prepared.question.seed,
            "devices": list(prepared.problems),
            "objectives": {"maximize": ["accuracy"], "minimize": list(prepared.question.costs)},
            "quality": prepared.quality,
            "columns": columns,
            "recipe": prepared.identity.recipe,
            "quantize": asdict(prepared.question.recipe),
            "schemes": {name: p.profile.scheme.key for name, p in prepared.problems.items()},
            "titles": {name: p.profile.title for name, p in prepared.problems.items()},
            "device_notes": {name: p.note for name, p in prepared.problems.items()},
            "worth": {name: list(p.worth) for name, p in prepared.problems.items()},
            "limits": {name: dict(p.limits) for name, p in prepared.problems.items()},
            "uncertainty": {name: dict(p.uncertainty) for name, p in prepared.problems.items()},
            "widening": {name: dict(p.widening) for name, p in prepared.problems.items()},
            "reach": {name: p.space.reach() for name, p in prepared.problems.items()},
            "constants": {
                name: dict(zip(p.space.columns, p.space.constant.tolist(), strict=True))
                for name, p in prepared.problems.items()
            },
            "sources": {name: dict(p.profile.spec.sources) for name, p in prepared.problems.items()},
            "infeasible": {n: str(p.infeasible) for n, p in prepared.problems.items() if p.infeasible is not None},
            "warnings": list(prepared.warnings),
        }
        if study is not None:
            quality = study.full_precision
            resolved["full_precision"] = {
                "quality": quality.mean,
                "low": quality.low,
                "high": quality.high,
                "samples": quality.samples,
                "size_kib": fp32_size_kib(prepared.captured),
                "doubt": study.doubt,
            }
            resolved["evaluations"] = {key: len(state.measured) for key, state in prepared.states.items()}
        return resolved
