"""A pool by URL from the command line: nothing tells its password, and the run folder says everything without it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.postgres import SPELLINGS

TABLES = ("mpic/front.csv", "mpic/measured.csv", "stm32h7a3/front.csv", "stm32h7a3/measured.csv")


def tells(text: str | bytes) -> bool:
    """Return True if the password is in ``text``, in any spelling."""
    plain = text if isinstance(text, bytes) else text.encode()
    return any(spelling.encode() in plain for spelling in SPELLINGS)


def test_a_run_tells_no_password_and_needs_no_pool_afterwards(lab, cli, experiment, tmp_path, contents):
    run = tmp_path / "run"
    answers = [cli("explore", experiment(), "--out", run, "--pool", lab.url(), "--budget-evaluations", "6")]
    assert answers[0].code == 0, answers[0].err
    assert lab.execute("SELECT count(*) FROM evaluations") == [(7,)]
    assert json.loads((run / "resolved.json").read_text())["pool"] == f"127.0.0.1:{lab.server.port}/{lab.name}"
    lab.server.kill()
    for arguments in (
        ["report", run],
        ["compare", run],
        ["pick", run, "--device", "mpic"],
        ["cite", run],
        ["explore", experiment(), "--out", run, "--resume"],
    ):
        answers.append(cli(*arguments))
        assert answers[-1].code == 0, answers[-1].err
    for answer in answers:
        assert not tells(answer.out + answer.err)
    for name, content in contents(run).items():
        assert not tells(content), name


def test_the_environment_names_a_pool(lab, shell, experiment, tmp_path):
    arguments = ["explore", experiment(), "--out", tmp_path / "run", "--budget-evaluations", "3"]
    answer = shell(*arguments, HWDSE_POOL=lab.url())
    assert answer.code == 0, answer.err
    assert lab.execute("SELECT count(*) FROM evaluations") == [(4,)]
    answer = shell("explore", "--help", HWDSE_POOL=lab.url())
    assert "HWDSE_POOL" in answer.out
    assert not tells(answer.out + answer.err)


WRONG = {
    "password": (lambda lab: lab.url(password=f"{SPELLINGS[0]}!"), "password authentication failed"),
    "port": (lambda lab: lab.url(port=1), "onnection refused"),
    "no URL": (lambda _: f"{SPELLINGS[0]}@host", "expected the URL of a pool as postgresql://user:password@host/datab"),
    "sqlite": (lambda _: "sqlite:///pool.db", "got one of sqlite; without a URL, the run folder keeps its own pool"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_pool_is_said_before_the_network_is_loaded(name, lab, cli, experiment, tmp_path):
    make, sentence = WRONG[name]
    path = experiment(('"parts.py:model"', '"parts.py:raising"'))
    answer = cli("explore", path, "--out", tmp_path / "run", "--pool", make(lab))
    assert answer.code == 2
    assert sentence in answer.error
    assert not tells(answer.out + answer.err)
    assert not (tmp_path / "run").exists()


def test_a_pool_that_is_only_read_is_named(cli, experiment, tmp_path):
    answer = cli("explore", experiment(), "--out", tmp_path / "run", "--pool-read-only")
    assert answer.code == 2
    assert answer.error == (
        "error: expected the URL of a pool with --pool-read-only, got none; add --pool or drop --pool-read-only"
    )


def test_a_reader_without_rights_takes_what_is_there(lab, cli, experiment, tmp_path):
    first = cli("explore", experiment(), "--out", tmp_path / "one", "--pool", lab.url(), "--budget-evaluations", "4")
    assert first.code == 0, first.err
    arguments = ["explore", experiment(), "--out", tmp_path / "two", "--budget-evaluations", "6"]
    second = cli(*arguments, "--pool", lab.reader(), "--pool-read-only")
    assert second.code == 0, second.err
    assert lab.execute("SELECT count(*) FROM evaluations") == [(5,)]


def test_killed_and_resumed_with_a_pool_nothing_is_lost_or_counted_twice(lab, cli, experiment, tmp_path):
    path = experiment(
        ('evaluation = "parts.py:evaluation"', 'evaluation = "parts.py:evaluation"\nmetric = "parts.py:held_top1"')
    )
    whole, run, held = tmp_path / "whole", tmp_path / "run", tmp_path / "held"
    assert cli("explore", path, "--out", whole).code == 0
    arguments = ["explore", path, "--out", run, "--resume", "--pool", lab.url()]
    process = subprocess.Popen(
        [sys.executable, "-m", "hwdse", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"TINY_HOLD_AFTER_BATCHES": "12", "TINY_HELD": str(held)},
    )  # fmt: skip
    limit = time.monotonic() + 90
    while process.poll() is None and not held.exists() and time.monotonic() < limit:
        time.sleep(0.02)
    assert lab.execute("SELECT count(*) FROM evaluations") == [(6,)]
    refused = cli(*arguments)
    assert refused.code == 2
    assert f"expected nobody else to explore into {run}, got another process that does; wait for it" in refused.error
    process.send_signal(signal.SIGKILL)
    out, err = process.communicate()
    assert not tells(out + err)
    assert cli(*arguments).code == 0
    assert lab.execute("SELECT count(*), count(DISTINCT bits || scheme) FROM evaluations") == [(17, 17)]
    for name in TABLES:
        assert (run / name).read_bytes() == (whole / name).read_bytes()
