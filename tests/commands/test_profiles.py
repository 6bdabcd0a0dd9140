"""``hwdse profiles``: every fault is listed, and the closest name is suggested."""

from __future__ import annotations

import json

import pytest

from hwdse.commands.profiles import _quantities
from hwdse.hardware import load_profile, profile_paths
from hwdse.hardware.load import VARIABLE


def test_an_unknown_name_suggests_the_closest(cli):
    answer = cli("profiles", "show", "mpci")
    assert answer.code == 2
    assert answer.error == (
        "error: expected the name of a hardware profile, got 'mpci', which is unknown; did you mean mpic?"
    )
    checked = cli("profiles", "check", "mpci")
    assert (checked.code, checked.out, checked.error) == (2, "", answer.error)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name = ", "expected TOML, got: "),
        ("name = 'chip", "expected TOML, got: "),
    ],
)
def test_a_broken_profile_is_named(text, sentence, cli, tmp_path):
    (tmp_path / "chip.toml").write_text(text)
    for arguments in (["show"], ["check"]):
        answer = cli("profiles", *arguments, tmp_path / "chip.toml")
        assert answer.code == 2
        assert sentence in answer.error


@pytest.mark.parametrize(("text", "got"), [("schema_version = 2", "2"), ("", "nothing")])
def test_another_version_is_the_first_of_the_faults(text, got, cli, tmp_path):
    (tmp_path / "chip.toml").write_text(text)
    answer = cli("profiles", "check", tmp_path / "chip.toml")
    assert answer.code == 2
    faults = [line.partition("chip.toml: ")[2] for line in answer.err.splitlines()]
    assert faults[0] == f"schema_version: expected 1, got {got}; see the README beside the profiles"
    assert "rates: expected a table [[rates]] with weights, activations, got nothing; add it" in faults[1:]
    assert answer.out == f"{tmp_path / 'chip.toml'}: {len(faults)} faults\n"


def test_every_fault_is_listed(cli, tmp_path):
    text = (
        profile_paths()["mpic"]
        .read_text()
        .replace("batch = 1", "batch = 0")
        .replace('kind = "mcu"', 'kind = "toaster"')
    )
    (tmp_path / "mpic.toml").write_text(text)
    answer = cli("profiles", "check", tmp_path / "mpic.toml", "stm32h7a3")
    assert answer.code == 2
    assert "Traceback" not in answer.err
    assert {line.partition("mpic.toml: ")[2].partition(":")[0] for line in answer.err.splitlines()} >= {"batch", "kind"}
    assert "stm32h7a3: ok" in answer.out


def test_what_an_efficiency_leaves_out_is_a_note(cli):
    answer = cli("profiles", "check", "hailo8", "mpic")
    assert (answer.code, answer.out) == (0, "hailo8: ok\nmpic: ok\n")
    assert answer.err.startswith("note: hailo8 runs no matmul layer at ")
    assert len(answer.err.splitlines()) == 1
    rows = json.loads(cli("profiles", "check", "hailo8", "mpic", "--json").out)["profiles"]
    assert [[f"note: {sentence}" for sentence in row["notes"]] for row in rows] == [answer.err.splitlines(), []]


def test_all_profiles_are_good(cli):
    answer = cli("profiles", "check")
    assert answer.code == 0
    assert answer.err == ""
    assert len(answer.out.splitlines()) == len(profile_paths())


def test_a_damaged_profile_does_not_hide_the_others(cli, tmp_path, monkeypatch):
    (tmp_path / "broken.toml").write_text("name = ")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    answer = cli("profiles", "list")
    assert answer.code == 0
    assert "broken" in answer.out
    assert "mpic" in answer.out
    listed = json.loads(cli("profiles", "list", "--json").out)
    assert [row["name"] for row in listed["damaged"]] == ["broken"]
    assert "expected TOML" in listed["damaged"][0]["error"]


def test_times_between_layers_are_shown_with_what_they_are_of(cli, tmp_path):
    figure = '{ value = 3, kind = "measured", source = "Ottavi2020" }'
    sections = (
        f'[[conversions]]\nfrom = "int8"\nto = "fp32"\nop_classes = ["conv"]\nus = {figure}\n'
        f'[[nodes]]\noperator = "add"\nactivations = "int8"\nus = {figure}\n[calibration]\ninteger_layers = {figure}\n'
    )
    (tmp_path / "mpic.toml").write_text(profile_paths()["mpic"].read_text() + sections)
    answer = cli("profiles", "show", tmp_path / "mpic.toml")
    assert answer.code == 0
    for words in ("conversions[0] (int8 to fp32", "nodes[0] (add in int8).us", "calibration.integer_layers"):
        assert words in answer.out
    written = json.loads(cli("profiles", "show", tmp_path / "mpic.toml", "--json").out)
    assert written["conversions"][0]["from"] == "int8"


def test_a_rate_says_what_it_is_the_speed_of():
    spec = load_profile("mpic").spec
    paths = [path for path, _ in _quantities(spec, "") if path.startswith("rates[")]
    assert paths[0] == f"rates[0] ({spec.rates[0].precision}).macs_per_cycle"
    some = spec.rates[0].model_copy(update={"op_classes": ("conv",), "kernels": ("3x3", "1x1")})
    assert some.words == f"{some.precision}, conv 3x3 1x1"
