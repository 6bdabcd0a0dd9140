"""A network that needs no training, captured once, and explorations of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwdse.capture import capture
from hwdse.evaluate import Evaluator
from hwdse.experiment import load_experiment, make_inputs
from hwdse.factories import load_factory
from hwdse.study import Budget, explore

TINY = Path(__file__).parents[1] / "tiny"
PRECISIONS = ("W2A8", "W4A4", "W8A8")


@pytest.fixture(scope="session")
def tiny():
    """Return the inputs of the tiny experiment."""
    return make_inputs(load_experiment(TINY / "tiny.toml"), TINY)


@pytest.fixture(scope="session")
def captured(tiny):
    return capture(tiny.model, tiny.example)


@pytest.fixture
def part():
    """Return a function that gets something by name from the tiny experiment's file."""
    return lambda name: load_factory(f"parts.py:{name}", folder=TINY)


@pytest.fixture
def start(tiny, captured):
    """Return a function that explores the tiny network, with anything changed."""

    def run(*, evaluations: int = 16, seconds: float | None = None, **changes):
        arguments = {
            "calibration": tiny.calibration,
            "evaluation": tiny.evaluation,
            "devices": ["mpic", "stm32h7a3"],
            "objectives": ("accuracy", "latency_ms", "size_kib"),
            "precisions": PRECISIONS,
            "budget": Budget(evaluations=evaluations, seconds=seconds),
        }
        return explore(tiny.model, captured, **(arguments | changes))

    return run


@pytest.fixture
def scored(monkeypatch):
    """Return a list that gets the configuration of every evaluation that runs the network."""
    seen: list[tuple[str, str]] = []
    score = Evaluator.score

    def counted(self, network, config, **options):
        seen.append((network.scheme.key, "fp32" if config is None else config.bits))
        return score(self, network, config, **options)

    monkeypatch.setattr(Evaluator, "score", counted)
    return seen


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file under ``folder``."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(name="contents")
def contents_fixture():
    return contents


@pytest.fixture(scope="session")
def tiny_problem(tiny, captured):
    """Return a device of an exploration of the tiny network."""
    study = explore(
        tiny.model,
        captured,
        calibration=tiny.calibration,
        evaluation=tiny.evaluation,
        devices=["mpic"],
        objectives=("accuracy", "latency_ms", "size_kib"),
        precisions=PRECISIONS,
        budget=Budget(evaluations=1),
    )
    return study.problems["mpic"]
