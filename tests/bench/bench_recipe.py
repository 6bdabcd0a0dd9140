"""ResNet-20 with weights from Gram matrices: what a configuration costs beside nearest, and what finding them takes."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from networks import resnet20
from timing import interleaved_seconds, row

from hwdse.capture import capture
from hwdse.formats import Precision, Scheme, parse
from hwdse.quantize.network import QuantizedNetwork
from hwdse.quantize.observe import observe
from hwdse.quantize.program import Program
from hwdse.quantize.recipe import Recipe

EVALUATED, SEARCHED, BATCH, REPEATS = 256, 1024, 64, 9
FORMATS = ("int2", "int3", "int4", "int6", "int8")
THREADS = 2
NEAREST = Recipe(activation_ranges="minmax")
GRAM = Recipe(activation_ranges="minmax", weight_rounding="gram")

SCRIPT = f"""
import sys
from time import perf_counter
sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch
from bench_recipe import FORMATS, GRAM, SEARCHED, THREADS, network_of
from hwdse.formats import parse
torch.set_num_threads(THREADS)
network, images, _ = network_of(GRAM, SEARCHED)
start = perf_counter()
network.reconstruct(map(parse, FORMATS))
seconds = perf_counter() - start
# Not ru_maxrss: it starts at what the parent had when it forked.
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(seconds, status["VmHWM"].split()[0])
"""


def network_of(recipe: Recipe, samples: int) -> tuple[QuantizedNetwork, torch.Tensor, str]:
    """Return ResNet-20 under ``recipe``, calibrated on so many images, all images, and what they are."""
    model, images, kind = resnet20()
    program = Program.of(capture(model, images[:2]))
    batches = list(images[:samples].split(BATCH))
    streams = observe(program, batches)
    network = QuantizedNetwork(program, scheme=Scheme(), streams=streams, recipe=recipe, batches=batches)
    return network, images, kind


def searched() -> tuple[float, float]:
    """Return the seconds that all weights take in a process of its own, and its peak memory in GB."""
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    seconds, kib = map(float, result.stdout.split()[-2:])
    return seconds, kib * 1024 / 1e9


def run() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    networks = {name: network_of(recipe, EVALUATED) for name, recipe in (("gram", GRAM), ("near", NEAREST))}
    _, images, kind = networks["gram"]
    mixed = [Precision.parse(text) for text in ("W8A8", "W4A8", "W4A4")]
    batches = images[:EVALUATED].split(BATCH)

    def evaluated(network: QuantizedNetwork) -> None:
        graph = network.captured
        setting = network.configure(graph.config([mixed[g % len(mixed)] for g in range(len(graph.groups))]))
        for batch in batches:
            network.forward(batch, setting)

    for network, _, _ in networks.values():
        network.reconstruct([parse("int4"), parse("int8")])
        evaluated(network)  # ranges are found before, too
    seconds = interleaved_seconds(
        {name: partial(evaluated, network) for name, (network, _, _) in networks.items()},
        repeats=REPEATS,
    )
    found, peak_gb = searched()
    name = f"ResNet-20 ({kind})"
    bits = ", ".join(text.removeprefix("int") for text in FORMATS)
    what = f"weights in {bits} bits from {SEARCHED} images, {name}, {THREADS} threads"
    return [
        row(
            f"a configuration with found weights / with nearest, {name}, {EVALUATED} images",
            seconds["gram"] / seconds["near"],
            unit="x",
            target=1.05,
        ),
        row(what, found, unit="s", target=60.0),
        row(f"peak memory of that process, {what}", peak_gb, unit="GB", target=2.0),
    ]


if __name__ == "__main__":
    print(run())  # noqa: T201 (a benchmark prints)
