"""Sensitivity of every (group, candidate) against the naive loop: on the same samples, and on those that are drawn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from naive import CANDIDATES, Case, cases
from scipy.stats import kendalltau
from timing import interleaved_seconds, row

from hwdse.analysis.sensitivity import measure_sensitivity
from hwdse.progress import SILENT
from hwdse.study.losses import DRAWS, find_losses

REPEATS, SEEDS = 3, 5


def run() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    return [one for case in cases() for one in _rows(case)]


def _rows(case: Case) -> Iterator[dict[str, Any]]:
    def drawn(seed: int = 0) -> Any:
        found = find_losses(case.network, case.batches, CANDIDATES, loss="kl", seed=seed, progress=SILENT)
        return found.scores["kl"]

    def reused() -> object:
        return measure_sensitivity(case.network, case.batches, candidates=CANDIDATES, methods=("kl",))

    full = case.naive()  # quantizes the weights, which all need
    seconds = interleaved_seconds({"naive": case.naive, "reused": reused, "drawn": drawn}, repeats=REPEATS)
    title = f"KL sensitivities, {case.name}, {len(CANDIDATES)} candidates"
    yield row(f"{title}, same samples / naive loop", seconds["reused"] / seconds["naive"], unit="x", target=0.6)
    samples = sum(map(len, case.batches))
    name = f"{title}, {DRAWS} draws out of {samples}"
    yield row(f"{name} / naive loop", seconds["drawn"] / seconds["naive"], unit="x", target=0.5)
    if case.is_trained:
        tau = sum(kendalltau(drawn(seed), full).statistic for seed in range(SEEDS)) / SEEDS
        yield row(f"{name}: 1 - tau", 1.0 - tau, unit="", target=0.05)
