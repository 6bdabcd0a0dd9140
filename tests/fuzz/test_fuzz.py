"""A few hundred damaged files for every reader; ``tests/fuzz/run.py`` takes as many as one has time for."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hwdse.errors import RunFolderError
from hwdse.files import inside, parse_json
from tests.fuzz.guard import Guard
from tests.fuzz.run import outcome
from tests.fuzz.subjects import Subject, subjects

NAMES = (
    *("experiment", "profile", "latency table", "measurements", "published rows", "configuration", "bibliography"),
    *("run: tables", "run: page", "run: pick", "run: cite", "run: resume", "run: profile", "run: sensitivity"),
    *("run: seconds", "pool", "weights", "ranges", "fitted weights", "checkpoint", "recipe", "graph"),
)
MANY, FEW = 200, {"run: tables": 60, "run: page": 30, "run: pick": 30, "run: cite": 15, "run: seconds": 30}
"""Inputs for each reader; few for those that read whole run folders."""


@pytest.fixture(scope="session")
def readers(tmp_path_factory) -> dict[str, Subject]:
    return {subject.name: subject for subject in subjects(tmp_path_factory.mktemp("fuzz"), whole=False)}


@pytest.fixture(scope="session")
def guard(readers, tmp_path_factory) -> Guard:
    del readers
    return Guard(tmp_path_factory.getbasetemp())


def test_every_reader_is_tried(readers):
    assert set(readers) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_are_read_or_refused(name, readers, guard):
    subject = readers[name]
    subject.read(subject.files[0])  # as it is

    @settings(
        max_examples=FEW.get(name, MANY),
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**32))
    def check(seed: int) -> None:
        said, path, content = outcome(subject, guard, random.Random(seed))
        assert said in ("read", "refused"), f"{path.name}: {said}: {content[:400]!r}"

    check()


def test_the_guard_sees_what_is_forbidden(tmp_path):
    guard = Guard(tmp_path / "inside", seconds=0.05)
    (tmp_path / "inside").mkdir()
    good = tmp_path / "inside" / "a.txt"
    good.write_text("x")

    def outside(_: Path) -> None:
        (tmp_path / "b.txt").write_text("x")

    def caught(path: Path) -> None:
        try:
            outside(path)
        except OSError:
            return

    def moved(path: Path) -> None:
        path.rename(tmp_path / "c.txt")

    def endless(_: Path) -> None:
        while True:
            pass

    def started(_: Path) -> None:
        __import__("subprocess").run(["true"], check=False)

    def unpickled(_: Path) -> None:
        __import__("pickle").loads(b"cos\nsystem\n.")

    expected = {outside: "open", caught: "open", moved: "os.rename", endless: "hang", started: "subprocess.Popen"}
    for read, said in (expected | {unpickled: "pickle.find_class"}).items():
        assert said in outcome(Subject("x", (good,), read), guard, random.Random(1))[0]
    assert outcome(Subject("x", (good,), Path.read_bytes), guard, random.Random(1))[0] == "read"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inside"]


STUCK = """
import sys, time
from pathlib import Path
from tests.fuzz import guard

guard.STUCK_SECONDS = 0.5
with guard.Guard(Path(sys.argv[1]), seconds=60).armed():
    time.sleep(float(sys.argv[2]))
time.sleep(float(sys.argv[3]))
print("alive")
"""


@pytest.mark.parametrize(("inside_seconds", "after_seconds", "lives"), [(30, 0, False), (0, 1, True)])
def test_what_is_stuck_ends_the_process_and_what_comes_afterwards_does_not(
    inside_seconds, after_seconds, lives, tmp_path
):
    command = [sys.executable, "-c", STUCK, str(tmp_path), str(inside_seconds), str(after_seconds)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)

    assert (done.returncode == 0, done.stdout == "alive\n") == (lives, lives), done.stderr
    assert lives or "Timeout" in done.stderr


@settings(derandomize=True)
@given(st.lists(st.text(max_size=8) | st.sampled_from(["..", "a/b", "/", "C:", "a\0", "."]), min_size=1, max_size=3))
def test_a_path_lies_in_its_folder_or_is_refused(names):
    folder = Path("/somewhere/run")
    try:
        path = inside(folder, *names)
    except RunFolderError:
        return
    assert path.resolve().relative_to(folder).parts == tuple(names)


TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=8,
)  # fmt: skip


@settings(derandomize=True)
@given(TREES)
def test_what_json_can_say_comes_back(tree):
    assert parse_json(json.dumps(tree, allow_nan=False)) == tree
