"""What a run will write, and whether the disk has room for it: known before anything is measured."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hwdse.errors import InputError
from hwdse.evaluate import Evaluation
from hwdse.graph import LayerGraph
from hwdse.hardware import HardwareProfile
from hwdse.study.budget import Budget
from hwdse.study.prepare import Question

__all__ = ["DiskUse", "check_disk"]

MB = 1e6
VALUE_BYTES, SCORE_BYTES = 4, 4
MOST_BITS = 8
"""Bits of the widest format whose weights are kept."""

ROW_BYTES, WORD_BYTES = 700, 12
"""A row of a table or of the pool without the precisions of its layers, and one of these."""

PREDICTED_ROWS = 1000
FILE_BYTES = 4000
"""A weight's file without its values."""

PAGE_BYTES, FIGURES_BYTES = 3e6, 1.5e6
"""The page of a run; the figures of a device."""


@dataclass(frozen=True)
class DiskUse:
    """Bytes that a run writes at most, about.

    Attributes
    ----------
    weights
        Weights that are found from calibration data, per scheme and format.
    evaluations
        The pool: a score per sample for every evaluation of the budget.
    tables
        Tables, figures and the page.
    """

    weights: float
    evaluations: float
    tables: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.evaluations + self.tables

    def __str__(self) -> str:
        return (
            f"{_megabytes(self.total)} (weights {_megabytes(self.weights)}, evaluations "
            f"{_megabytes(self.evaluations)}, tables, figures and page {_megabytes(self.tables)})"
        )

    @classmethod
    def of(
        cls,
        graph: LayerGraph,
        evaluation: Evaluation,
        profiles: Sequence[HardwareProfile],
        question: Question,
        budget: Budget,
        *,
        fleet: int = 0,
    ) -> DiskUse:
        """Return what a run about ``question`` writes.

        Parameters
        ----------
        graph
            The network.
        evaluation
            Samples that every evaluation scores; those of a loader are its data set's.
        profiles
            The devices.
        question, budget
            Candidates, recipe and number of evaluations.
        fleet
            Levels at which a configuration for all devices is measured too.
        """
        layers, schemes = len(graph.layers), len({profile.scheme.key for profile in profiles})
        formats = {p.weights for p in question.candidates if p.weights.bits <= MOST_BITS}
        kept = len(formats) * schemes if question.recipe.finds_weights else 0
        count = budget.evaluations + 1 + fleet * schemes
        row = ROW_BYTES + WORD_BYTES * layers
        grid = len(profiles) * 3 * layers * len(question.candidates) * ROW_BYTES / 2
        rows = len(profiles) * (2 * count + PREDICTED_ROWS) * row
        return cls(
            weights=kept * sum(VALUE_BYTES * layer.weight_count + FILE_BYTES for layer in graph.layers),
            evaluations=count * (row + SCORE_BYTES * _samples(evaluation)),
            tables=2 * (rows + grid) + PAGE_BYTES + FIGURES_BYTES * (len(profiles) + 1),
        )


def check_disk(use: DiskUse, folder: Path, *, usage: Callable[[Path], Any] = shutil.disk_usage) -> str:
    """Return a sentence that says what a run in ``folder`` writes.

    Parameters
    ----------
    use
        What it writes; what an earlier session wrote is taken off.
    folder
        Where to; it need not be there yet.
    usage
        What knows the free bytes of a disk, as :func:`shutil.disk_usage`.

    Raises
    ------
    InputError
        If the disk has less room.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
    free, wanted = float(usage(there).free), max(0.0, use.total - written)
    if wanted > free:
        raise InputError(
            f"expected room for about {use} in {folder}, got {_megabytes(free)} free; free some, lower "
            "--budget-evaluations, or name a folder on another disk by --out"
        )
    return f"the run will take at most about {use} of the {_megabytes(free)} that are free"


def _megabytes(count: float) -> str:
    """Return bytes in words.

    >>> _megabytes(1234567.0), _megabytes(2.5e11)
    ('1.2 MB', '250000.0 MB')
    """
    return f"{count / MB:.1f} MB"


def _samples(evaluation: Evaluation) -> int:
    """Return how many samples an evaluation scores, as far as that is known without reading a loader."""
    if isinstance(evaluation.batches, Sequence):
        return sum(map(_length, evaluation.batches))
    return len(getattr(evaluation.batches, "dataset", ()))


def _length(item: object) -> int:
    """Return the samples of a pair (batch, targets); 0 for what is none, which is refused elsewhere."""
    while isinstance(item, tuple | list) and item:
        item = item[0]
    return int(item.shape[0]) if isinstance(item, torch.Tensor) and item.ndim else 0
