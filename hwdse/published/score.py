"""How good predictions of published figures are, and how wide an interval must be to be honest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr, t

from hwdse.errors import InputError

__all__ = ["COVERAGE", "Score", "interval_factor", "score"]

Vector = NDArray[np.float64]

COVERAGE = 0.9


@dataclass(frozen=True)
class Score:
    """Errors of predictions.

    Attributes
    ----------
    rows
        Number of predictions.
    median_error, mean_error, worst_error
        Of ``|predicted / published - 1|``.
    spearman
        Rank correlation; NaN for fewer than 3 rows or where all predictions are equal.
    factor
        :func:`interval_factor` of these rows.
    """

    rows: int
    median_error: float
    mean_error: float
    worst_error: float
    spearman: float
    factor: float


def score(predicted: Vector, published: Vector) -> Score:
    """Return how good predictions ``(n,)`` of published figures ``(n,)`` are.

    Raises
    ------
    InputError
        If there is none, or one is not above zero.
    """
    if not len(predicted) or not (np.concatenate([predicted, published]) > 0).all():
        raise InputError(f"expected at least 1 figure, all above 0, got {len(predicted)} with others among them")
    errors = np.abs(predicted / published - 1.0)
    ranked = len(errors) > 2 and np.ptp(predicted) > 0 and np.ptp(published) > 0
    return Score(
        rows=len(errors),
        median_error=float(np.median(errors)),
        mean_error=float(errors.mean()),
        worst_error=float(errors.max()),
        spearman=float(spearmanr(predicted, published).statistic) if ranked else float("nan"),
        factor=interval_factor(predicted, published),
    )


def interval_factor(predicted: Vector, published: Vector) -> float:
    """Return ``f``: 90 % of figures are expected between ``predicted / f`` and ``predicted f``.

    The larger of two: the order statistic of the logarithmic errors that nine tenths of the rows and one more lie
    within (so at least 90 % of these rows do), and Student's t at 90 % times their root mean square, which is wider for
    few rows. At least 1.01.
    """
    errors = np.sort(np.abs(np.log(predicted / published)))
    n = len(errors)
    within = errors[min(n, int(np.ceil(COVERAGE * (n + 1)))) - 1]
    spread = float(np.sqrt(np.mean(errors**2)))
    normal = float(t.ppf(0.5 + COVERAGE / 2, df=n)) * spread
    return max(1.01, float(np.exp(max(within, normal))))
