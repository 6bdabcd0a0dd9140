"""Bootstrap intervals against the normal ones, and the stability of an order against scipy on the same resamples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau

from hwdse.analysis.robustness import Settled, order_stability, score_intervals
from hwdse.errors import InputError


def test_intervals_are_the_normal_ones_where_those_hold() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 2, 400)) * np.arange(1.0, 7.0).reshape(3, 2, 1)
    low, high = score_intervals(values, rng=rng, resamples=4000, confidence=0.9)
    half = 1.6449 * values.std(axis=-1) / np.sqrt(400)
    np.testing.assert_allclose(high - low, 2.0 * half, rtol=0.06)
    np.testing.assert_allclose((high + low) / 2.0, values.mean(axis=-1), atol=0.2 * half.max())


def test_samples_are_drawn_alike_for_all_groups() -> None:
    values = np.random.default_rng(1).normal(size=50)
    low, high = score_intervals(np.stack([values, values + 5.0]), rng=np.random.default_rng(2))
    np.testing.assert_allclose(low[1] - low[0], 5.0)
    np.testing.assert_allclose(high[1] - high[0], 5.0)


def test_stability_is_the_mean_of_scipys_tau_over_candidates() -> None:
    rng = np.random.default_rng(3)
    values = rng.exponential(size=(7, 3, 20)) * np.linspace(1.0, 2.0, 7)[:, None, None]
    values[2, 0] = values[4, 0]  # tied in every resample
    values[:, 2] = 0.0  # a candidate that harms nobody
    resamples = 40
    found = order_stability(values, rng=np.random.default_rng(4), resamples=resamples)
    times = np.random.default_rng(4).multinomial(20, np.full(20, 0.05), size=resamples)
    drawn = (values * times[:, None, None, :]).sum(axis=-1)
    taus = [np.mean([kendalltau(d[:, c], values[:, c].sum(axis=-1)).statistic for c in (0, 1)]) for d in drawn]
    assert found.value == pytest.approx(np.mean(taus), rel=1e-12)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(taus, [0.025, 0.975])), rel=1e-12)


def test_an_order_beyond_doubt_is_stable_and_one_by_chance_is_not() -> None:
    rng = np.random.default_rng(5)
    noise = rng.normal(size=(10, 1, 64))
    sure = order_stability(noise + 100.0 * np.arange(10.0)[:, None, None], rng=rng)
    assert (sure.value, sure.low) == (pytest.approx(1.0), pytest.approx(1.0))
    chance = order_stability(noise, rng=rng)
    assert chance.low < 0.5 < chance.high


def test_a_resample_in_which_all_groups_are_equal_has_no_order() -> None:
    values = np.zeros((2, 1, 2))
    values[1, 0, 1] = 1.0  # the groups differ in one sample of two, which a quarter of the resamples misses
    found = order_stability(values, rng=np.random.default_rng(6), resamples=4000)
    assert found.value == pytest.approx(0.75, abs=0.03)


def test_an_order_is_settled_by_enough_samples_that_agree() -> None:
    values = np.random.default_rng(7).normal(size=(6, 2, 40)) + 10.0 * np.arange(6.0)[:, None, None]
    assert Settled(samples=40).holds(values)
    assert Settled().holds(values[..., :32])
    assert not Settled().holds(values[..., :31])
    assert not Settled(samples=41).holds(values)
    assert not Settled(tau=0.99, samples=2).holds(values - values.mean(axis=-1, keepdims=True) * 0.999)


def test_bad_requests() -> None:
    rng = np.random.default_rng(0)
    values = np.ones((3, 2, 5))
    with pytest.raises(InputError, match=r"expected at least 2 samples, got shape \(3, 2, 1\)"):
        score_intervals(values[..., :1], rng=rng)
    with pytest.raises(InputError, match="expected finite harms, got NaN or infinity"):
        score_intervals(values * np.nan, rng=rng)
    with pytest.raises(InputError, match="expected at least 1 resample and a confidence between 0 and 1, got 0 and 2"):
        score_intervals(values, rng=rng, resamples=0, confidence=2)
    with pytest.raises(InputError, match=r"expected harms \(groups, candidates, samples\), got shape \(3, 2\)"):
        order_stability(values[..., 0], rng=rng)
    with pytest.raises(InputError, match="expected at least one candidate that harms one group more than another"):
        order_stability(values, rng=rng)
    with pytest.raises(InputError, match="expected a correlation between -1 and 1 and at least 2 samples, got 2 and 1"):
        Settled(tau=2, samples=1)
