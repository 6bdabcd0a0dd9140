"""A run written out as Optuna studies, read back by Optuna itself."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.study import Study, StudyDirection
from optuna.trial import TrialState, create_trial

from hwdse.errors import InputError
from hwdse.report.optuna_study import study_name, write_studies
from hwdse.report.tables import RunTables
from hwdse.report.words import axis_label

pytestmark = pytest.mark.filterwarnings(f"ignore::{ExperimentalWarning.__module__}.{ExperimentalWarning.__name__}")


def written(tables: RunTables, out: Path) -> dict[str, Study]:
    """Return the studies by device, as Optuna reads them."""
    write_studies(tables, out)
    return {
        name: optuna.load_study(study_name=study_name(tables, name), storage=f"sqlite:///{out}")
        for name in tables.results
    }


@pytest.fixture
def tables(write_run) -> RunTables:
    return RunTables.load(
        write_run(devices=("nvidia_t4", "mpic"), extra={"uncertainty": {"mpic": {"latency_ms_predicted": 3.0}}})
    )


def test_trials_are_the_measured_table(tables, tmp_path) -> None:
    for name, study in written(tables, tmp_path / "run.db").items():
        measured, trials = tables.results[name].measured, study.trials
        assert [trial.number for trial in trials] == list(range(len(measured)))
        assert {trial.state for trial in trials} == {TrialState.COMPLETE}
        expected = measured[["top1_measured", *tables.costs.values()]].to_numpy() * (100, 1, 1, 1)
        assert np.array([trial.values for trial in trials]).tolist() == expected.tolist()
        layers = tables.layers["layer"].tolist()
        assert [" ".join(trial.params[layer] for layer in layers) for trial in trials] == measured["bits"].tolist()
        assert [trial.user_attrs["config_id"] for trial in trials] == measured["config_id"].tolist()
        assert [trial.user_attrs["uniform"] for trial in trials] == measured["uniform"].tolist()
        assert [trial.user_attrs["within noise"] for trial in trials] == (measured["within_noise"] == "yes").tolist()
        assert {trial.user_attrs["samples"] for trial in trials} == {1452}
        lows = [trial.user_attrs["Top-1 accuracy (%, measured), 95 %"][0] for trial in trials]
        assert lows == (100 * measured["top1_measured_low"]).tolist()
        highs = [trial.user_attrs["drop, 95 %"][1] for trial in trials]
        assert highs == (100 * measured["top1_drop_measured_high"]).tolist()


def test_the_best_trials_are_the_measured_front(tables, tmp_path) -> None:
    for name, study in written(tables, tmp_path / "run.db").items():
        result = tables.results[name]
        best = {trial.user_attrs["config_id"] for trial in study.best_trials}
        assert best == set(result.front["config_id"])
        assert best == {trial.user_attrs["config_id"] for trial in study.trials if trial.user_attrs["on front"]}
        picked = [trial.user_attrs["config_id"] for trial in study.trials if trial.user_attrs["picked"]]
        assert picked == [result.pick]


def test_names_and_directions_are_those_of_the_figures(tables, tmp_path) -> None:
    study = written(tables, tmp_path / "run.db")["mpic"]
    columns = [tables.quality.column, *tables.costs.values()]
    assert study.study_name == "resnet20-cifar10 on mpic"
    assert study.metric_names == [axis_label(column) for column in columns]
    assert study.directions == [StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * 3]
    assert study.user_attrs["full precision"] == pytest.approx(91.74)
    assert study.user_attrs["device note"].startswith("order of magnitude")
    latency = study.trials[5].values[1]
    assert study.trials[5].user_attrs["Latency (ms, predicted), 90 %"] == [latency / 3, latency * 3]
    assert "Energy (mJ, predicted), 90 %" not in study.trials[5].user_attrs
    assert study.trials[0].distributions["conv1"] == CategoricalDistribution(("W8A8",))
    assert study.trials[0].distributions["layer1.0.conv1"] == CategoricalDistribution(("W2A8", "W4A4", "W4A8", "W8A8"))


def test_a_tied_group_is_one_parameter(write_run, tmp_path) -> None:
    run = write_run(devices=("mpic",))
    text = (run / "layers.csv").read_text()
    header, *rows = text.splitlines()
    place = header.split(",").index("group")
    cells = [row.split(",") for row in rows]
    cells[3][place] = cells[2][place]
    (run / "layers.csv").write_text("\n".join([header, *map(",".join, cells), ""]))
    tables = RunTables.load(run)
    study = written(tables, tmp_path / "run.db")["mpic"]
    expected = list(tables.layers["group"].drop_duplicates())
    assert list(study.trials[0].params) == expected
    assert len(expected) == len(tables.layers) - 1


def test_optuna_itself_would_have_stored_the_same(tables, tmp_path) -> None:
    """Trials that Optuna adds one by one to a study in memory, and those that went into its tables in bulk."""
    study = written(tables, tmp_path / "run.db")["mpic"]
    memory = optuna.create_study(directions=study.directions)
    memory.add_trials(
        create_trial(
            params=trial.params, distributions=trial.distributions, values=trial.values, user_attrs=trial.user_attrs
        )
        for trial in study.trials[:20]
    )
    for ours, theirs in zip(study.trials, memory.trials, strict=False):
        for name in ("number", "state", "values", "params", "distributions", "user_attrs", "system_attrs"):
            assert getattr(ours, name) == getattr(theirs, name)
    study.add_trial(memory.trials[0])
    assert study.trials[-1].number == len(tables.results["mpic"].measured)
    assert study.ask().number == len(tables.results["mpic"].measured) + 1


def test_a_divergence_is_minimised(write_run, tmp_path) -> None:
    tables = RunTables.load(write_run(quality="kl", devices=("mpic",)))
    study = written(tables, tmp_path / "run.db")["mpic"]
    assert study.directions == [StudyDirection.MINIMIZE] * 4
    assert study.trials[0].values[0] == tables.results["mpic"].measured["kl_measured"][0]
    best = {trial.user_attrs["config_id"] for trial in study.best_trials}
    assert best == set(tables.results["mpic"].front["config_id"])


def test_a_device_that_nothing_fits_has_a_study_that_says_why(write_run, tmp_path) -> None:
    run = write_run(devices=("nvidia_t4", "mpic"), extra={"infeasible": {"mpic": "memory_kib is at least 600"}})
    for path in (run / "mpic").iterdir():
        path.unlink()
    studies = written(RunTables.load(run), tmp_path / "run.db")
    assert studies["mpic"].trials == []
    assert studies["mpic"].user_attrs["nothing measured"] == (
        "No feasible configuration on mpic: memory_kib is at least 600"
    )
    assert len(studies["nvidia_t4"].trials) == 120
    assert "nothing measured" not in studies["nvidia_t4"].user_attrs


def test_a_device_with_nothing_measured_has_a_study(write_run, tmp_path) -> None:
    run = write_run(devices=("mpic",), pick=False)
    for name in ("front.csv", "measured.csv"):
        path = run / "mpic" / name
        path.write_text(path.read_text().splitlines()[0] + "\n")
    study = written(RunTables.load(run), tmp_path / "run.db")["mpic"]
    assert study.trials == []
    assert study.user_attrs["nothing measured"] == "No configuration was measured for mpic."


def test_a_file_that_is_there_is_left_alone(tables, tmp_path) -> None:
    out = tmp_path / "run.db"
    out.write_text("mine")
    with pytest.raises(InputError, match=r"expected a file that is not there yet, got .*run\.db; remove it or name"):
        write_studies(tables, out)
    assert out.read_text() == "mine"
    with pytest.raises(InputError, match=r"expected a folder to write to, got no folder .*nowhere"):
        write_studies(tables, tmp_path / "nowhere" / "run.db")


def test_what_fails_half_way_leaves_nothing(tables, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("hwdse.report.optuna_study._attributes", lambda *_: 1 / 0)
    (tmp_path / "out").mkdir()
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        write_studies(tables, tmp_path / "out" / "run.db")
    assert os.listdir(tmp_path / "out") == []


def test_an_optuna_with_other_tables_is_named(tables, tmp_path, monkeypatch) -> None:
    renamed = {"trial_id": 1, "objective": 0, "number": 1.0, "value_type": "FINITE"}
    monkeypatch.setattr("hwdse.report.optuna_study._values", lambda *_: [renamed])
    with pytest.raises(InputError, match=r"expected the database tables of Optuna 5, got others from Optuna .*number"):
        write_studies(tables, tmp_path / "run.db")
    assert not (tmp_path / "run.db").exists()


@pytest.mark.slow
def test_a_thousand_trials_are_written_faster_than_optuna_adds_fifty(write_run, tmp_path) -> None:
    tables = RunTables.load(write_run(devices=("mpic",), layers=50, configs=1000))
    start = time.process_time()
    study = written(tables, tmp_path / "run.db")["mpic"]
    ours = time.process_time() - start
    slow = optuna.create_study(storage=f"sqlite:///{tmp_path / 'slow.db'}", directions=study.directions)
    few = study.trials[:50]
    start = time.process_time()
    slow.add_trials(few)
    assert ours < time.process_time() - start
