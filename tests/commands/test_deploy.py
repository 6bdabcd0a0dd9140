"""``hwdse export`` and ``hwdse verify`` on a run of the tiny network."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest

from tests.deploy.cases import profile_text

TINY = Path(__file__).parents[1] / "tiny"


@pytest.fixture(scope="session")
def explored(tmp_path_factory, shell) -> Path:
    """Return a folder with an experiment on two processors, and its run."""
    folder = tmp_path_factory.mktemp("deploy")
    shutil.copytree(TINY, folder / "experiment")
    text = (TINY / "tiny.toml").read_text()
    text = text.replace('"mpic", "stm32h7a3"', '"desk.toml", "odd.toml", "mpic"').replace('"W4A4"', '"W4A8", "fp32"')
    (folder / "experiment" / "tiny.toml").write_text(text)
    desk = profile_text("fp32 fp32", "int8 int8", contained=["int4 int8", "int2 int8"])
    (folder / "experiment" / "desk.toml").write_text(desk)
    odd = profile_text("int4 int8").replace('"desk"', '"odd"')  # says that 4-bit weights run as such
    (folder / "experiment" / "odd.toml").write_text(odd)
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


def bits_in(path: Path) -> list[str]:
    properties = {p.key: p.value for p in onnx.load(path).metadata_props}
    return list(json.loads(properties["configuration"]).values())


def test_the_picked_configuration_is_exported(cli, run, tmp_path):
    out = tmp_path / "tiny.onnx"
    answer = cli("export", run, "--device", "desk", "--out", out, "--json")
    assert answer.code == 0, answer.err
    said = json.loads(answer.out)
    picked = json.loads((run / "desk" / "pick.json").read_text())
    assert said["config_id"] == picked["config_id"]
    assert bits_in(out) == picked["bits"].split() == said["bits"].split()
    assert said["predicted"]["size_kib"] == pytest.approx(picked["size_kib"])
    assert said["predicted"]["latency_ms_predicted"] == pytest.approx(picked["latency_ms_predicted"])
    assert said["file_kib"] == out.stat().st_size / 1024
    encodings = json.loads((tmp_path / "tiny.encodings.json").read_text())
    assert encodings["scheme"] == "w-symmetric-per_channel-restricted.a-affine-unsigned.o-quantized"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "tiny.encodings.json", "tiny.onnx"]


def test_another_configuration_by_id_or_by_limits(cli, run, tmp_path):
    measured = pd.read_csv(run / "desk" / "measured.csv", dtype={"config_id": str})
    row = measured[measured["uniform"] == "W8A8"].iloc[0]
    assert cli("export", run, "--device", "desk", "--out", tmp_path / "a.onnx", "--config", row["config_id"]).code == 0
    assert set(bits_in(tmp_path / "a.onnx")) == {"W8A8"}
    front = pd.read_csv(run / "desk" / "front.csv", dtype={"config_id": str})
    least = float(front["size_kib"].min())
    limit = ("--max", f"size_kib={least!r}")
    assert cli("export", run, "--device", "desk", "--out", tmp_path / "b.onnx", *limit).code == 0
    assert bits_in(tmp_path / "b.onnx") in [bits.split() for bits in front[front["size_kib"] == least]["bits"]]
    limit = ("--max", f"size_kib={float(np.nextafter(least, 0.0))!r}")
    answer = cli("export", run, "--device", "desk", "--out", tmp_path / "c.onnx", *limit)
    assert answer.code == 3
    assert "infeasible: size_kib" in answer.error
    assert not (tmp_path / "c.onnx").exists()


def test_what_holds_is_verified(cli, run, beside):
    answer = cli("verify", run, *beside, "--device", "desk", "--json")
    assert answer.code == 0, answer.err
    said = json.loads(answer.out)
    assert json.loads((run / "desk" / "verify.json").read_text()) == said
    assert said["failures"] == []
    assert said["agreement"]["largest_lsb"] <= 1
    assert said["agreement"]["samples"] == said["samples"] == 96
    assert said["audit"] == {"layers": 4, "mismatches": []}
    assert said["latency_ms_measured"] > 0
    picked = json.loads((run / "desk" / "pick.json").read_text())
    assert said["latency_ms_predicted"] == pytest.approx(picked["latency_ms_predicted"])
    assert said["top1_simulated"] == pytest.approx(picked["top1_measured"])
    assert said["top1_recorded"] == picked["top1_measured"]
    assert said["top1_difference_low"] <= said["top1_difference"] <= said["top1_difference_high"]
    table = cli("verify", run, *beside, "--device", "desk")
    assert table.code == 0
    assert table.out.splitlines()[0] == f"desk {picked['config_id']}: {said['verdict']}"
    agreement = said["agreement"]
    assert said["verdict"] == (
        f"ONNX Runtime against the simulation on 96 samples: {agreement['codes']} codes differ by at most "
        f"{agreement['largest_lsb']}, outputs by {agreement['relative']:.2e} of the largest, top1 by "
        f"{abs(said['top1_difference']):.2g}; it holds"
    )
    for word in ("codes", "layers as requested", "latency (ms), batch of 1", "size (KiB), file", "top1"):
        assert word in table.out


def test_what_does_not_hold_is_listed(cli, run, beside):
    """A profile that says 4-bit weights run natively: the runtime computes in fp32."""
    answer = cli("verify", run, *beside, "--device", "odd", "--json")
    assert answer.code == 4
    said = json.loads(answer.out)
    assert said["failures"]
    assert all(text.startswith("audit: expected ") and text.endswith("(fp32)") for text in said["failures"])
    assert [m["layer"] for m in said["audit"]["mismatches"]] == ["stem", "body", "mix", "head"]
    shown = cli("verify", run, *beside, "--device", "odd")
    assert shown.code == 4
    assert shown.err.count("error: audit: expected ") == 4
    assert shown.out.splitlines()[0].endswith("; it does not hold (4 findings)")


def test_another_chips_latency_is_not_comparable(cli, run, beside):
    answer = cli("verify", run, *beside, "--device", "mpic")
    assert answer.code == 0, answer.err
    assert re.search(r"verify .* 2/2 ", answer.err), answer.err  # what is not looked at is no step
    assert "latency is not comparable" in answer.out
    said = json.loads((run / "mpic" / "verify.json").read_text())
    assert said["latency_ms_measured"] is None
    assert said["audit"] is None
    assert said["agreement"]["holds"]


BAD = {
    "device": (["--device", "dsek"], r"expected devices of the run .*desk.*, got dsek"),
    "config": (
        ["--device", "desk", "--config", "12345678"],
        r"expected the config_id of a configuration in .*'12345678'",
    ),
    "experiment": (
        ["--device", "desk", "--experiment", "no.toml"],
        r"expected an experiment file, got no file no\.toml",
    ),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("verb", ["export", "verify"])
def test_bad_input_is_one_sentence(name, verb, cli, run, tmp_path, contents):
    arguments, sentence = BAD[name]
    before = contents(run)
    more = ["--out", tmp_path / "a.onnx"] if verb == "export" else []
    answer = cli(verb, run, *arguments, *more)
    assert answer.code == 2
    assert re.search(sentence, answer.error), answer.error
    assert contents(run) == before
    assert not (tmp_path / "a.onnx").exists()


def test_an_export_that_cannot_be_written_is_one_sentence(cli, run, tmp_path):
    answer = cli("export", run, "--device", "desk", "--out", tmp_path / "a.txt")
    assert answer.code == 2
    assert "expected a file to write that ends in .onnx" in answer.error
    (tmp_path / "file").write_text("")
    answer = cli("export", run, "--device", "desk", "--out", tmp_path / "file" / "a.onnx")
    assert answer.code == 2
    assert f"expected a folder to write to, got {tmp_path / 'file'}, and {tmp_path / 'file'} is none" in answer.error
    answer = cli(
        "export", run, "--device", "desk", "--out", tmp_path / "a.onnx", "--config", "x", "--max", "size_kib=1"
    )
    assert answer.code == 2
    assert "expected either --config or --max, got both" in answer.error


def test_a_missing_package_is_one_sentence(cli, run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    answer = cli("export", run, "--device", "desk", "--out", tmp_path / "a.onnx")
    assert answer.code == 2
    assert "pip install 'hwdse[onnx]'" in answer.error


def test_another_network_than_the_runs_is_refused(cli, run, explored, tmp_path):
    shutil.copytree(explored / "experiment", tmp_path / "moved")
    moved = ("--experiment", tmp_path / "moved" / "tiny.toml")
    assert cli("export", run, "--device", "desk", "--out", tmp_path / "a.onnx", *moved).code == 0
    shutil.copytree(explored / "experiment", tmp_path / "changed")
    moved = ("--experiment", tmp_path / "changed" / "tiny.toml")
    parts = tmp_path / "changed" / "parts.py"
    parts.write_text(parts.read_text().replace("torch.manual_seed(3)", "torch.manual_seed(4)"))
    answer = cli("export", run, "--device", "desk", "--out", tmp_path / "b.onnx", *moved)
    assert answer.code == 2
    assert "to make what the run was about, got another network, data; restore them" in answer.error


def test_an_experiment_that_was_moved_is_asked_for(cli, run, tmp_path):
    resolved = json.loads((run / "resolved.json").read_text())
    (run / "resolved.json").write_text(json.dumps(resolved | {"experiment": str(tmp_path / "gone" / "tiny.toml")}))
    answer = cli("export", run, "--device", "desk", "--out", tmp_path / "a.onnx")
    assert answer.code == 2
    assert re.search(r"expected the run's experiment file, .*, got no file .*gone.tiny\.toml; name it by", answer.error)


def test_a_run_without_a_pick_or_an_experiment_is_named(cli, run, tmp_path):
    (run / "desk" / "pick.json").unlink()
    answer = cli("verify", run, "--device", "desk")
    assert answer.code == 2
    assert "expected a picked configuration of desk" in answer.error
    (run / "experiment.toml").unlink()
    answer = cli("export", run, "--device", "mpic", "--out", tmp_path / "a.onnx")
    assert answer.code == 2
    assert "expected a run of an experiment file" in answer.error


def test_a_profile_that_is_gone_is_named(cli, run, tmp_path):
    path = run / "resolved.json"
    resolved = json.loads(path.read_text())
    assert Path(resolved["profiles"]["desk"]).name == "desk.toml"
    assert Path(resolved["profiles"]["mpic"]).name == "mpic.toml"
    resolved["profiles"]["desk"] = str(tmp_path / "gone.toml")
    path.write_text(json.dumps(resolved))
    answer = cli("export", run, "--device", "desk", "--out", tmp_path / "desk.onnx")
    assert answer.code == 2
    assert re.search(
        r"expected the profile that desk was explored with, got no file .*gone\.toml; .*HWDSE_PROFILES", answer.error
    )


def test_another_quality_than_the_run_recorded_does_not_hold(cli, run, beside):
    for name in ("measured.csv", "front.csv"):
        path = run / "mpic" / name
        table = pd.read_csv(path, dtype={"config_id": str})
        table["top1_measured"] -= 1 / 96
        table.to_csv(path, index=False)
    answer = cli("verify", run, *beside, "--device", "mpic")
    assert answer.code == 4
    assert re.search(
        r"error: top1: expected 0\.\d+, which the run recorded, got [01]\.\d+ in the simulation", answer.err
    )
