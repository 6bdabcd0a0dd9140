"""``hwdse finetune`` on a run of the tiny network, and what export and verify make of it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import numpy_helper

from hwdse.commands import finetune as command
from tests.deploy.cases import profile_text

TINY = Path(__file__).parents[1] / "tiny"
MORE = """

def training():
    return [images(seed, 16) for seed in range(20, 28)]


def wrong_training():
    return [torch.zeros(4, 1, 5, 5)]


def one_image():
    return [images(1, 1)]
"""


@pytest.fixture(scope="session")
def explored(tmp_path_factory, shell) -> Path:
    """Return a folder with an experiment on a processor, and its run."""
    folder = tmp_path_factory.mktemp("finetune")
    shutil.copytree(TINY, folder / "experiment")
    text = (TINY / "tiny.toml").read_text().replace('"mpic", "stm32h7a3"', '"desk.toml"')
    (folder / "experiment" / "tiny.toml").write_text(text.replace('"W4A4"', '"W4A8"'))
    (folder / "experiment" / "parts.py").write_text((TINY / "parts.py").read_text() + MORE)
    (folder / "experiment" / "desk.toml").write_text(profile_text("int8 int8", contained=["int4 int8", "int2 int8"]))
    answer = shell("explore", folder / "experiment" / "tiny.toml", "--out", folder / "run")
    assert answer.code == 0, answer.err
    return folder


@pytest.fixture
def beside(explored) -> tuple[str, Path]:
    """Return the option that names the experiment."""
    return "--experiment", explored / "experiment" / "tiny.toml"


@pytest.fixture
def run(explored, tmp_path) -> Path:
    shutil.copytree(explored / "run", tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def coarse(run) -> str:
    """Return the id of the configuration with the fewest bits."""
    measured = pd.read_csv(run / "desk" / "measured.csv", dtype={"config_id": str})
    return str(measured[measured["uniform"] == "W2A8"]["config_id"].iloc[0])


def numbers(path: Path) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


@pytest.mark.slow
def test_a_tuned_configuration_is_exported_and_verified(cli, run, coarse, explored, tmp_path, beside):
    chosen = ("--device", "desk", "--config", coarse)
    assert cli("export", run, *chosen, "--out", tmp_path / "before.onnx").code == 0
    data = f"{explored / 'experiment' / 'parts.py'}:training"
    answer = cli("finetune", run, *chosen, "--data", data, "--passes", "12", "--batch", "16", "--json")
    assert answer.code == 0, answer.err
    said = json.loads(answer.out)
    folder = run / "desk" / "tuned" / coarse
    assert sorted(p.name for p in folder.iterdir()) == ["tuned.json", "weights.npz"]
    assert json.loads((folder / "tuned.json").read_text()) == said
    assert said["improved"]
    assert said["samples"] == 96
    assert (said["training_samples"], said["held_samples"]) == (115, 13)
    losses = dict(map(tuple, said["held_loss"]))
    assert losses[said["best_step"]] == min(losses.values()) < losses[0]
    assert said["full_precision"]["mean"] == 1.0  # labels are its own answers
    difference = said["after"]["mean"] - said["before"]["mean"]
    assert said["difference"]["mean"] == pytest.approx(difference)
    assert said["after"]["gain"]["mean"] == pytest.approx(said["after"]["mean"] - 1.0)
    assert said["difference"]["low"] < difference < said["difference"]["high"]
    measured = pd.read_csv(run / "desk" / "measured.csv", dtype={"config_id": str}).set_index("config_id")
    assert said["before"]["mean"] == pytest.approx(measured.loc[coarse, "top1_measured"])

    exported = cli("export", run, *chosen, "--out", tmp_path / "after.onnx", "--json")
    assert json.loads(exported.out)["tuned"]
    assert "(tuned weights)" in cli("export", run, *chosen, "--out", tmp_path / "after.onnx").out
    plain = cli("export", run, *chosen, "--out", tmp_path / "plain.onnx", "--no-tuned", "--json")
    assert not json.loads(plain.out)["tuned"]
    before, after, left = (numbers(tmp_path / f"{name}.onnx") for name in ("before", "after", "plain"))
    assert all(np.array_equal(value, left[name]) for name, value in before.items())
    with np.load(folder / "weights.npz", allow_pickle=False) as archive:
        header = json.loads(str(archive["header"]))
        for i, record in enumerate(header["weights"]):
            # Codes of two bits in a byte are multiplied by a power of two that their scale is divided by.
            ratio = archive[f"scale{i}"] / after[f"{record['name']}:scale"]
            assert np.array_equal(np.exp2(np.rint(np.log2(ratio))), ratio)
    assert any(not np.array_equal(value, after[name]) for name, value in before.items())

    verified = cli("verify", run, *beside, *chosen)
    assert verified.code == 0, verified.err
    assert "tuned weights" in verified.out
    found = json.loads((run / "desk" / "verify.json").read_text())
    assert found["tuned"]
    assert found["agreement"]["largest_lsb"] <= 1
    assert found["top1_simulated"] == pytest.approx(said["after"]["mean"])
    found = json.loads(cli("verify", run, *beside, *chosen, "--no-tuned", "--json").out)
    assert not found["tuned"]
    assert found["top1_simulated"] == pytest.approx(said["before"]["mean"])


def test_the_pick_is_tuned_on_the_calibration_data(cli, run):
    picked = json.loads((run / "desk" / "pick.json").read_text())["config_id"]
    answer = cli("finetune", run, "--device", "desk", "--passes", "1", "--seconds", "60")
    assert answer.code == 0, answer.err
    for word in ("full precision", "before", "after", "held-back loss", "after - before: ", "29 samples trained on"):
        assert word in answer.out
    said = json.loads((run / "desk" / "tuned" / picked / "tuned.json").read_text())
    assert said["data"] == "calibration"
    assert said["settings"]["loss"] == "kl"
    assert ("no improvement" in answer.out) == (not said["improved"])


def test_no_improvement_leaves_nothing_to_export(cli, run, coarse, tmp_path, monkeypatch):
    real = command.finetune

    def spoiled(network, config, batches, settings, **more):
        from dataclasses import replace

        still = replace(settings.learning, weight_rate=0.0, step_rate=0.0, bias_rate=0.0, activation_rate=0.0)
        return real(network, config, batches, replace(settings, learning=still), **more)

    monkeypatch.setattr(command, "finetune", spoiled)
    chosen = ("--device", "desk", "--config", coarse)
    answer = cli("finetune", run, *chosen, "--passes", "1")
    assert answer.code == 0, answer.err
    assert "no improvement on the held-back samples: the configuration stays as it was" in answer.out
    folder = run / "desk" / "tuned" / coarse
    assert [p.name for p in folder.iterdir()] == ["tuned.json"]
    said = json.loads((folder / "tuned.json").read_text())
    assert not said["improved"]
    assert said["before"] == said["after"]
    assert not json.loads(cli("export", run, *chosen, "--out", tmp_path / "a.onnx", "--json").out)["tuned"]


def test_an_interrupted_tuning_goes_on(cli, run, coarse, monkeypatch):
    chosen = ("--device", "desk", "--config", coarse, "--passes", "4", "--batch", "8")
    folder = run / "desk" / "tuned" / coarse
    whole = json.loads(cli("finetune", run, *chosen, "--json").out)
    weights = (folder / "weights.npz").read_bytes()
    shutil.rmtree(folder)

    from hwdse.quantize.trainer import Trainer

    real = Trainer._train

    def stopping(self):
        if self.step == 6:
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(Trainer, "_train", stopping)
    answer = cli("finetune", run, *chosen)
    assert answer.code == 130
    assert "interrupted; go on with --resume" in answer.error
    assert [p.name for p in folder.iterdir()] == ["checkpoint.pt"]
    monkeypatch.undo()
    answer = cli("finetune", run, *chosen)
    assert answer.code == 2
    assert re.search(r"expected no unfinished tuning, got one in .*; go on with --resume, or remove", answer.error)
    answer = cli("finetune", run, *chosen, "--resume", "--seed", "3")
    assert answer.code == 2
    assert "to be of the same tuning, got another seed" in answer.error
    answer = cli("finetune", run, *chosen, "--resume", "--json")
    assert answer.code == 0, answer.err
    said = json.loads(answer.out)
    assert {**said, "seconds": 0} == {**whole, "seconds": 0}
    with np.load(folder / "weights.npz") as found:
        (folder / "whole.npz").write_bytes(weights)
        with np.load(folder / "whole.npz") as expected:
            assert all(np.array_equal(found[name], expected[name]) for name in expected.files)
    answer = cli("finetune", run, *chosen, "--resume")
    assert answer.code == 2
    assert "expected a checkpoint to go on from, got no file" in answer.error


def test_weights_of_another_question_are_refused(cli, run, coarse, tmp_path, beside):
    chosen = ("--device", "desk", "--config", coarse)
    assert cli("finetune", run, *chosen, "--passes", "8", "--batch", "8").code == 0
    measured = pd.read_csv(run / "desk" / "measured.csv", dtype={"config_id": str})
    other = next(name for name in measured["config_id"] if name != coarse)
    shutil.copytree(run / "desk" / "tuned" / coarse, run / "desk" / "tuned" / other)
    answer = cli("export", run, "--device", "desk", "--config", other, "--out", tmp_path / "a.onnx")
    assert answer.code == 2
    assert "fitted for the same question, got another bits; remove the file" in answer.error
    answer = cli("verify", run, *beside, "--device", "desk", "--config", other)
    assert answer.code == 2
    arguments = ("--device", "desk", "--config", other, "--out", tmp_path / "a.onnx")
    assert cli("export", run, *arguments, "--no-tuned").code == 0


BAD = {
    "device": (["--device", "dsek"], r"expected devices of the run .*desk.*, got dsek"),
    "config": (["--pick", "12345678"], r"expected the config_id of a configuration in .*'12345678'"),
    "seconds": (["--seconds", "0"], r"expected a number of seconds above 0, got 0\.0; correct --seconds"),
    "passes": (["--passes", "0"], r"expected passes of at least 1, got 0"),
    "batch": (["--batch", "-1"], r"expected batch of at least 1, got -1"),
    "loss": (["--loss", "l1"], r"expected a loss of kl, mse, got 'l1'"),
    "activations": (["--activations", "free"], r"expected activation ranges of learned, ema, kept, got 'free'"),
    "rate": (["--weight-rate", "-1"], r"expected a weight rate of at least 0, got -1"),
    "temperature": (["--temperature", "0"], r"expected a temperature above 0, got 0"),
    "factory": (["--data", "PARTS:nobody"], r"expected a function 'nobody' in"),
    "shape": (["--data", "PARTS:wrong_training"], r"expected training batches of 1 input tensor\(s\)"),
    "few": (["--data", "PARTS:one_image"], r"expected samples to train on and others to hold back, got 1 in all"),
    "none": (["--data", "PARTS:nothing"], r"expected batches with samples to train on, got none"),
    "resume": (["--resume"], r"expected a checkpoint to go on from, got no file"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(name, cli, run, explored, contents):
    arguments, sentence = BAD[name]
    place = str(explored / "experiment" / "parts.py")
    before = contents(run)
    device = [] if "--device" in arguments else ["--device", "desk"]
    answer = cli("finetune", run, *device, *[a.replace("PARTS", place) for a in arguments])
    assert answer.code == 2
    assert re.search(sentence, answer.error), answer.error
    assert contents(run) == before
