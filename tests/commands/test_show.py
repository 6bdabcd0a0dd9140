"""``hwdse cite`` and ``hwdse optuna``: what a run rests on, and a run for another tool."""

from __future__ import annotations

import json
import re

import optuna
import pandas as pd
import pytest


def test_a_run_is_cited(cli, run) -> None:
    answer = cli("cite", run)
    assert (answer.code, answer.err) == (0, "")
    keys = re.findall(r"^@\w+\{(\w+),", answer.out, flags=re.M)
    assert keys == sorted(set(keys))
    assert {"Wilson1927", "Kullback1951", "Jacob2018", "Ottavi2020", "MLPerfTiny12"} <= set(keys)
    assert not {"Lloyd1982", "Frantar2023", "Deb2002", "NVIDIAT4"} & set(keys)  # nearest rounding, a small space
    found = json.loads(cli("cite", run, "--json").out)
    assert [entry["key"] for entry in found["entries"]] == keys
    assert found["missing"] == []
    assert all(entry["uses"] and entry["bibtex"] in answer.out for entry in found["entries"])


def test_a_profile_that_is_gone_is_noted(cli, run) -> None:
    text = (run / "resolved.json").read_text()
    (run / "resolved.json").write_text(text.replace('"mpic"', '"gone"').replace("mpic.toml", "gone.toml"))
    (run / "mpic").rename(run / "gone")
    answer = cli("cite", run)
    assert answer.code == 0
    assert answer.err == (
        "note: the profile of gone was not found, so its sources are left out; name its folder in HWDSE_PROFILES\n"
    )
    assert json.loads(cli("cite", run, "--json").out)["missing"] == ["gone"]


def test_a_run_opens_in_optuna(cli, run, tmp_path) -> None:
    answer = cli("optuna", run, "--device", "mpic", "--out", tmp_path / "run.db")
    assert (answer.code, answer.err) == (0, "")
    assert f"optuna-dashboard sqlite:///{tmp_path / 'run.db'}" in answer.out
    (summary,) = optuna.get_all_study_summaries(f"sqlite:///{tmp_path / 'run.db'}")
    front = pd.read_csv(run / "mpic" / "front.csv", dtype={"config_id": str})
    study = optuna.load_study(study_name=summary.study_name, storage=f"sqlite:///{tmp_path / 'run.db'}")
    assert {trial.user_attrs["config_id"] for trial in study.best_trials} == set(front["config_id"])
    found = json.loads(cli("optuna", run, "--out", tmp_path / "all.db", "--json").out)
    assert [(each["device"], each["reason"]) for each in found["studies"]] == [("mpic", ""), ("stm32h7a3", "")]
    again = cli("optuna", run, "--out", tmp_path / "all.db")
    assert again.code == 2
    assert "expected a file that is not there yet" in again.error


def test_a_run_that_fits_nothing_ends_with_3(cli, run, tmp_path) -> None:
    resolved = json.loads((run / "resolved.json").read_text())
    resolved["infeasible"] = dict.fromkeys(resolved["devices"], "size_kib is at least 9")
    (run / "resolved.json").write_text(json.dumps(resolved))
    for name in resolved["devices"]:
        (run / name / "front.csv").unlink()
    answer = cli("optuna", run, "--out", tmp_path / "run.db")
    assert answer.code == 3
    assert "Traceback" not in answer.err
    assert answer.err.count("error: No feasible configuration on ") == 2
    assert (tmp_path / "run.db").is_file()


@pytest.mark.parametrize("arguments", [["cite"], ["optuna", "--out", "x.db"]])
def test_no_run_is_one_sentence(arguments, cli, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    answer = cli(arguments[0], tmp_path / "none", *arguments[1:])
    assert answer.code == 2
    assert answer.error.startswith(
        f"error: expected a run folder with resolved.json, got none in {tmp_path / 'none'}; "
    )
    assert list(tmp_path.iterdir()) == []
