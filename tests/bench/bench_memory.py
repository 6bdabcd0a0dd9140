"""Peak memory of an exploration against the number of its evaluations (on Linux, which counts it)."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from timing import row

FEW, MANY = 40, 400

SCRIPT = """
import sys
import hwdse
from hwdse import examples
model = examples.digits()
graph = hwdse.capture(model, examples.digits_example())
hwdse.explore(model, graph, calibration=examples.digits_calibration(),
              evaluation=hwdse.top1_on(examples.digits_evaluation()), devices=["mpic", "gap9_ne16"],
              budget=hwdse.Budget(evaluations=int(sys.argv[1])), out=None)
# Not ru_maxrss: it starts at what the parent had when it forked.
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(status["VmHWM"].split()[0])
"""


def peak_mib(evaluations: int) -> float:
    """Return the peak memory of a process that explores the digits example, in MiB."""
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(evaluations)], capture_output=True, text=True, check=True
    )
    return int(result.stdout.split()[-1]) / 1024


def run() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    few, many = peak_mib(FEW), peak_mib(MANY)
    name = f"peak memory of {MANY} evaluations ({many:.0f} MiB) / {FEW} evaluations ({few:.0f} MiB), digits"
    return [row(name, many / few, unit="x", target=1.05)]
