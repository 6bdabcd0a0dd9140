"""Two and three levels."""

import pytest

from hwdse.formats import Levels, parse


@pytest.mark.parametrize(("name", "bits", "values"), [("binary", 1, [-1.0, 1.0]), ("ternary", 2, [-1.0, 0.0, 1.0])])
def test_their_values_and_bits(name: str, bits: int, values: list[float]) -> None:
    assert (parse(name).bits, parse(name).values.tolist()) == (bits, values)


def test_zeros_stay_zeros_where_no_level_is_zero() -> None:
    # A channel without a weight must not come back as ones.
    scale, _ = Levels(parse("binary")).grid([0.0, -2.0], [0.0, 1.0])
    assert scale.tolist() == [2.0**-126, 2.0]
    scale, _ = Levels(parse("ternary")).grid([0.0, -2.0], [0.0, 1.0])
    assert scale.tolist() == [1.0, 2.0]
