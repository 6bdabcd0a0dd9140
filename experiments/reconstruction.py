"""What Gram-matrix reconstruction keeps of the accuracy that rounding weights to nearest loses, at 4, 3 and 2 bits.

All layers of ResNet-20 (1,024 training images, three draws) and of the DS-CNN (its 200 calibration utterances) have
weights of the same bits with one scale per output channel; activations stay in 8-bit integers. Accuracy is measured on
other samples and compared in pairs with full precision. Run it with ``python experiments/reconstruction.py``; data and
weights are found under $HWDSE_DATA.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console

from hwdse.capture import Capture, capture
from hwdse.evaluate import Evaluator, paired_interval, top1_on
from hwdse.factories import load_factory
from hwdse.files import write_csv
from hwdse.formats import Precision, Scheme
from hwdse.graph import BitConfig
from hwdse.quantize.network import ROUNDINGS, QuantizedNetwork, Recipe, observe
from hwdse.quantize.program import Program

HERE = Path(__file__).parent
WEIGHT_BITS = (4, 3, 2)
IMAGES = 1024
DRAWS = 3


def main() -> None:
    """Measure both networks, print the table and write it beside the experiments."""
    rows = []
    for name, evaluation in (("resnet20", "cifar10_evaluation"), ("dscnn", "kws_evaluation")):
        captured = capture(_made(f"models.py:{name}"), _made(f"models.py:{name}_example"))
        evaluator = Evaluator(top1_on(_made(f"data.py:{evaluation}")))
        for draw, calibration in enumerate(_images() if name == "resnet20" else [_made("data.py:kws_calibration")]):
            rows += [{"network": name, "draw": draw, **row} for row in measure(captured, evaluator, calibration)]
    table = pd.DataFrame(rows)
    console = Console()
    console.print(table.to_string(index=False, float_format="{:.4f}".format), markup=False, soft_wrap=True)
    console.print(str(write_csv(HERE / "results" / "reconstruction.csv", table)), markup=False, soft_wrap=True)


def measure(captured: Capture, evaluator: Evaluator, calibration: list[Any]) -> Iterator[dict[str, Any]]:
    """Yield one row per rounding and bit-width; ``seconds`` are those that the weights took."""
    program = Program.of(captured)
    streams = observe(program, calibration)
    full = None
    for rounding in ROUNDINGS:
        recipe = Recipe(activation_ranges="minmax", weight_rounding=rounding)
        network = QuantizedNetwork(program, scheme=Scheme(), streams=streams, recipe=recipe, batches=calibration)
        full = evaluator.score(network, None).per_sample if full is None else full
        for bits in WEIGHT_BITS:
            config = BitConfig(dict.fromkeys(captured.layer_index, Precision.parse(f"W{bits}A8")))
            started = time.perf_counter(), time.process_time()
            network.configure(config)
            seconds, cpu_seconds = time.perf_counter() - started[0], time.process_time() - started[1]
            per_sample = evaluator.score(network, config).per_sample
            drop = paired_interval(per_sample, full)
            yield {
                "weight_bits": bits,
                "rounding": rounding,
                "calibration_samples": sum(len(batch) for batch in calibration),
                "top1_measured": float(per_sample.mean()),
                "drop_measured": drop.mean,
                "drop_low": drop.low,
                "drop_high": drop.high,
                "samples": drop.samples,
                "seconds": seconds,
                "cpu_seconds": cpu_seconds,
            }


def _made(name: str) -> Any:
    return load_factory(name, folder=HERE)()


def _images() -> list[list[torch.Tensor]]:
    """Return batches of training images that were drawn anew each time."""
    images = _made("data.py:cifar10_images")
    orders = (torch.randperm(len(images), generator=torch.Generator().manual_seed(draw)) for draw in range(DRAWS))
    return [list(images[order[:IMAGES]].split(64)) for order in orders]


if __name__ == "__main__":
    main()
