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
from naive import CANDIDATES, Case, Scores, cases
from scipy.stats import kendalltau
from timing import interleaved_seconds, row

from hwdse.analysis.draws import draw
from hwdse.analysis.fisher import predict_sensitivity
from hwdse.analysis.sensitivity import measure_sensitivity

REPEATS, SEEDS = 3, 5

Way = tuple[dict[str, Any], tuple[float, float, float]]

SMALL = {"out_of": 100, "draws": 8, "passes": 2, "measured_share": 0.0}
CHEAP = {"out_of": 256, "draws": 24, "passes": 4, "measured_share": 0.25}
THOROUGH = {"out_of": 256, "draws": 96, "passes": 6, "measured_share": 0.25}
DRAWN = 16
AT_5, AT_25 = (0.05, 0.87, 0.5), (0.25, 0.92, 0.65)
"""Most cost, least tau over all entries and least tau within a weight format."""


def run() -> list[dict[str, Any]]:
    """Return the rows of this benchmark; ranks are compared where trained weights are there."""
    ways = {"ResNet-20": [(CHEAP, AT_5), (THOROUGH, AT_25)], "DS-CNN": [(SMALL, AT_5), (CHEAP, AT_25)]}
    return [one for case in cases() for one in _rows(case, ways=ways[case.name])]


def _rows(case: Case, *, ways: list[Way]) -> list[dict[str, Any]]:
    network, batches = case.network, case.batches

    def predicted(seed: int, *, out_of: int, draws: int, **options: Any) -> Scores:
        rng = np.random.default_rng(seed)
        drawn = draw(network, batches[: -(-out_of // len(batches[0]))], draws=draws, rng=rng)
        found = predict_sensitivity(network, drawn, candidates=CANDIDATES, rng=rng, **options)
        return found.scores["kl_predicted"]

    def measured(seed: int) -> Scores:
        drawn = draw(network, batches, draws=DRAWN, rng=np.random.default_rng(seed))
        return measure_sensitivity(network, drawn, candidates=CANDIDATES, methods=("kl",)).scores["kl"]

    functions: dict[str, Callable[[int], Scores]] = {_title(w): partial(predicted, **w) for w, _ in ways}
    functions[f"measured, {DRAWN} draws"] = measured
    targets = [*(target for _, target in ways), AT_25]
    full = case.naive()
    timed = {way: partial(function, 0) for way, function in functions.items()}
    seconds = interleaved_seconds({"naive": case.naive, **timed}, repeats=REPEATS)
    rows = []
    for (way, function), (cost, tau, tau_within) in zip(functions.items(), targets, strict=True):
        title = f"{case.name}, sensitivities {way}"
        rows.append(row(f"{title}: cost / naive loop", seconds[way] / seconds["naive"], unit="x", target=cost))
        if case.is_trained:
            found = np.array([_ranks(function(seed), full) for seed in range(SEEDS)]).mean(axis=0)
            rows.append(row(f"{title}: 1 - tau", 1.0 - float(found[0]), unit="", target=1.0 - tau))
            lowest = 1.0 - float(found[1:].min())
            rows.append(row(f"{title}: 1 - tau in a weight format", lowest, unit="", target=1.0 - tau_within))
    return rows


def _title(options: dict[str, Any]) -> str:
    measured = f", {options['measured_share']:.0%} measured" if options["measured_share"] else ""
    return (
        f"predicted, {options['draws']} draws out of at most {options['out_of']}, {options['passes']} passes{measured}"
    )


def _ranks(found: Scores, full: Scores) -> list[float]:
    """Return tau over all entries, then within each weight format."""
    widths = [c.weights for c in CANDIDATES]
    columns = [[i for i, w in enumerate(widths) if w == width] for width in dict.fromkeys(widths)]
    return [kendalltau(found[:, c], full[:, c]).statistic for c in (list(range(len(CANDIDATES))), *columns)]
