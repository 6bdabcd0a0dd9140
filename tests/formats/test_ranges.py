"""The range with the least squared error, of every format, against a fine scan of scales."""

import numpy as np
import pytest
import torch

from hwdse.calibrate import Points
from hwdse.calibrate.search import least_error_range
from hwdse.formats import Levels, Scheme, Symmetry, parse

COUNT = 20_000
LOCAL_DB = 0.15  # lists of unevenly spaced levels have many narrow optima; the search may end in one beside the best
NAMES = (
    "int2 int3 int4 int5 int6 int8 nf3 nf4 nf5 nf6 nf8 pot3 pot4 apot3 apot4 apot5 apot6 apot7 apot8 posit3_0 posit4_0 "
    "posit4_1 posit5_0 posit5_1 posit6_0 posit6_1 posit8_0 posit8_1 posit8_2 posit8_3 fp4_e2m1 fp6_e2m3 fp6_e3m2 "
    "fp8_e4m3 fp8_e5m2 binary ternary"
).split()


def searched_sqnr_db(distributions, levels):
    """SQNR at the range that the search finds, of all distributions at once, as rows of one tensor."""
    rows = np.stack([distribution.values for distribution in distributions.values()])
    low, high = least_error_range(Points(torch.from_numpy(rows)), levels, power=2.0)
    scale, zero_point = levels.grid(low, high)
    found = (levels.values - zero_point[:, None]) * scale[:, None]
    return [d.sqnr_db(values) for d, values in zip(distributions.values(), found, strict=True)]


@pytest.mark.parametrize("name", NAMES)
def test_no_scale_is_much_better_than_the_one_found(quantiles, name):
    distributions = quantiles(COUNT)
    levels = Levels.of_weights(parse(name), Scheme())
    for (label, distribution), found in zip(
        distributions.items(), searched_sqnr_db(distributions, levels), strict=True
    ):
        assert found > distribution.best_sqnr_db(levels.values, levels.anchor) - LOCAL_DB, label


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_no_scale_of_the_full_range_is_much_better(quantiles, bits):
    distributions = quantiles(COUNT)
    levels = Levels.of_weights(parse(f"int{bits}"), Scheme(full_range=True))
    for (label, distribution), found in zip(
        distributions.items(), searched_sqnr_db(distributions, levels), strict=True
    ):
        assert found > distribution.best_sqnr_db(levels.values, -levels.values[0]) - 0.05, label


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_no_affine_grid_is_much_better(quantiles, bits):
    distributions = quantiles(COUNT)
    levels = Levels.of_weights(parse(f"int{bits}"), Scheme(weights=Symmetry.AFFINE))
    for (label, distribution), found in zip(
        distributions.items(), searched_sqnr_db(distributions, levels), strict=True
    ):
        shifts = range(-1, 2)
        best = max(distribution.best_sqnr_db(levels.values - shift, -levels.values[0]) for shift in shifts)
        assert found > best - 0.05, label
