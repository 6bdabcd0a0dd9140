"""Explorations by workers: the same front however many there are, and whatever becomes of them."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from hwdse.errors import InputError
from hwdse.evaluate import Evaluation, Pool, evaluation_of
from hwdse.quantize.recipe import Recipe
from hwdse.workers import Workers
from tests.listener import Listener

DEVICES = ("mpic", "stm32h7a3")
TINY = Path(__file__).parents[1] / "tiny" / "tiny.toml"


@pytest.fixture
def found(start):
    """Return a function that explores and returns all that was measured on each device."""

    def run(workers: Workers | None = None, **changes):
        study = start(recipe=Recipe(), workers=workers, **changes)
        return {device: study.measured(device) for device in DEVICES}

    return run


def assert_same(ours, theirs) -> None:
    for device in DEVICES:
        assert ours[device].equals(theirs[device])


@pytest.fixture
def many(tiny):
    """Return an evaluation of many batches, so that single evaluations are divided among workers."""
    return Evaluation([pair for _ in range(6) for pair in tiny.evaluation.batches], tiny.evaluation.metric)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_front_does_not_depend_on_the_number_of_workers(count, found, many):
    here = found(evaluation=many, evaluations=24)
    assert_same(found(Workers("processes", count), evaluation=many, evaluations=24), here)


def test_scores_without_labels_and_a_users_metric_are_computed_by_workers(found, tiny, part):
    assert_same(*(found(w, evaluation=evaluation_of(tiny.evaluation.batches, "negative_kl")) for w in (None, TWO)))
    assert_same(*(found(w, evaluation=evaluation_of(tiny.evaluation.batches, part("margin"))) for w in (None, TWO)))


TWO = Workers("processes", 2)


def test_results_do_not_depend_on_the_order_of_finishing(found, many, tmp_path):
    """Every other evaluation takes longer in whichever worker gets it."""

    def slow(outputs, targets):
        if len(os.listdir(tmp_path)) % 2:
            time.sleep(0.05)
        Path(tmp_path, f"{time.time_ns()}").touch()
        return (outputs.argmax(-1) == targets).float()

    def quick(outputs, targets):
        return (outputs.argmax(-1) == targets).float()

    slowed = found(TWO, evaluation=evaluation_of(list(many.batches), slow))
    undisturbed = found(evaluation=evaluation_of(list(many.batches), quick))
    for device in DEVICES:
        ours, theirs = (f[device].rename(columns=lambda c: c.replace("slow", "quick")) for f in (slowed, undisturbed))
        assert ours.equals(theirs)


def _happens(what: str):
    """Return a metric to which something happens in one process, once."""

    def metric(outputs, targets):
        scores = (outputs.argmax(-1) == targets).float()
        import __main__

        if getattr(__main__.__spec__, "name", "") == "hwdse.workers.worker":
            marker = os.environ["HWDSE_TEST_MARKER"]
            try:
                os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return scores
            if what == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            elif what == "nan":
                return scores * float("nan")
            elif what == "memory":
                torch.zeros(2**31)
        return scores

    return metric


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("dies", "ended by SIGKILL; the evaluation of"),
        ("nan", "got NaN or infinity"),
        ("memory", "expected the work to fit into the worker's memory"),
    ],
)
def test_what_happens_to_one_worker_changes_nothing(what, said, start, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("HWDSE_TEST_MARKER", str(tmp_path / "happened"))
    listener = Listener()
    arguments = {"evaluation": evaluation_of(tiny.evaluation.batches, _happens(what)), "recipe": Recipe()}
    workers = Workers("processes", 2, memory_limit_mib=1024)
    study = start(**arguments, workers=workers, progress=listener, out=tmp_path / "run")
    assert (tmp_path / "happened").exists()
    assert sum(said in sentence for sentence in listener.sentences) == 1, listener.sentences
    here = start(**arguments)
    for device in DEVICES:
        assert study.measured(device).equals(here.measured(device))
    assert len(Pool(tmp_path / "run" / "evaluations.db")) == study.meter.evaluations + 1


def test_a_metric_that_is_never_finite_is_refused(start, tiny):
    def broken(outputs, targets):
        scores = (outputs.argmax(-1) == targets).float()
        import __main__

        return scores / 0 if getattr(__main__.__spec__, "name", "") == "hwdse.workers.worker" else scores

    with pytest.raises(InputError, match="expected finite scores from metric 'broken', got NaN or infinity"):
        start(evaluation=evaluation_of(tiny.evaluation.batches, broken), workers=TWO, recipe=Recipe())


SCRIPT = """
import sys
from pathlib import Path
from hwdse.capture import capture
from hwdse.experiment import load_experiment, make_inputs
from hwdse.quantize.recipe import Recipe
from hwdse.study import Budget, explore
from hwdse.workers import Workers
path = Path(sys.argv[1])
tiny = make_inputs(load_experiment(path), path.parent)
explore(tiny.model, capture(tiny.model, tiny.example), calibration=tiny.calibration, evaluation=tiny.evaluation,
        devices=["mpic", "stm32h7a3"], objectives=("accuracy", "latency_ms", "size_kib"),
        precisions=("W2A8", "W4A4", "W8A8"), budget=Budget(evaluations=40), recipe=Recipe(), out=Path(sys.argv[2]),
        resume=True, workers=Workers("processes", 2))
"""


def test_a_killed_exploration_goes_on_where_it_was(start, tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-c", SCRIPT, str(TINY), str(out)]
    deadline = time.monotonic() + 200
    acknowledged: set[str] = set()
    for wanted in (4, 12):
        process = subprocess.Popen(command)
        while len(acknowledged) < wanted:
            assert time.monotonic() < deadline
            assert process.poll() is None
            acknowledged |= _kept(out)
        process.kill()
        process.wait()
        acknowledged |= _kept(out)
    assert subprocess.run(command, check=False).returncode == 0
    assert acknowledged < _kept(out)
    study = start(evaluations=40, recipe=Recipe())
    for device in DEVICES:
        table = (out / device / "measured.csv").read_text()
        study.measured(device).to_csv(tmp_path / "whole.csv", index=False)
        ours, theirs = (
            np.genfromtxt(t.splitlines(), delimiter=",", dtype=str)
            for t in (table, (tmp_path / "whole.csv").read_text())
        )
        assert (ours[:, 0] == theirs[:, 0]).all()
    assert len(_kept(out)) == study.meter.evaluations + 1


def _kept(out: Path) -> set[str]:
    """Return the fingerprints of a run's finished evaluations."""
    path = out / "evaluations.db"
    if not path.is_file():
        return set()
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            return {row[0] for row in database.execute("select fingerprint from evaluations")}
    except sqlite3.OperationalError:
        return set()
