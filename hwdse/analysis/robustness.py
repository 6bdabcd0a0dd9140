"""Robustness: how far sensitivities, and the order of groups that follows from them, would move with other samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwdse.analysis.correlation import CONFIDENCE, RESAMPLES, Estimate
from hwdse.errors import InputError

__all__ = ["Settled", "order_stability", "score_intervals"]

Floats = NDArray[np.float64]

_BLOCK = 2**22


def score_intervals(
    per_sample: ArrayLike,
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> tuple[Floats, Floats]:
    """Return the percentile bootstrap interval of every mean over samples, ``(low, high)``.

    Samples are drawn with replacement, the same ones for all groups and candidates [Efron1981]_.

    Parameters
    ----------
    per_sample
        ``(..., samples)``, for instance ``Sensitivity.per_sample["kl"]``.
    rng
        Draws the resamples.
    resamples
        Number of resamples.
    confidence
        Share of the resampled means that the interval holds.

    Raises
    ------
    InputError
        If there are fewer than 2 samples, a value is not finite, or the request makes no sense.

    >>> low, high = score_intervals(np.eye(2), rng=np.random.default_rng(0))
    >>> low.tolist(), high.tolist()
    ([0.0, 0.0], [1.0, 1.0])
    """
    values = _checked(per_sample, resamples, confidence)
    means = _resampled(values, resamples, rng)
    low, high = np.quantile(means, [(1.0 - confidence) / 2, (1.0 + confidence) / 2], axis=0)
    return low, high


def order_stability(
    per_sample: ArrayLike,
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Return how well the order of the groups on other samples agrees with the order on these.

    Kendall's tau-b [Kendall1945]_ between the order of the groups by their mean on a bootstrap resample and on all
    samples, averaged over the candidates: its mean over resamples, with the interval that holds the middle share
    ``confidence`` of them. 1 says that the samples at hand settle the order. Candidates whose harm is the same for
    every group (full precision) order nothing and are left out.

    Parameters
    ----------
    per_sample
        ``(groups, candidates, samples)``, for instance ``Sensitivity.per_sample["kl"]``.
    rng
        Draws the resamples.
    resamples
        Number of resamples.
    confidence
        Share of the resamples that the interval holds.

    Raises
    ------
    InputError
        If the shape is another, no candidate orders the groups, or as in :func:`score_intervals`.
    """
    values = _checked(per_sample, resamples, confidence)
    if values.ndim != 3:
        raise InputError(f"expected harms (groups, candidates, samples), got shape {values.shape}; keep all three axes")
    means = values.mean(axis=-1)
    differ = [c for c in range(means.shape[1]) if (means[:, c] != means[:1, c]).any()]
    if not differ:
        raise InputError(
            "expected at least one candidate that harms one group more than another, got none; "
            "there is no order to judge"
        )
    drawn = _resampled(values[:, differ], resamples, rng)
    taus = np.mean([_tau(drawn[:, :, i], means[:, c]) for i, c in enumerate(differ)], axis=0)
    low, high = np.quantile(taus, [(1.0 - confidence) / 2, (1.0 + confidence) / 2])
    return Estimate(float(taus.mean()), float(low), float(high))


@dataclass(frozen=True)
class Settled:
    """When the order of the groups counts as settled, so that a measurement may stop.

    It is once there are ``samples`` samples and the low end of the 95 % interval of :func:`order_stability` reaches
    ``tau``. The resamples are drawn anew from ``seed`` each time, so equal data stop at the same batch.

    Attributes
    ----------
    tau
        Kendall correlation that 97.5 % of the resamples reach.
    samples
        Fewest samples to judge by.
    resamples
        Number of resamples for each judgement.
    seed
        Of the resamples.
    """

    tau: float = 0.9
    samples: int = 32
    resamples: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if not -1.0 <= self.tau <= 1.0 or self.samples < 2:
            raise InputError(
                f"expected a correlation between -1 and 1 and at least 2 samples, got {self.tau:g} and {self.samples}; "
                "correct them"
            )

    def holds(self, per_sample: ArrayLike) -> bool:
        """Return True if harms ``(groups, candidates, samples)`` settle the order of the groups."""
        if np.shape(per_sample)[-1] < self.samples:
            return False
        rng = np.random.default_rng(self.seed)
        return order_stability(per_sample, rng=rng, resamples=self.resamples).low >= self.tau


def _checked(per_sample: ArrayLike, resamples: int, confidence: float) -> Floats:
    values = np.asarray(per_sample, dtype=np.float64)
    if values.ndim == 0 or values.shape[-1] < 2:
        raise InputError(
            f"expected at least 2 samples, got shape {values.shape}; measure on more, and keep the values per sample"
        )
    if not np.isfinite(values).all():
        raise InputError("expected finite harms, got NaN or infinity; leave out what was not measured")
    if resamples < 1 or not 0.0 < confidence < 1.0:
        raise InputError(
            f"expected at least 1 resample and a confidence between 0 and 1, got {resamples} and {confidence:g}; "
            "correct them"
        )
    return values


def _resampled(values: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """Return the means of resamples of the samples, ``(resamples, ...)``."""
    samples = values.shape[-1]
    times = rng.multinomial(samples, np.full(samples, 1.0 / samples), size=resamples)
    # Not a matrix product: equal groups must stay equal, and products of matrices may add up each column differently.
    means: Floats = np.einsum("rs,vs->rv", times / samples, values.reshape(-1, samples))
    return means.reshape(resamples, *values.shape[:-1])


def _tau(drawn: Floats, means: Floats) -> Floats:
    """Return Kendall's tau-b of each row of ``drawn (resamples, groups)`` with ``means (groups,)``.

    A resample in which all groups are equal has no order: its correlation is 0.
    """
    i, j = np.triu_indices(len(means), 1)
    reference = np.sign(means[i] - means[j])
    taus = np.zeros(len(drawn))
    block = max(1, _BLOCK // len(i))
    for first in range(0, len(drawn), block):
        rows = drawn[first : first + block]
        signs = np.sign(rows[:, i] - rows[:, j])
        below = np.sqrt(np.abs(signs).sum(axis=1) * np.abs(reference).sum())
        np.divide(signs @ reference, below, out=taus[first : first + block], where=below > 0.0)
    return taus
