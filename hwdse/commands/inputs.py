"""What the verbs that need the network make of an experiment file."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

from hwdse.capture import Capture, capture
from hwdse.experiment import Experiment, Inputs, make_inputs
from hwdse.hardware import locate
from hwdse.progress import Progress
from hwdse.quantize.recipe import Recipe
from hwdse.study.prepare import Question

__all__ = ["load", "profile_files", "question_of", "silenced"]


def load(experiment: Experiment, folder: Path, progress: Progress) -> tuple[Inputs, Capture]:
    """Call the factories and capture the network."""
    progress.start("load", 2)
    inputs = make_inputs(experiment, folder)
    progress.advance()
    with silenced():
        captured = capture(inputs.model, inputs.example, dynamic_dims=experiment.model.dynamic_dims)
    progress.advance()
    return inputs, captured


@contextmanager
def silenced() -> Iterator[None]:
    """Keep the exporter from logging and printing whole graphs: what a user can mend is in the error's sentence."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def profile_files(experiment: Experiment, folder: Path) -> list[Path]:
    """Return the files of the experiment's devices; they stand relative to ``folder``, as factories do."""
    return [locate(folder / name if name.endswith(".toml") else name) for name in experiment.devices]


def question_of(experiment: Experiment, *, seed: int | None = None, recipe: Recipe | None = None) -> Question:
    """Return what an experiment asks, with another seed or recipe if they are given."""
    return Question.of(
        (*experiment.objectives.maximize, *experiment.objectives.minimize),
        precisions=experiment.space.precisions,
        fixed=experiment.space.fixed,
        recipe=recipe or experiment.quantize.recipe,
        seed=experiment.seed if seed is None else seed,
        loss=experiment.search.loss,
    )
