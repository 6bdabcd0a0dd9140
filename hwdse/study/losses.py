"""What predicts harm before anything is measured: a loss of every (group, candidate), by the name that a user gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from hwdse.analysis.difficulty import measure_difficulty
from hwdse.analysis.draws import Drawn, draw
from hwdse.analysis.fisher import predict_sensitivity
from hwdse.analysis.sensitivity import Sensitivity, measure_sensitivity
from hwdse.formats import Precision
from hwdse.progress import Progress
from hwdse.quantize.network import QuantizedNetwork
from hwdse.workers import Crew

__all__ = ["LOSSES", "find_losses"]

Find = Callable[
    [QuantizedNetwork, Sequence[Any], tuple[Precision, ...], np.random.Generator, Progress, Crew | None], Sensitivity
]

DRAWS, FISHER_DRAWS = 64, 24
FISHER_MEASURED_SHARE = 0.25
"""Of the predicted divergences, the largest: second order misleads where errors are large."""


def find_losses(
    network: QuantizedNetwork,
    batches: Sequence[Any],
    candidates: tuple[Precision, ...],
    *,
    loss: str,
    seed: int,
    progress: Progress,
    crew: Crew | None = None,
) -> Sensitivity:
    """Return the ``loss`` of every (group, candidate), alone under its name.

    Parameters
    ----------
    network
        Calibrated network under one scheme.
    batches
        Calibration batches, without labels.
    candidates
        Precisions to try.
    loss
        A name among :data:`LOSSES`.
    seed
        Of the samples that are drawn.
    progress
        Who watches.
    crew
        Who runs what is measured; ``None`` for this process.
    """
    found = LOSSES[loss](network, batches, candidates, np.random.default_rng(seed), progress, crew)
    (values,) = found.scores.values()
    return replace(found, scores={loss: values}, per_sample={})


def _measured(
    method: str,
    network: QuantizedNetwork,
    batches: Sequence[Any],
    candidates: tuple[Precision, ...],
    rng: np.random.Generator,
    progress: Progress,
    crew: Crew | None,
) -> Sensitivity:
    drawn = _drawn(network, batches, DRAWS, rng, progress)
    return measure_sensitivity(
        network, drawn, candidates=candidates, methods=(method,), on_batch=progress.advance, crew=crew
    )


def _fisher(
    network: QuantizedNetwork,
    batches: Sequence[Any],
    candidates: tuple[Precision, ...],
    rng: np.random.Generator,
    progress: Progress,
    crew: Crew | None,
) -> Sensitivity:
    drawn = _drawn(network, batches, FISHER_DRAWS, rng, progress)
    share = FISHER_MEASURED_SHARE
    return predict_sensitivity(
        network, drawn, candidates=candidates, rng=rng, measured_share=share, on_batch=progress.advance, crew=crew
    )


def _drawn(
    network: QuantizedNetwork, batches: Sequence[Any], draws: int, rng: np.random.Generator, progress: Progress
) -> tuple[Drawn, ...]:
    drawn = draw(network, batches, draws=draws, rng=rng)
    progress.start("sensitivity", len(drawn))
    return drawn


def _difficulty(
    network: QuantizedNetwork,
    _batches: Sequence[Any],
    candidates: tuple[Precision, ...],
    _rng: np.random.Generator,
    progress: Progress,
    _crew: Crew | None,
) -> Sensitivity:
    progress.start("difficulty", 1)
    names = tuple(group.name for group in network.captured.groups)
    found = Sensitivity(names, candidates, {"difficulty": measure_difficulty(network, candidates)}, samples=0)
    progress.advance()
    return found


LOSSES: Mapping[str, Find] = MappingProxyType(
    {
        "kl": partial(_measured, "kl"),
        "jsd": partial(_measured, "jsd"),
        "cosine": partial(_measured, "cosine"),
        "fisher": _fisher,
        "difficulty": _difficulty,
    }
)
"""What may predict harm: a divergence at the output, measured for one group at a time on samples drawn where the
network is unsure; the same predicted from a few backward passes (``fisher``); ``difficulty``, from distributions alone.
"""
