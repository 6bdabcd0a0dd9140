"""What ten minutes of fine-tuning add to ResNet-20 with weights of 2 bits and activations of 8 bits everywhere.

``python experiments/fine_tuning.py`` starts from weights that Gram matrices of 1,024 of 4,000 training images gave, for
three draws of them. It trains on 16,000 images made of all 4,000, without their labels; a tenth of them is held back to
choose the state. Accuracy before and after is compared on the test images, in pairs: for each draw, and for every
image's mean over the draws. Data and weights are found under $HWDSE_DATA.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console

from hwdse.capture import capture
from hwdse.commands.screen import watched
from hwdse.evaluate import Evaluator, paired_interval
from hwdse.files import write_csv
from hwdse.formats import Precision
from hwdse.graph import BitConfig
from hwdse.progress import Progress
from hwdse.quantize.finetune import Settings, Tuned, finetune
from hwdse.quantize.network import QuantizedNetwork
from hwdse.quantize.recipe import RECIPES

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from reconstruction import CASES, calibrated, made  # noqa: E402 (a neighbour, found through its folder)

DRAWS = 3
PRECISION = "W2A8"
SECONDS = 600.0
SETTINGS = Settings(temperature=2.0, passes=12)

Floats = NDArray[np.floating]


def tuned(draws: int, progress: Progress) -> Iterator[dict[str, Any]]:
    """Yield one row per draw, and one of their mean."""
    captured = capture(made("models.py:resnet20"), made("models.py:resnet20_example"))
    config = BitConfig(dict.fromkeys(captured.layer_index, Precision.parse(PRECISION)))
    case, images = CASES["resnet20"], made("data.py:cifar10_training")
    evaluator = Evaluator(case.evaluation())
    befores, afters = [], []
    for draw in range(draws):
        network = calibrated(captured, case.calibration(draw), RECIPES["gram"])
        network.find(config.precisions.values(), progress=progress)
        started = time.process_time()
        found = finetune(network, config, images, SETTINGS, seconds=SECONDS, progress=progress)
        cpu_seconds = time.process_time() - started
        befores.append(evaluator.score(network, config).per_sample)
        afters.append(evaluator.score(_of(network, found), config).per_sample)
        yield {"draw": str(draw)} | _compared(befores[-1], afters[-1]) | _history(found) | {"cpu_seconds": cpu_seconds}
    if draws > 1:
        yield {"draw": "mean"} | _compared(np.mean(befores, axis=0), np.mean(afters, axis=0))


def _of(network: QuantizedNetwork, found: Tuned) -> QuantizedNetwork:
    return network if found.fitted is None else network.fitted(found.fitted)


def _compared(before: Floats, after: Floats) -> dict[str, Any]:
    gain = paired_interval(before, after)
    return {
        "top1_before": float(before.mean()),
        "top1_after": float(after.mean()),
        "gain": gain.mean,
        "gain_low": gain.low,
        "gain_high": gain.high,
        "samples": gain.samples,
    }


def _history(found: Tuned) -> dict[str, Any]:
    return {
        "held_loss_before": found.checks[0].loss,
        "held_loss_after": found.best.loss,
        "steps": found.checks[-1].step,
        "best_step": found.best.step,
        "seconds": found.seconds,
        "ended": found.ended,
    }


def main() -> None:
    """Tune, print the table and write it beside the experiments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=DRAWS, help="draws of the calibration images")
    with watched() as progress:
        table = pd.DataFrame(tuned(parser.parse_args().draws, progress))
    console = Console()
    console.print(table.to_string(index=False, float_format="{:.4f}".format), markup=False, soft_wrap=True)
    console.print(str(write_csv(HERE / "results" / "fine_tuning.csv", table)), markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
