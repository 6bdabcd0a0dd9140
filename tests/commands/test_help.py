"""What a newcomer sees: help in panels, answers for machines, tables that fit, completion that completes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from hwdse.cli import app
from hwdse.commands import panels
from hwdse.hardware import list_profiles

WIDTH = 80


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the path and the command of every verb."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


VERBS = dict(commands(typer.main.get_command(app)))


@pytest.fixture(autouse=True)
def narrow(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    monkeypatch.setenv("TERMINAL_WIDTH", str(WIDTH))


def test_every_verb_stands_under_a_heading_with_its_whole_line(cli) -> None:
    text = cli("--help").out
    headings = [panels.EXPLORE, panels.CHOOSE, panels.DEPLOY, panels.SHOW, panels.DEVICES]
    assert [line.rstrip(":") for line in text.splitlines() if line.rstrip(":") in headings] == headings
    assert "Commands:" not in text
    for path in VERBS:
        assert len(re.findall(rf"^  {path[0]} +\S.*[.]$", text, flags=re.M)) == 1  # a sentence on one line
    for path in VERBS:
        if path[0] == "profiles":
            listed = cli("profiles", "--help").out
            assert re.search(rf"^  {path[1]} +\S.*[.]$", listed, flags=re.M)


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_help_is_not_cut_and_every_option_says_what_it_is(path, cli) -> None:
    answer = cli(*path, "--help")
    assert answer.code == 0
    assert "..." not in re.sub(r"names\.\.\.|\[names\]\.\.\.", "", answer.out)  # which may be several
    assert max(map(len, answer.out.splitlines())) <= WIDTH
    for parameter in VERBS[path].params:
        assert parameter.help or parameter.name == "help", parameter.name


def test_every_verb_answers_machines() -> None:
    assert {path for path, verb in VERBS.items() if not any("--json" in p.opts for p in verb.params)} == set()


def test_checks_of_profiles_for_machines(cli, tmp_path) -> None:
    answer = cli("profiles", "check", "mpic", "--json")
    (row,) = json.loads(answer.out)["profiles"]
    assert (answer.code, row["name"], row["faults"]) == (0, "mpic", [])
    (tmp_path / "chip.toml").write_text("schema_version = 1\nbatch = 0\n")
    answer = cli("profiles", "check", tmp_path / "chip.toml", "mpic", "--json")
    broken, good = json.loads(answer.out)["profiles"]
    assert answer.code == 2
    assert answer.err == ""
    assert good["faults"] == []
    assert broken["file"] == str(tmp_path / "chip.toml")
    assert any(fault.startswith("batch: ") for fault in broken["faults"])


def complete(*words: str) -> list[str]:
    """Return what bash is offered for the last of ``words``."""
    line = " ".join(("hwdse", *words))
    environment = {**os.environ, "COMP_WORDS": line, "COMP_CWORD": str(len(words)), "_HWDSE_COMPLETE": "complete_bash"}
    code = "from hwdse.cli import app; app(prog_name='hwdse')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout.split()


def test_the_shell_completes_verbs_options_and_devices() -> None:
    assert complete("re") == ["refine", "report"]
    assert complete("profiles", "") == ["list", "show", "check", "fit", "validate"]
    assert "--budget-evaluations" in complete("explore", "x.toml", "--budget")
    assert complete("pick", "run", "--device", "gap") == ["gap8", "gap9_ne16"]
    assert panels.complete_device("") == list_profiles()


@pytest.mark.parametrize("name", ["list", *list_profiles()])
def test_tables_of_profiles_fit_and_cut_nothing(name, cli) -> None:
    answer = cli("profiles", *(["list"] if name == "list" else ["show", name]))
    assert answer.code == 0
    assert max(map(len, answer.out.splitlines())) <= WIDTH
    assert "…" not in answer.out


def test_a_fit_names_where_its_coefficients_go(cli) -> None:
    answer = cli("profiles", "fit", "stm32h7a3")
    assert answer.code == 0
    assert "[calibration]" in answer.out
    assert "stm32h7a3: coefficients" in answer.out
    assert max(map(len, answer.out.splitlines())) <= WIDTH
