"""Predicted sensitivity of ResNet-20 and DS-CNN from a few backward passes: what it costs, and how well it ranks.

The yardstick is the naive loop: a whole quantized forward pass over all calibration samples for every (group,
candidate). Ranks are compared by Kendall's tau with what that loop measures, over all (group, candidate) and within
each weight format, of which the lowest counts; both are means over draws of samples. A plain measurement on a draw is
timed beside the prediction, since on small networks it is no worse.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from networks import EXPERIMENTS, resnet20
from scipy.stats import kendalltau
from timing import interleaved_seconds, row

from hwdse.analysis.draws import draw
from hwdse.analysis.fisher import predict_sensitivity
from hwdse.analysis.sensitivity import first_tensor, kl, measure_sensitivity
from hwdse.capture import capture
from hwdse.errors import InputError
from hwdse.factories import load_factory
from hwdse.formats import Precision, Scheme
from hwdse.quantize.network import QuantizedNetwork, Setting, observe
from hwdse.quantize.program import Program

REPEATS, SEEDS = 3, 5
CANDIDATES = [Precision.parse(text) for text in ("W2A8", "W4A4", "W4A8", "W8A8")]

Scores = np.ndarray[Any, np.dtype[np.float64]]

Way = tuple[dict[str, Any], tuple[float, float, float]]

CHEAP = {"draws": 24, "passes": 4, "measured_share": 0.25}
THOROUGH = {"draws": 96, "passes": 6, "measured_share": 0.25}
DRAWN = 16
AT_5, AT_25 = (0.05, 0.87, 0.5), (0.25, 0.92, 0.65)
"""Most cost, least tau over all entries and least tau within a weight format."""


def run() -> list[dict[str, Any]]:
    """Return the rows of this benchmark; ranks are compared where trained weights are there."""
    rows = _rows("ResNet-20", *_resnet20(), ways=[(CHEAP, AT_5), (THOROUGH, AT_25)])
    kws = _dscnn()
    return rows if kws is None else rows + _rows("DS-CNN", *kws, ways=[(CHEAP, AT_25)])


def _resnet20() -> tuple[QuantizedNetwork, list[torch.Tensor], bool]:
    model, images, kind = resnet20()
    if kind == "trained":
        batches = load_factory("data.py:cifar10_calibration", folder=EXPERIMENTS)()[:4]
    else:
        batches = list(images[:256].split(64))
    return _network(model, batches), batches, kind == "trained"


def _dscnn() -> tuple[QuantizedNetwork, list[torch.Tensor], bool] | None:
    try:
        model = load_factory("models.py:dscnn", folder=EXPERIMENTS)()
        batches = load_factory("data.py:kws_calibration", folder=EXPERIMENTS)()
    except InputError:
        return None
    return _network(model, batches), batches, True


def _network(model: torch.nn.Module, batches: list[torch.Tensor]) -> QuantizedNetwork:
    program = Program.of(capture(model, batches[0][:2]))
    return QuantizedNetwork(program, scheme=Scheme(), streams=observe(program, batches))


def _naive(network: QuantizedNetwork, batches: list[torch.Tensor]) -> Scores:
    groups = network.captured.groups
    total = np.zeros((len(groups), len(CANDIDATES)))
    for batch in batches:
        reference = first_tensor(network.forward(batch, Setting()))
        for g, group in enumerate(groups):
            for c, candidate in enumerate(CANDIDATES):
                setting = network.setting(dict.fromkeys(group.layers, candidate))
                total[g, c] += float(kl(reference, first_tensor(network.forward(batch, setting))).sum())
    return total / sum(len(batch) for batch in batches)


def _rows(
    name: str, network: QuantizedNetwork, batches: list[torch.Tensor], trained: bool, *, ways: list[Way]
) -> list[dict[str, Any]]:
    def predicted(seed: int, *, draws: int, **options: Any) -> Scores:
        rng = np.random.default_rng(seed)
        drawn = draw(network, batches, draws=draws, rng=rng)
        found = predict_sensitivity(network, drawn, candidates=CANDIDATES, rng=rng, **options)
        return found.scores["kl_predicted"]

    def measured(seed: int) -> Scores:
        drawn = draw(network, batches, draws=DRAWN, rng=np.random.default_rng(seed))
        return measure_sensitivity(network, drawn, candidates=CANDIDATES, methods=("kl",)).scores["kl"]

    functions: dict[str, Callable[[int], Scores]] = {_title(w): partial(predicted, **w) for w, _ in ways}
    functions[f"measured, {DRAWN} draws"] = measured
    targets = [*(target for _, target in ways), AT_25]
    full = _naive(network, batches)
    timed = {way: partial(function, 0) for way, function in functions.items()}
    seconds = interleaved_seconds({"naive": lambda: _naive(network, batches), **timed}, repeats=REPEATS)
    rows = []
    for (way, function), (cost, tau, tau_within) in zip(functions.items(), targets, strict=True):
        title = f"{name}, sensitivities {way}"
        rows.append(row(f"{title}: cost / naive loop", seconds[way] / seconds["naive"], unit="x", target=cost))
        if trained:
            found = np.array([_ranks(function(seed), full) for seed in range(SEEDS)]).mean(axis=0)
            rows.append(row(f"{title}: 1 - tau", 1.0 - float(found[0]), unit="", target=1.0 - tau))
            lowest = 1.0 - float(found[1:].min())
            rows.append(row(f"{title}: 1 - tau in a weight format", lowest, unit="", target=1.0 - tau_within))
    return rows


def _title(options: dict[str, Any]) -> str:
    measured = f", {options['measured_share']:.0%} measured" if options["measured_share"] else ""
    return f"predicted, {options['draws']} draws, {options['passes']} passes{measured}"


def _ranks(found: Scores, full: Scores) -> list[float]:
    """Return tau over all entries, then within each weight format."""
    widths = [c.weights for c in CANDIDATES]
    columns = [[i for i, w in enumerate(widths) if w == width] for width in dict.fromkeys(widths)]
    return [kendalltau(found[:, c], full[:, c]).statistic for c in (list(range(len(CANDIDATES))), *columns)]
