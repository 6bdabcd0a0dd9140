"""Which measured configurations may belong to the front for all that the samples can tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwdse.evaluate.interval import paired_intervals
from hwdse.pareto import non_dominated

__all__ = ["within_noise"]

_FARTHER_SDS = 4.0
"""Standard errors beyond which no paired interval need be computed: those of two drops, as if these were independent.

That of their difference is at most sqrt(2) of it, so a difference of 2.8 is significant whatever the two share.
"""

_AT_ONCE = 512
"""Configurations whose scores are held in memory at once, besides those of the front."""

_Scores = Callable[[Sequence[str]], list[NDArray[np.float32]]]


def within_noise(
    measured: pd.DataFrame,
    scores: _Scores,
    *,
    quality: str,
    costs: Sequence[str],
    may_count: bool,
    beaten_by: dict[str, str] | None = None,
) -> NDArray[np.bool_]:
    """Return True for each row of ``measured`` that is off the front, but not significantly, ``(n,)``.

    A configuration is off the front where another costs no more in any respect and has a better quality. It is within
    noise if none of those is significantly better: each 95 % interval of the paired difference holds 0.

    Parameters
    ----------
    measured
        One row per configuration with its ``bits``, costs, quality and drop with interval.
    scores
        Scores per sample of configurations by their bits, ``(samples,)`` each.
    quality
        Name of the quality; higher is better.
    costs
        Columns of the costs.
    may_count
        As in :func:`hwdse.evaluate.paired_interval`.
    beaten_by
        Bits of one that is significantly better, by bits: what earlier calls for the same costs found is not asked
        again, and what this one finds is added.
    """
    beaten_by = {} if beaten_by is None else beaten_by
    values = measured[f"{quality}_measured"].to_numpy(dtype=np.float64)
    marks = np.zeros(len(values), dtype=np.bool_)
    if not len(values):
        return marks
    spent = measured[list(costs)].to_numpy(dtype=np.float64)
    drop = f"{quality}_drop_measured"
    errors = (measured[f"{drop}_high"] - measured[f"{drop}_low"]).to_numpy(dtype=np.float64) / 4.0
    bits = measured["bits"].to_numpy(dtype=object)
    front = np.flatnonzero(non_dominated(np.column_stack([-values, spent])))
    front = front[np.argsort(-values[front], kind="stable")]
    best, of_front = bits[front].tolist(), scores(bits[front].tolist())
    known = set(best)
    others = np.setdiff1d(np.arange(len(values)), front)
    for start in range(0, len(others), _AT_ONCE):
        rows = others[start : start + _AT_ONCE]
        is_above = (spent[front] <= spent[rows][:, None]).all(axis=2) & (values[front] >= values[rows][:, None])
        farther = values[front] - values[rows][:, None] > _FARTHER_SDS * np.hypot(errors[front], errors[rows][:, None])
        is_open = ~(is_above & farther).any(axis=1)
        is_open &= [beaten_by.get(own) not in known for own in bits[rows]]
        rows, is_above = rows[is_open], is_above[is_open]
        beaters = _beaters(scores(bits[rows].tolist()), of_front, is_above, may_count=may_count)
        marks[rows] = beaters < 0
        beaten_by |= {bits[row]: best[beater] for row, beater in zip(rows, beaters, strict=True) if beater >= 0}
    return marks


def _beaters(
    ours: list[NDArray[np.float32]], best: list[NDArray[np.float32]], is_above: NDArray[np.bool_], *, may_count: bool
) -> NDArray[np.int64]:
    """Return for each of ``ours`` the place of one of ``best`` above it that is significantly better; -1 for none.

    ``is_above`` is ``(ours, best)``; ``best`` are the most accurate first, which decide most often.
    """
    beaters = np.full(len(ours), -1)
    sizes = np.array([scores.size for scores in ours], dtype=np.int64)
    for size in np.unique(sizes):
        rows = np.flatnonzero(sizes == size)
        stacked = np.stack([ours[row] for row in rows])
        for place, theirs in enumerate(best):
            asked = np.flatnonzero(is_above[rows, place] & (beaters[rows] < 0))
            if len(asked):
                samples = min(int(size), theirs.size)
                found = paired_intervals(stacked[asked, :samples], theirs[:samples], may_count=may_count)
                beaters[rows[asked[[interval.low > 0.0 for interval in found]]]] = place
    return beaters
