"""Lloyd-Max against exhaustive search and published values, sign-split quantiles against a search of their scale."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hwdse.calibrate.codebook import lloyd_max, sign_split_quantiles

COUNT = 2_000_000
NUMBERS = st.integers(-1000, 1000).map(float)


def squared_error(values, masses, levels):
    return float(masses @ np.abs(values[:, None] - levels).min(1) ** 2)


def least_error(values, masses, count):
    """The least sum of squares of ``count`` cells, by dynamic programming over where the last of them begins."""
    mass, moment, square = (np.concatenate([[0.0], np.cumsum(masses * values**power)]) for power in range(3))
    first, last = np.triu_indices(values.size + 1, 1)
    spread = np.full((values.size + 1,) * 2, np.inf)
    spread[first, last] = (square[last] - square[first]) - (moment[last] - moment[first]) ** 2 / (
        mass[last] - mass[first]
    )
    np.fill_diagonal(spread, 0.0)  # a cell may be empty
    best = spread[0]
    for _ in range(count - 1):
        best = (best[:, None] + spread).min(0)
    return max(float(best[-1]), 0.0)


def drawn(name, count, seed):
    rng = np.random.default_rng(seed)
    return np.sort(
        {"gauss": rng.normal, "laplace": rng.laplace, "t5": lambda size: rng.standard_t(5, size)}[name](size=count)
    )


def test_the_dynamic_programme_is_the_best_of_all_cells():
    values, masses = np.array([-4.0, -1.0, 0.0, 2.0, 2.5, 7.0]), np.array([1.0, 3.0, 1.0, 2.0, 1.0, 0.5])
    for count in (1, 2, 3, 4):
        errors = []
        for ends in combinations(range(1, values.size), count - 1):
            cells = np.split(np.arange(values.size), ends)
            means = [np.average(values[cell], weights=masses[cell]) for cell in cells]
            errors.append(squared_error(values, masses, np.array(means)))
        assert least_error(values, masses, count) == pytest.approx(min(errors), abs=1e-12)


@given(st.lists(NUMBERS, min_size=1, max_size=12), st.data())
def test_levels_are_centroids_of_the_cells_that_are_nearest_to_them(numbers, data):
    values = np.sort(numbers)
    masses = np.array(data.draw(st.lists(st.integers(1, 9).map(float), min_size=values.size, max_size=values.size)))
    count = data.draw(st.integers(1, 4))
    levels = lloyd_max(values, masses, count)
    assert levels.size == min(count, np.unique(values).size)
    assert (np.diff(levels) > 0.0).all()
    nearest = np.searchsorted((levels[:-1] + levels[1:]) / 2, values)
    assert set(nearest) == set(range(levels.size))  # every level is used
    centroids = [np.average(values[nearest == k], weights=masses[nearest == k]) for k in range(levels.size)]
    np.testing.assert_allclose(levels, centroids, rtol=1e-9, atol=1e-9)
    # A local optimum is no better than the best, and no worse than one level fewer.
    error = squared_error(values, masses, levels)
    assert error >= least_error(values, masses, count) - 1e-6
    assert count == 1 or error <= least_error(values, masses, 1) + 1e-6


@given(st.lists(NUMBERS, min_size=1, max_size=12))
def test_one_level_is_the_mean_and_two_of_two_values_are_they(numbers):
    values = np.sort(numbers)
    assert lloyd_max(values, np.ones(values.size), 1) == pytest.approx(values.mean(), abs=1e-9)
    few = np.unique(values)[:2]
    assert lloyd_max(few, np.ones(few.size), 2).tolist() == few.tolist()


def test_most_small_sets_end_in_their_optimum():
    rng = np.random.default_rng(0)
    optimal, excess = 0, []
    for _ in range(400):
        values = np.sort(rng.normal(size=rng.integers(5, 13)))
        masses, count = rng.integers(1, 9, values.size).astype(float), int(rng.integers(2, 5))
        least, error = (
            least_error(values, masses, count),
            squared_error(values, masses, lloyd_max(values, masses, count)),
        )
        optimal += error <= least * (1 + 1e-9) + 1e-12
        excess.append((error - least) / float(masses @ values**2))
    assert optimal > 220
    assert np.mean(excess) < 0.02


@pytest.mark.parametrize("name", ["gauss", "laplace", "t5"])
@pytest.mark.parametrize(("count", "worse_db"), [(4, 0.1), (16, 0.5), (64, 2.0)])
def test_few_hundred_values_are_near_their_optimum(name, count, worse_db):
    # Heavy tails are where a start from a histogram or from quantiles loses ten decibels.
    values = drawn(name, 400, seed=1)
    masses = np.ones(values.size)
    error = squared_error(values, masses, lloyd_max(values, masses, count))
    assert 10 * np.log10(error / least_error(values, masses, count)) < worse_db


@pytest.mark.parametrize(("name", "bits"), [("gauss", 8), ("laplace", 8), ("t5", 6), ("t5", 8)])
def test_many_levels_come_near_the_high_resolution_limit(quantiles, name, bits):
    # P. F. Panter and W. Dite, "Quantization distortion in pulse-count modulation with nonuniform spacing of levels",
    # Proc. IRE 39(1), 1951: the least mean square is the cubed norm of the density's cube root by 12 * 4^bits. Gauss:
    # sqrt(3) pi / 2; Laplace: 9 / 2; Student, five degrees of freedom, unit rms: by integration.
    distribution = quantiles(200_000)[name]
    x = np.linspace(-4000.0, 4000.0, 8_000_001)
    density = 8 / (3 * np.pi * np.sqrt(5)) * (1 + x**2 / 5) ** -3.0
    student = np.trapezoid(np.cbrt(density), x) ** 3 / 12 / (5 / 3)
    constant = {"gauss": np.sqrt(3) * np.pi / 2, "laplace": 4.5, "t5": student}[name]
    limit = 10 * np.log10(4**bits / constant)
    levels = lloyd_max(distribution.values, np.ones(distribution.values.size), 2**bits)
    found = distribution.sqnr_db(levels)
    assert limit - 0.4 < found < limit + 1.5  # finitely many values have no tails beyond the last


@given(st.lists(NUMBERS, min_size=2, max_size=40), st.integers(2, 5), st.sampled_from([0.125, 3.0, 1e-20, 1e20]))
@example([0.0, 0.0, 5.0], 2, 1e-20)
def test_a_scale_goes_through(numbers, count, factor):
    values, masses = np.sort(numbers), np.ones(len(numbers))
    levels, scaled = (lloyd_max(values * unit, masses, count) / unit for unit in (1.0, factor))
    assert squared_error(values, masses, scaled) == pytest.approx(
        squared_error(values, masses, levels), rel=1e-6, abs=1e-6
    )


@given(st.lists(st.tuples(NUMBERS, st.integers(1, 5)), min_size=1, max_size=20), st.integers(2, 5))
def test_a_mass_is_that_many_values(pairs, count):
    values, masses = (np.array(column, dtype=float) for column in zip(*sorted(pairs), strict=True))
    repeated = np.repeat(values, masses.astype(int))
    together, apart = lloyd_max(values, masses, count), lloyd_max(repeated, np.ones(repeated.size), count)
    np.testing.assert_allclose(together, apart, atol=1e-6)


def test_masses_of_very_different_size_keep_levels_in_order():
    # In the sums over all masses the small ones are rounded to a tenth.
    values = np.concatenate([np.linspace(-1.0, -1.0 + 1e-6, 10), np.linspace(-0.9, 1.0, 400)])
    masses = np.concatenate([np.full(10, 1e13), np.full(400, 0.3)])
    levels = lloyd_max(values, masses, 64)
    assert (np.diff(levels) > 0.0).all()
    assert set(np.searchsorted((levels[:-1] + levels[1:]) / 2, values)) == set(range(64))


@pytest.mark.parametrize(
    ("bits", "name", "expected_db"),
    [(3, "gauss", 12.7), (4, "gauss", 19.2), (4, "laplace", 17.0), (4, "t5", 16.1), (8, "gauss", 43.8)],
)
def test_the_quantiles_of_either_sign_rescaled(quantiles, bits, name, expected_db):
    distribution = quantiles(COUNT)[name]
    levels = sign_split_quantiles(distribution.values, np.ones(COUNT), 2**bits)
    assert levels.size == 2**bits - 1
    assert distribution.sqnr_db(levels) == pytest.approx(expected_db, abs=0.06)


@pytest.mark.parametrize("name", ["uniform", "gauss", "laplace", "t5"])
@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
def test_one_factor_with_the_least_error_scales_the_quantiles(quantiles, name, bits):
    distribution = quantiles(200_000)[name]
    side = 2 ** (bits - 1) - 1
    places = (np.arange(side) + 0.5) / side * 100_000 - 0.5
    above = np.interp(places, np.arange(100_000), distribution.values[100_000:])
    pure = np.concatenate([-above[::-1], [0.0], above])
    levels = sign_split_quantiles(distribution.values, np.ones(200_000), 2**bits)
    factor = levels[-1] / pure[-1]
    np.testing.assert_allclose(levels, pure * factor, rtol=1e-6, atol=1e-9)
    factors = np.geomspace(0.5, 16.0, 2000)
    assert distribution.sqnr_db(levels) >= distribution.sqnr_db(factors[:, None] * pure).max() - 0.03
    assert distribution.sqnr_db(levels) >= distribution.sqnr_db(pure)


@pytest.mark.parametrize(
    ("bits", "name", "expected_db"),
    [(3, "gauss", 10.9), (4, "gauss", 15.6), (4, "laplace", 10.9), (4, "t5", 10.3)],
)
def test_quantiles_alone_lose_what_the_factor_wins(quantiles, bits, name, expected_db):
    # Pure quantiles are the rescaled ones with the outermost where the quantile is.
    distribution = quantiles(COUNT)[name]
    levels = sign_split_quantiles(distribution.values, np.ones(COUNT), 2**bits)
    side = 2 ** (bits - 1) - 1
    outermost = distribution.values[int(COUNT / 2 + (side - 0.5) / side * COUNT / 2)]
    assert distribution.sqnr_db(levels * outermost / levels[-1]) == pytest.approx(expected_db, abs=0.06)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_values_of_one_sign_get_all_levels(sign):
    values = np.sort(sign * np.random.default_rng(0).exponential(size=5000))
    levels = sign_split_quantiles(values, np.ones(5000), 16)
    assert (levels.size, levels[0 if sign > 0 else -1]) == (15, 0.0)
    assert (sign * levels >= 0.0).all()


def test_zeros_alone_give_zero():
    for learn in (lloyd_max, sign_split_quantiles):
        assert learn(np.zeros(7), np.ones(7), 8).tolist() == [0.0]
