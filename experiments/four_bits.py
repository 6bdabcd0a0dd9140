"""Which 4-bit weight format keeps ResNet-20 most accurate: measured on the same images, compared with int4 in pairs.

Weights of all layers are rounded to nearest with one scale per output channel; activations stay in 8-bit integers.
Run it with ``python experiments/four_bits.py``; data and weights are found under $HWDSE_DATA.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pandas as pd
from rich.console import Console

from hwdse.analysis.difficulty import Predictor
from hwdse.capture import capture
from hwdse.evaluate import Evaluator, paired_interval, top1_on
from hwdse.factories import load_factory
from hwdse.files import write_csv
from hwdse.formats import Precision, Scheme
from hwdse.graph import BitConfig
from hwdse.quantize.network import QuantizedNetwork
from hwdse.quantize.observe import observe
from hwdse.quantize.program import Program
from hwdse.quantize.recipe import Recipe

HERE = Path(__file__).parent
FORMATS = ("4", "nf4", "apot4", "pot4", "posit4_0", "posit4_1", "fp4_e2m1", "quantile4", "codebook4")
RANGES = ("minmax", "mse")


def main() -> None:
    """Measure every format with both ranges, print the table and write it beside the experiments."""
    model, example, calibration, evaluation = (
        load_factory(name, folder=HERE)()
        for name in (
            "models.py:resnet20",
            "models.py:resnet20_example",
            "data.py:cifar10_calibration",
            "data.py:cifar10_evaluation",
        )
    )
    captured = capture(model, example)
    program = Program.of(captured)
    streams = observe(program, calibration)
    evaluator = Evaluator(top1_on(evaluation))
    scores, predicted = {}, {}
    for ranges in RANGES:
        network = QuantizedNetwork(program, scheme=Scheme(), streams=streams, recipe=Recipe(weight_ranges=ranges))
        predictor = Predictor.of(network)
        for name in FORMATS:
            precision = Precision.parse(f"W{name}A8")
            predicted[name, ranges] = fmean(
                predictor.predict(weight, precision.weights, ranges).sqnr_db for weight in program.folded
            )
            config = BitConfig(dict.fromkeys(captured.layer_index, precision))
            scores[name, ranges] = evaluator.score(network, config).per_sample
    rows = []
    for (name, ranges), per_sample in scores.items():
        gain = paired_interval(scores["4", ranges], per_sample)
        rows.append(
            {
                "weights": "int4" if name == "4" else name,
                "weight_ranges": ranges,
                "mean_sqnr_db_predicted": predicted[name, ranges],
                "top1_measured": float(per_sample.mean()),
                "gain_over_int4_measured": gain.mean,
                "gain_low": gain.low,
                "gain_high": gain.high,
                "samples": gain.samples,
            }
        )
    table = pd.DataFrame(rows).sort_values("top1_measured", ascending=False, kind="stable")
    console = Console()
    console.print(table.to_string(index=False, float_format="{:.4f}".format), markup=False, soft_wrap=True)
    console.print(str(write_csv(HERE / "results" / "four_bits.csv", table)), markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
