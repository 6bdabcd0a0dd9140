import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hwdse.errors import InputError
from hwdse.evaluate import mean_interval, paired_interval


def binary(right: int, samples: int) -> np.ndarray:
    return np.array([1.0] * right + [0.0] * (samples - right))


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_binary_scores_get_wilsons_interval(counts):
    right, samples = counts
    interval = mean_interval(binary(right, samples))
    expected = stats.binomtest(right, samples).proportion_ci(0.95, method="wilson")
    assert interval.mean == pytest.approx(right / samples)
    assert interval.low == pytest.approx(expected.low, abs=1e-12)
    assert interval.high == pytest.approx(expected.high, abs=1e-12)
    assert interval.samples == samples
    assert 0.0 <= interval.low <= interval.mean + 1e-12
    assert interval.mean - 1e-12 <= interval.high <= 1.0


def test_wilsons_interval_of_a_published_example():
    """Newcombe (1998), Statistics in Medicine 17, table I: 81 of 263 and 0 of 20, method 3."""
    interval = mean_interval(binary(81, 263))
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.2553, 0.3662)
    interval = mean_interval(binary(0, 20))
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.0, 0.1611)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=50).filter(lambda v: not set(v) <= {0.0, 1.0}))
def test_other_scores_get_students_interval(values):
    interval = mean_interval(np.array(values))
    if np.ptp(values) > 1e-6:
        expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
        assert interval.low == pytest.approx(expected.low, rel=1e-9, abs=1e-9)
        assert interval.high == pytest.approx(expected.high, rel=1e-9, abs=1e-9)
    else:
        # Of two samples, Student's t is 12.7 standard errors.
        assert interval.high - interval.low <= 13.0 * np.ptp(values) + 1e-12


def paired(lost: int, won: int, same: int) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and reference: ``lost`` samples right in the reference alone, ``won`` in the other alone."""
    reference = np.array([1.0] * lost + [0.0] * won + [1.0] * same)
    scores = np.array([0.0] * lost + [1.0] * won + [1.0] * same)
    return scores, reference


@pytest.mark.parametrize(("lost", "won", "same"), [(32, 0, 0), (0, 0, 50), (12, 3, 85), (3, 12, 85), (150, 86, 1358)])
def test_paired_binary_scores_get_agresti_and_mins_interval(lost, won, same):
    """Agresti and Min (2005), Statistics in Medicine 24: Wald after adding 1/2 to each of the four cells."""
    scores, reference = paired(lost, won, same)
    interval = paired_interval(scores, reference)
    n = lost + won + same + 2
    c, b = (lost + 0.5) / n, (won + 0.5) / n
    half = stats.norm.ppf(0.975) * np.sqrt((c + b - (c - b) ** 2) / n)
    assert interval.mean == pytest.approx((lost - won) / (n - 2))
    assert interval.low == pytest.approx(max(-1.0, c - b - half), abs=1e-12)
    assert interval.high == pytest.approx(min(1.0, c - b + half), abs=1e-12)
    swapped = paired_interval(reference, scores)
    assert (swapped.low, swapped.high) == (pytest.approx(-interval.high), pytest.approx(-interval.low))


def test_paired_other_scores_get_students_interval_of_the_differences():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=30), rng.normal(size=30)
    interval = paired_interval(ours, theirs)
    expected = stats.ttest_rel(theirs, ours).confidence_interval(0.95)
    assert (interval.low, interval.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert interval.mean == pytest.approx(float((theirs - ours).mean()))


@pytest.mark.parametrize("share", [0.5, 0.9, 0.98])
def test_coverage_of_single_intervals(share):
    """Over 4,000 draws of 200 samples, about 95 % of the intervals hold the truth."""
    rng = np.random.default_rng(1)
    draws = [mean_interval((rng.random(200) < share).astype(np.float64)) for _ in range(4000)]
    covered = np.mean([i.low <= share <= i.high for i in draws])
    assert 0.93 <= covered <= 0.985


@pytest.mark.parametrize(("lost", "won"), [(0.02, 0.01), (0.1, 0.02), (0.005, 0.005)])
def test_coverage_of_paired_intervals(lost, won):
    """Also where hardly any sample differs, which the plain Wald interval does not survive."""
    rng = np.random.default_rng(2)
    held, wald = [], []
    for _ in range(3000):
        draw = rng.random(300)
        scores, reference = (draw >= lost).astype(np.float64), ((draw >= lost + won) | (draw < lost)).astype(np.float64)
        interval = paired_interval(scores, reference)
        held.append(interval.low <= lost - won <= interval.high)
        d = reference - scores
        wald.append(abs(d.mean() - (lost - won)) <= 1.96 * d.std() / np.sqrt(300))
    assert 0.94 <= np.mean(held) <= 1.0
    if lost == 0.005:
        assert np.mean(wald) < np.mean(held)


@pytest.mark.parametrize(
    ("scores", "sentence"),
    [([], "at least one score, got none"), ([0.3], "at least 2 samples for an interval, got 1")],
)
def test_what_has_no_interval_is_refused(scores, sentence):
    with pytest.raises(InputError, match=sentence):
        mean_interval(np.array(scores))


def test_what_is_no_count_gets_students_interval_even_where_it_looks_like_one():
    """Full precision diverges from itself by 0 nats, on every sample: that is no share of right answers."""
    zeros = np.zeros(50)
    assert mean_interval(zeros).high > 0.05
    interval = mean_interval(zeros, may_count=False)
    assert (interval.low, interval.mean, interval.high) == (0.0, 0.0, 0.0)
    paired = paired_interval(zeros, zeros, may_count=False)
    assert (paired.low, paired.high) == (0.0, 0.0)
    mixed = np.array([0.0, 1.0, 1.0, 0.0])
    assert mean_interval(mixed, may_count=False).low == pytest.approx(
        stats.ttest_1samp(mixed, 0).confidence_interval().low
    )


def test_one_right_answer_is_no_certainty():
    interval = mean_interval(np.array([1.0]))
    assert (interval.mean, interval.high) == (1.0, 1.0)
    assert interval.low == pytest.approx(0.2065, abs=1e-4)


def test_other_samples_cannot_be_paired():
    with pytest.raises(InputError, match="scores of the same samples, got 3 and 2"):
        paired_interval(np.zeros(3), np.zeros(2))
