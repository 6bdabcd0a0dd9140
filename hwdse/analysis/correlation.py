"""Rank correlation of cheap scores with measured sensitivity: how far a score may stand in for a measurement.

Only the order counts: a score need not have the unit of the harm, nor grow in proportion to it. It must grow with it:
one that falls where harm grows, such as a signal-to-noise ratio, correlates negatively.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from hwdse.errors import InputError

__all__ = ["Estimate", "RankCorrelation", "correlation_table", "rank_correlation"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

RESAMPLES = 1000
CONFIDENCE = 0.95
_FEWEST_GROUPS = 3


@dataclass(frozen=True)
class Estimate:
    """A correlation with its bootstrap interval, all in [-1, 1]."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class RankCorrelation:
    """How well a score ranks groups and candidates by their harm.

    Attributes
    ----------
    kendall
        Kendall's tau-b [Kendall1945]_, where pairs that are tied in the score or in the harm count for neither order.
        ``None`` if there is none: a score or a harm that is the same everywhere has no order, and fewer than 3 groups
        with a score say nothing.
    spearman
        Spearman's rho [Spearman1904]_, with average ranks of ties; ``None`` where ``kendall`` is.
    pairs
        Number of pairs (score, harm) behind them.
    groups
        Number of groups with such a pair.
    left_out
        Number of candidates left out because their scores or their harms are all equal; 0 where all are pooled.
    """

    kendall: Estimate | None
    spearman: Estimate | None
    pairs: int
    groups: int
    left_out: int


def rank_correlation(
    score: ArrayLike,
    harm: ArrayLike,
    *,
    within: bool = False,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> RankCorrelation:
    """Return the rank correlation of ``score`` with ``harm``, each with a percentile bootstrap interval.

    The interval says how far the correlation would move with other groups like these: groups are drawn with
    replacement, each with all its candidates, since the candidates of one group are not independent [Efron1979]_, and
    the interval holds the middle share ``confidence`` of the correlations of the resamples [Efron1981]_. Resamples
    without a correlation are skipped. The noise of the measured harm is not in it, the candidates are these ones, and
    with few groups it is too narrow.

    Parameters
    ----------
    score, harm
        ``(groups, candidates)``; the score of a (group, candidate) that has none is NaN, and is left out.
    within
        False to pool all pairs, which also asks whether the score orders candidates; True for the mean over candidates
        of the correlation over groups, which asks whether it orders the groups. Candidates whose scores or harms are
        all equal are left out.
    rng
        Draws the resamples.
    resamples
        Number of resamples.
    confidence
        Share of the resamples' correlations that the interval holds.

    Raises
    ------
    InputError
        If the shapes differ or are not of two dimensions, there are fewer than 3 groups, a harm is not finite, or the
        request makes no sense.

    >>> score = np.arange(12.0).reshape(6, 2)
    >>> rank_correlation(score, score**3, rng=np.random.default_rng(0)).kendall
    Estimate(value=1.0, low=1.0, high=1.0)
    """
    if resamples < 1 or not 0.0 < confidence < 1.0:
        raise InputError(
            f"expected at least 1 resample and a confidence between 0 and 1, got {resamples} and {confidence:g}; "
            "correct them"
        )
    scores, harms = _checked(score, harm)
    return _correlate(scores, harms, _draws(len(harms), resamples, rng), within=within, confidence=confidence)


def correlation_table(
    scores: Mapping[str, ArrayLike],
    harm: ArrayLike,
    *,
    candidates: Sequence[object],
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Return one row per score and pool, best Kendall correlation first.

    Every score is judged on the same 1,000 resamples of the groups, as far as it has a value for all of them, so that a
    row does not depend on which other scores there are. See :func:`rank_correlation` for what the 95 % intervals mean.

    Parameters
    ----------
    scores
        ``(groups, candidates)`` by name, NaN where a score does not exist.
    harm
        ``(groups, candidates)``, measured.
    candidates
        Candidate of each column, which tells columns from rows.
    rng
        Draws the resamples.

    Returns
    -------
    pandas.DataFrame
        Columns ``score, pool, kendall, kendall_low, kendall_high, spearman, spearman_low, spearman_high, pairs,
        groups``. ``pool`` is ``all`` or ``within`` one candidate. Correlations that do not exist (a constant score)
        are empty (``pandas.NA``) and stand last.

    Raises
    ------
    InputError
        As :func:`rank_correlation`, or if there are not as many columns as candidates.
    """
    shape = np.shape(harm)
    if len(shape) != 2 or shape[1] != len(candidates):
        raise InputError(
            f"expected harms (groups, {len(candidates)}), one column per candidate, got shape {shape}; turn or cut them"
        )
    draws = _draws(shape[0], RESAMPLES, rng)
    rows = []
    for name, score in scores.items():
        checked = _checked(score, harm, name=name)
        for pool in ("all", "within"):
            found = _correlate(*checked, draws, within=pool == "within", confidence=CONFIDENCE)
            rows.append((name, pool, *_cells(found.kendall), *_cells(found.spearman), found.pairs, found.groups))
    kinds = {
        "score": "object",
        "pool": "object",
        **{f"{name}{end}": "Float64" for name in ("kendall", "spearman") for end in ("", "_low", "_high")},
        "pairs": "int64",
        "groups": "int64",
    }
    table = pd.DataFrame(rows, columns=list(kinds)).astype(kinds)
    return table.sort_values("kendall", ascending=False, kind="stable", ignore_index=True)


def _cells(estimate: Estimate | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if estimate is None else (estimate.value, estimate.low, estimate.high)


def _checked(score: ArrayLike, harm: ArrayLike, *, name: str = "") -> tuple[Floats, Floats]:
    """Return both as arrays of one shape."""
    scores, harms = np.asarray(score, dtype=np.float64), np.asarray(harm, dtype=np.float64)
    of = f" for score {name!r}" if name else ""
    if scores.shape != harms.shape or scores.ndim != 2:
        raise InputError(
            f"expected score and harm of one shape (groups, candidates), got {scores.shape} and {harms.shape}{of}; "
            "give one score for each measured harm, NaN where there is none"
        )
    if len(harms) < _FEWEST_GROUPS:
        raise InputError(
            f"expected at least {_FEWEST_GROUPS} groups, got {len(harms)}; a rank correlation of fewer says nothing"
        )
    if not np.isfinite(harms).all():
        raise InputError("expected finite measured harms, got NaN or infinity; leave out what was not measured")
    return scores, harms


def _draws(groups: int, resamples: int, rng: np.random.Generator) -> Integers:
    """Return whole numbers ``(resamples, groups)``; modulo the number of groups they are the groups drawn."""
    return rng.integers(2**62, size=(resamples, groups))


def _correlate(score: Floats, harm: Floats, draws: Integers, *, within: bool, confidence: float) -> RankCorrelation:
    """Return the correlations over the groups that have a score, and over resamples of those."""
    exists = ~np.isnan(score)
    pools = [list(range(score.shape[1]))]
    if within:
        pools = [[c] for c in pools[0] if _differ(score[exists[:, c], c]) and _differ(harm[exists[:, c], c])]
    left_out = score.shape[1] - len(pools) if within else 0
    used = exists[:, [c for pool in pools for c in pool]]
    rows = used.any(axis=1)
    pairs, groups = int(used.sum()), int(rows.sum())
    if groups < _FEWEST_GROUPS:
        return RankCorrelation(None, None, pairs, groups, left_out)
    drawn = (draws[:, :groups] % groups)[..., None] == np.arange(groups)
    weights = np.vstack([np.ones(groups), drawn.sum(axis=1)])  # how often each group counts; first all groups, once
    found = np.stack([_correlations(score[rows][:, pool], harm[rows][:, pool], weights) for pool in pools])
    counts = np.isfinite(found).sum(axis=0)
    kendall, spearman = _ratio(np.nansum(found, axis=0), counts)
    return RankCorrelation(_estimate(kendall, confidence), _estimate(spearman, confidence), pairs, groups, left_out)


def _differ(values: Floats) -> bool:
    return bool((values != values[:1]).any())


def _estimate(values: Floats, confidence: float) -> Estimate | None:
    """Return the first of ``values`` with the quantiles of the others; ``None`` if it does not exist."""
    value, resampled = float(values[0]), values[1:][np.isfinite(values[1:])]
    if not np.isfinite(value) or resampled.size == 0:
        return None
    low, high = np.quantile(resampled, [(1.0 - confidence) / 2, (1.0 + confidence) / 2])
    return Estimate(value, float(low), float(high))


def _correlations(score: Floats, harm: Floats, weights: Floats) -> Floats:
    """Return Kendall's tau-b and Spearman's rho for each row of ``weights``, ``(2, resamples)``; NaN if constant.

    ``weights (resamples, groups)`` says how often each group counts, so nothing is sorted for a resample. With the sign
    of every difference between two pairs of data, tau-b is made of sums over pairs of groups, weighted by both; copies
    of a group are tied with each other in score and harm, which adds nothing. Twice a rank less its mean is the sum of
    the signs of a value against all others, weighted by theirs, which is right for ties too.
    """
    rows, columns = np.nonzero(~np.isnan(score))
    signs = [_signs(values[rows, columns]) for values in (score, harm)]
    of_group = (rows[:, None] == np.arange(len(score))).astype(np.float64)

    def over_pairs(terms: Floats) -> Floats:
        total: Floats = ((weights @ (of_group.T @ terms @ of_group)) * weights).sum(axis=1)
        return total

    x, y = signs
    kendall = _ratio(over_pairs(x * y), np.sqrt(over_pairs(np.abs(x)) * over_pairs(np.abs(y))))
    times = weights[:, rows]
    a, b = (weights @ (sign @ of_group).T for sign in signs)
    squares = (times * a * a).sum(axis=1) * (times * b * b).sum(axis=1)
    return np.stack([kendall, _ratio((times * a * b).sum(axis=1), np.sqrt(squares))])


def _signs(values: Floats) -> Floats:
    """Return the sign of each value less each other, ``(n, n)``; infinities of one sign are equal."""
    above = (values[:, None] > values).astype(np.float64)
    signs: Floats = above - above.T
    return signs


def _ratio(above: Floats, below: NDArray[Any]) -> Floats:
    """Return the quotient, NaN where ``below`` is 0."""
    quotient = np.full(above.shape, np.nan)
    np.divide(above, below, out=quotient, where=below > 0)
    return quotient
