"""The range without one value in ten thousand at either end."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hwdse.calibrate import Boxes, Distribution, Points, Stream, percentile
from hwdse.formats import Levels, Scheme, parse

INT8 = Levels.of_weights(parse("int8"), Scheme())
WIDTH = {"points": 0.0, "boxes": 2.0**-9}  # 16,384 bins over at most 32


def seen(kind: str, values: torch.Tensor) -> Distribution:
    if kind == "points":
        return Points(values[None])
    stream = Stream()
    for part in values.split(10_000):
        stream.add(part)
    return Boxes.of_stream(stream)


@pytest.mark.parametrize("kind", WIDTH)
@pytest.mark.parametrize("name", ["gauss", "relu", "laplace", "negative", "outlier"])
def test_percentiles_are_numpy_s_to_a_bin(name: str, kind: str) -> None:
    generator = torch.Generator().manual_seed(7)
    normal = torch.randn(60_000, generator=generator)
    values = {
        "gauss": normal,
        "relu": normal.relu(),
        "laplace": normal.sign() * -torch.rand(60_000, generator=generator).log(),
        "negative": -normal.abs() - 0.5,
        "outlier": torch.cat([normal, torch.tensor([15.0])]),
    }[name]
    (low,), (high,) = percentile.calibrate(seen(kind, values), INT8)
    ordered = np.sort(values.double().numpy())
    bottom, top = ordered[6], ordered[-7]
    assert bottom - WIDTH[kind] <= low <= bottom
    assert top <= high <= top + WIDTH[kind]
    # numpy's own quantile lies between the last value that is left out and the first that is not.
    assert top <= np.quantile(ordered, 1 - 1e-4, method="higher") <= ordered[-6]


@pytest.mark.parametrize("kind", WIDTH)
def test_one_value_in_ten_thousand_is_left_out(kind: str) -> None:
    ramp = torch.arange(1, 100_001) / 2.0**14
    (low,), (high,) = percentile.calibrate(seen(kind, ramp), INT8)
    assert 11 / 2**14 - WIDTH[kind] <= low <= 11 / 2**14
    assert 99_990 / 2**14 <= high <= 99_990 / 2**14 + WIDTH[kind]
    steps = torch.cat([torch.full((10,), 9.0), torch.tensor([8.0]), torch.rand(99_989) * 5])
    assert 8.0 <= percentile.calibrate(seen(kind, steps), INT8)[1][0] <= 8.0 + WIDTH[kind]
    assert -8.0 - WIDTH[kind] <= percentile.calibrate(seen(kind, -steps), INT8)[0][0] <= -8.0


@pytest.mark.parametrize("kind", WIDTH)
def test_fewer_values_keep_their_extremes(kind: str) -> None:
    few = torch.arange(1, 10_000) / 1_000.0
    (low,), (high,) = percentile.calibrate(seen(kind, few), INT8)
    assert (low, high) == (few[0].item(), few[-1].item())
