from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from hwdse.formats import Precision
from hwdse.hardware.measure.machine import Machine
from hwdse.hardware.measure.series import FEWEST_AT_ONCE, MOST_AT_ONCE, NO_INT8_PRODUCTS, measure
from hwdse.hardware.measure.subject import LayerShape, Subject
from hwdse.hardware.measure.table import Record
from hwdse.hardware.measure.timing import Harness


class Counting:
    def __init__(self) -> None:
        self.steps = 0

    def start(self, stage: str, total: int | None) -> None:
        pass

    def advance(self) -> None:
        self.steps += 1

    def warn(self, sentence: str) -> None:
        pass


def subjects(count: int, precision: str = "fp32") -> list[Subject]:
    return [
        Subject("linear", LayerShape.linear((100, 100 * (i + 1)), rows=100), Precision.parse(precision))
        for i in range(count)
    ]


def run(runtime, clock, machine, record: Record, what: list[Subject], progress=None, **changes):
    harness = Harness(clock=clock, reference=clock.work("reference", 20.0), **({"seconds_per_pass": 0.001} | changes))
    return measure(
        runtime, what, record, threads=1, harness=harness, machine=machine, progress=progress or Counting(),
        today=lambda: datetime.date(2026, 3, 4),
    )  # fmt: skip


def test_rows_say_what_was_measured(tmp_path: Path, runtime, clock, machine) -> None:
    record, progress = Record(tmp_path / "x.csv"), Counting()
    series = run(runtime, clock, machine, record, subjects(3), progress)
    assert [row.net_us for row in series.rows] == pytest.approx([1.0, 2.0, 3.0])
    first = series.rows[0]
    assert (first.runtime, first.version, first.cpu, first.threads) == ("fake", "1.0", machine.cpu, 1)
    assert (first.overhead_us, first.executed, first.date, first.note) == (10.0, "Work", "2026-03-04", "")
    assert progress.steps == 6
    assert Record(tmp_path / "x.csv").rows == tuple(series.rows)


def test_what_does_not_run_is_left_out_and_said(tmp_path: Path, runtime, clock, machine) -> None:
    what, progress = subjects(3), Counting()
    runtime.refused = {what[1].key}
    series = run(runtime, clock, machine, Record(tmp_path / "x.csv"), what, progress)
    assert [row.output_channels for row in series.rows] == [100, 300]
    assert len(series.left_out) == 1
    assert "expected a shape that runs" in series.left_out[0]
    assert progress.steps == 6


def test_an_interruption_keeps_what_was_measured(tmp_path: Path, runtime, clock, machine) -> None:
    build, limit = runtime.build, MOST_AT_ONCE + 1

    def stop(subject: Subject, *, threads: int):
        if len(runtime.built) == limit:
            raise KeyboardInterrupt
        return build(subject, threads=threads)

    runtime.build = stop
    record = Record(tmp_path / "x.csv")
    with pytest.raises(KeyboardInterrupt):
        run(runtime, clock, machine, record, subjects(40))
    assert len(Record(tmp_path / "x.csv").rows) == MOST_AT_ONCE


def test_few_entries_at_once_where_one_takes_long(tmp_path: Path, runtime, clock, machine) -> None:
    saved: list[int] = []
    record = Record(tmp_path / "x.csv")
    save = record.save
    record.save = lambda: (saved.append(len(record.rows)), save())  # type: ignore[method-assign]
    run(runtime, clock, machine, record, subjects(10), seconds_per_pass=1.0)
    assert saved == [FEWEST_AT_ONCE, 2 * FEWEST_AT_ONCE, 10]


def test_few_entries_at_once_where_they_weigh_much(tmp_path: Path, runtime, clock, machine) -> None:
    shapes = [LayerShape.linear((10_000, 3000 + i)) for i in range(4)]  # 30 million weights each
    seen: list[int] = []
    record = Record(tmp_path / "x.csv")
    record.save = lambda: seen.append(len(record.rows))  # type: ignore[method-assign]
    run(runtime, clock, machine, record, [Subject("linear", shape, Precision.parse("fp32")) for shape in shapes])
    assert seen == [2, 4]


@pytest.mark.parametrize(("precision", "note"), [("W8A8", NO_INT8_PRODUCTS), ("fp32", "")])
def test_integers_without_fitting_instructions_are_marked(
    tmp_path: Path, runtime, clock, precision: str, note: str
) -> None:
    weak = Machine("Old chip", "avx2 fma")
    series = run(runtime, clock, weak, Record(tmp_path / "x.csv"), subjects(1, precision))
    assert series.rows[0].note == note
