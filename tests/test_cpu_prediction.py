"""The experiment on predicted latencies: its configurations, its scores and its cache, and a small run of the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from hwdse.capture import capture
from hwdse.errors import InputError
from hwdse.factories import load_factory
from hwdse.formats import Precision
from hwdse.hardware import HardwareProfile, parse_profile
from hwdse.hardware.measure.timing import Harness
from tests import networks
from tests.profiles import figure, processor

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
PRECISIONS = [Precision.parse(text) for text in ("fp32", "W8A8")]


def part(name: str) -> Any:
    return load_factory(f"cpu_prediction.py:{name}", folder=EXPERIMENTS)


# The networks.


@pytest.mark.parametrize(
    ("name", "example", "layers", "macs", "parameters"),
    [
        ("mobilenet_v2", "image", 53, 300_774_272, 3_487_816),  # its 34,112 values of batch norms are folded in half
        ("resnet18", "image", 21, 1_814_073_344, 11_684_712),
        ("resnet20", "small_image", 20, 40_551_040, 269_034),
        ("encoder", "tokens", 48, 1_434_451_968, 10_646_784),
    ],
)
def test_networks_have_their_published_size(name: str, example: str, layers: int, macs: int, parameters: int) -> None:
    model, inputs = (load_factory(f"cpu_networks.py:{n}", folder=EXPERIMENTS)() for n in (name, example))
    graph = capture(model, inputs)
    assert len(graph.layers) == layers
    assert graph.macs == macs
    assert graph.parameter_count == parameters


def test_networks_are_the_same_each_time_and_keep_values_finite() -> None:
    make, example = (load_factory(f"cpu_networks.py:{n}", folder=EXPERIMENTS) for n in ("mobilenet_v2", "image"))
    with torch.inference_mode():
        first, second = make()(example()), make()(example())
    assert torch.equal(first, second)
    assert 0.01 < float(first.std()) < 100


# Configurations.


@pytest.fixture
def profile() -> HardwareProfile:
    return parse_profile(
        processor(
            rates=[
                {"weights": "fp32", "activations": "fp32", "gmac_per_s": figure(50)},
                {"weights": "int8", "activations": "int8", "op_classes": ["conv", "linear"], "gmac_per_s": figure(200)},
            ],
            conversions=[
                {"from": "fp32", "to": "int8", "us_per_melement": figure(220)},
                {"from": "int8", "to": "fp32", "us_per_melement": figure(200)},
            ],
            nodes=[{"operator": "add", "activations": "fp32", "us_per_melement": figure(100)}],
        )
    )


def test_groups_have_the_precisions_that_all_their_layers_run_at(profile: HardwareProfile) -> None:
    graph = networks.captured("residual")  # its shortcut is a 1x1 convolution, tied to the layer beside it
    options = part("options_of")(graph, profile, PRECISIONS)
    names = [group.name for group in graph.groups]
    assert {n: own.tolist() for n, own in zip(names, options, strict=True)} == {
        n: [0] if n == "b1" else [0, 1] for n in names
    }


def test_configurations_are_different_and_begin_with_the_uniform_ones() -> None:
    options = [np.array([0, 1])] * 11 + [np.array([0])]
    genes = part("configurations")(options, 60, np.random.default_rng(0))
    assert genes.shape == (62, 12)
    assert len(np.unique(genes, axis=0)) == 62
    assert genes[:2].tolist() == [[0] * 12, [1] * 11 + [0]]
    assert not genes[:, 11].any()
    assert (part("configurations")(options, 60, np.random.default_rng(0)) == genes).all()


def test_a_third_of_the_configurations_is_one_block_and_another_has_long_runs() -> None:
    options = [np.array([0, 1])] * 40
    genes = part("configurations")(options, 300, np.random.default_rng(0))[2:]
    switches = (np.diff(genes, axis=1) != 0).sum(axis=1)
    assert 90 < (switches <= 2).sum() < 180  # blocks, and runs that are long by chance
    assert 90 < (switches > 12).sum() < 120  # independent ones switch 19.5 times on average


def test_more_configurations_than_there_are_is_an_error() -> None:
    options = [np.array([0, 1])] * 3
    assert len(part("configurations")(options, 6, np.random.default_rng(0))) == 8
    with pytest.raises(InputError, match="expected at most 6 configurations beside the uniform ones, got 7; ask for"):
        part("configurations")(options, 7, np.random.default_rng(0))


# Scores.


def test_pairs_that_are_close_are_not_asked_for_their_order() -> None:
    measured = np.array([1.0, 1.04, 2.0, 3.0])
    right_order = part("right_order")
    assert right_order(measured, measured) == (1.0, 5)
    assert right_order(-measured, measured) == (0.0, 5)
    assert right_order(np.array([1.0, 0.5, 2.0, 1.5]), measured) == (0.8, 5)
    assert right_order(np.ones(4), measured) == (0.5, 5)
    assert right_order(np.ones(2), np.array([1.0, 1.01]))[1] == 0


def test_scores_are_those_of_the_held_out_rows() -> None:
    measured = np.array([9.0, 1.0, 2.0, 4.0])
    names = ("layers", "table", "rules", "calibrated", "calibrated_rules")
    table = {f"{name}_ms_predicted": measured * [5, 1.1, 0.8, 1.0] for name in names}
    found = pd.DataFrame(
        {
            "is_held_out": [False, True, True, True],
            "narrow_layers": [9, 3, 1, 2],
            "latency_ms_measured": measured,
            **table,
        }
    )
    scores = part("scores")(found).set_index("predictor")
    row = scores.loc["table"]
    assert row["mape"] == pytest.approx(0.1)
    assert row["worst"] == pytest.approx(0.2)
    assert row["spearman"] == pytest.approx(1)
    assert (row["pairs"], row["runs"]) == (3, 3)
    baseline = scores.loc["number of int8 layers"]
    assert baseline["spearman"] == pytest.approx(0.5)  # ranks 1, 3, 2 against 1, 2, 3
    assert baseline["right_order"] == pytest.approx(2 / 3)
    assert np.isnan(baseline["mape"])


# Timing.


def test_what_was_timed_is_not_timed_again(tmp_path: Path) -> None:
    keys = [("net", 1, "runtime 1", f"bits {i}", 0) for i in range(6)]
    asked: list[int] = []
    now_ns = [0]

    def call(position: int) -> Any:
        asked.append(position)
        return lambda: now_ns.append(now_ns[-1] + 10_000 * (position + 1))

    harness = Harness(seconds_per_pass=0.001, clock=lambda: now_ns[-1], reference=lambda: now_ns.append(now_ns[-1] + 1))
    run = part("time_all")(keys, range(len(keys)), call, part("Timings")(tmp_path / "timings.csv"), harness)
    assert next(run) == 4  # and is interrupted here
    assert asked == [0, 1, 2, 3]
    timings = part("Timings")(tmp_path / "timings.csv")
    assert list(part("time_all")(keys, range(len(keys)), call, timings, harness)) == [2]
    assert asked == [0, 1, 2, 3, 4, 5]
    again = part("Timings")(tmp_path / "timings.csv")
    assert [again.milliseconds([key]) for key in keys] == pytest.approx([0.01 * (i + 1) for i in range(6)])
    assert again.milliseconds(keys[2:]) == pytest.approx(0.03)


def test_a_small_network_is_exported_timed_and_predicted(profile: HardwareProfile, tmp_path: Path) -> None:
    """The runtime runs what was asked for, timings are kept, and every predictor has a latency above 0."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    graph = networks.captured("residual")
    network = part("Network")(graph, torch.randn(1, 3, 12, 12), profile)
    options = part("options_of")(graph, profile, PRECISIONS)
    genes = part("configurations")(options, 10, np.random.default_rng(0))
    timings = part("Timings")(tmp_path / "timings.csv")
    keys = [("residual", 1, "runtime", part("bits_of")(graph, PRECISIONS, row), 0) for row in genes]

    def call(position: int) -> Any:
        return network.call([PRECISIONS[g] for g in genes[position]], threads=1)

    assert sum(part("time_all")(keys, range(len(keys)), call, timings, Harness(seconds_per_pass=0.002))) == len(keys)
    measured = np.array([timings.milliseconds([key]) for key in keys])
    assert (measured > 0.001).all()
    found = part("predictions")(graph, profile, PRECISIONS, genes, measured)
    assert found["is_held_out"].sum() == len(genes) - 6
    assert (found.filter(like="_ms_").to_numpy() > 0).all()
    assert found["narrow_layers"].tolist() == [text.split().count("W8A8") for text in found["bits"]]
    paths = part("write")(found.assign(network="residual", threads=1), tmp_path / "results")
    assert [path.name for path in paths] == ["cpu_prediction.csv", "cpu_prediction_scores.csv", "cpu_prediction.png"]
    assert len(pd.read_csv(paths[1])) == 6
    assert paths[2].stat().st_size > 10_000


def test_the_calibration_sees_only_its_own_runs(profile: HardwareProfile) -> None:
    graph = networks.captured("residual")
    options = part("options_of")(graph, profile, PRECISIONS)
    genes = part("configurations")(options, 12, np.random.default_rng(0))
    measured = np.linspace(0.5, 1.0, len(genes))
    other = measured.copy()
    other[6:] *= 3
    first, second = (part("predictions")(graph, profile, PRECISIONS, genes, m) for m in (measured, other))
    columns = [name for name in first.columns if name.endswith("_predicted")]
    assert (first[columns] == second[columns]).all(axis=None)
