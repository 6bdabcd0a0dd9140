"""A resumed run takes over what was chosen before, and goes on as if it had never ended."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from hwdse.evaluate.interval import mean_interval, mean_intervals, paired_interval, paired_intervals
from hwdse.hardware import load_profile
from hwdse.search.surrogate import HarmModel, Learner
from hwdse.study import schedule
from hwdse.study.chosen import Chosen, ChosenFile
from tests.study.test_explore import small

FIRST, ALL = 19, 36
TABLES = ("measured.csv", "front.csv", "predicted.csv")


def torn(run):
    path = run / "choices.csv"
    path.write_bytes(path.read_bytes()[:-9])


def of_another_run(run):
    path = run / "choices.csv"
    lines = path.read_text().splitlines(keepends=True)
    lines[-2] = lines[-2].replace("W8A8", "W3A3").replace("W4A4", "W3A3").replace("W2A8", "W3A3")
    path.write_text("".join(lines))


def without_record(run):
    (run / "choices.csv").unlink()


def without_an_evaluation(run):
    chosen = ChosenFile(run / "choices.csv").earlier[7]
    with closing(sqlite3.connect(run / "evaluations.db")) as database, database:
        asked = "delete from evaluations where scheme = ? and bits = ?"
        assert database.execute(asked, [chosen.scheme, chosen.bits]).rowcount == 1


def test_a_resumed_run_is_the_one_that_never_ended(start, scored, tmp_path, monkeypatch):
    """Oracle: the run that measures all at once; two devices of different schemes, and one that nothing fits."""
    devices = ["mpic", load_profile(small(tmp_path, "tight", 0.01)), "stm32h7a3"]
    asked = []
    proposal = schedule._proposal
    monkeypatch.setattr(schedule, "_proposal", lambda *given: asked.append(given) or proposal(*given))
    start(devices=devices, evaluations=ALL, out=tmp_path / "whole")
    in_all = len(asked)
    start(devices=devices, evaluations=FIRST, out=tmp_path / "first")
    cases = {"whole": 0, "torn": 0, "of_another_run": 0, "without_an_evaluation": 1, "without_record": 0}
    for name, again in cases.items():
        run = tmp_path / f"resumed {name}"
        shutil.copytree(tmp_path / "first", run)
        if name != "whole":
            globals()[name](run)
        asked.clear()
        scored.clear()
        start(devices=devices, evaluations=ALL, out=run, resume=True)
        assert len(scored) == ALL - FIRST + again, name
        assert (len(asked) < in_all - 8) == (name != "without_record"), name
        written = ["choices.csv", *(f"{device}/{table}" for device in ("mpic", "stm32h7a3") for table in TABLES)]
        for file in written:
            assert (run / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), (name, file)


def test_a_file_is_read_up_to_its_first_bad_line(tmp_path):
    rows = [Chosen("a,b", "W8A8 W4A4", "mpic", turn, np.inf if turn else 0.1 + 0.2, 3, 0.0) for turn in range(3)]
    path = tmp_path / "choices.csv"
    with ChosenFile(path) as file:
        for row in rows:
            file.add(row)
    assert ChosenFile(path).earlier == rows
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for damaged, left in (
        (whole[:-1], 2),
        (whole + b"a,b", 3),
        (b"".join([*lines[:2], b"\0\n", lines[3]]), 1),
        (b"", 0),
    ):
        path.write_bytes(damaged)
        with ChosenFile(path) as file:
            assert file.earlier == rows[:left]
            file.add(rows[2])
        assert ChosenFile(path).earlier == [*rows[:left], rows[2]]


def test_devices_that_let_a_turn_pass_are_done():
    def at_turn(said: str, tolerance: float = 0.1):
        rows = [
            Chosen("s", str(i), name, turn, 1.0, 0, 0.1)
            for i, (name, turn) in enumerate(zip(said[::2], map(int, said[1::2]), strict=True))
        ]
        return schedule._at_turn(["a", "b", "c"], rows, tolerance)

    assert at_turn("") == (["a", "b", "c"], ["a", "b", "c"])
    assert at_turn("a0") == (["a", "b", "c"], ["b", "c"])
    assert at_turn("a0c0") == (["a", "c"], [])
    assert at_turn("a0c0a1") == (["a", "c"], ["c"])
    assert at_turn("a0b0c0b1") == (["b", "c"], ["c"])
    assert at_turn("a0b0c0b1", 0.01) == (["a", "b", "c"], ["c"])


@pytest.mark.parametrize("may_count", [True, False])
def test_intervals_of_many_are_those_of_each(may_count):
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.random((4, 50)) < 0.8, rng.random((3, 50)), np.ones((1, 50))]).astype(np.float32)
    for reference in (np.ones(50, dtype=np.float32), rng.random(50).astype(np.float32)):
        ones = [paired_interval(row, reference, may_count=may_count) for row in scores]
        assert paired_intervals(scores, reference, may_count=may_count) == ones
    assert mean_intervals(scores, may_count=may_count) == [mean_interval(row, may_count=may_count) for row in scores]


def measurements(count: int):
    rng = np.random.default_rng(1)
    losses = np.sort(rng.random((10, 3)), axis=1)
    genes = rng.integers(0, 3, (count, 10)).astype(np.uint8)
    return losses, genes, losses[np.arange(10), genes].sum(axis=1) * np.exp(rng.normal(0.0, 0.05, count))


def test_few_measurements_are_all_in_the_model():
    losses, genes, harms = measurements(60)
    learned = Learner(losses).model(genes, harms, None)
    full = HarmModel(losses, genes, harms, widths=learned.widths)
    assert np.array_equal(learned(genes).mean, full(genes).mean)
    assert np.array_equal(learned.widths, HarmModel(losses, genes, harms).widths)


def test_of_many_measurements_the_last_and_an_even_spread_are():
    losses, genes, harms = measurements(3000)
    learner = Learner(losses)
    assert np.array_equal(learner.kept(genes[:1000]), np.arange(1000))
    rows = learner.kept(genes)
    assert len(np.unique(rows)) == 1000
    assert np.array_equal(rows[500:], np.arange(2500, 3000))
    place = np.sort(np.argsort(np.argsort(losses[np.arange(10), genes[:2500]].sum(axis=1)))[rows[:500]])
    assert np.diff(place).max() <= 8
    model = learner.model(genes, harms, None)
    assert len(model.harms) == 1000
    asked = measurements(3200)[1][3000:]
    truth = losses[np.arange(10), asked].sum(axis=1)
    assert np.abs(np.log(model(asked).median / truth)).max() < 0.05
