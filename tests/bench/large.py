"""A run of the digits example with as many evaluations as wanted, nearly all made up: to time what reads them.

``python tests/bench/large.py FOLDER EVALUATIONS`` makes one; ``--resume`` goes on with it, to so many evaluations.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np

import hwdse
from hwdse import examples
from hwdse.evaluate import Interval, Key, Pool, Scores, mean_interval, paired_interval
from hwdse.files import write_csv
from hwdse.study import Budget, Study
from hwdse.study.chosen import Chosen, ChosenFile
from hwdse.study.device import LOSS, DeviceProblem
from hwdse.study.measure import Measured
from hwdse.study.schedule import MOST_AHEAD
from hwdse.study.tables import front_table, measured_table

DEVICES = ("mpic", "stm32h7a3")
"""Two schemes, so that every evaluation is one device's."""
_AT_ONCE = 2000
MADE = 2
"""Evaluations that are real."""


def explored(folder: Path, evaluations: int, *, resume: bool = False) -> Study:
    """Explore up to so many evaluations, those of earlier sessions included."""
    model = examples.digits()
    return hwdse.explore(
        model,
        hwdse.capture(model, examples.digits_example()),
        calibration=examples.digits_calibration(),
        evaluation=hwdse.top1_on(examples.digits_evaluation()),
        devices=list(DEVICES),
        budget=Budget(evaluations=evaluations),
        out=folder,
        resume=resume,
    )


def make(folder: Path, evaluations: int) -> list[Key]:
    """Write a run with so many evaluations to ``folder``, and return where its pool keeps them."""
    study = explored(folder, MADE)
    rng = np.random.default_rng(0)
    keys: list[Key] = []
    kept = Pool(folder / "evaluations.db")
    reference = (rng.random(study.full_precision.samples) < study.full_precision.mean).astype(np.float32)
    for name in DEVICES:
        keys += _fill(study, name, evaluations // len(DEVICES), kept, reference, rng)
    kept.close()
    _choose(folder, study, keys)
    return keys


def _choose(folder: Path, study: Study, keys: list[Key]) -> None:
    """Write down that the devices chose these evaluations in turn, after those that are there."""
    schemes = {study.problems[name].profile.scheme.key: name for name in DEVICES}
    turns = dict.fromkeys(DEVICES, 0)
    each = len(keys) // len(DEVICES)
    with ChosenFile(folder / "choices.csv") as file:
        for number, key in enumerate(key for turn in zip(keys[:each], keys[each:], strict=True) for key in turn):
            name = schemes[key.scheme]
            file.add(Chosen(key.scheme, key.bits, name, turns[name], math.inf, max(0, number + MADE - MOST_AHEAD), 0.0))
            turns[name] += 1


def _fill(
    study: Study, name: str, count: int, kept: Pool, reference: np.ndarray, rng: np.random.Generator
) -> list[Key]:
    """Add evaluations of distinct configurations to the pool, and write the device's tables."""
    problem = study.problems[name]
    scheme = problem.profile.scheme.key
    genes = _genes(problem, count, rng)
    loss = problem.space.evaluate(genes)[:, problem.space.column(LOSS.name)]
    wrong = np.clip(0.9 * loss / loss.max() + rng.normal(0, 0.005, count), 0.0, 1.0)
    results: dict[str, Measured] = {}
    keys = []
    for start in range(0, count, _AT_ONCE):
        some = Pool()
        for row in range(start, min(start + _AT_ONCE, count)):
            bits = problem.bits(genes[row])
            scores = np.where(rng.random(reference.size) < wrong[row], 0.0, reference).astype(np.float32)
            keys.append(study.prepared.identity.key(scheme, bits))
            some.put(keys[-1], Scores(scores, 0.05))
            results[bits] = Measured(mean_interval(scores, may_count=True), _drop(scores, reference))
        some.share(kept)
        some.close()
    measured = measured_table(problem, results, quality=study.prepared.quality, near_front=frozenset())
    folder = Path(str(kept.name)).parent / name
    write_csv(folder / "measured.csv", measured)
    write_csv(folder / "front.csv", front_table(problem, measured, quality=study.prepared.quality))
    return keys


def _genes(problem: DeviceProblem, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return distinct choices that the device can run, ``(count, groups)``."""
    choices = [np.flatnonzero(row) for row in problem.space.allowed]
    every = np.stack(np.meshgrid(*choices, indexing="ij"), axis=-1).reshape(-1, len(choices)).astype(np.uint8)
    return every[rng.choice(len(every), size=count, replace=False)]


def _drop(scores: np.ndarray, reference: np.ndarray) -> Interval:
    return paired_interval(scores, reference, may_count=True)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("evaluations", type=int)
    options.add_argument("--resume", action="store_true")
    given = options.parse_args()
    if given.resume:
        explored(given.folder, given.evaluations, resume=True)
    else:
        make(given.folder, given.evaluations)
