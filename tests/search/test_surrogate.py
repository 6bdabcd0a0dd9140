"""The model of harm: against dense Gaussian algebra, and on harm whose law is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hwdse.search.surrogate import HarmModel

GROUPS, CANDIDATES = 8, 3


def drawn(seed, *, spread=0.6, pair=0.0):
    """Return sensitivities and a law of harm: saturating, sensitivities off by factors, and one pair worse together."""
    rng = np.random.default_rng(seed)
    losses = np.sort(rng.lognormal(-3.5, 1.2, (GROUPS, CANDIDATES)), axis=1)
    true = losses * np.exp(spread * rng.standard_normal(losses.shape))

    def harm(genes):
        loss = true[np.arange(GROUPS), genes].sum(1)
        both = (genes[:, 0] == 2) & (genes[:, 1] == 2)
        return 0.9 * (1.0 - np.exp(-(loss + pair * np.sqrt(true[0, 2] * true[1, 2]) * both)))

    return losses, harm, rng.integers(0, CANDIDATES, (400, GROUPS)).astype(np.uint8)


@pytest.mark.parametrize("seed", range(4))
def test_measurements_teach(seed):
    losses, harm, genes = drawn(seed)
    misses = []
    for n in (4, 16, 64):
        model = HarmModel(losses, genes[:n], harm(genes[:n]))
        found = model(genes[100:])
        misses.append(np.std(np.log(harm(genes[100:]) + model.floor) - found.mean))
    assert misses[2] < 0.5 * misses[0]
    assert misses[2] < 0.1


@pytest.mark.parametrize("seed", range(4))
def test_it_knows_what_it_does_not_know(seed):
    losses, harm, genes = drawn(seed)
    model = HarmModel(losses, genes[:40], harm(genes[:40]))
    found = model(genes[100:])
    inside = np.abs(np.log(harm(genes[100:]) + model.floor) - found.mean) < 1.96 * found.sd
    assert 0.75 < inside.mean() <= 1.0
    known = model(genes[:40])
    assert known.sd.max() < found.sd.mean()
    assert known.median == pytest.approx(harm(genes[:40]), rel=0.15, abs=0.002)


def test_what_was_measured_with_doubt_is_not_followed_blindly():
    losses, harm, genes = drawn(0)
    harms = harm(genes[:20])
    harms[7] += 0.3
    doubted = np.full(20, 1e-4)
    doubted[7] = 0.5
    blind = HarmModel(losses, genes[:20], harms)
    careful = HarmModel(losses, genes[:20], harms, errors=doubted)
    truth = harm(genes[7:8])
    assert abs(careful(genes[7:8]).median - truth) < 0.5 * abs(blind(genes[7:8]).median - truth)


@pytest.mark.parametrize("seed", range(3))
def test_a_pair_that_hurts_more_together_is_found(seed):
    losses, harm, genes = drawn(seed, spread=0.2, pair=3.0)
    model = HarmModel(losses, genes[:150], harm(genes[:150]))
    first, second, strength, sd = model.interactions()[0]
    assert {first, second} == {(0, 2), (1, 2)}
    assert strength > 3.0 * sd


def test_without_pairs_none_is_claimed():
    losses, harm, genes = drawn(1, spread=0.3)
    found = HarmModel(losses, genes[:100], harm(genes[:100])).interactions()
    weights = [abs(strength) for _, _, strength, _ in found]
    with_pair = HarmModel(losses, genes[:100], drawn(1, spread=0.3, pair=3.0)[1](genes[:100])).interactions()
    assert max(weights) < 0.3 * abs(with_pair[0][2])


def test_corrected_sensitivities_are_nearer_to_the_truth():
    losses, harm, genes = drawn(2, spread=0.8)
    rng = np.random.default_rng(2)
    np.sort(rng.lognormal(-3.5, 1.2, (GROUPS, CANDIDATES)), axis=1)
    true = losses * np.exp(0.8 * rng.standard_normal(losses.shape))
    corrected = HarmModel(losses, genes[:120], harm(genes[:120])).corrected
    large = losses > np.median(losses)  # small ones leave no trace

    def off(table):
        ratio = np.log(table / true)[large]
        return np.std(ratio)

    assert off(corrected) < 0.6 * off(losses)


def test_it_is_the_textbook_gaussian_process():
    """Against dense algebra with kernels summed over groups and pairs by loops."""
    losses, harm, genes = drawn(3)
    n, m = 12, 5
    harms = harm(genes[:n])
    model = HarmModel(losses, genes[:n], harms)
    corrections, pairs, bend, rest, noise = model.widths
    chosen = losses[np.arange(GROUPS), genes[: n + m]]
    loss = chosen.sum(1)
    share = chosen / loss[:, None]
    middle = np.log(loss[:n]).mean()
    covariance = np.zeros((n + m, n + m))
    for i in range(n + m):
        for j in range(n + m):
            same = genes[i] == genes[j]
            x, y = np.log(loss[i]), np.log(loss[j])
            covariance[i, j] = 25.0 + 0.09 * (x - middle) * (y - middle) + bend**2 * np.exp(-((x - y) ** 2) / 4.5)
            common = np.sqrt(share[i] * share[j])[same].sum()
            covariance[i, j] += rest**2 * np.exp(-(2.0 - 2.0 * common))
            for g in np.flatnonzero(same):
                covariance[i, j] += corrections**2 * share[i, g] * share[j, g]
                for h in np.flatnonzero(same):
                    if g < h:
                        covariance[i, j] += pairs**2 * np.sqrt(share[i, g] * share[j, g] * share[i, h] * share[j, h])
    known = covariance[:n, :n] + np.eye(n) * (noise**2 + 1e-8)
    target = np.log(harms + model.floor) - np.log(loss[:n])
    centre = target.mean()
    mean = centre + covariance[n:, :n] @ np.linalg.solve(known, target - centre) + np.log(loss[n:])
    spread = covariance[n:, n:] - covariance[n:, :n] @ np.linalg.solve(known, covariance[:n, n:])
    found = model(genes[n : n + m])
    assert found.sd == pytest.approx(np.sqrt(np.diag(spread)), rel=1e-4)
    assert found.mean == pytest.approx(mean, abs=0.02)  # the trend is read from a grid


def test_the_trend_never_falls_with_the_loss():
    """Measured backwards: the more loss was predicted, the less harm was measured."""
    losses = np.tile([[0.01, 0.1, 1.0]], (GROUPS, 1))
    genes = np.array([[c] * GROUPS for c in range(CANDIDATES)], dtype=np.uint8)
    model = HarmModel(losses, genes, np.array([0.3, 0.2, 0.1]), widths=np.array([1e-6, 1e-6, 2.0, 1e-6, 0.05]))
    assert (np.diff(model(genes).mean) >= -1e-9).all()


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_few_measurements_are_enough_to_say_something(n):
    losses, harm, genes = drawn(4)
    model = HarmModel(losses, genes[:n], harm(genes[:n]))
    found = model(genes[100:])
    assert np.isfinite(found.mean).all()
    assert (found.sd > 0.0).all()
    loss = losses[np.arange(GROUPS), genes[100:]].sum(1)
    assert stats.spearmanr(loss, found.mean).statistic > 0.9


@pytest.mark.parametrize("harms", [[0.0, 0.0, 0.0, 0.0], [-0.01, -0.002, 0.0, 0.003], [0.5, 0.5, 0.5, 0.5]])
def test_harm_may_be_nothing_or_less(harms):
    losses, _, genes = drawn(5)
    losses[0] = 0.0
    losses[1, 2] = np.inf  # not allowed, never read
    genes[:, 1] %= 2
    found = HarmModel(losses, genes[:4], np.array(harms))(genes)
    assert np.isfinite(found.mean).all()
    assert np.isfinite(found.sd).all()
    assert np.isfinite(found.shortfall(np.array([0.0, 0.1]))).all()
