"""Factors from whole-network runs: found again where the runs follow them, and one sentence where they cannot be."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from hwdse.cost.calibrate import LatencyFit, calibrate, calibrated
from hwdse.cost.terms import LatencyTerms
from hwdse.errors import InputError
from hwdse.hardware import parse_profile

RUNS = [
    LatencyTerms(*row)
    for row in [(10, 0, 0, 1), (0, 3, 0.2, 0.4), (4, 2, 1.5, 0.9), (2, 5, 0.8, 0.7), (7, 1, 1.1, 0.5), (6, 2, 2, 1)]
]
TRUE = LatencyFit(1.1, 0.9, 0.7, 0.5, 100.0, 0.0, 0.0, 0)
EXACT = 1e-7
"""A relative error of runs that are taken at their word."""


def factors(fit: LatencyFit) -> tuple[float, ...]:
    return fit.float_layers, fit.integer_layers, fit.conversions, fit.nodes


def test_runs_that_follow_factors_give_them_back() -> None:
    fit = calibrate(RUNS, [TRUE.predict_ms(terms) for terms in RUNS], noise=EXACT)
    assert factors(fit) == pytest.approx((1.1, 0.9, 0.7, 0.5), rel=1e-4)
    assert fit.us_per_inference == pytest.approx(100, rel=1e-3)
    assert fit.error_after == pytest.approx(0, abs=1e-9)
    before = [abs(t.layers_ms + t.conversions_ms + t.nodes_ms - (m := TRUE.predict_ms(t))) / m for t in RUNS]
    assert fit.error_before == pytest.approx(np.mean(before))
    assert fit.runs == 6


def test_factors_are_those_of_the_closed_form() -> None:
    """Where none is negative: the mean of the normal distribution that the runs leave of the one before them."""
    slower = LatencyFit(1.1, 1.05, 1.2, 1.3, 400.0, 0.0, 0.0, 0)
    measured = np.array([slower.predict_ms(terms) for terms in RUNS])
    fit = calibrate(RUNS, measured.tolist(), noise=0.03)
    design = (
        np.array([(t.float_layers_ms, t.integer_layers_ms, t.conversions_ms, t.nodes_ms, 1.0) for t in RUNS])
        / measured[:, None]
    )
    prior = np.array([1.0, 1.0, 1.0, 1.0, 0.0])
    variance = np.diag(np.array([0.1, 0.1, 0.5, 0.5, 0.02 * measured.min()]) ** 2)
    gain = variance @ design.T @ np.linalg.inv(design @ variance @ design.T + 0.03**2 * np.eye(len(RUNS)))
    expected = prior + gain @ (1 - design @ prior)
    assert (*factors(fit), fit.us_per_inference * 1e-3) == pytest.approx(expected)
    assert fit.error_after < fit.error_before


def test_the_less_the_runs_are_trusted_the_less_they_change() -> None:
    measured = [TRUE.predict_ms(terms) for terms in RUNS]
    moves = [abs(np.array(factors(calibrate(RUNS, measured, noise=noise))) - 1).max() for noise in (EXACT, 0.1, 10.0)]
    assert moves[0] > moves[1] > moves[2]
    assert moves[2] == pytest.approx(0, abs=1e-3)


def test_one_factor_of_all_layers_is_not_enough_where_floats_and_integers_err_apart() -> None:
    true = LatencyFit(1.04, 0.92, 1.0, 1.0, 0.0, 0.0, 0.0, 0)
    fit = calibrate(RUNS, [true.predict_ms(terms) for terms in RUNS])
    assert factors(fit)[:2] == pytest.approx((1.04, 0.92), abs=0.01)
    assert fit.error_after < 0.003 < 0.02 < fit.error_before


def test_no_factor_is_negative() -> None:
    shrinking = [terms.layers_ms - 0.5 * terms.conversions_ms for terms in RUNS]
    fit = calibrate(RUNS, shrinking, noise=1e-3)
    assert fit.conversions == 0
    assert min(*factors(fit), fit.us_per_inference) >= 0


def test_small_and_large_latencies_count_alike() -> None:
    """Ten times as fast a network with the same relative errors gives the same factors."""
    noise = np.random.default_rng(0).normal(1.0, 0.05, size=len(RUNS))
    measured = [float(n) * TRUE.predict_ms(terms) for n, terms in zip(noise, RUNS, strict=True)]
    first = calibrate(RUNS, measured)
    tenth = [LatencyTerms(*(value / 10 for value in asdict(terms).values())) for terms in RUNS]
    second = calibrate(tenth, [m / 10 for m in measured])
    assert factors(second) == pytest.approx(factors(first))
    assert second.us_per_inference == pytest.approx(first.us_per_inference / 10, abs=1e-9)


def test_a_term_that_the_runs_lack_keeps_its_factor() -> None:
    runs = [replace(terms, conversions_ms=0.0) for terms in RUNS]
    fit = calibrate(runs, [TRUE.predict_ms(terms) for terms in runs], noise=EXACT)
    assert fit.conversions == pytest.approx(1)
    assert (fit.float_layers, fit.integer_layers, fit.nodes) == pytest.approx((1.1, 0.9, 0.5), rel=1e-4)


@pytest.mark.parametrize(
    ("runs", "measured", "sentence"),
    [
        (RUNS[:3], [1.0, 2.0, 3.0], "expected 4 runs or more with a latency each, got 3 with 3 latencies; run more"),
        (RUNS, [1.0, 2.0], "expected 4 runs or more with a latency each, got 6 with 2 latencies; run more"),
        (RUNS[:4], [1.0, 2.0, 0.0, 1.0], r"expected latencies above 0 ms, got \[1.0, 2.0, 0.0, 1.0\]; measure these"),
        (RUNS[:4], [1.0, 2.0, float("nan"), 1.0], "expected latencies above 0 ms, got .*nan.*; measure these"),
        (RUNS[:1] * 4, [1.0] * 4, "expected runs of configurations with different latencies, got the same for all"),
    ],
)
def test_runs_that_say_nothing_are_refused(runs: list[LatencyTerms], measured: list[float], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        calibrate(runs, measured)


def test_a_calibrated_profile_predicts_with_the_factors_and_cites_the_runs(processor: dict[str, Any]) -> None:
    profile = parse_profile(processor)
    fit = calibrate(RUNS, [TRUE.predict_ms(terms) for terms in RUNS])
    better = calibrated(profile, fit, source="Runs", citation="6 runs of a network")
    for terms in RUNS:
        assert terms.total_ms(profile) == pytest.approx(terms.layers_ms + terms.conversions_ms + terms.nodes_ms)
        assert terms.total_ms(better) == pytest.approx(fit.predict_ms(terms))
    again = parse_profile(better.spec.model_dump(mode="json", exclude_none=True))
    assert again == better
    assert again.spec.sources["Runs"] == "6 runs of a network"
    assert profile.spec.calibration is None
