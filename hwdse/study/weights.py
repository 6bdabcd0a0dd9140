"""Where a run keeps the weights that it found from calibration data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hwdse.evaluate.fingerprint import fingerprint_of_batches
from hwdse.quantize.recipe import Recipe
from hwdse.quantize.store import Store

__all__ = ["WEIGHTS", "weight_store"]

WEIGHTS = "weights"
"""Folder of a run."""


def weight_store(run: Path | None, network: str, batches: Sequence[Any], recipe: Recipe) -> Store | None:
    """Return where the run in the folder ``run`` keeps the weights of the network with the fingerprint ``network``.

    ``None`` without a folder, or if the recipe finds nothing from the calibration ``batches``.
    """
    if run is None or not recipe.needs_data:
        return None
    return Store(run / WEIGHTS, {"network": network, "calibration": fingerprint_of_batches(batches)})
