"""Powers of two and sums of them against the published sets written out."""

from itertools import product

import numpy as np
import pytest

from hwdse.formats import parse

# Negated exponents of the sets of powers of two, zero apart, for b bits with the sign: Y. Li, X. Dong and W. Wang,
# "Additive Powers-of-Two Quantization", ICLR 2020, equation 4 and section 2.2; 7 and 8 bits by the same rule.
SETS = {
    2: [[1]],
    3: [[1, 2, 3]],
    4: [[1, 2, 4], [3]],
    5: [[1, 3, 5], [2, 4, 6]],
    6: [[1, 3, 6], [2, 4, 7], [5]],
    7: [[1, 4, 7], [2, 5, 8], [3, 6, 9]],
    8: [[1, 4, 8], [2, 5, 9], [3, 6, 10], [7]],
}


@pytest.mark.parametrize(
    ("name", "positive"),
    [
        ("pot2", [1.0]),
        ("pot3", [0.25, 0.5, 1.0]),
        ("pot4", [0.015625, 0.03125, 0.0625, 0.125, 0.25, 0.5, 1.0]),
        ("apot2", [1.0]),
        ("apot3", [0.25, 0.5, 1.0]),
        ("apot4", [0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0]),
    ],
)
def test_small_formats_written_out(name: str, positive: list[float]) -> None:
    assert parse(name).values.tolist() == [*(-v for v in positive[::-1]), 0.0, *positive]


@pytest.mark.parametrize("bits", range(2, 9))
def test_powers_of_two_halve_from_one_down(bits: int) -> None:
    values = parse(f"pot{bits}").values
    positive = values[values > 0.0]
    assert positive.size == 2 ** (bits - 1) - 1
    assert positive.tolist() == [2.0**-k for k in range(positive.size)][::-1]
    assert values.tolist() == [*(-positive[::-1]), 0.0, *positive]


@pytest.mark.parametrize("bits", SETS)
def test_additive_powers_are_the_sums_of_the_published_sets(bits: int) -> None:
    sums = {sum(terms) for terms in product(*([0.0, *(2.0**-k for k in powers)] for powers in SETS[bits]))}
    expected = np.array(sorted(sums))
    assert expected.size == 2 ** (bits - 1)  # no two sums are equal: no code is lost
    values = parse(f"apot{bits}").values
    np.testing.assert_allclose(values[values >= 0.0], expected / expected[-1], rtol=1e-15)
    assert values.tolist() == (-values[::-1]).tolist()
