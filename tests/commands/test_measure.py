from __future__ import annotations

import json
from pathlib import Path

import pytest

from hwdse.hardware import load_profile
from hwdse.hardware.measure.table import COLUMNS, Record, locked

pytest.importorskip("onnxruntime")

TINY = Path(__file__).parents[1] / "tiny"
QUICK = ("--seconds-per-entry", "0.0005")
NETWORK = ("--model", TINY / "parts.py:model", "--example", TINY / "parts.py:example")


def test_a_network_is_measured_into_a_profile(cli, tmp_path: Path) -> None:
    answer = cli("measure", *NETWORK, "--name", "chip", "--out", tmp_path, *QUICK)
    assert answer.code == 0, answer.err
    profile = load_profile(tmp_path / "chip.toml")
    assert len(profile.table) == 2 * 4
    assert [str(precision) for precision in profile.precisions] == ["W8A8", "W4A8", "W2A8", "fp32"]
    assert profile.spec.conversions
    assert profile.node_times("add")
    assert {row.op for row in Record(tmp_path / "chip_measurements.csv").rows} == {"conv", "linear", "tensor"}
    assert "conv 6 to 8, 3x3/2, 2x2" in answer.out
    assert "measurements in" in answer.out
    assert cli("profiles", "check", tmp_path / "chip.toml").code == 0


def test_an_experiment_names_the_network_and_json_says_the_same(cli, tmp_path: Path) -> None:
    arguments = ("--experiment", TINY / "tiny.toml", "--name", "chip", "--out", tmp_path, *QUICK)
    asked = ("--precision", "fp32", "--precision", "W4Afp32", "--block-size", "32")
    facts = json.loads(cli("measure", *arguments, *asked, "--json").out)
    assert facts["profiles"] == [str(tmp_path / "chip_blocked.toml")]
    assert facts["left_out"] == []
    assert facts["measured"] == len(Record(Path(facts["record"])).rows)
    by_shape = {row["shape"]: sorted(row["us"]) for row in facts["layers"]}
    assert by_shape["linear 32 to 4"] == ["W4Afp32", "fp32"]
    assert load_profile(tmp_path / "chip_blocked.toml").scheme.block_size == 32


def test_a_second_measurement_replaces_the_first(cli, tmp_path: Path) -> None:
    arguments = ("measure", *NETWORK, "--name", "chip", "--out", tmp_path, *QUICK)
    for precision in ("fp32", "fp32", "W8A8"):
        assert cli(*arguments, "--precision", precision).code == 0
    layers = [row for row in Record(tmp_path / "chip_measurements.csv").rows if row.op != "tensor"]
    assert [str(row.precision) for row in layers] == ["fp32"] * 4 + ["W8A8"] * 4
    assert len(load_profile(tmp_path / "chip.toml").table) == 8


def test_whole_networks_calibrate_the_profile_and_measuring_again_drops_that(cli, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    arguments = ("measure", "--experiment", TINY / "tiny.toml", "--name", "chip", "--out", tmp_path, *QUICK)
    facts = json.loads(cli(*arguments, "--end-to-end", "5", "--json").out)
    fit = facts["calibration"]["chip"]
    profile = load_profile(tmp_path / "chip.toml")
    calibration = profile.spec.calibration
    assert calibration is not None
    assert fit["runs"] == 5
    for key in ("float_layers", "integer_layers", "conversions", "nodes", "us_per_inference"):
        assert getattr(calibration, key).value == pytest.approx(fit[key], abs=1e-6)
    words = f"mean error of 5 runs {fit['error_before']:.1%} before, {fit['error_after']:.1%} after, in sample"
    assert f"Calibrated on whole networks: {words}." in profile.spec.note
    assert profile.spec.sources["whole_networks"].startswith(
        "hwdse measure --end-to-end 5 on 4 layers with onnxruntime"
    )
    again = cli(*arguments)
    assert again.code == 0
    assert "the calibration that chip.toml had is dropped" in again.err
    assert load_profile(tmp_path / "chip.toml").spec.calibration is None
    assert "dropped" not in cli(*arguments).err


def test_operators_without_a_time_are_named(cli, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\n"
        "def model():\n"
        "    layers = torch.nn.Linear(4, 4), torch.nn.Hardswish(), torch.nn.Softmax(-1), torch.nn.Linear(4, 4)\n"
        "    return torch.nn.Sequential(*layers).eval()\n"
        "def example():\n"
        "    return torch.zeros(1, 4)\n"
    )
    network = ("--model", f"{tmp_path}/net.py:model", "--example", f"{tmp_path}/net.py:example")
    answer = cli("measure", *network, "--name", "chip", "--out", tmp_path, *QUICK, "--precision", "fp32")
    assert answer.code == 0
    said = " ".join(answer.err.split())
    assert "expected times of all operators without MACs, got none of hardswish (1): they are predicted" in said


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("--grid", "--end-to-end", "6"), "expected a network to run end to end, got --grid"),
        ((*NETWORK, "--end-to-end", "3"), "expected at least 4 whole networks to calibrate with, got 3; 6 is good"),
        ((*NETWORK, "--end-to-end", "6", "--runtime", "torch"), "expected onnxruntime among the runtimes"),
        ((), "expected either --model with --example, or --experiment, or --grid, got none"),
        (("--grid", "--experiment", "x.toml"), "got another combination"),
        (("--model", "hwdse.examples:digits"), "expected either --model with --example"),
        (("--model", "nowhere:net", "--example", "nowhere:x"), "expected an installed module for factory"),
        (("--model", f"{TINY}/parts.py:none", "--example", f"{TINY}/parts.py:example"), "expected a function 'none'"),
        (("--model", f"{TINY}/parts.py:nothing", "--example", f"{TINY}/parts.py:example"), "expected a torch.nn.Mod"),
        (("--model", f"{TINY}/parts.py:model", "--example", f"{TINY}/parts.py:nothing"), "expected example inputs"),
        ((*NETWORK, "--runtime", "tvm"), "expected one of the installed runtimes"),
        ((*NETWORK, "--precision", "4-8"), "expected a precision such as W4A8"),
        ((*NETWORK, "--precision", "W16A16"), "runs some of these layers at, got W16A16"),
        ((*NETWORK, "--threads", "0"), "expected at least 1 thread, got 0"),
        ((*NETWORK, "--threads", "5000"), "expected at most"),
        ((*NETWORK, "--block-size", "48"), "expected blocks of 32, 64, 128, got 48"),
        ((*NETWORK, "--seconds-per-entry", "0"), "expected up to 10 seconds per entry"),
        ((*NETWORK, "--name", "Chip 9"), "expected a profile name"),
        (("--experiment", "nowhere.toml"), "expected an experiment file, got no file"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(cli, tmp_path: Path, arguments, match: str) -> None:
    answer = cli("measure", "--name", "chip", "--out", tmp_path / "out", *QUICK, *arguments)
    assert answer.code == 2
    assert match in answer.error
    assert not list(tmp_path.glob("out/*.toml"))


def test_a_package_that_is_not_installed(cli, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    answer = cli("measure", *NETWORK, "--name", "chip", "--out", tmp_path, *QUICK)
    assert answer.code == 2
    assert "pip install 'hwdse[onnx]'" in answer.error


def test_a_record_of_another_machine(cli, tmp_path: Path) -> None:
    arguments = ("measure", *NETWORK, "--name", "chip", "--out", tmp_path, *QUICK, "--precision", "fp32")
    assert cli(*arguments).code == 0
    path = tmp_path / "chip_measurements.csv"
    record = Record(path)
    changed = [row.model_copy(update={"cpu": "Other chip"}) for row in record.rows]
    path.unlink()
    other = Record(path)
    other.add(*changed)
    other.save()
    answer = cli(*arguments)
    assert answer.code == 2
    assert "got some of Other chip" in answer.error
    assert cli(*arguments, "--allow-other-machine").code == 0
    assert len(Record(path).rows) == 2 * len(changed)
    assert len(load_profile(tmp_path / "chip.toml").table) == 4


def test_a_held_lock(cli, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with locked(tmp_path / ".chip_measurements.lock"):
        answer = cli("measure", *NETWORK, "--name", "chip", "--out", tmp_path, *QUICK)
    assert answer.code == 2
    assert "expected one measurement at a time" in answer.error


def test_a_profile_from_elsewhere_is_not_written_over(cli, tmp_path: Path) -> None:
    (tmp_path / "chip.toml").write_text("mine")
    answer = cli("measure", *NETWORK, "--name", "chip", "--out", tmp_path, *QUICK)
    assert answer.code == 2
    assert "name another one with --name" in answer.error
    assert (tmp_path / "chip.toml").read_text() == "mine"


def test_a_damaged_record(cli, tmp_path: Path) -> None:
    (tmp_path / "chip_measurements.csv").write_text(",".join(COLUMNS) + "\nnonsense\n")
    answer = cli("measure", *NETWORK, "--name", "chip", "--out", tmp_path, *QUICK)
    assert answer.code == 2
    assert "chip_measurements.csv:2" in answer.error


def test_a_full_disk(cli, tmp_path: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "x.csv"))

    monkeypatch.setattr("hwdse.hardware.measure.table.write_text", full)
    answer = cli("measure", *NETWORK, "--name", "chip", "--out", tmp_path, *QUICK)
    assert answer.code == 2
    assert "No space left on device" in answer.error


def test_a_processor_without_vnni_is_measured_and_marked(cli, tmp_path: Path, monkeypatch) -> None:
    from hwdse.hardware.measure.machine import Machine

    monkeypatch.setattr("hwdse.commands.measure.this_machine", lambda: Machine("Old chip", "avx2 fma"))
    answer = cli("measure", *NETWORK, "--name", "chip", "--out", tmp_path, *QUICK)
    assert answer.code == 0
    assert "Old chip has no VNNI" in answer.err
    assert "no VNNI: int8 sums may saturate" in load_profile(tmp_path / "chip.toml").spec.note


def test_an_interruption_is_said(cli, tmp_path: Path, monkeypatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hwdse.commands.measure.measure_series", interrupted)
    answer = cli("measure", *NETWORK, "--name", "chip", "--out", tmp_path, *QUICK)
    assert answer.code == 130
    assert "what was measured is in the record" in answer.error


def test_power_that_the_processor_counts_is_in_the_profile(cli, tmp_path: Path, monkeypatch) -> None:
    from hwdse.hardware.measure.energy import Reading

    class Meter:
        """Counts 1 J between two readings half a second apart."""

        def __init__(self) -> None:
            self.count = 0

        def read(self) -> Reading:
            self.count += 1
            return Reading(self.count * 500_000_000, (self.count * 1_000_000,))

        def power_mw(self, before: Reading, after: Reading) -> float:
            return (after.energy_uj[0] - before.energy_uj[0]) * 1e-3 / ((after.time_ns - before.time_ns) * 1e-9)

    monkeypatch.setattr("hwdse.commands.measure.PowercapMeter", Meter)
    answer = cli("measure", *NETWORK, "--name", "chip", "--out", tmp_path, *QUICK, "--precision", "fp32")
    assert answer.code == 0
    assert load_profile(tmp_path / "chip.toml").power_mw == 2000
    assert "RAPL" not in answer.err


def test_what_cannot_be_run_as_asked_is_said_and_left_out(cli, tmp_path: Path, monkeypatch) -> None:
    from hwdse.errors import InputError
    from hwdse.hardware.measure.onnxruntime import RUNTIME

    build = type(RUNTIME).build

    def refuse(self, subject, *, threads: int):
        if subject.key.op == "linear" and str(subject.precision) == "W8A8":
            raise InputError("expected QGemm, got a float product")
        return build(self, subject, threads=threads)

    monkeypatch.setattr(type(RUNTIME), "build", refuse)
    answer = cli("measure", *NETWORK, "--name", "chip", "--out", tmp_path, *QUICK, "--json")
    assert answer.code == 0
    assert "expected QGemm, got a float product" in answer.err
    assert json.loads(answer.out)["left_out"] == ["expected QGemm, got a float product"]
    profile = load_profile(tmp_path / "chip.toml")
    assert {(rate.weights, rate.op_classes) for rate in profile.spec.rates if "linear" in rate.op_classes} == {
        ("fp32", ("linear",))
    }


def test_two_runtimes_share_a_record_and_have_a_profile_each(cli, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    runtimes = ("--runtime", "onnxruntime", "--runtime", "openvino", "--precision", "fp32")
    answer = cli("measure", *NETWORK, "--name", "chip", "--out", tmp_path, *QUICK, *runtimes)
    assert answer.code == 0
    for name, runtime in (("chip", "onnxruntime"), ("chip_openvino", "openvino")):
        assert load_profile(tmp_path / f"{name}.toml").spec.software_stack.startswith(runtime)
    assert {row.runtime for row in Record(tmp_path / "chip_measurements.csv").rows} == {"onnxruntime", "openvino"}
    assert "us in openvino" in answer.out
