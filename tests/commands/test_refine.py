"""``hwdse refine`` on a run of the tiny network; ``hwdse explore --recipe``; and weights that a folder keeps."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import numpy_helper

from hwdse.commands import refine as command
from hwdse.quantize import network as network_module
from hwdse.quantize import rebuild as rebuild_module
from hwdse.quantize.recipe import RECIPES, Recipe
from tests.deploy.cases import profile_text

TINY = Path(__file__).parents[1] / "tiny"


@pytest.fixture(scope="session")
def placed(tmp_path_factory) -> Path:
    """Return an experiment on a processor."""
    folder = tmp_path_factory.mktemp("refine") / "experiment"
    shutil.copytree(TINY, folder)
    text = (TINY / "tiny.toml").read_text().replace('"mpic", "stm32h7a3"', '"desk.toml"')
    text = text.replace('weight_rounding = "nearest"\nactivation_ranges = "mse"\n', "")
    (folder / "tiny.toml").write_text(text.replace('"W2A8", "W4A4", "W8A8"', '"W2A8", "W4A8"'))
    (folder / "desk.toml").write_text(profile_text("int8 int8", contained=["int4 int8", "int2 int8"]))
    return folder / "tiny.toml"


@pytest.fixture(scope="session")
def explored(placed, tmp_path_factory, shell) -> Path:
    out = tmp_path_factory.mktemp("explored") / "run"
    answer = shell("explore", placed, "--out", out)
    assert answer.code == 0, answer.err
    return out


@pytest.fixture
def beside(placed) -> tuple[str, Path]:
    """Return the option that names the experiment."""
    return "--experiment", placed


@pytest.fixture
def run(explored, tmp_path) -> Path:
    shutil.copytree(explored, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def mixed(run) -> str:
    """Return the id of a configuration of several formats, with the most layers in two bits."""
    measured = pd.read_csv(run / "desk" / "measured.csv", dtype={"config_id": str})
    several = measured[measured["uniform"].isna() & measured["bits"].str.contains("W2A8")]
    assert len(several)
    return str(several.loc[several["bits"].str.count("W2A8").idxmax(), "config_id"])


def numbers(path: Path) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


@pytest.fixture
def better(monkeypatch):
    """Have the calibration data say that refined weights harm less, whatever they are."""
    harms = iter((1.0, 0.5))
    monkeypatch.setattr(command, "mean_harm", lambda *_: next(harms))


@pytest.fixture
def worse(monkeypatch):
    """Have the calibration data say that refined weights harm as much."""
    monkeypatch.setattr(command, "mean_harm", lambda *_: 0.5)


def test_a_refined_configuration_is_kept_if_it_harms_less(cli, run, mixed):
    answer = cli("refine", run, "--device", "desk", "--config", mixed, "--json")

    assert answer.code == 0, answer.err
    said = json.loads(answer.out)
    folder = run / "desk" / "tuned" / mixed
    assert json.loads((folder / "tuned.json").read_text()) == said
    before, after = said["calibration_harm"]
    assert said["improved"] == (after < before)
    assert (folder / "weights.npz").is_file() == said["improved"]
    assert said["by"] == "refine"
    assert (said["device"], said["config_id"], said["samples"]) == ("desk", mixed, 96)
    measured = pd.read_csv(run / "desk" / "measured.csv", dtype={"config_id": str}).set_index("config_id")
    assert said["bits"] == measured.loc[mixed, "bits"]
    assert said["before"]["mean"] == pytest.approx(measured.loc[mixed, "top1_measured"])
    assert said["full_precision"]["mean"] == 1.0  # labels are its own answers
    assert said["difference"]["mean"] == pytest.approx(said["after"]["mean"] - said["before"]["mean"])


@pytest.mark.usefixtures("better")
def test_refined_weights_are_exported_and_verified(cli, run, mixed, tmp_path, beside):
    chosen = ("--device", "desk", "--config", mixed)
    assert cli("export", run, *chosen, "--out", tmp_path / "before.onnx").code == 0

    answer = cli("refine", run, *chosen)

    assert answer.code == 0, answer.err
    for word in ("full precision", "before", "after", "calibration loss", "weights found once more, layer by layer"):
        assert word in answer.out
    path = run / "desk" / "tuned" / mixed / "weights.npz"
    assert f"refined weights: {path}" in answer.out
    assert json.loads((path.parent / "tuned.json").read_text())["improved"]
    exported = cli("export", run, *chosen, "--out", tmp_path / "after.onnx")
    assert exported.code == 0, exported.err
    assert "(tuned weights)" in exported.out
    plain = cli("export", run, *chosen, "--out", tmp_path / "plain.onnx", "--no-tuned", "--json")
    assert not json.loads(plain.out)["tuned"]
    old, new, left = (numbers(tmp_path / f"{name}.onnx") for name in ("before", "after", "plain"))
    assert all(np.array_equal(value, left[name]) for name, value in old.items())
    assert any(not np.array_equal(value, new[name]) for name, value in old.items())
    verified = cli("verify", run, *beside, *chosen)
    assert verified.code == 0, verified.err
    assert "tuned weights" in verified.out
    said = json.loads((path.parent / "tuned.json").read_text())
    found = json.loads((run / "desk" / "verify.json").read_text())
    assert found["agreement"]["largest_lsb"] <= 1
    assert found["top1_simulated"] == pytest.approx(said["after"]["mean"])


@pytest.mark.usefixtures("better")
@pytest.mark.parametrize("rate", [0.02, 0.0])
def test_tuning_goes_on_from_refined_weights(cli, run, mixed, rate):
    chosen = ("--device", "desk", "--config", mixed)
    refined = json.loads(cli("refine", run, *chosen, "--json").out)
    kept = (run / "desk" / "tuned" / mixed / "weights.npz").read_bytes()
    options = (
        "--passes",
        4,
        "--batch",
        16,
        "--weight-rate",
        rate,
        "--activations",
        "kept" if rate == 0.0 else "learned",
    )

    answer = cli("finetune", run, *chosen, *options, "--json")

    assert answer.code == 0, answer.err
    said = json.loads(answer.out)
    assert said["from"] == "refine"
    assert said["before"]["mean"] == pytest.approx(refined["after"]["mean"])
    path = run / "desk" / "tuned" / mixed / "weights.npz"
    assert (path.read_bytes() != kept) == said["improved"]
    written = json.loads((path.parent / "tuned.json").read_text())
    assert written["by"] == ("finetune" if said["improved"] else "refine")
    again = json.loads(cli("finetune", run, *chosen, *options, "--json").out)
    assert again["from"] == ("recipe" if said["improved"] else "refine")  # a tuned start is none


@pytest.mark.usefixtures("worse")
def test_no_less_harm_leaves_the_configuration_as_it_was(cli, run, mixed, tmp_path):
    chosen = ("--device", "desk", "--config", mixed)
    folder = run / "desk" / "tuned" / mixed
    folder.mkdir(parents=True)
    (folder / "weights.npz").write_bytes(b"of an earlier time")

    answer = cli("refine", run, *chosen)

    assert answer.code == 0, answer.err
    assert "no less harm to the calibration data: the configuration stays as it was" in answer.out
    assert [path.name for path in folder.iterdir()] == ["tuned.json"]
    said = json.loads((folder / "tuned.json").read_text())
    assert not said["improved"]
    assert said["before"] == said["after"]
    assert not json.loads(cli("export", run, *chosen, "--out", tmp_path / "a.onnx", "--json").out)["tuned"]


def test_the_pick_is_refined_by_default(cli, run):
    picked = json.loads((run / "desk" / "pick.json").read_text())["config_id"]

    answer = cli("refine", run, "--device", "desk", "--json")

    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["config_id"] == picked


def test_a_tuning_that_is_not_over_is_not_disturbed(cli, run, mixed):
    folder = run / "desk" / "tuned" / mixed
    folder.mkdir(parents=True)
    (folder / "checkpoint.pt").write_bytes(b"")

    answer = cli("refine", run, "--device", "desk", "--config", mixed)

    assert answer.code == 2
    assert re.search(r"expected no unfinished tuning, got one in .*; end it by hwdse finetune --resume", answer.error)


BAD = {
    "device": (["--device", "dsek"], r"expected devices of the run .*desk.*, got dsek"),
    "config": (["--device", "desk", "--config", "12345678"], r"expected the config_id of a config.*, got\s+'12345678'"),
    "experiment": (
        ["--device", "desk", "--experiment", "none.toml"],
        r"expected an experiment file, got no file none\.toml; correct --experiment",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(name, cli, run, contents):
    arguments, sentence = BAD[name]
    before = contents(run)

    answer = cli("refine", run, *arguments)

    assert answer.code == 2
    assert re.search(sentence, answer.error), answer.error
    assert contents(run) == before


def test_the_default_recipe_is_gram_and_its_weights_are_kept(explored):
    resolved = json.loads((explored / "resolved.json").read_text())
    assert Recipe.of(resolved["quantize"]) == RECIPES["gram"]
    assert resolved["identity"]["recipe"] == RECIPES["gram"].key
    kept = {path.relative_to(explored / "weights") for path in (explored / "weights").rglob("*") if path.is_file()}
    by_format = {path.parent.name for path in kept if path.suffix == ".safetensors"}
    assert by_format == {"int2", "int4", "int8"}
    assert {path.parent.name for path in kept if path.name == "activations.json"} == {"int8"}
    for text in by_format:
        names = {path.stem for path in kept if path.parent.name == text and path.suffix == ".safetensors"}
        assert names == {"stem.weight", "body.weight", "mix.weight", "head.weight"}


def test_a_run_with_the_recipe_nearest(cli, placed, tmp_path):
    out = tmp_path / "run"
    answer = cli("explore", placed, "--out", out, "--recipe", "nearest", "--budget-evaluations", "4")
    assert answer.code == 0, answer.err
    resolved = json.loads((out / "resolved.json").read_text())
    assert Recipe.of(resolved["quantize"]) == Recipe()
    assert resolved["identity"]["recipe"] == Recipe().key
    assert not (out / "weights").exists()

    exported = cli("export", out, "--device", "desk", "--out", tmp_path / "a.onnx", "--json")
    assert exported.code == 0, exported.err
    assert not json.loads(exported.out)["tuned"]

    refused = cli("refine", out, "--device", "desk")
    assert refused.code == 2
    assert re.search(r"expected a recipe that finds weights from data, got nearest\.\S+; use gram", refused.error)
    assert not (out / "desk" / "tuned").exists()


def test_an_unknown_recipe_is_refused_before_anything_is_loaded(cli, experiment, tmp_path):
    broken = experiment(("parts.py:model", "parts.py:nobody"))

    answer = cli("explore", broken, "--out", tmp_path / "run", "--recipe", "grams")

    assert answer.code == 2
    assert "expected a recipe of gram, nearest, adaround, equalized, got 'grams'; correct --recipe" in " ".join(
        answer.error.split()
    )
    assert not (tmp_path / "run").exists()


def test_another_recipe_is_no_way_to_go_on(cli, placed, run, contents):
    before = contents(run)

    answer = cli("explore", placed, "--out", run, "--resume", "--recipe", "nearest")

    assert answer.code == 2
    assert re.search(r"to\s+be\s+about\s+the\s+same\s+experiment,\s+got\s+another\s+recipe;", answer.error)
    assert contents(run) == before


@pytest.fixture
def found(monkeypatch):
    """Return lists of the layers that are found, and of the choices of ranges that are made."""
    layers, choices = [], []
    rebuilt, choose = rebuild_module._rebuilt, network_module.choose_ranges

    def finding(part, recipe):
        layers.extend(site.name for site in part.block.sites)
        return rebuilt(part, recipe)

    def choosing(*arguments, **options):
        choices.append(1)
        return choose(*arguments, **options)

    monkeypatch.setattr(rebuild_module, "_rebuilt", finding)
    monkeypatch.setattr(network_module, "choose_ranges", choosing)
    return layers, choices


def front(run):
    table = pd.read_csv(run / "desk" / "measured.csv", dtype={"config_id": str})
    return table.drop(columns=[name for name in table if "seconds" in name])


def test_a_folder_of_weights_alone_saves_finding_them(cli, placed, explored, contents, tmp_path, found):
    out = tmp_path / "again"
    shutil.copytree(explored / "weights", out / "weights")
    before = contents(out / "weights")

    answer = cli("explore", placed, "--out", out)

    assert answer.code == 0, answer.err
    assert found == ([], [])
    assert contents(out / "weights") == before
    pd.testing.assert_frame_equal(front(out), front(explored))


def test_what_is_missing_is_found_again_and_nothing_else(cli, placed, explored, tmp_path, found):
    out = tmp_path / "again"
    shutil.copytree(explored / "weights", out / "weights")
    (lost,) = (out / "weights").rglob("int2/body.weight.safetensors")
    kept = lost.read_bytes()
    lost.unlink()

    answer = cli("explore", placed, "--out", out)

    assert answer.code == 0, answer.err
    assert found == (["body"], [])
    assert lost.read_bytes() == kept


def test_a_resumed_run_finds_nothing_again(cli, placed, run, found):
    answer = cli("explore", placed, "--out", run, "--resume", "--budget-evaluations", "20")

    assert answer.code == 0, answer.err
    assert found == ([], [])
    assert json.loads((run / "resolved.json").read_text())["quantize"]["weight_rounding"] == "gram"


def test_a_damaged_recipe_of_a_run_is_named(cli, run, mixed):
    path = run / "resolved.json"
    record = json.loads(path.read_text())
    record["quantize"] = {**record["quantize"], "weight_rounding": "best"}
    path.write_text(json.dumps(record))

    answer = cli("refine", run, "--device", "desk", "--config", mixed)

    assert answer.code == 2
    assert re.search(r"expected the recipe of the run in resolved\.json, got .*; restore the file", answer.error)


def test_a_recipe_that_is_not_the_runs_is_no_recipe_for_it(cli, run, mixed):
    path = run / "resolved.json"
    record = json.loads(path.read_text())
    record["quantize"] = {**record["quantize"], "weight_ranges": "mse"}
    assert Recipe.of(record["quantize"]) == replace(RECIPES["gram"], weight_ranges="mse")
    path.write_text(json.dumps(record))

    answer = cli("refine", run, "--device", "desk", "--config", mixed)

    assert answer.code == 2
    assert re.search(r"to make what the run was about, got another\s+recipe; restore", answer.error)
