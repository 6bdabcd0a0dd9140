"""What harm to expect of a configuration, from those that were measured.

Sensitivities add up to a predicted loss; measured harm follows it only roughly. A Gaussian process [Rasmussen2006]_ in
the logarithm of the harm holds what the measurements teach: a trend over the loss, corrections of every group's
sensitivities, and pairs of groups that hurt more, or less, together than apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import isotonic_regression, minimize
from scipy.special import ndtr

__all__ = ["Expectation", "HarmModel", "Learner"]

Floats = NDArray[np.float64]
_Kernels = tuple[Floats, Floats, Floats, Floats, Floats]

_OFFSET_SD, _SLOPE_SD = 5.0, 0.3
_TREND_LENGTH = 1.5
"""Factors of e in the loss over which the trend may bend."""

_TYPICAL = np.array([0.5, 0.6, 0.5, 0.3, 0.1])
"""Standard deviations of corrections, pairs, bend, rest and noise, in logarithms of harm."""

_SPREAD = 1.0
"""How far, in factors of e, these may lie from what is typical, as one standard deviation."""

_GRID = 64

_FEW, _GROWTH = 20, 1.1
"""Measurements at which the widths are found for good for the first time, and how many more make it worth again."""

_MOST, _MOST_FOR_WIDTHS = 1000, 250
"""Measurements that a model is fitted to: time grows with their cube; and its widths, where there are more."""


@dataclass(frozen=True)
class Expectation:
    """Harm as a shifted log-normal variable.

    Attributes
    ----------
    mean, sd
        Of ``log(harm + floor)``, ``(n,)``.
    floor
        What is added to a harm before its logarithm is taken.
    """

    mean: Floats
    sd: Floats
    floor: float

    @property
    def median(self) -> Floats:
        """Harm that is exceeded half of the time, ``(n,)``."""
        return np.exp(self.mean) - self.floor

    def quantile(self, sds: float) -> Floats:
        """Return the harm ``sds`` standard deviations above the median in logarithms, ``(n,)``."""
        return np.exp(self.mean + sds * self.sd) - self.floor

    def shortfall(self, ceilings: Floats) -> Floats:
        """Return how far below each of ``ceilings`` ``(k,)`` a harm will be on average, 0 where above, ``(n, k)``.

        ``E[max(c - harm, 0)]``, the price of a put on a log-normal variable.
        """
        strikes = ceilings + self.floor
        mean, sd = self.mean[:, None], np.maximum(self.sd, 1e-9)[:, None]
        with np.errstate(divide="ignore"):
            depth = (np.log(np.maximum(strikes, 0.0)) - mean) / sd
        expected = np.maximum(strikes, 0.0) * ndtr(depth) - np.exp(mean + sd**2 / 2.0) * ndtr(depth - sd)
        return np.maximum(expected, 0.0)


class HarmModel:
    """Gaussian process from genes to the logarithm of measured harm.

    With the loss ``L = sum_g s_g`` of a configuration and ``t = log(harm + floor)``,

    ``t = a + b log L + bend(log L) + sum_g (s_g / L) r_g + sum_gh sqrt(s_g s_h) / L q_gh + rest(s / L) + noise``:

    ``r_g`` corrects the sensitivity of a group's choice by the factor ``exp(r_g)``, to first order, and ``q_gh`` is
    what two choices do together. ``rest`` is alike for configurations whose loss comes from the same choices: its
    correlation falls exponentially with ``2 - 2 sum_g sqrt(s_g s'_g / L L')`` over common choices. All have
    independent normal priors; how wide these are is found by maximum a posteriori.

    Parameters
    ----------
    losses
        Sensitivities ``(groups, candidates)``, not negative where they are read.
    genes, harms
        ``(n, groups)`` and ``(n,)``: what was measured.
    errors
        Standard errors of the harms, ``(n,)``; ``None`` if they are exact.
    widths
        Standard deviations of corrections, pairs, bend, rest and noise, ``(5,)``, of an earlier fit; ``None`` to find
        them.
    """

    def __init__(
        self,
        losses: Floats,
        genes: NDArray[np.integer],
        harms: Floats,
        *,
        errors: Floats | None = None,
        widths: Floats | None = None,
    ) -> None:
        usable = np.where(np.isfinite(losses), np.maximum(losses, 0.0), 0.0)
        self._losses: Floats = np.maximum(usable, 1e-9 * usable.max(initial=0.0) + 1e-30)
        self.genes, self.harms = genes, harms
        self.errors = errors = np.zeros_like(harms) if errors is None else errors
        self.floor = _floor(harms, errors)
        lifted = np.maximum(harms, -self.floor / 2.0) + self.floor
        self._features = self._features_of(genes)
        self._noise: Floats = (errors / lifted) ** 2
        self._target: Floats = np.log(lifted) - self._features.log_loss
        self._centre = float(self._target.mean()) if len(harms) else 0.0
        parts = self._kernels(self._features, self._features)
        self.widths = self._fitted(parts) if widths is None else widths
        self._factor = cho_factor(self._covariance(parts, self.widths), lower=True)
        self._weights: Floats = cho_solve(self._factor, self._target - self._centre)

    def __call__(self, genes: NDArray[np.integer]) -> Expectation:
        """Return the harm to expect of ``genes`` ``(m, groups)``."""
        asked = self._features_of(genes)
        trend, others = self._weighted(self._kernels(asked, self._features), self.widths)
        cross = trend + others
        spread = self._prior(asked) - np.einsum("mn,nm->m", cross, cho_solve(self._factor, cross.T))
        mean = self._trend(asked.log_loss) + others @ self._weights
        return Expectation(mean, np.sqrt(np.maximum(spread, 0.0)), self.floor)

    @property
    def corrected(self) -> Floats:
        """Sensitivities with what was learned of each, ``(groups, candidates)``."""
        factors = self.widths[0] ** 2 * self._features.shares.T @ self._weights
        corrected: Floats = self._losses * np.exp(factors.reshape(self._losses.shape))
        return corrected

    def interactions(self) -> list[tuple[tuple[int, int], tuple[int, int], float, float]]:
        """Return every measured pair of choices ``(group, candidate)`` with its coefficient and standard deviation.

        A pair of choices at two groups that appears in a measured configuration; strongest evidence first. Positive
        coefficients hurt more together than apart.
        """
        roots = self._features.roots
        seen = np.argwhere(np.triu((roots > 0).T.astype(np.float64) @ (roots > 0), 1) > 0)
        candidates = self._losses.shape[1]
        seen = seen[seen[:, 0] // candidates != seen[:, 1] // candidates]
        if not len(seen):
            return []
        variance = self.widths[1] ** 2
        cross = variance * roots[:, seen[:, 0]] * roots[:, seen[:, 1]]
        mean = cross.T @ self._weights
        spread = variance - np.einsum("np,np->p", cross, cho_solve(self._factor, cross))
        sd = np.sqrt(np.maximum(spread, 0.0))
        order = np.argsort(-np.abs(mean) / np.maximum(sd, 1e-12), kind="stable")
        return [
            (divmod(int(a), candidates), divmod(int(b), candidates), float(mean[i]), float(sd[i]))
            for i, (a, b) in zip(order, seen[order], strict=True)
        ]

    def _features_of(self, genes: NDArray[np.integer]) -> _Features:
        groups, candidates = self._losses.shape
        rows = np.arange(groups)
        chosen = self._losses[rows, genes]
        loss = chosen.sum(1)
        shares = np.zeros((len(genes), groups * candidates))
        np.put_along_axis(shares, rows * candidates + genes.astype(np.int64), chosen / loss[:, None], axis=1)
        return _Features(np.log(loss), shares)

    def _kernels(self, left: _Features, right: _Features) -> _Kernels:
        """Return the unweighted kernels of line, bend, corrections, pairs and rest, ``(left, right)`` each."""
        middle = self._features.log_loss.mean() if len(self._features.log_loss) else 0.0
        apart = left.log_loss[:, None] - right.log_loss
        line = _OFFSET_SD**2 + _SLOPE_SD**2 * np.outer(left.log_loss - middle, right.log_loss - middle)
        corrections = left.shares @ right.shares.T
        # Pairs g < h of (sum over groups)^2 = (sum over g) + 2 (sum over pairs).
        common = left.roots @ right.roots.T
        pairs = (common**2 - corrections) / 2.0
        bend = np.exp(-((apart / _TREND_LENGTH) ** 2) / 2.0)
        return line, bend, corrections, pairs, np.exp(2.0 * (common - 1.0))

    @staticmethod
    def _weighted(parts: _Kernels, widths: Floats) -> tuple[Floats, Floats]:
        """Return the kernels of the trend and of all that tells equal losses apart."""
        line, bend, corrections, pairs, rest = parts
        variances = widths**2
        others = variances[0] * corrections + variances[1] * pairs + variances[3] * rest
        return line + variances[2] * bend, others

    def _prior(self, asked: _Features) -> Floats:
        """Return the variance before any measurement, ``(n,)``."""
        middle = self._features.log_loss.mean() if len(self._features.log_loss) else 0.0
        own = (asked.shares**2).sum(1)
        pairs = (asked.shares.sum(1) ** 2 - own) / 2.0
        line: Floats = _OFFSET_SD**2 + _SLOPE_SD**2 * (asked.log_loss - middle) ** 2
        variances = self.widths**2
        return np.asarray(line + variances[0] * own + variances[1] * pairs + variances[2] + variances[3])

    def _covariance(self, parts: _Kernels, widths: Floats) -> Floats:
        trend, others = self._weighted(parts, widths)
        covariance: Floats = trend + others + np.diag(self._noise + widths[4] ** 2 + 1e-8)
        return covariance

    def _fitted(self, parts: _Kernels) -> Floats:
        """Return the most plausible widths."""
        if len(self.harms) < 3:
            return _TYPICAL
        residual = self._target - self._centre

        def cost(logs: Floats) -> float:
            factor = cho_factor(self._covariance(parts, _TYPICAL * np.exp(logs)), lower=True)
            fit = residual @ cho_solve(factor, residual) / 2.0 + np.log(np.diag(factor[0])).sum()
            return float(fit + (logs**2).sum() / (2.0 * _SPREAD**2))

        found = minimize(cost, np.zeros(5), method="L-BFGS-B", bounds=[(-3.0, 3.0)] * 5, options={"maxiter": 30})
        return np.asarray(_TYPICAL * np.exp(found.x))

    def _trend(self, log_loss: Floats) -> Floats:
        """Return the trend of ``log(harm + floor)``, which never falls with the loss."""
        if not len(self.harms):
            return log_loss
        ends = np.concatenate([log_loss, self._features.log_loss])
        grid = np.linspace(ends.min() - 1e-9, ends.max() + 1e-9, _GRID)
        points = _Features(grid, np.zeros((_GRID, self._losses.size)))
        trend = self._weighted(self._kernels(points, self._features), self.widths)[0]
        level = isotonic_regression(grid + self._centre + trend @ self._weights).x
        return np.asarray(np.interp(log_loss, grid, level))


class Learner:
    """A model of harm that is fitted to more and more measurements of one network.

    How wide its priors are is found anew whenever there are a tenth more measurements, from the first so many: the
    model depends on the order of measuring alone, also after an interruption.

    Parameters
    ----------
    losses
        Sensitivities ``(groups, candidates)``.
    """

    def __init__(self, losses: Floats) -> None:
        self.losses = losses
        self._widths: dict[int, Floats] = {}

    def model(self, genes: NDArray[np.integer], harms: Floats, errors: Floats | None) -> HarmModel:
        """Return the model of all that was measured, ``(n, groups)``, ``(n,)`` and ``(n,)``."""
        n = _last_fit(len(harms))
        if n not in self._widths:
            rows = self.kept(genes[:n])
            if n > _MOST:
                rows = rows[:: _MOST // _MOST_FOR_WIDTHS]
            self._widths[n] = self._fit(genes, harms, errors, rows=rows, widths=None).widths
        return self._fit(genes, harms, errors, rows=self.kept(genes), widths=self._widths[n])

    def kept(self, genes: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the rows of ``genes`` ``(n, groups)`` that a model is fitted to, ascending: all, up to a number.

        Of more, the last ones, which lie where the search is, and of those before an even spread by predicted loss.
        """
        if len(genes) <= _MOST:
            return np.arange(len(genes))
        earlier = len(genes) - _MOST // 2
        usable = np.where(np.isfinite(self.losses), self.losses, 0.0)
        order = np.argsort(usable[np.arange(len(usable)), genes[:earlier]].sum(axis=1), kind="stable")
        spread = order[np.linspace(0, earlier - 1, _MOST - _MOST // 2).astype(np.int64)]
        return np.concatenate([np.sort(spread), np.arange(earlier, len(genes))])

    def _fit(
        self,
        genes: NDArray[np.integer],
        harms: Floats,
        errors: Floats | None,
        *,
        rows: NDArray[np.int64],
        widths: Floats | None,
    ) -> HarmModel:
        """Return the model of some of the measurements."""
        some = None if errors is None else errors[rows]
        return HarmModel(self.losses, genes[rows], harms[rows], errors=some, widths=widths)


def _last_fit(n: int) -> int:
    """Return the largest number up to ``n`` at which the priors are found anew.

    >>> [_last_fit(n) for n in (0, 7, 20, 21, 22, 23, 24, 100)]
    [0, 7, 20, 20, 22, 22, 24, 94]
    """
    if n <= _FEW:
        return n
    last = _FEW
    while (following := int(last * _GROWTH)) <= n:
        last = following
    return last


@dataclass(frozen=True)
class _Features:
    """Of ``n`` configurations: the logarithm of the loss ``(n,)``, and every choice's share of it, one-hot."""

    log_loss: Floats
    shares: Floats

    @cached_property
    def roots(self) -> Floats:
        return np.sqrt(self.shares)


def _floor(harms: Floats, errors: Floats) -> float:
    """Return what is added to harms before the logarithm: about what can be told from nothing."""
    largest = float(np.abs(harms).max(initial=0.0))
    known = errors[errors > 0.0]
    least = float(known.min()) if known.size else 0.005 * largest
    return max(least, 1e-4 * largest, 1e-9)
