"""What recipes keep of the accuracy that rounding weights to nearest loses, all layers quantized.

``python experiments/reconstruction.py`` measures ResNet-20 (1,024 training images), the DS-CNN (its 200 calibration
utterances) and a small Llama (40 stories), on samples that no recipe sees, in pairs with full precision, for three
draws of the calibration data: which samples, in which order. Mixtures are those that the sensitivities on calibration
data predict to be best at so many bits per weight on average, among the narrowest two, three, ... bit-widths; for the
DS-CNN also what a search finds from there that measures harm on the calibration data. The least harmful one is taken,
with weights stitched from those of every width, or found once more in it (``refined``, the least harmful of a dozen).
``levels`` compares what schemes make of the same bits: a symmetric grid without its lowest code has three levels in 2
bits, with it four, and an affine one puts four where the weights are. ``--only`` chooses a part. Data and weights are
found under $HWDSE_DATA.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from rich.console import Console

from hwdse.capture import Capture, capture
from hwdse.cost.table import Metric, Reduction
from hwdse.evaluate import Evaluator, paired_interval, top1_on
from hwdse.evaluate.metrics import evaluation_of
from hwdse.factories import load_factory
from hwdse.files import write_csv
from hwdse.formats import Granularity, Precision, Scheme, Symmetry
from hwdse.graph import BitConfig
from hwdse.infeasible import Limit
from hwdse.progress import SILENT
from hwdse.quantize.adaround_settings import AdaRoundSettings
from hwdse.quantize.network import QuantizedNetwork
from hwdse.quantize.observe import observe
from hwdse.quantize.program import Program
from hwdse.quantize.ranges import mean_harm
from hwdse.quantize.recipe import RECIPES, Recipe
from hwdse.search import adaptive
from hwdse.search.integer_program import cheapest
from hwdse.space import DesignSpace
from hwdse.study.losses import find_losses

HERE = Path(__file__).parent
IMAGES = 1024
DRAWS = 3
WEIGHT_BITS = (4, 3, 2)
CANDIDATES = ("W2A8", "W3A8", "W4A8", "W6A8", "W8A8")
NEAREST = replace(RECIPES["nearest"], activation_ranges="minmax")
ROUNDINGS: Mapping[str, Recipe] = {
    "nearest": NEAREST,
    "nearest, ranges by mse": replace(NEAREST, weight_ranges="mse"),
    "nearest, biases corrected": replace(NEAREST, bias_correction="local"),
    "gram": RECIPES["gram"],
    "adaround": Recipe(weight_rounding="adaround", adaround=AdaRoundSettings(iterations=1000)),
}
LEVELS: Mapping[str, Scheme] = {
    "restricted": Scheme(),
    "full range": Scheme(full_range=True),
    "affine": Scheme(weights=Symmetry.AFFINE),
}
"""What schemes make of the codes of an integer weight."""

DRAWN_ONCE = ("adaround",)
"""What takes minutes per bit-width."""

REFINED = 12
"""Mixtures whose weights are found once more."""


@dataclass(frozen=True)
class Case:
    """A network with its data.

    Attributes
    ----------
    evaluation
        What it is measured on.
    calibration
        Batches of a draw.
    average_bits
        Of the mixtures.
    searched
        Mixtures that a search tries on the calibration data.
    """

    evaluation: Callable[[], Any]
    calibration: Callable[[int], list[torch.Tensor]]
    average_bits: tuple[float, ...]
    searched: int = 0


def made(name: str) -> Any:
    """Return what a factory beside this file makes."""
    return load_factory(name, folder=HERE)()


def _drawn(tensor: torch.Tensor, draw: int, count: int, batch: int) -> list[torch.Tensor]:
    order = torch.randperm(len(tensor), generator=torch.Generator().manual_seed(draw))[:count]
    return list(tensor[order].split(batch))


CASES = {
    "resnet20": Case(
        lambda: top1_on(made("data.py:cifar10_evaluation")),
        lambda draw: _drawn(made("data.py:cifar10_images"), draw, IMAGES, 64),
        (3.0, 2.5, 2.0),
    ),
    "dscnn": Case(
        lambda: top1_on(made("data.py:kws_evaluation")),
        lambda draw: _drawn(torch.cat(made("data.py:kws_calibration")), draw, 200, 50),
        (3.0, 2.5),
        searched=200,
    ),
}


def uniform(name: str) -> Iterator[dict[str, Any]]:
    """Yield one row per draw, recipe and bit-width."""
    case = CASES[name]
    captured = capture(made(f"models.py:{name}"), made(f"models.py:{name}_example"))
    evaluator = Evaluator(case.evaluation())
    for draw in range(DRAWS):
        network = None
        for rounding, recipe in ROUNDINGS.items():
            if rounding in DRAWN_ONCE and draw:
                continue
            network = calibrated(captured, case.calibration(draw), recipe)
            for bits in WEIGHT_BITS:
                config = BitConfig(dict.fromkeys(captured.layer_index, Precision.parse(f"W{bits}A8")))
                row = {"network": name, "draw": draw, "weights": f"W{bits}A8", "recipe": rounding}
                yield row | _measured(evaluator, network, config)


def levels(name: str) -> Iterator[dict[str, Any]]:
    """Yield one row per draw, scheme, recipe and bit-width."""
    case = CASES[name]
    captured = capture(made(f"models.py:{name}"), made(f"models.py:{name}_example"))
    evaluator = Evaluator(case.evaluation())
    for draw in range(DRAWS):
        for kind, scheme in LEVELS.items():
            for rounding in ("nearest", "gram"):
                network = calibrated(captured, case.calibration(draw), ROUNDINGS[rounding], scheme)
                for bits in WEIGHT_BITS:
                    config = BitConfig(dict.fromkeys(captured.layer_index, Precision.parse(f"W{bits}A8")))
                    row = {"network": name, "draw": draw, "weights": f"W{bits}A8", "recipe": f"{rounding}, {kind}"}
                    yield row | _measured(evaluator, network, config)


def mixed(name: str) -> Iterator[dict[str, Any]]:
    """Yield one row per draw and number of bits, and way to find the weights of a mixture."""
    case = CASES[name]
    captured = capture(made(f"models.py:{name}"), made(f"models.py:{name}_example"))
    evaluator = Evaluator(case.evaluation())
    for draw in range(DRAWS):
        calibration = case.calibration(draw)
        network = calibrated(captured, calibration, RECIPES["gram"])
        candidates = tuple(map(Precision.parse, CANDIDATES))
        network.reconstruct(candidate.weights for candidate in candidates)
        space = _space(network, calibration, candidates)
        for bits in case.average_bits:
            mixtures = [space.config(genes, captured) for genes in _mixtures(space, bits, network, case.searched)]
            subjects = {
                "gram": [(_harm(network, config), network, config) for config in mixtures[:1]],
                "gram, refined": [_refined(network, config) for config in mixtures],
            }
            for recipe, found in subjects.items():
                harm, subject, config = min(found, key=lambda one: one[0])
                row = {"network": name, "draw": draw, "weights": f"at most {bits} bits on average", "recipe": recipe}
                row |= {"average_bits": _average_bits(captured, config), "calibration_harm": harm}
                yield row | _measured(evaluator, subject, config)


def llama() -> Iterator[dict[str, Any]]:
    """Yield one row per draw, scheme and recipe: nats per token, activations in full precision."""
    captured = capture(made("models.py:stories260k"), made("models.py:stories260k_example"), dynamic_dims=(0, 1))
    evaluator = Evaluator(evaluation_of(made("data.py:stories260k_evaluation"), "log_likelihood"))
    stories = made("data.py:stories260k_calibration")
    for draw in range(DRAWS):
        order = torch.randperm(len(stories), generator=torch.Generator().manual_seed(draw))
        calibration = [stories[i] for i in order]
        for text, block in (("W4Afp32", 0), ("W3Afp32", 32)):
            config = BitConfig(
                {layer.name: Precision.parse("fp32" if layer.weight is None else text) for layer in captured.layers}
            )
            granularity = Granularity.PER_BLOCK if block else Granularity.PER_CHANNEL
            for kind, scheme in LEVELS.items():
                own = replace(scheme, weight_granularity=granularity, block_size=block)
                for ranges, rounding in product(("minmax", "mse"), ("nearest", "gram")):
                    network = calibrated(captured, calibration, Recipe(ranges, "minmax", rounding, path="fp32"), own)
                    recipe = f"{rounding}, {ranges}, {kind}"
                    row = {"network": "stories260k", "draw": draw, "weights": text, "recipe": recipe}
                    yield row | _measured(evaluator, network, config)


def calibrated(
    captured: Capture, calibration: list[torch.Tensor], recipe: Recipe, scheme: Scheme | None = None
) -> QuantizedNetwork:
    """Return the network under a recipe, with ranges from the ``calibration`` batches."""
    program = Program.of(captured)
    streams = observe(program, calibration)
    return QuantizedNetwork(program, scheme=scheme or Scheme(), streams=streams, recipe=recipe, batches=calibration)


def _space(
    network: QuantizedNetwork, calibration: list[torch.Tensor], candidates: tuple[Precision, ...]
) -> DesignSpace:
    """Return the predicted harm and the average bits of every (group, candidate)."""
    captured = network.captured
    harm = find_losses(network, calibration, candidates, loss="kl", seed=0, progress=SILENT).scores["kl"]
    counts = np.array(
        [sum(captured.layers[captured.layer_index[name]].weight_count for name in g.layers) for g in captured.groups]
    )
    bits = np.array([candidate.weights.bits for candidate in candidates])
    metrics = (Metric("kl", Reduction.SUM, "KL"), Metric("average_bits", Reduction.SUM, "Bits per weight"))
    return DesignSpace(
        captured.groups,
        candidates,
        metrics,
        allowed=np.ones(harm.shape, dtype=np.bool_),
        unary=np.stack([harm, counts[:, None] * bits / counts.sum()], axis=2),
        constant=np.zeros(2),
        edges=np.zeros((0, 2), dtype=np.int64),
        pairwise=np.zeros((0, len(candidates), len(candidates), 2)),
    )


def _mixtures(space: DesignSpace, bits: float, network: QuantizedNetwork, searched: int) -> list[NDArray[np.uint8]]:
    """Return mixtures of at most so many bits on average, the one with the least harm to the calibration data first."""
    harms: dict[bytes, float] = {}
    column = space.column("average_bits")

    def measure(genes: NDArray[np.uint8]) -> NDArray[np.float64]:
        for row in genes:
            harms[row.tobytes()] = _harm(network, space.config(row, network.captured))
        return np.array([harms[row.tobytes()] for row in genes])

    first = np.unique(np.stack(list(_predicted_best(space, bits))), axis=0)
    measure(first)
    if searched:
        adaptive.search(
            space, ("kl", "average_bits"), limits={"average_bits": bits}, evaluations=searched,
            rng=np.random.default_rng(0), initial=first, measure=measure,
        )  # fmt: skip
    found = [np.frombuffer(row, dtype=np.uint8) for row in sorted(harms, key=harms.__getitem__)]
    return [genes for genes in found if space.evaluate(genes[None])[0, column] <= bits][:REFINED]


def _predicted_best(space: DesignSpace, bits: float) -> Iterator[NDArray[np.uint8]]:
    """Yield the mixtures of the narrowest two, three, ... candidates with the least predicted harm at so many bits."""
    for count in range(2, len(space.candidates) + 1):
        allowed = np.arange(len(space.candidates)) < count
        narrower = replace(space, allowed=np.broadcast_to(allowed, space.allowed.shape).copy())
        genes = cheapest(narrower, "kl", [Limit("average_bits", "average_bits", 1, bits)])
        assert genes is not None
        yield genes


def _refined(network: QuantizedNetwork, config: BitConfig) -> tuple[float, QuantizedNetwork, BitConfig]:
    """Return the network with weights found once more in a configuration, after the harm of that."""
    refined = network.fitted(network.refined(config))
    return _harm(refined, config), refined, config


def _average_bits(captured: Capture, config: BitConfig) -> float:
    """Return the bits per weight of a configuration, scales left out."""
    counts = [(captured.layers[captured.layer_index[name]].weight_count, p) for name, p in config.precisions.items()]
    return float(sum(n * p.weights.bits for n, p in counts) / sum(n for n, _ in counts))


def _harm(network: QuantizedNetwork, config: BitConfig) -> float:
    """Return the harm of a configuration to the calibration data."""
    setting = network.configure(config)
    return mean_harm(network.program, network.batches, setting.constants, setting.quantizers)


def _measured(evaluator: Evaluator, network: QuantizedNetwork, config: BitConfig) -> dict[str, Any]:
    """Return quality beside full precision, and the seconds that weights and ranges took."""
    started = time.perf_counter(), time.process_time()
    network.configure(config)
    seconds, cpu_seconds = time.perf_counter() - started[0], time.process_time() - started[1]
    full = evaluator.score(network, None).per_sample
    per_sample = evaluator.score(network, config).per_sample
    drop = paired_interval(per_sample, full)
    return {
        "quality_measured": float(per_sample.mean()),
        "drop_measured": drop.mean,
        "drop_low": drop.low,
        "drop_high": drop.high,
        "samples": drop.samples,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
    }


PARTS: Mapping[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "resnet20": lambda: uniform("resnet20"),
    "dscnn": lambda: uniform("dscnn"),
    "resnet20_levels": lambda: levels("resnet20"),
    "dscnn_levels": lambda: levels("dscnn"),
    "resnet20_mixed": lambda: mixed("resnet20"),
    "dscnn_mixed": lambda: mixed("dscnn"),
    "stories260k": llama,
}


def main() -> None:
    """Measure, print the tables and write them beside the experiments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", help="part; all if absent")
    console = Console()
    for part in parser.parse_args().only or PARTS:
        table = pd.DataFrame(PARTS[part]())
        console.print(summary(table).to_string(float_format="{:.4f}".format), markup=False, soft_wrap=True)
        path = write_csv(HERE / "results" / f"reconstruction_{part}.csv", table)
        console.print(str(path), markup=False, soft_wrap=True)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return mean and spread over the draws."""
    groups = table.groupby(["network", "weights", "recipe"], sort=False)
    return groups.agg(
        draws=("draw", "size"),
        mean=("quality_measured", "mean"),
        lowest=("quality_measured", "min"),
        highest=("quality_measured", "max"),
        drop=("drop_measured", "mean"),
        cpu_seconds=("cpu_seconds", "mean"),
    )


if __name__ == "__main__":
    main()
