from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from hwdse.cost import collinear_pairs, cost_table, network_totals, random_choices
from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.graph import LayerGraph
from hwdse.hardware import HardwareProfile, load_profile

P = Precision.parse
NAMES = ("size_kib", "latency_ms", "energy_mj")


def warnings(graph: LayerGraph, device: HardwareProfile) -> tuple[str, ...]:
    table = cost_table(
        graph, device, device.candidates([P(t) for t in ("W8A8", "W4A8", "W2A8", "W4A4")]), metrics=NAMES
    )
    choices = random_choices(graph, table, rng=np.random.default_rng(0))
    return collinear_pairs(network_totals(table, choices), NAMES, device=device.name)


def test_power_times_time_is_one_line_and_other_energies_are_not(mlperf_tiny: Mapping[str, LayerGraph]) -> None:
    graph = mlperf_tiny["resnet8"]
    line = "latency_ms and energy_mj correlate at 1.000 on {}: the front over both is one line"
    assert warnings(graph, load_profile("mpic")) == (line.format("mpic"),)
    assert warnings(graph, load_profile("stm32h7a3")) == (line.format("stm32h7a3"),)


def test_opposite_metrics_are_named_too_and_constant_ones_are_not() -> None:
    falling = np.array([[1.0, 3.0, 7.0], [2.0, 2.0, 7.0], [3.0, 1.0, 7.0]])
    assert collinear_pairs(falling, ("a", "b", "c"), device="d") == (
        "a and b correlate at -1.000 on d: every configuration is on the front over both",
    )


@pytest.mark.parametrize(("noise", "count"), [(0.03, 1), (0.06, 0)])
def test_the_threshold_is_at_0_999(noise: float, count: int) -> None:
    x = np.linspace(-1, 1, 2001)
    wiggle = noise * np.where(np.arange(2001) % 2, 1.0, -1.0) * np.sqrt((x**2).mean())
    rho = 1 / np.sqrt(1 + noise**2)
    assert (rho > 0.999) == bool(count)
    assert len(collinear_pairs(np.stack([x, x + wiggle], axis=1), ("a", "b"), device="d")) == count


def test_random_choices_are_supported_tied_and_reproducible(chain: Callable[[Sequence[int]], Any]) -> None:
    net = chain((8, 8, 8))
    net.conv(8, 3, after="input")
    net.conv(8, 1, after="input")  # reads the same tensor: tied
    net.conv(8, 3)
    graph = net.graph()
    device = load_profile("stm32h7a3")
    table = cost_table(graph, device, [P(t) for t in ("W8A8", "W8A4", "W4A4")], metrics=["size_kib"])
    choices = random_choices(graph, table, rng=np.random.default_rng(3), count=64)
    assert (choices[:, 0] == choices[:, 1]).all()
    assert set(choices.ravel()) == {0, 2}
    assert (choices == random_choices(graph, table, rng=np.random.default_rng(3), count=64)).all()
    table.supported[0] = [True, False, False]
    table.supported[1] = [False, False, True]
    with pytest.raises(InputError, match="expected a candidate that all of conv0, conv1 support, got none"):
        random_choices(graph, table, rng=np.random.default_rng(3))
