"""Kill an exploration at every file and every evaluation that it writes, resume it, and say what came of it.

A script of its own: it forks, so that the network is loaded and captured once.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path

from hwdse.capture import capture
from hwdse.evaluate import Pool
from hwdse.experiment import load_experiment, make_inputs
from hwdse.quantize.recipe import Recipe
from hwdse.report.tables import RunTables
from hwdse.study import Budget, explore

EVALUATIONS = 9


class Killer:
    """Counts what is written and ends the process at the given step: before it, or after it."""

    def __init__(self, step: int | None) -> None:
        self.step, self.count = step, 0
        self._replace, self._put = Path.replace, Pool.put
        Path.replace = lambda path, target: self._step(self._replace, path, target)
        Pool.put = lambda pool, key, scores: self._step(self._put, pool, key, scores)

    def _step(self, write, *arguments):
        for _ in range(2):
            self.count += 1
            if self.count == self.step:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.count % 2:
                result = write(*arguments)
        return result


def child(experiment, inputs, captured, out: Path, *, step: int | None, evaluations: int) -> int | None:
    """Explore in a process of its own; return the steps that it took, or ``None`` if it was killed."""
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        killer = Killer(step)
        explore(
            inputs.model,
            captured,
            calibration=inputs.calibration,
            evaluation=inputs.evaluation,
            devices=experiment.devices,
            objectives=("accuracy", *experiment.objectives.minimize),
            precisions=experiment.space.precisions,
            budget=Budget(evaluations=evaluations),
            recipe=Recipe(),
            out=out,
            resume=True,
            experiment=Path(sys.argv[1]),
            notes={"name": experiment.name},
        )
        os.write(writer, str(killer.count).encode())
        os._exit(0)
    os.close(writer)
    said = os.read(reader, 100)
    os.close(reader)
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return None
    assert os.waitstatus_to_exitcode(status) == 0, f"{out} failed at step {step}"
    return int(said)


def found(out: Path) -> dict[str, object]:
    """Return everything that a run found."""
    pool = Pool(out / "evaluations.db")
    names = ["front.csv", "measured.csv", "predicted.csv"]
    tables = {str(p.relative_to(out)): p.read_text() for name in names for p in sorted(out.glob(f"*/{name}"))}
    return {"evaluations": len(pool), **tables}


def main() -> None:
    path, folder = Path(sys.argv[1]), Path(sys.argv[2])
    experiment = load_experiment(path)
    inputs = make_inputs(experiment, path.parent)
    captured = capture(inputs.model, inputs.example)

    def run(name: str, *, step: int | None = None) -> int | None:
        return child(experiment, inputs, captured, folder / name, step=step, evaluations=EVALUATIONS)

    steps = run("whole")
    whole = found(folder / "whole")
    wrong = []
    for step in range(1, steps + 1, 2):  # before each write: after one is before the next
        name = f"killed{step}"
        assert run(name, step=step) is None
        readable = folder / name / "resolved.json"
        if readable.is_file() and "full_precision" in readable.read_text():
            RunTables.load(folder / name)
        run(name)
        if found(folder / name) != whole:
            wrong.append(name)
    chances = random.Random(0)
    kills = 0
    for name in ("often1", "often2"):
        while run(name, step=chances.randrange(1, steps)) is None:
            kills += 1
        if found(folder / name) != whole:
            wrong.append(name)
    sys.stdout.write(json.dumps({"steps": steps, "kills": kills, "wrong": wrong, "whole": whole}))


if __name__ == "__main__":
    main()
