"""Normal floats against the published list and scipy's quantiles."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from hwdse.formats import parse
from hwdse.formats.normal_float import normal_float_values

GOLDEN = Path(__file__).parents[1] / "golden" / "nf4.csv"


def test_nf4_is_the_published_one() -> None:
    published = np.loadtxt(GOLDEN, skiprows=3)
    # They were made in float32 from an offset of seven digits.
    np.testing.assert_allclose(parse("nf4").values, published, rtol=0.0, atol=2e-7)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("offset", [None, 0.9, 0.935])
def test_the_values_are_quantiles_of_either_half(bits: int, offset: float | None) -> None:
    end = offset or 1 - (1 / 2 ** (bits + 1) + 1 / (2 ** (bits + 1) - 2)) / 2
    above = stats.norm.ppf(np.linspace(0.5, end, 2 ** (bits - 1) + 1))
    below = stats.norm.ppf(np.linspace(1 - end, 0.5, 2 ** (bits - 1)))
    expected = np.concatenate([below[:-1], [0.0], above[1:]]) / above[-1]
    values = normal_float_values(bits, offset)
    assert values.size == 2**bits
    assert (values[0], values[2 ** (bits - 1) - 1], values[-1]) == (-1.0, 0.0, 1.0)
    np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("bits", range(2, 9))
def test_a_format_has_the_default_offset(bits: int) -> None:
    assert parse(f"nf{bits}").values.tolist() == normal_float_values(bits).tolist()
