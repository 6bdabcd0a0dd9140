"""Where a run keeps the weights that it found from calibration data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hwdse.capture import Capture
from hwdse.evaluate.fingerprint import fingerprint_of_batches, fingerprint_of_network
from hwdse.quantize.recipe import Recipe
from hwdse.quantize.store import Store

__all__ = ["WEIGHTS", "weight_store"]

WEIGHTS = "weights"
"""Folder of a run."""


def weight_store(run: Path | None, captured: Capture, batches: Sequence[Any], recipe: Recipe) -> Store | None:
    """Return where the run in the folder ``run`` keeps weights; ``None`` without a folder, or if none are found."""
    if run is None or not recipe.needs_data:
        return None
    identity = {"network": fingerprint_of_network(captured), "calibration": fingerprint_of_batches(batches)}
    return Store(run / WEIGHTS, identity)
