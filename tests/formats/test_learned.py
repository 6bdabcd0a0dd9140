"""Names of learned formats, and teaching them from tensors."""

import numpy as np
import pytest
import torch

from hwdse.calibrate import Points
from hwdse.calibrate.codebook import lloyd_max, sign_split_quantiles, taught
from hwdse.formats import Levels, Scheme, parse


@pytest.mark.parametrize(("family", "first"), [("codebook", 1), ("quantile", 2)])
def test_the_bits_are_in_the_name(family: str, first: int) -> None:
    for bits in range(first, 9):
        number_format = parse(f"{family}{bits}")
        assert (number_format.bits, number_format.is_learned, number_format.has_scale) == (bits, True, True)
        assert (number_format.is_signed, number_format.is_integer) == (True, False)


@pytest.mark.parametrize(("family", "learn"), [("codebook", lloyd_max), ("quantile", sign_split_quantiles)])
@pytest.mark.parametrize("bits", [2, 3, 6])
def test_a_tensor_teaches_in_units_of_its_largest_magnitude(family, learn, bits: int) -> None:
    values = torch.randn(1, 1000, generator=torch.Generator().manual_seed(bits)) * 7.0
    levels = taught(Levels.of_weights(parse(f"{family}{bits}"), Scheme()), Points(values))
    ordered = np.sort(values.double().numpy().ravel())
    expected = learn(ordered / np.abs(ordered).max(), np.ones(1000), 2**bits)
    np.testing.assert_allclose(levels.values, expected, rtol=1e-6, atol=1e-9)
    assert levels.values.size == 2**bits - (family == "quantile")
    # A range over the whole tensor gives the scale that the levels were divided by.
    scale, _ = levels.grid(ordered[0], ordered[-1])
    assert float(scale) == pytest.approx(np.abs(ordered).max(), rel=1e-7)


def test_rows_that_differ_in_size_alone_teach_what_one_of_them_does() -> None:
    row = torch.randn(1, 300, generator=torch.Generator().manual_seed(0))
    alone = taught(Levels(parse("codebook3")), Points(row))
    together = taught(Levels(parse("codebook3")), Points(torch.cat([row, row * 64.0, row / 8.0])))
    np.testing.assert_allclose(together.values, alone.values, rtol=1e-9)


def test_what_is_known_is_not_learned_again() -> None:
    fixed = Levels(parse("nf4"))
    known = Levels(parse("codebook2")).taught([-1.0, 0.5])
    points = Points(torch.ones(1, 3))
    assert taught(fixed, points) is fixed
    assert taught(known, points) is known


def test_a_tensor_of_zeros_teaches_zero() -> None:
    for name in ("codebook3", "quantile3"):
        levels = taught(Levels(parse(name)), Points(torch.zeros(2, 5)))
        assert (levels.is_known, levels.values.tolist()) == (True, [0.0])
