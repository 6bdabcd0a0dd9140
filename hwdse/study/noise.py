"""Which measured configurations may belong to the front for all that the samples can tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwdse.evaluate import paired_interval
from hwdse.pareto import non_dominated

__all__ = ["within_noise"]

_FARTHER_SDS = 6.0
"""Standard errors of both drops together beyond which no paired interval need be computed."""


def within_noise(
    measured: pd.DataFrame,
    scores: Callable[[str], NDArray[np.float32]],
    *,
    quality: str,
    costs: Sequence[str],
    may_count: bool,
) -> NDArray[np.bool_]:
    """Return True for each row of ``measured`` that is off the front, but not significantly, ``(n,)``.

    A configuration is off the front where another costs no more in any respect and has a better quality. It is within
    noise if none of those is significantly better: each 95 % interval of the paired difference holds 0.

    Parameters
    ----------
    measured
        One row per configuration with its ``bits``, costs, quality and drop with interval.
    scores
        Scores per sample of a configuration's bits, ``(samples,)``.
    quality
        Name of the quality; higher is better.
    costs
        Columns of the costs.
    may_count
        As in :func:`hwdse.evaluate.paired_interval`.
    """
    values = measured[f"{quality}_measured"].to_numpy(dtype=np.float64)
    spent = measured[list(costs)].to_numpy(dtype=np.float64)
    drop = f"{quality}_drop_measured"
    errors = (measured[f"{drop}_high"] - measured[f"{drop}_low"]).to_numpy(dtype=np.float64) / 4.0
    front = np.flatnonzero(non_dominated(np.column_stack([-values, spent]))) if len(values) else np.zeros(0, int)
    held: dict[int, NDArray[np.float32]] = {}

    def of(row: int) -> NDArray[np.float32]:
        if row not in held:
            held[row] = scores(str(measured["bits"].iloc[row]))
        return held[row]

    def is_better(ours: int, theirs: int) -> bool:
        if values[theirs] - values[ours] > _FARTHER_SDS * np.hypot(errors[ours], errors[theirs]):
            return True
        samples = min(len(of(ours)), len(of(theirs)))
        return paired_interval(of(ours)[:samples], of(theirs)[:samples], may_count=may_count).low > 0.0

    marks = np.zeros(len(values), dtype=np.bool_)
    for row in np.setdiff1d(np.arange(len(values)), front):
        above = front[(spent[front] <= spent[row]).all(axis=1) & (values[front] >= values[row])]
        marks[row] = not any(is_better(int(row), int(other)) for other in above[np.argsort(-values[above])])
        held.pop(int(row), None)  # only those of the front are compared again
    return marks
