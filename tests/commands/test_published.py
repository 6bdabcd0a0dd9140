"""``hwdse profiles fit`` and ``validate``: their answers, what they write, and one sentence for wrong input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from hwdse.capture import capture
from hwdse.cost.latency import layer_latency_ms
from hwdse.factories import call_factory
from hwdse.formats import Precision
from hwdse.hardware import check, load_profile, profile_paths
from hwdse.hardware.load import VARIABLE
from hwdse.networks import layer_graph
from hwdse.published import published_path, read_rows
from hwdse.published.result import calibration_of, fitted_profile, hold_against

HEADER = "network,precision,latency_ms,energy_mj,kind,source,note\n"
NETWORK = """
import torch
from torch import nn

def model():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.Flatten(), nn.Linear(288, 10))

def example():
    return torch.zeros(1, 3, 8, 8)

def broken():
    raise RuntimeError("no such luck")
"""
OWN = "net.py:model net.py:example"


def shipped(name: str):
    path = published_path(name)
    assert path is not None
    return read_rows(path)


@pytest.fixture
def own_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a CSV file with a network of one's own, whose file lies beside it; the working folder is another one."""
    folder, elsewhere = tmp_path / "rows", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (folder / "net.py").write_text(NETWORK)
    lines = [f"{OWN},W8A8,0.5,,,Lab2024,", "resnet8,W8A8,41,5.1,measured,Lab2024,", f"{OWN},fp32,1.5,,derived,Lab2024,"]
    (folder / "mine.csv").write_text(HEADER + "\n".join(lines) + "\n")
    monkeypatch.chdir(elsewhere)
    return folder / "mine.csv"


# fit


def test_fit_writes_a_profile_and_says_what_it_found(cli, tmp_path):
    out = tmp_path / "folder" / "mine.toml"
    answer = cli("profiles", "fit", "stm32h7a3", "--coefficient", "W8A8", "--out", out, "--json")
    assert answer.code == 0, answer.err
    facts = json.loads(answer.out)
    expected = fitted_profile(load_profile("stm32h7a3"), shipped("stm32h7a3"), layer_graph, names=["W8A8"])
    assert facts["coefficients"] == pytest.approx(dict(expected.values))
    assert set(facts["coefficients"]) == {"W8A8", "energy"}
    assert (facts["rows"], facts["networks"], facts["not_predicted"]) == (4, 4, [])
    left_out = expected.validation.left_out
    assert left_out is not None
    assert facts["left_out_median_error"] == pytest.approx(left_out.median_error)
    assert facts["median_error"] == pytest.approx(expected.validation.shipped.median_error)
    assert facts["inside"] == pytest.approx(expected.validation.inside)
    assert check(out) == ()
    written = load_profile(str(out))
    assert written.name == "mine"
    assert written.spec.calibration == expected.profile.spec.calibration
    assert written.spec.accuracy == expected.profile.spec.accuracy
    assert facts["latency_factor"] == written.uncertainty("latency_ms_predicted")
    layers = [layer_latency_ms(layer, Precision.parse("W8A8"), written) for layer in layer_graph("resnet8").layers]
    published = shipped("stm32h7a3")[1]
    assert published.network == "resnet8"
    assert sum(layers) == pytest.approx(published.latency_ms, rel=0.1)


def test_fit_shows_coefficients_and_errors(cli, tmp_path):
    answer = cli("profiles", "fit", "google_edge_tpu", "--out", tmp_path / "mine.toml", "--coefficient", "us_per_layer")
    assert answer.code == 0, answer.err
    rows = shipped("google_edge_tpu")
    fitted = fitted_profile(load_profile("google_edge_tpu"), rows, layer_graph, names=["us_per_layer"])
    assert f"{calibration_of(fitted.profile)['us_per_layer']:.4g} us" in answer.out
    for words in ("google_edge_tpu:", "us_per_layer", "Predicted against published", "mine.toml"):
        assert words in answer.out
    assert not list(tmp_path.glob("*.csv"))


def test_fit_writes_nothing_unless_it_is_told_to(cli, tmp_path, monkeypatch, contents):
    monkeypatch.chdir(tmp_path)
    before = profile_paths()["stm32h7a3"].read_bytes()
    answer = cli("profiles", "fit", "stm32h7a3")
    assert answer.code == 0, answer.err
    assert contents(tmp_path) == {}
    assert profile_paths()["stm32h7a3"].read_bytes() == before


def test_fit_replaces_a_profile_of_ones_own(cli, tmp_path, monkeypatch):
    """A second fit of the file that the first one wrote gives the same file."""
    out = tmp_path / "mine.toml"
    assert cli("profiles", "fit", "gap9_ne16", "--out", out).code == 0
    first = out.read_bytes()
    rows = published_path("gap9_ne16")
    assert cli("profiles", "fit", out, "--rows", rows, "--out", out).code == 0
    assert out.read_bytes() == first
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    shutil.copy(rows, tmp_path / "mine_published.csv")
    assert cli("profiles", "fit", "mine", "--out", out).code == 0
    assert out.read_bytes() == first


def test_fit_to_uniform_rows_holds_the_others_against_it(cli):
    answer = cli("profiles", "fit", "nvidia_t4", "--uniform-only", "--coefficient", "us_per_layer", "--coefficient",
                 "fp32", "--json")  # fmt: skip
    assert answer.code == 0, answer.err
    rows = shipped("nvidia_t4")
    uniform = [row for row in rows if row.is_uniform]
    expected = fitted_profile(load_profile("nvidia_t4"), uniform, layer_graph, names=["us_per_layer", "fp32"])
    facts = json.loads(answer.out)
    assert facts["coefficients"] == pytest.approx(dict(expected.values))
    assert (facts["rows"], len(uniform)) == (24, 6)
    assert facts["median_error"] < 0.08


def test_fit_to_rows_of_ones_own(cli, own_rows, tmp_path):
    out = tmp_path / "mine.toml"
    answer = cli("profiles", "fit", "stm32h7a3", "--rows", own_rows, "--coefficient", "compute", "--out", out, "--json")
    assert answer.code == 0, answer.err
    facts = json.loads(answer.out)
    assert (facts["rows"], facts["networks"]) == (3, 2)
    graph = capture(*(call_factory(name, own_rows.parent) for name in OWN.split()))
    assert [layer.op_class for layer in graph.layers] == ["conv", "pointwise", "linear"]
    expected = fitted_profile(
        load_profile("stm32h7a3"), read_rows(own_rows), lambda name: graph if name == OWN else layer_graph(name),
        names=["compute"],
    )  # fmt: skip
    assert facts["coefficients"] == pytest.approx(dict(expected.values))
    assert 'Lab2024 = "published figures of whole networks on ' in out.read_text()
    assert check(out) == ()


# validate


def test_validate_says_how_good_profiles_are(cli):
    answer = cli("profiles", "validate", "stm32h7a3", "hailo8", "--json")
    assert answer.code == 0, answer.err
    first, second = json.loads(answer.out)["profiles"]
    assert (first["profile"], second["profile"]) == ("stm32h7a3", "hailo8")
    for facts in (first, second):
        found = hold_against(load_profile(facts["profile"]), shipped(facts["profile"]), layer_graph)
        assert facts["rows"] == len(found.terms.rows)
        assert found.left_out is not None
        assert facts["median_error"] == pytest.approx(found.shipped.median_error)
        assert facts["left_out_median_error"] == pytest.approx(found.left_out.median_error)
        assert facts["left_out_spearman"] == pytest.approx(found.left_out.spearman)
        assert facts["latency_factor"] == found.profile.uncertainty("latency_ms_predicted")
        assert facts["inside"] >= 0.9
        assert [(one["network"], one["precision"]) for one in facts["not_predicted"]] == [
            (one.row.network, one.row.label) for one in found.unpriceable
        ]
    assert first["energy_median_error"] <= 0.2
    assert second["energy_median_error"] is None


def test_validate_takes_all_profiles_with_rows(cli):
    answer = cli("profiles", "validate", "--json")
    assert answer.code == 0, answer.err
    found = [facts["profile"] for facts in json.loads(answer.out)["profiles"]]
    assert found == [name for name in profile_paths() if published_path(name) is not None]
    assert len(found) >= 20


def test_validate_shows_a_table_and_what_is_left_out(cli):
    answer = cli("profiles", "validate", "stm32h7a3")
    assert answer.code == 0, answer.err
    for words in ("Predicted against published", "stm32h7a3", "Left", "Errors are medians"):
        assert words in answer.out
    assert "expected" not in answer.out


def test_validate_against_rows_of_ones_own(cli, own_rows):
    """A network of one's own, a reference network, and one that the device does not run at its precision."""
    with own_rows.open("a") as file:
        file.write("ds_cnn,W16A16,3,,,Lab2024,\n")
    answer = cli("profiles", "validate", "nvidia_t4", "--rows", own_rows, "--json")
    assert answer.code == 0, answer.err
    (facts,) = json.loads(answer.out)["profiles"]
    assert (facts["rows"], facts["networks"]) == (3, 2)
    (left,) = facts["not_predicted"]
    assert (left["network"], left["precision"]) == ("ds_cnn", "W16A16")
    assert left["reason"].startswith("expected a precision that nvidia_t4 supports for ")
    shown = cli("profiles", "validate", "nvidia_t4", "--rows", own_rows)
    assert left["reason"] in shown.out


def test_validate_writes_rows_figures_and_captions(cli, tmp_path):
    out = tmp_path / "validation"
    names = ("stm32h7a3", "nvidia_t4", "gap9_ne16")
    answer = cli("profiles", "validate", *names, "--out", out)
    assert answer.code == 0, answer.err
    figures = [
        f"validation_{quantity}.{suffix}" for quantity in ("latency", "energy") for suffix in ("csv", "pdf", "png")
    ]
    assert sorted(path.name for path in out.iterdir()) == sorted(["validation.csv", "captions.md", *figures])
    table = pd.read_csv(out / "validation.csv")
    held = [hold_against(load_profile(name), shipped(name), layer_graph) for name in names]
    assert_allclose(table["latency_ms_predicted"], np.concatenate([one.shipped_ms for one in held]))
    assert table["profile"].tolist() == ["stm32h7a3"] * 4 + ["nvidia_t4"] * 24 + ["gap9_ne16"] * 4
    drawn = pd.read_csv(out / "validation_latency.csv")
    best = table["latency_ms_left_out_predicted"].fillna(table["latency_ms_predicted"])
    assert_allclose(drawn["predicted"], best)
    assert_allclose(drawn["published"], table["latency_ms_published"])
    energies = pd.read_csv(out / "validation_energy.csv")
    assert set(energies["profile"]) == {"stm32h7a3", "gap9_ne16"}
    known = table[table["energy_mj_published"].notna()]
    assert_allclose(energies["published"], known["energy_mj_published"])
    assert_allclose(energies["predicted"], known["energy_mj_left_out_predicted"])
    captions = (out / "captions.md").read_text()
    assert "**validation_latency.** " in captions
    assert "32 published figures of 3 devices" in captions
    assert "8 published figures of 2 devices" in captions


def test_validate_draws_no_energy_where_none_is_published(cli, tmp_path):
    assert cli("profiles", "validate", "google_edge_tpu", "--out", tmp_path / "out").code == 0
    assert "validation_energy" not in (tmp_path / "out" / "captions.md").read_text()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "captions.md", "validation.csv", "validation_latency.csv", "validation_latency.pdf", "validation_latency.png",
    ]  # fmt: skip


# Wrong input.


UNKNOWN = "expected the name of a hardware profile, got 'mpci', which is unknown; did you mean mpic?"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["fit", "mpic"], "expected published rows of mpic, got none beside its profile; give a CSV file with --rows"),
        (["validate", "mpic"], "expected published rows of mpic, got none beside its profile"),
        (["fit", "mpci"], UNKNOWN),
        (["validate", "stm32h7a3", "mpci"], UNKNOWN),
        (["fit", "hailo8", "--coefficient", "speed"], "expected coefficients out of compute, "),
        (["fit", "hailo8", "--coefficient", "W4A4"], "got W4A4; correct the name"),
        (
            ["fit", "hailo8", *[part for name in ("compute", "traffic", "depthwise", "linear", "pointwise", "W8A8")
                                for part in ("--coefficient", name)]],
            "expected 1 to 5 coefficients, each once, got compute, traffic, depthwise, linear, pointwise, W8A8; leave",
        ),
        (["fit", "stm32h7a3", "--out", "mine.txt"], "expected a file that ends in .toml, got mine.txt; rename it"),
        (["fit", "stm32h7a3", "--out", "mine"], "expected a file that ends in .toml, got mine; rename it"),
        (["fit", "stm32h7a3", "--rows", "absent.csv"], "expected a CSV table of published rows in absent.csv, got "),
        (["fit", "stm32h7a3", "--out", "Mine one.toml"], "name: expected "),
        (["fit", "nvidia_t4", "--out", "mine.toml"], "table: "),
    ],
)  # fmt: skip
def test_wrong_input_is_one_sentence_and_nothing_is_written(arguments, sentence, cli, tmp_path, monkeypatch, contents):
    monkeypatch.chdir(tmp_path)
    answer = cli("profiles", *arguments)
    assert answer.code == 2
    assert sentence in answer.error
    assert answer.out == ""
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("names", [[], ["stm32h7a3", "hailo8"]])
def test_rows_are_of_one_profile(names, cli, own_rows):
    answer = cli("profiles", "validate", *names, "--rows", own_rows)
    assert answer.code == 2
    assert f"expected one profile with --rows, got {len(names)}; name the one that the rows are of" in answer.error


def test_a_row_with_a_fault_is_named(cli, own_rows):
    with own_rows.open("a") as file:
        file.write("ds_cnn,W8A8,-3,,,Lab2024,\n")
    for command in ("fit", "validate"):
        answer = cli("profiles", command, "stm32h7a3", "--rows", own_rows)
        assert answer.code == 2
        assert f"line 5 of {own_rows}: latency_ms: expected a positive number, got '-3'" in answer.error


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        ("net.py:modell net.py:example", "expected a function 'modell' in net.py, got none; did you mean model?"),
        ("nets.py:model nets.py:example", "expected a Python file for factory 'nets.py:model', got no file"),
        ("net.py:broken net.py:example", "expected factory 'net.py:broken' to run, got RuntimeError: no such luck"),
        ("resnet9", "expected a reference network, got 'resnet9'"),
    ],
)
def test_a_network_that_is_not_there_is_named(network, reason, cli, own_rows):
    own_rows.write_text(HEADER + f"{network},W8A8,1,,,Lab2024,\n")
    for command in ("fit", "validate"):
        answer = cli("profiles", command, "stm32h7a3", "--rows", own_rows)
        assert answer.code == 2
        assert reason in answer.error
