"""One pass over a large tensor, its features included, against two of torch's own; and its memory over many batches."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from timing import interleaved_seconds, row

from hwdse.analysis.statistics import statistics_of
from hwdse.calibrate.stream import Stream

SHAPE, REPEATS = (16, 64, 221, 221), 5  # 50 million elements
FEW, MANY, PROCESSES = 10, 40, 3

SCRIPT = """
import sys
import torch
from hwdse.calibrate.stream import Stream
generator = torch.Generator().manual_seed(0)
stream = Stream(1)
for i in range(int(sys.argv[1])):
    stream.add(torch.randn(16, 64, 56, 56, generator=generator) * (1 + i))
# Not ru_maxrss: it starts at what the parent had when it forked.
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(status["VmHWM"].split()[0])
"""


def describe(x: torch.Tensor, channel_axis: int | None) -> None:
    """Stream one tensor and compute all of its features."""
    stream = Stream(channel_axis)
    stream.add(x)
    statistics_of(stream.tensor, stream.moments)
    if stream.channels is not None and stream.channel_moments is not None:
        statistics_of(stream.channels, stream.channel_moments)


def peak_mib(batches: int) -> float:
    """Return the peak memory of a process that streams so many batches, in MiB."""
    result = subprocess.run([sys.executable, "-c", SCRIPT, str(batches)], capture_output=True, text=True, check=True)
    return int(result.stdout.split()[-1]) / 1024


def run() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    rows = x.view(SHAPE[1], -1)
    functions: dict[str, Callable[[], object]] = {
        "torch": lambda: (torch.std_mean(x), torch.histc(x, 2048)),
        "tensor": partial(describe, x, None),
        f"with channels, shape {tuple(rows.shape)}": partial(describe, rows, 0),
        f"with channels, shape {SHAPE}": partial(describe, x, 1),
    }
    seconds = interleaved_seconds(functions, repeats=REPEATS)
    base = seconds.pop("torch")
    # How much freed memory a process keeps differs from run to run; the least of a few is what streaming needs.
    few, many = (min(peak_mib(batches) for _ in range(PROCESSES)) for batches in (FEW, MANY))
    memory = f"peak memory of streaming {MANY} batches ({many:.0f} MiB) / {FEW} batches ({few:.0f} MiB)"
    return [
        *(
            row(f"statistics of 50 M elements / (std_mean + histc), {name}", value / base, unit="x", target=4.0)
            for name, value in seconds.items()
        ),
        row(memory, many / few, unit="x", target=1.05),
    ]
