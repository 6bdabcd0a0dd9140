"""``hwdse analyze`` and explorations of other formats than integers, on a network that needs no training."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hwdse.calibrate import GROUP
from hwdse.plugins import plugin_names

TABLES = {
    "layers.csv", "statistics.csv", "channel_statistics.csv", "histograms.csv", "difficulty.csv", "bits_needed.csv",
    "sensitivity.csv", "correlation.csv",
}  # fmt: skip
LAYERS = ["stem", "body", "mix", "head"]
FORMATS = ("W8A8", "W4A4", "Wnf4A8", "Wposit4_0A8", "Wcodebook3A8", "Wfp8_e4m3Afp8_e4m3", "WbinaryAfp16")
PRECISIONS = 'precisions = ["W2A8", "W4A4", "W8A8"]'
RATE = (
    '\n[[rates]]\nweights = "{}"\nactivations = "{}"\n'
    'gmac_per_s = {{ value = 1, low = 1, high = 1, kind = "estimate", source = "Assumed" }}\n'
)
DEVICE = """schema_version = 1
name = "odd"
title = "Odd formats"
kind = "accelerator"
software_stack = "none"
note = "for tests"
batch = 1

[sources]
Assumed = "an assumption"

[scheme]
weights = "symmetric"
activations = "symmetric"
weight_granularity = "per_block"
block_size = 8
full_range = false
unsigned_activations = true
"""


@pytest.fixture(scope="module")
def analysis(tmp_path_factory, shell):
    """Return the folder of a finished analysis and what the command line said."""
    folder = tmp_path_factory.mktemp("analysis")
    shutil.copytree(Path(__file__).parents[1] / "tiny", folder / "experiment")
    answer = shell("analyze", folder / "experiment" / "tiny.toml", "--out", folder / "out")
    assert answer.code == 0, answer.err
    return folder / "out", answer


def test_tables_and_figures_are_there(analysis):
    folder, answer = analysis
    assert {path.name for path in folder.iterdir()} == TABLES | {"figures"}
    names = {path.stem for path in (folder / "figures").glob("*.png")}
    assert names == {
        f"{n}-scheme{i}" for n in ("difficulty", "correlation", *(f"layer_{x}" for x in LAYERS)) for i in (1, 2)
    }
    assert "Kendall" in answer.out
    assert "difficulty" in answer.out


def test_every_operand_has_every_format_with_every_calibrator(analysis):
    folder, _ = analysis
    table = pd.read_csv(folder / "difficulty.csv", keep_default_na=False)
    for scheme, rows in table.groupby("scheme"):
        weights, activations = (rows[rows["kind"] == kind] for kind in ("weight", "activation"))
        assert sorted(weights["tensor"].unique()) == sorted(f"{layer}.weight" for layer in LAYERS)
        assert len(weights) == 4 * weights["format"].nunique() * len(plugin_names(GROUP))
        # 4 and 8 bits, signed or not as the tensor is.
        assert len(activations) == 4 * 2 * len(plugin_names(GROUP))
        assert set(weights["format"]) <= {"int2", "int4", "int8"}, scheme
        assert set(activations["format"]) <= {"int4", "int8", "uint4", "uint8"}, scheme
    sqnr = pd.to_numeric(table["sqnr_db_predicted"]).to_numpy()
    assert (sqnr[table["format"] == "int8"] > 20.0).all()


def test_statistics_are_those_of_the_tensors(analysis):
    folder, _ = analysis
    tensors = pd.read_csv(folder / "statistics.csv").set_index("tensor")
    channels = pd.read_csv(folder / "channel_statistics.csv")
    assert list(tensors.columns[:6]) == ["kind", "layer", "count", "mean", "variance", "std"]
    for name, rows in channels.groupby("tensor"):
        assert rows["count"].sum() == tensors.loc[name, "count"]
        mean = np.average(rows["mean"], weights=rows["count"])
        assert mean == pytest.approx(tensors.loc[name, "mean"], abs=1e-9)
    assert tensors.loc["body.weight", "count"] == 6 * 8 * 9
    histograms = pd.read_csv(folder / "histograms.csv")
    assert histograms.groupby("tensor")["count"].sum().to_dict() == tensors["count"].to_dict()


def test_an_analysis_may_be_repeated_and_gives_the_same(cli, experiment, tmp_path, contents):
    assert cli("analyze", experiment(), "--out", tmp_path / "out").code == 0
    first = contents(tmp_path / "out")
    answer = cli("analyze", experiment(), "--out", tmp_path / "out", "--json")
    assert answer.code == 0
    assert set(json.loads(answer.out)) == TABLES | {"figures"}
    assert contents(tmp_path / "out") == first


@pytest.fixture
def odd(experiment):
    """Return an experiment with formats of many families in blocks, and an imagined device that runs them."""
    text = DEVICE + "".join(RATE.format(*pair) for pair in (
        ("int8", "int8"), ("int4", "int4"), ("nf4", "int8"), ("posit4_0", "int8"), ("codebook3", "int8"),
        ("fp8_e4m3", "fp8_e4m3"), ("binary", "fp16"), ("int1", "int8"),
    ))  # fmt: skip
    path = experiment(
        ('devices = ["mpic", "stm32h7a3"]', 'devices = ["odd.toml"]'),
        (PRECISIONS, f"precisions = {json.dumps(FORMATS)}"),
        ("evaluations = 16", "evaluations = 12"),
    )
    (path.parent / "odd.toml").write_text(text)
    return path


@pytest.mark.parametrize("loss", ["kl", "difficulty"])
def test_any_mix_of_formats_is_explored(cli, odd, tmp_path, loss):
    text = odd.read_text().replace("[quantize]", '[quantize]\nweight_ranges = "mse"')
    odd.write_text(text + f'\n[search]\nloss = "{loss}"\n')
    answer = cli("explore", odd, "--out", tmp_path / "run")
    assert answer.code == 0, answer.err
    measured = pd.read_csv(tmp_path / "run" / "odd" / "measured.csv")
    assert set(FORMATS) <= set(measured["uniform"].dropna())
    assert {name for bits in measured["bits"] for name in bits.split()} <= set(FORMATS)
    wide = measured.set_index("uniform")
    assert wide.loc["W8A8", "size_kib"] > wide.loc["W4A4", "size_kib"]
    sensitivity = pd.read_csv(tmp_path / "run" / "sensitivity.csv")
    assert ("kl" in sensitivity) is (loss == "kl")
    assert (sensitivity["samples"] > 0).all() == (loss == "kl")
    resumed = cli("explore", odd, "--out", tmp_path / "run", "--resume", "--budget-evaluations", "14")
    assert resumed.code == 0, resumed.err


def test_a_format_that_a_scheme_cannot_hold_is_one_sentence(cli, odd, tmp_path):
    odd.write_text(odd.read_text().replace('"W8A8", ', '"W8A8", "W1A8", '))
    for verb in ("explore", "analyze"):
        answer = cli(verb, odd, "--out", tmp_path / verb)
        assert answer.code == 2
        assert "expected a format with a symmetric grid, got int1" in answer.error
        assert "(layer 'stem'" in answer.error
        assert not (tmp_path / verb).exists() or not list((tmp_path / verb).iterdir())
