from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hwdse.errors import InputError
from hwdse.hardware.measure.machine import Machine
from hwdse.hardware.measure.subject import LayerShape, tensor_key
from hwdse.hardware.measure.table import COLUMNS, Record, locked

CONV = LayerShape.conv((8, 16), 3, 2, 7)
LINEAR = LayerShape.linear((32, 10))


def test_rows_come_back_as_they_were_written(tmp_path: Path, row) -> None:
    rows = [
        row(CONV, "W8A8", minimum_us=0.1 + 0.2, ends="to_nhwc:1568 to_nchw:784", note='a, "b"', is_stable=False),
        row(LINEAR),
        row(tensor_key(16, (14, 14)), pattern="quantize"),
    ]
    record = Record(tmp_path / "x.csv")
    record.add(*rows)
    record.save()
    assert Record(tmp_path / "x.csv").rows == tuple(rows)
    assert (tmp_path / "x.csv").read_text().splitlines()[0] == ",".join(COLUMNS)


def test_a_row_gives_back_its_subject(row) -> None:
    one = row(CONV, "W8A8", ends="to_nhwc:1568 to_nchw:784")
    assert one.subject.shape == CONV
    assert one.end_elements == (("to_nhwc", 1568), ("to_nchw", 784))
    tensor = row(tensor_key(16, (14, 14)), pattern="quantize").subject
    assert (tensor.pattern, tensor.elements) == ("quantize", 16 * 14 * 14)


def test_the_net_time_is_without_overhead_and_without_the_share_of_others(row) -> None:
    assert row(CONV, minimum_us=102.0, overhead_us=2.0, share=0.75).net_us == 75.0
    assert row(CONV, minimum_us=1.0, overhead_us=2.0).net_us == 0.0


def test_a_newer_row_takes_the_place_of_the_older(tmp_path: Path, row) -> None:
    record = Record(tmp_path / "x.csv")
    record.add(row(CONV, minimum_us=90.0), row(LINEAR))
    record.add(row(CONV, minimum_us=80.0), row(CONV, "W8A8"), row(CONV, threads=2))
    assert [(one.op, one.minimum_us, one.threads) for one in record.rows] == [
        ("conv", 80.0, 1), ("linear", 102.0, 1), ("conv", 102.0, 1), ("conv", 102.0, 2),
    ]  # fmt: skip


def test_rows_of_one_runtime_and_machine_are_selected(tmp_path: Path, row, machine) -> None:
    record = Record(tmp_path / "x.csv")
    mine = row(CONV)
    record.add(mine, row(CONV, threads=2), row(CONV, version="2.0"), row(CONV, cpu="Other"), row(CONV, runtime="b"))
    assert record.select(machine, runtime="fake", version="1.0", threads=1) == (mine,)


def test_another_machine_is_refused(tmp_path: Path, row, machine) -> None:
    record = Record(tmp_path / "x.csv")
    record.add(row(CONV))
    record.check(machine, {"fake": "1.0", "other": "7"})
    with pytest.raises(InputError, match=r"expected measurements of this processor \(Chip 10.*got some of Chip 9"):
        record.check(Machine("Chip 10", machine.flags), {"fake": "1.0"})
    with pytest.raises(InputError, match="--allow-other-machine"):
        record.check(Machine(machine.cpu, "avx2"), {"fake": "1.0"})
    with pytest.raises(InputError, match=r"expected measurements of fake 1.1 .*got some of 1.0"):
        record.check(machine, {"fake": "1.1"})


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("runtime,version", "version,runtime", "expected the columns of a record"),
        ("102.0", "-3.0", "x.csv:2: minimum_us: expected a number of at least 0, got -3.0"),
        ("102.0", "fast", "x.csv:2: minimum_us: expected a number, got 'fast'"),
        ("True", "perhaps", "x.csv:2: is_stable: expected true or false, got 'perhaps'"),
        (",3x3,", ",3by3,", "x.csv:2: kernel: expected a list, got '3by3'"),
        ("conv+bias", '"conv+bias', "x.csv"),
    ],
)
def test_a_damaged_record_is_refused(tmp_path: Path, row, old: str, new: str, match: str) -> None:
    record = Record(tmp_path / "x.csv")
    record.add(row(CONV))
    record.save()
    text = record.path.read_text()
    assert old in text
    record.path.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=match):
        Record(record.path)


HOLD = """
import sys, time
from pathlib import Path
from hwdse.hardware.measure.table import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_process_measures_at_a_time_and_a_dead_one_is_forgotten(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    path = tmp_path / "folder" / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"held by process {other.pid}; wait for it or end it"), locked(path):
            pass
        other.kill()
        other.wait()
    with locked(path):
        assert path.read_text() == str(os.getpid())
    with locked(path):
        pass
