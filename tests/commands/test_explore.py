"""``hwdse explore`` as a user runs it: infeasible devices, signals, resuming."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from hwdse.hardware.load import VARIABLE

TIGHT = """
schema_version = 1
name = "tight"
title = "a chip that holds next to nothing"
kind = "mcu"
software_stack = "none"
note = "for a test"
batch = 1
clock_mhz = { value = 100, kind = "datasheet", source = "none" }

[sources]
none = "made up"

[scheme]
weights = "symmetric"
activations = "symmetric"
weight_granularity = "per_channel"
full_range = false
unsigned_activations = true

[[rates]]
weights = "int8"
activations = "int8"
macs_per_cycle = { value = 1.0, kind = "datasheet", source = "none" }

[[memories]]
name = "SRAM"
holds = ["weights", "activations"]
capacity_kib = { value = 0.25, kind = "datasheet", source = "none" }

[power]
active_mw = { value = 10, kind = "datasheet", source = "none" }
"""
DEVICES = '"mpic", "stm32h7a3"'


@pytest.fixture
def tight(tmp_path, monkeypatch):
    """Put a chip on the search path that the network does not fit."""
    folder = tmp_path / "profiles"
    folder.mkdir()
    (folder / "tight.toml").write_text(TIGHT)
    monkeypatch.setenv(VARIABLE, str(folder))


@pytest.mark.usefixtures("tight")
def test_one_device_that_is_too_small_is_named_and_the_others_are_explored(cli, experiment, tmp_path):
    run = tmp_path / "run"
    answer = cli("explore", experiment((DEVICES, '"tight", "mpic"')), "--out", run, "--budget-evaluations", "6")
    assert answer.code == 0
    assert re.search(
        r"error: tight: infeasible: memory_kib 0\.25 KiB is what the device holds; .* best alone [\d.]+ KiB",
        answer.error,
    )
    assert "mpic" in answer.out
    assert (run / "figures" / "captions.md").is_file()
    assert not (run / "tight" / "pick.json").exists()
    picked = cli("pick", run, "--device", "tight", "--max", "latency_ms=1")
    assert picked.code == 3
    assert re.match(r"error: tight: infeasible: memory_kib 0\.25 KiB is what the device holds", picked.error)
    as_json = cli("pick", run, "--device", "tight", "--json")
    assert as_json.code == 3
    assert "memory_kib 0.25" in json.loads(as_json.out)["infeasible"]["reason"]
    assert cli("pick", run, "--device", "mpic").code == 0
    assert cli("compare", run).code == 0
    compared = json.loads(cli("compare", run, "--json").out)["devices"]
    assert [row["device"] for row in compared] == ["tight", "mpic"]
    assert cli("report", run).code == 0


@pytest.mark.usefixtures("tight")
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_exit_code_3_where_no_device_is_large_enough(form, cli, experiment, tmp_path):
    answer = cli("explore", experiment((DEVICES, '"tight"')), "--out", tmp_path / "run", *form)
    assert answer.code == 3
    assert answer.error.startswith("error: tight: infeasible: memory_kib 0.25 KiB is what the device holds")
    if form:
        said = json.loads(answer.out)
        assert said["picks"] == []
        assert "memory_kib 0.25" in said["infeasible"]["tight"]


def test_a_profile_may_stand_beside_the_experiment(cli, experiment, tmp_path):
    path = experiment((DEVICES, '"tight.toml"'))
    (path.parent / "tight.toml").write_text(TIGHT.replace("0.25", "64"))
    answer = cli("explore", path, "--out", tmp_path / "run", "--budget-evaluations", "3")
    assert answer.code == 0, answer.err
    assert (tmp_path / "run" / "tight" / "front.csv").is_file()


def test_no_time_for_a_single_evaluation_is_said(cli, experiment, tmp_path):
    answer = cli("explore", experiment(), "--out", tmp_path / "run", "--budget-seconds", "0.001")
    assert answer.code == 0
    assert "0 evaluations, measured in" in answer.out
    picked = cli("pick", tmp_path / "run", "--device", "mpic")
    assert picked.code == 3
    assert "no configuration was measured" in picked.error
    assert "raise the budget" in picked.error
    assert cli("compare", tmp_path / "run").code == 0


def test_what_somebody_picked_survives_a_resumed_run(cli, experiment, run):
    own = cli("pick", run, "--device", "mpic", "--max", "size_kib=1", "--json").out
    default = (run / "stm32h7a3" / "pick.json").read_bytes()
    assert cli("explore", experiment(), "--out", run, "--resume").code == 0
    assert json.loads((run / "mpic" / "pick.json").read_text()) == json.loads(own)
    assert (run / "stm32h7a3" / "pick.json").read_bytes() == default


def test_resuming_a_finished_run_changes_no_table(cli, experiment, run, contents):
    before = contents(run)
    assert cli("explore", experiment(), "--out", run, "--resume").code == 0
    after = contents(run)
    assert {name for name in after if before.get(name) != after[name]} == set()
    assert after.keys() == before.keys()


def test_another_seed_may_differ_and_says_so(cli, experiment, tmp_path):
    assert cli("explore", experiment(), "--out", tmp_path / "run", "--seed", "7", "--budget-evaluations", "2").code == 0
    assert json.loads((tmp_path / "run" / "resolved.json").read_text())["seed"] == 7


def rows(path) -> int:
    """Return the number of finished evaluations in a pool that another process writes to."""
    if not path.is_file():
        return 0
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return database.execute("SELECT count(*) FROM evaluations").fetchone()[0]
    except sqlite3.OperationalError:  # not there yet, or locked for a moment
        return 0
    finally:
        database.close()


def stopped(arguments, pool, *, after, by) -> tuple[int, str]:
    """Run the command line and stop it by a signal once it has added so many rows and waits in the next evaluation."""
    held = pool.parent.with_name("held")
    held.unlink(missing_ok=True)
    before = rows(pool)
    process = subprocess.Popen(
        [sys.executable, "-m", "hwdse", *map(str, arguments)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TINY_HOLD_AFTER_BATCHES": str(2 * after), "TINY_HELD": str(held)},
        # A shell has its background jobs ignore Ctrl-C, and their children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    if after:
        limit = time.monotonic() + 90
        while process.poll() is None and time.monotonic() < limit and not held.exists():
            time.sleep(0.02)
        assert rows(pool) == before + after
    else:
        time.sleep(2.5)
    process.send_signal(by)
    _, said = process.communicate(timeout=60)
    return process.returncode, said


def test_killed_three_times_and_resumed_the_front_is_the_same(shell, experiment, tmp_path):
    """By SIGKILL while it prepares and while it measures, and by Ctrl-C; against a run that nobody disturbed."""
    path = experiment(
        ('evaluation = "parts.py:evaluation"', 'evaluation = "parts.py:evaluation"\nmetric = "parts.py:held_top1"')
    )
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert shell("explore", path, "--out", whole).code == 0
    arguments = ["explore", path, "--out", run, "--resume"]
    assert stopped(arguments, run / "evaluations.db", after=0, by=signal.SIGKILL)[0] == -signal.SIGKILL
    assert stopped(arguments, run / "evaluations.db", after=3, by=signal.SIGKILL)[0] == -signal.SIGKILL
    code, said = stopped(arguments, run / "evaluations.db", after=5, by=signal.SIGINT)
    assert code == 130
    assert "error: interrupted; what was measured is kept, go on with --resume" in said
    assert "Traceback" not in said
    assert rows(run / "evaluations.db") == 8
    assert shell("explore", path, "--out", run, "--resume").code == 0
    assert rows(run / "evaluations.db") == rows(whole / "evaluations.db") == 17
    for name in ("mpic/front.csv", "stm32h7a3/front.csv", "mpic/measured.csv", "sensitivity.csv"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()
