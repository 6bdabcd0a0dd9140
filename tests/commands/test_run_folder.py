"""A run folder is never written over by another run, and a damaged one is named."""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

OTHER = {
    "model": ([('"parts.py:model"', '"parts.py:other_model"')], [], "network"),
    "data": ([('"parts.py:calibration"', '"parts.py:other_calibration"')], [], "data"),
    "metric": ([("[space]", 'metric = "top5"\n[space]')], [], "metric"),
    "function": ([("[space]", 'metric = "parts.py:margin"\n[space]')], [], "metric"),
    "recipe": ([('= "nearest"', '= "nearest"\nweight_ranges = "mse"')], [], "recipe"),
    "rounding": ([('weight_rounding = "nearest"', 'weight_rounding = "gram"')], [], "recipe"),
    "seed": ([], ["--seed", "1"], "seed"),
    "device": ([], ["--device", "mpic"], "devices"),
    "precisions": ([('"W2A8", ', "")], [], "precisions"),
    "fixed": ([('"W8A8"]', '"W8A8"]\nfixed = { stem = "W8A8" }')], [], "fixed"),
    "objectives": ([(', "size_kib"', "")], [], "objectives"),
    "much": ([('"parts.py:model"', '"parts.py:other_model"')], ["--seed", "3"], "network, seed"),
}


@pytest.mark.parametrize("name", OTHER)
def test_resuming_another_run_names_what_differs_and_leaves_it_alone(name, cli, experiment, run, contents):
    changes, options, differing = OTHER[name]
    before = contents(run)
    answer = cli("explore", experiment(*changes), "--out", run, "--resume", *options)
    assert answer.code == 2
    assert answer.error == (
        f"error: expected the run in {run} to be about the same experiment, got another {differing}; "
        "name another folder"
    )
    assert contents(run) == before


def test_a_run_is_not_started_over(cli, experiment, run, contents):
    before = contents(run)
    answer = cli("explore", experiment(), "--out", run)
    assert answer.code == 2
    assert answer.error == f"error: expected an empty folder, got a run in {run}; add --resume or name another one"
    assert contents(run) == before


@pytest.mark.parametrize("name", ["notes.txt", "experiment.toml", ".profile", "evaluations.db"])
@pytest.mark.parametrize("options", [[], ["--resume"]])
def test_a_folder_with_other_files_is_refused(name, options, cli, experiment, tmp_path, contents):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    answer = cli("explore", experiment(), "--out", tmp_path / "out", *options)
    assert answer.code == 2
    assert "expected an empty folder or a run, got other files in" in answer.error
    assert contents(tmp_path / "out") == {name: b"mine"}


@pytest.mark.parametrize("place", ["file", "file/run"])
def test_a_file_is_no_folder(place, cli, experiment, tmp_path):
    (tmp_path / "file").write_text("mine")
    answer = cli("explore", experiment(), "--out", tmp_path / place)
    assert answer.code == 2
    assert re.search(r"expected a folder to write to, got .*file", answer.error)
    assert (tmp_path / "file").read_text() == "mine"


def test_analyze_does_not_write_into_a_run(cli, experiment, run, contents):
    before = contents(run)
    answer = cli("analyze", experiment(), "--out", run)
    assert answer.code == 2
    assert "expected an empty folder or an analysis, got other files in" in answer.error
    assert contents(run) == before


def test_a_folder_that_cannot_be_written_to_is_known_before_the_network_is_loaded(shell, experiment, tmp_path):
    """As somebody without rights, since root may write everywhere."""
    locked = tmp_path / "locked"
    locked.mkdir()
    path = experiment(('"parts.py:model"', '"parts.py:raising"'))
    locked.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        if os.access(locked, os.W_OK):
            pytest.skip("this user may write everywhere")
        answer = shell("explore", path, "--out", locked / "run")
    finally:
        locked.chmod(stat.S_IRWXU)
    assert answer.code == 2
    assert re.search(r"expected a folder to write to, got .*run, and .*locked is none", answer.error)


PROC = Path("/proc")
needs_proc = pytest.mark.skipif(not PROC.is_dir(), reason="this system has no /proc, where nobody may write")


@needs_proc
@pytest.mark.parametrize("verb", ["explore", "analyze", "measure"])
def test_where_even_root_may_not_write_is_known_before_the_network_is_loaded(verb, cli, experiment):
    path = experiment(('"parts.py:model"', '"parts.py:raising"'))
    given = ["--experiment", path, "--name", "here"] if verb == "measure" else [path]
    answer = cli(verb, *given, "--out", PROC / "a" / "run")
    assert answer.code == 2
    assert answer.error.startswith(
        f"error: expected a folder to write to, got {PROC / 'a' / 'run'}, and {PROC} is none"
    )


@needs_proc
@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "RUN", "--device", "mpic", "--out", "/proc/a.onnx"],
        ["report", "RUN", "--out", "/proc/a.html"],
        ["profiles", "fit", "mpic", "--out", "/proc/a.toml"],
        ["profiles", "validate", "mpic", "--out", "/proc/a"],
    ],
    ids=lambda arguments: arguments[0] if arguments[0] != "profiles" else arguments[1],
)
def test_where_nothing_can_be_written_is_known_first(arguments, cli, tmp_path):
    """Before the run is read, which is none."""
    answer = cli(*(tmp_path if word == "RUN" else word for word in arguments))
    assert answer.code == 2
    assert re.match(r"error: expected a folder to write to, got /proc\S*, and /proc is none \(.*\); name", answer.error)


@pytest.mark.parametrize(
    "arguments", [["export", "RUN", "--device", "mpic"], ["report", "RUN"]], ids=["export", "report"]
)
def test_a_folder_is_no_file(arguments, cli, run, contents):
    (run / "mine.onnx").mkdir()
    before = contents(run)
    answer = cli(*(run if word == "RUN" else word for word in arguments), "--out", run / "mine.onnx")
    assert answer.code == 2
    assert re.search(r"expected a file to write.*, got (the folder )?\S*mine.onnx; ", answer.error)
    assert contents(run) == before


def garbled(path):
    path.write_bytes(b"garbage" * 100)


def shortened(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def of_another_version(path):
    with sqlite3.connect(path) as database:
        database.execute("UPDATE about SET value = '2'")
    database.close()


def with_bad_scores(path):
    with sqlite3.connect(path) as database:
        database.execute("UPDATE evaluations SET scores = x'00'")
    database.close()


DAMAGE = {
    "pool": (
        "evaluations.db",
        garbled,
        r"expected a pool of evaluations in .*evaluations\.db, got: file is not a database",
    ),
    "half a pool": ("evaluations.db", shortened, r"expected a pool of evaluations in .*evaluations\.db, got: "),
    "version": (
        "evaluations.db",
        of_another_version,
        r"expected a pool of schema version 1 in .*evaluations\.db, got 2",
    ),
    "scores": ("evaluations.db", with_bad_scores, r"expected the scores of .* in .*evaluations\.db, got damaged ones"),
    "resolved": ("resolved.json", shortened, r"expected JSON in .*resolved\.json"),
    "empty resolved": (
        "resolved.json",
        lambda p: p.write_text("{}"),
        r"expected the identity of a run in .*resolved\.json",
    ),
    "list": ("resolved.json", lambda p: p.write_text("[]"), r"expected an object in .*resolved\.json, got list"),
    "sensitivity": ("sensitivity.csv", shortened, r"expected .*sensitivity\.csv, got "),
    "no sensitivity": (
        "sensitivity.csv",
        lambda p: p.write_text(""),
        r"expected a CSV table in .*sensitivity\.csv, got No columns to parse",
    ),
    "other sensitivity": (
        "sensitivity.csv",
        lambda p: p.write_text("scheme,group\na,b\n"),
        r"expected a CSV table in .*sensitivity\.csv, got one without the columns candidate",
    ),
    "binary sensitivity": (
        "sensitivity.csv",
        lambda p: p.write_bytes(b"\xff\xfe\x00"),
        r"expected a CSV table in .*sensitivity\.csv, got 'utf-8' codec",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_resuming_a_damaged_run_names_the_file(name, cli, experiment, run, contents):
    file, damage, sentence = DAMAGE[name]
    damage(run / file)
    before = contents(run)
    answer = cli("explore", experiment(), "--out", run, "--resume", "--budget-evaluations", "20")
    assert answer.code == 2
    assert re.search(sentence, answer.error), answer.error
    after = contents(run)
    assert {k: v for k, v in after.items() if k != "environment.json"} == {
        k: v for k, v in before.items() if k != "environment.json"
    }


@pytest.mark.parametrize(
    "file", ["resolved.json", "layers.csv", "mpic/front.csv", "mpic/measured.csv", "mpic/predicted.csv"]
)
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "binary", "folder"])
@pytest.mark.parametrize("verb", ["pick", "compare", "report"])
def test_answers_from_a_damaged_run_name_the_file(file, damage, verb, cli, run, contents):
    if (file, damage) == ("mpic/predicted.csv", "half"):
        pytest.skip("a table without its last rows is a table")
    path = run / file
    content = path.read_bytes()
    path.unlink()
    match damage:
        case "empty":
            path.write_bytes(b"")
        case "half":
            path.write_bytes(content[: len(content) // 2 + 3])
        case "binary":
            path.write_bytes(b"\xff\xfe" + content)
        case "folder":
            path.mkdir()
    before = contents(run)
    answer = cli(verb, run, *(["--device", "mpic"] if verb == "pick" else []))
    assert answer.code == 2
    assert file.rpartition("/")[2] in answer.error
    assert answer.out == ""
    assert contents(run) == before


@pytest.mark.parametrize("verb", ["pick", "compare", "report"])
def test_a_folder_without_a_run_is_named(verb, cli, tmp_path):
    answer = cli(verb, tmp_path / "none", *(["--device", "mpic"] if verb == "pick" else []))
    assert answer.code == 2
    assert str(tmp_path / "none") in answer.error


def test_a_process_that_may_not_write_says_so(run, cli, monkeypatch):
    """The last step of a pick fails: the old pick stays whole."""
    before = (run / "mpic" / "pick.json").read_bytes()
    replaced = []

    def refuse(_, target):
        replaced.append(target)
        raise PermissionError(13, "Permission denied", str(target))

    monkeypatch.setattr("pathlib.Path.replace", refuse)
    answer = cli("pick", run, "--device", "mpic", "--max", "latency_ms=1")
    assert answer.code == 2
    assert answer.error == f"error: expected to read or write {run / 'mpic' / 'pick.json'}, got: Permission denied"
    assert replaced == [run / "mpic" / "pick.json"]
    assert (run / "mpic" / "pick.json").read_bytes() == before
    assert not list((run / "mpic").glob("*.tmp"))
    assert not list((run / "mpic").glob(".*"))


def test_usage_errors_exit_with_2(shell):
    for arguments in (
        ["explore"],
        ["explore", "x.toml", "--seed", "one"],
        ["pick", "run"],
        ["measur"],
        ["explore", "--bogus"],
    ):
        answer = shell(*arguments)
        assert answer.code == 2, arguments
        assert "Traceback" not in answer.err
        assert answer.out == ""


def test_importing_the_command_line_loads_nothing_heavy():
    code = "import sys, hwdse.cli; print([m for m in ('torch', 'pandas', 'matplotlib', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
