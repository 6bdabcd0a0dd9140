"""Rank correlations and their intervals against scipy on every resample, sorted anew."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hwdse.analysis.correlation import RankCorrelation, _correlations, correlation_table, rank_correlation
from hwdse.errors import InputError

COLUMNS = ["score", "pool"] + [f"{n}{end}" for n in ("kendall", "spearman") for end in ("", "_low", "_high")]


def drawn_case(seed: int, *, ties: bool, holes: bool, shape: tuple[int, int] = (9, 4)) -> tuple[np.ndarray, np.ndarray]:
    """Return a score and a harm that agree in part."""
    rng = np.random.default_rng(seed)
    harm = rng.gamma(1.0, size=shape)
    score = harm + rng.normal(size=shape)
    if ties:
        harm, score = harm.round(), score.round()
    if holes:
        score[rng.random(shape) < 0.2] = np.nan
        score[rng.integers(shape[0])] = np.nan
    return score, harm


def scipys(score: np.ndarray, harm: np.ndarray) -> tuple[float, float]:
    """Return tau-b and rho of all pairs that have a score, NaN if one of the two is constant."""
    exists = ~np.isnan(score)
    x, y = score[exists], harm[exists]
    if x.size == 0 or len(set(x)) == 1 or len(set(y)) == 1:
        return math.nan, math.nan
    return float(stats.kendalltau(x, y).statistic), float(stats.spearmanr(x, y).statistic)


def scipys_within(score: np.ndarray, harm: np.ndarray) -> tuple[float, float]:
    """Return the means over candidates of :func:`scipys`."""
    found = np.array([scipys(s, h) for s, h in zip(score.T, harm.T, strict=True)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's of a mean of nothing
        tau, rho = np.nanmean(found, axis=0)
    return float(tau), float(rho)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("holes", [False, True])
def test_every_resample_is_scipys(ties: bool, holes: bool) -> None:
    score, harm = drawn_case(3, ties=ties, holes=holes)
    rows = np.random.default_rng(4).integers(9, size=(300, 9))
    weights = np.array([np.bincount(drawn, minlength=9) for drawn in rows], dtype=np.float64)
    expected = np.array([scipys(score[drawn], harm[drawn]) for drawn in rows]).T
    np.testing.assert_allclose(_correlations(score, harm, weights), expected, rtol=0, atol=1e-13)


@given(st.integers(0, 2**31), st.booleans())
def test_values_are_scipys(seed: int, within: bool) -> None:
    score, harm = drawn_case(seed, ties=True, holes=True, shape=(7, 3))
    found = rank_correlation(score, harm, within=within, rng=np.random.default_rng(0), resamples=20)
    tau, rho = (scipys_within if within else scipys)(score, harm)
    if math.isnan(tau):
        assert (found.kendall, found.spearman) == (None, None)
    elif found.kendall is not None and found.spearman is not None:
        assert found.kendall.value == pytest.approx(tau, abs=1e-13)
        assert found.spearman.value == pytest.approx(rho, abs=1e-13)
    else:
        assert found.groups < 3


@pytest.mark.parametrize("within", [False, True])
def test_intervals_are_the_quantiles_of_scipys_resamples(within: bool) -> None:
    score, harm = drawn_case(8, ties=True, holes=True, shape=(12, 3))
    oracle = scipys_within if within else scipys
    found = rank_correlation(score, harm, within=within, rng=np.random.default_rng(5), resamples=200, confidence=0.8)
    rows = ~np.isnan(score).all(axis=1)
    groups = int(rows.sum())
    assert groups < 12
    # Only groups that have a score are drawn from.
    drawn = np.random.default_rng(5).integers(2**62, size=(200, 12))[:, :groups] % groups
    expected = np.nanquantile([oracle(score[rows][d], harm[rows][d]) for d in drawn], [0.1, 0.9], axis=0)
    assert found.kendall is not None
    assert found.spearman is not None
    assert (found.kendall.low, found.kendall.high) == pytest.approx(expected[:, 0], abs=1e-12)
    assert (found.spearman.low, found.spearman.high) == pytest.approx(expected[:, 1], abs=1e-12)
    assert (found.pairs, found.groups) == (int((~np.isnan(score)).sum()), groups)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    # Of two Gaussians with correlation r, tau is 2/pi asin(r) and rho 6/pi asin(r/2).
    r, rng, times = 0.6, np.random.default_rng(1), 300
    truths = (2 / math.pi * math.asin(r), 6 / math.pi * math.asin(r / 2))
    held = np.zeros(2)
    for _ in range(times):
        x = rng.normal(size=(50, 1))
        found = rank_correlation(x, r * x + math.sqrt(1 - r * r) * rng.normal(size=(50, 1)), rng=rng, resamples=200)
        estimates = (found.kendall, found.spearman)
        held += [e is not None and e.low <= truth <= e.high for e, truth in zip(estimates, truths, strict=True)]
    assert (held / times > 0.90).all()
    assert (held / times < 0.99).all()


def test_candidates_of_one_group_do_not_count_as_so_many_groups() -> None:
    score, harm = drawn_case(2, ties=False, holes=False, shape=(20, 1))
    copies = rank_correlation(score.repeat(10, axis=1), harm.repeat(10, axis=1), rng=np.random.default_rng(3))
    once = rank_correlation(score, harm, rng=np.random.default_rng(3))
    assert (copies.kendall, copies.pairs) == (once.kendall, 10 * once.pairs)


def test_a_score_that_knows_only_the_candidate_ranks_nothing_within_one() -> None:
    harm = np.array([[8.0, 4.0, 1.0]]) + np.linspace(0, 0.5, 6)[:, None]
    score = np.broadcast_to([3.0, 2.0, 1.0], (6, 3))
    pooled = rank_correlation(score, harm, rng=np.random.default_rng(0))
    assert pooled.kendall is not None
    assert pooled.kendall.value == pytest.approx(scipys(score, harm)[0], abs=1e-13)
    assert (pooled.pairs, pooled.groups, pooled.left_out) == (18, 6, 0)
    assert rank_correlation(score, harm, within=True, rng=np.random.default_rng(0)) == RankCorrelation(
        None, None, pairs=0, groups=0, left_out=3
    )


def test_candidates_without_an_order_are_left_out_and_counted() -> None:
    score, harm = drawn_case(6, ties=False, holes=False, shape=(8, 4))
    harm[:, 1] = 0.0  # full precision harms nothing
    score[:, 2] = 5.0
    score[2:5, 3] = np.nan
    found = rank_correlation(score, harm, within=True, rng=np.random.default_rng(0))
    kept = [0, 3]
    assert (found.pairs, found.groups, found.left_out) == (8 + 5, 8, 2)
    assert found.kendall is not None
    assert found.spearman is not None
    tau, rho = scipys_within(score[:, kept], harm[:, kept])
    assert (found.kendall.value, found.spearman.value) == pytest.approx((tau, rho), abs=1e-13)


def test_two_groups_with_a_score_say_nothing() -> None:
    score, harm = drawn_case(6, ties=False, holes=False, shape=(8, 4))
    score[2:] = np.nan
    for within in (False, True):
        found = rank_correlation(score, harm, within=within, rng=np.random.default_rng(0))
        assert found == RankCorrelation(None, None, pairs=8, groups=2, left_out=0)


def test_only_the_order_counts_and_infinite_scores_have_one() -> None:
    score, harm = drawn_case(7, ties=False, holes=False)
    assert (score > -5.0).all()
    plain = rank_correlation(score, harm, rng=np.random.default_rng(0))
    assert rank_correlation(np.exp(score), harm**3, rng=np.random.default_rng(0)) == plain
    top = score == score.max()
    assert rank_correlation(np.where(top, np.inf, score), harm, rng=np.random.default_rng(0)) == plain
    turned = rank_correlation(-score, harm, rng=np.random.default_rng(0))
    assert plain.kendall is not None
    assert turned.kendall is not None
    assert turned.kendall.value == -plain.kendall.value
    assert (turned.kendall.low, turned.kendall.high) == pytest.approx((-plain.kendall.high, -plain.kendall.low))


def test_the_same_generator_gives_the_same_interval_and_another_seed_another() -> None:
    score, harm = drawn_case(9, ties=False, holes=False)
    first, again, other = (rank_correlation(score, harm, rng=np.random.default_rng(s)) for s in (1, 1, 2))
    assert first == again
    assert first.kendall is not None
    assert other.kendall is not None
    assert (first.kendall.value, first.groups) == (other.kendall.value, other.groups)
    assert first.kendall.low != other.kendall.low


def test_the_table_holds_both_pools_of_every_score_best_first() -> None:
    score, harm = drawn_case(10, ties=False, holes=False, shape=(10, 3))
    holes = np.where(np.arange(10)[:, None] < 2, np.nan, score)
    scores = {"flat": np.ones((10, 3)), "good": score, "holes": holes, "oracle": harm, "turned": -harm}
    table = correlation_table(scores, harm, candidates=("W2A8", "W4A8", "W8A8"), rng=np.random.default_rng(3))
    assert list(table.columns) == [*COLUMNS, "pairs", "groups"]
    assert sorted(zip(table["score"], table["pool"], strict=True)) == [
        (name, pool) for name in scores for pool in ("all", "within")
    ]
    assert set(table["score"][:2]) == {"oracle"}
    known = table["kendall"].dropna()
    assert known.is_monotonic_decreasing
    assert known.iloc[[0, -1]].tolist() == [1.0, -1.0]
    for _, row in table.iterrows():
        # Each row is what the function gives for this score on its own.
        found = rank_correlation(
            scores[row["score"]], harm, within=row["pool"] == "within", rng=np.random.default_rng(3)
        )
        assert (row["pairs"], row["groups"]) == (found.pairs, found.groups)
        if found.kendall is None or found.spearman is None:
            assert row["score"] == "flat"
        else:
            assert (row["kendall"], row["kendall_low"], row["kendall_high"]) == (
                found.kendall.value, found.kendall.low, found.kendall.high,
            )  # fmt: skip
            assert (row["spearman"], row["spearman_low"], row["spearman_high"]) == (
                found.spearman.value, found.spearman.low, found.spearman.high,
            )  # fmt: skip


def test_a_constant_score_has_empty_cells_at_the_end() -> None:
    score, harm = drawn_case(10, ties=False, holes=False, shape=(10, 3))
    table = correlation_table(
        {"flat": np.ones((10, 3)), "turned": -harm, "good": score},
        harm,
        candidates=("W2A8", "W4A8", "W8A8"),
        rng=np.random.default_rng(3),
    )
    assert table["score"].tolist()[-2:] == ["flat", "flat"]
    assert table.iloc[-2:][COLUMNS[2:]].isna().all().all()
    assert table.iloc[-2:].to_csv(index=False, header=False).split() == [
        "flat,all,,,,,,,30,10",
        "flat,within,,,,,,,0,0",
    ]
    assert not table.iloc[:-2].isna().any().any()


def test_no_score_gives_an_empty_table() -> None:
    table = correlation_table({}, np.eye(3), candidates=(1, 2, 3), rng=np.random.default_rng(0))
    assert (len(table), list(table.columns)) == (0, [*COLUMNS, "pairs", "groups"])


def test_bad_input_gives_a_sentence() -> None:
    rng = np.random.default_rng(0)
    good = np.arange(12.0).reshape(4, 3)
    with pytest.raises(
        InputError, match=r"one shape \(groups, candidates\), got \(4, 2\) and \(4, 3\); give one score"
    ):
        rank_correlation(good[:, :2], good, rng=rng)
    with pytest.raises(InputError, match=r"one shape \(groups, candidates\), got \(4,\) and \(4,\)"):
        rank_correlation(good[:, 0], good[:, 0], rng=rng)
    with pytest.raises(InputError, match="expected at least 3 groups, got 2; a rank correlation of fewer says nothing"):
        rank_correlation(good[:2], good[:2], rng=rng)
    with pytest.raises(InputError, match="expected finite measured harms, got NaN or infinity"):
        rank_correlation(good, np.where(good == 5.0, np.nan, good), rng=rng)
    for wrong in ({"resamples": 0}, {"confidence": 0.0}, {"confidence": 1.0}):
        with pytest.raises(InputError, match="expected at least 1 resample and a confidence between 0 and 1, got"):
            rank_correlation(good, good, rng=rng, **wrong)
    with pytest.raises(InputError, match=r"expected harms \(groups, 4\), one column per candidate, got shape \(4, 3\)"):
        correlation_table({"a": good}, good, candidates=range(4), rng=rng)
    with pytest.raises(InputError, match=r"got \(3, 4\) and \(4, 3\) for score 'a'"):
        correlation_table({"a": good.T}, good, candidates=range(3), rng=rng)
