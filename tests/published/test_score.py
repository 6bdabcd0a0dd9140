"""Errors of predictions by hand, and the interval that must cover what it was made from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import t

from hwdse.errors import InputError
from hwdse.published.score import COVERAGE, interval_factor, score

LOGS = st.lists(st.floats(-3, 3), min_size=1, max_size=60)


def test_errors_by_hand() -> None:
    """Predictions off by 10, 50, 20 and 0 per cent; ranks 1, 4, 2, 3 against 1, 2, 3, 4."""
    found = score(np.array([1.1, 9.0, 6.4, 7.0]), np.array([1.0, 6.0, 8.0, 7.0]))
    assert found.rows == 4
    assert found.median_error == pytest.approx(0.15)
    assert found.mean_error == pytest.approx(0.2)
    assert found.worst_error == pytest.approx(0.5)
    # Ranks of the predictions 1, 4, 2, 3, of the published figures 1, 2, 4, 3: 1 - 6 (0 + 4 + 4 + 0) / (4 x 15).
    assert found.spearman == pytest.approx(1 - 6 * 8 / 60)
    assert found.factor == interval_factor(np.array([1.1, 9.0, 6.4, 7.0]), np.array([1.0, 6.0, 8.0, 7.0]))


@pytest.mark.parametrize(
    ("predicted", "published"), [([1, 2], [1, 2]), ([3, 3, 3], [1, 2, 3]), ([1, 2, 3], [3, 3, 3]), ([5], [4])]
)
def test_there_is_no_rank_correlation_of_two_rows_or_of_equal_ones(predicted: list[int], published: list[int]) -> None:
    assert np.isnan(score(np.array(predicted, float), np.array(published, float)).spearman)


@pytest.mark.parametrize(
    ("predicted", "published"), [([], []), ([1, 0], [1, 1]), ([1, 1], [1, -1]), ([np.nan, 1], [1, 1])]
)
def test_figures_that_are_not_above_zero_are_an_error(predicted: list[float], published: list[float]) -> None:
    with pytest.raises(InputError, match="expected at least 1 figure, all above 0, got "):
        score(np.array(predicted, float), np.array(published, float))


@given(LOGS)
def test_the_interval_covers_nine_tenths_of_the_rows_it_was_made_from(logs: list[float]) -> None:
    errors = np.array(logs)
    factor = interval_factor(np.exp(errors), np.ones(len(errors)))
    inside = (np.abs(errors) <= np.log(factor) + 1e-12).mean()
    assert inside >= COVERAGE
    assert factor >= 1.01


@given(LOGS, st.floats(0.01, 100))
def test_the_interval_knows_neither_direction_nor_unit(logs: list[float], unit: float) -> None:
    predicted, published = np.exp(np.array(logs)), np.ones(len(logs))
    factor = interval_factor(predicted, published)
    assert_allclose(interval_factor(published, predicted), factor, rtol=1e-9)
    assert_allclose(interval_factor(predicted * unit, published * unit), factor, rtol=1e-9)


@pytest.mark.parametrize("count", [1, 2, 4, 10, 40])
def test_equal_errors_are_widened_by_students_t(count: int) -> None:
    """All off by 20 %: root mean square log 1.2, times the 95 % point of t with as many degrees as rows."""
    factor = interval_factor(np.full(count, 1.2), np.ones(count))
    assert factor == pytest.approx(np.exp(t.isf(0.05, df=count) * np.log(1.2)))


def test_fewer_rows_have_a_wider_interval() -> None:
    factors = [interval_factor(np.full(n, 1.2), np.ones(n)) for n in range(1, 50)]
    assert (np.diff(factors) < 0).all()
    assert factors[-1] > 1.2 ** t.isf(0.05, df=10_000)


@pytest.mark.parametrize("count", [1, 9, 10])
def test_one_far_row_in_ten_is_inside(count: int) -> None:
    """The order statistic of nine tenths and one more is the last of ten."""
    few = np.ones(count)
    few[count // 2] = 100.0
    assert interval_factor(few, np.ones(count)) >= 100 - 1e-9


def test_one_far_row_in_ninety_is_outside() -> None:
    many = np.ones(90)
    many[4] = 100.0
    spread = np.sqrt(np.log(100) ** 2 / 90)
    factor = interval_factor(many, np.ones(90))
    assert factor == pytest.approx(np.exp(t.isf(0.05, df=90) * spread))
    assert factor < 3


def test_perfect_predictions_are_no_reason_to_claim_none() -> None:
    assert interval_factor(np.ones(20), np.ones(20)) == 1.01


def test_the_interval_holds_for_rows_it_has_not_seen() -> None:
    """Log-normal errors: over many draws of 8 rows, nine tenths of a ninth row or more are inside."""
    rng = np.random.default_rng(0)
    errors = rng.normal(0, 0.3, (4000, 9))
    inside = [abs(row[8]) <= np.log(interval_factor(np.exp(row[:8]), np.ones(8))) for row in errors]
    assert COVERAGE <= np.mean(inside) < 0.98
