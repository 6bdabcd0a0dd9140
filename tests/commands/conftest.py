"""The command line in this process and in others, on a network that needs no training."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from hwdse.cli import main

TINY = Path(__file__).parents[1] / "tiny"


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one error sentence."""
        assert "Traceback" not in self.err
        lines = self.err.splitlines()
        starts = [i for i, line in enumerate(lines) if line.startswith("error: ")]
        assert len(starts) == 1, self.err
        return "\n".join(lines[starts[0] :])


Cli = Callable[..., Answer]


@pytest.fixture
def cli(monkeypatch, capsys) -> Cli:
    """Return a function that runs the command line in this process."""

    def run(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["hwdse", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return Answer(code, out, err)

    return run


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **changes}


@pytest.fixture(scope="session")
def shell() -> Cli:
    """Return a function that runs the command line in a process of its own, as a user does."""

    def run(*arguments: object, **changes: str) -> Answer:
        done = subprocess.run(
            [sys.executable, "-m", "hwdse", *map(str, arguments)],
            capture_output=True, text=True, timeout=120, env=environment(**changes), check=False,
        )  # fmt: skip
        return Answer(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def experiment(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes the tiny experiment with some of its text replaced."""

    def write(*changes: tuple[str, str]) -> Path:
        folder = tmp_path / "experiment"
        shutil.copytree(TINY, folder, dirs_exist_ok=True)
        text = (TINY / "tiny.toml").read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (folder / "tiny.toml").write_text(text)
        return folder / "tiny.toml"

    return write


@pytest.fixture(scope="session")
def finished(tmp_path_factory, shell: Cli) -> tuple[Path, Answer]:
    """Return a finished run and what the command line said."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(TINY, folder / "experiment")
    answer = shell("explore", folder / "experiment" / "tiny.toml", "--out", folder / "run")
    assert answer.code == 0, answer.err
    shutil.rmtree(folder / "experiment")  # nothing that follows may need the network
    return folder / "run", answer


@pytest.fixture
def run(finished, tmp_path: Path) -> Path:
    """Return a copy of the finished run."""
    shutil.copytree(finished[0], tmp_path / "run")
    return tmp_path / "run"


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file under ``folder``."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(name="contents")
def contents_fixture() -> Callable[[Path], dict[str, bytes]]:
    return contents
