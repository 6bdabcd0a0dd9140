import json
import re

import numpy as np
import pandas as pd
import pytest

from hwdse.errors import RunFolderError
from hwdse.report.tables import RunTables


def edit_resolved(run, **changes):
    path = run / "resolved.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_csv(path, edit):
    """Rewrite a table as text, so that what is not edited stays as it was written."""
    edit(pd.read_csv(path, dtype=str, keep_default_na=False)).to_csv(path, index=False)


def with_cell(row, column, text):
    def edit(table):
        table.loc[row, column] = text
        return table

    return edit


def test_tables_hold_what_the_files_say(write_run):
    run = write_run()
    tables = RunTables.load(run)
    assert tables.devices == ("nvidia_t4", "mpic", "stm32h7a3", "gap9_ne16")
    assert tables.costs == {
        "latency_ms": "latency_ms_predicted",
        "energy_mj": "energy_mj_predicted",
        "size_kib": "size_kib",
    }
    assert (tables.quality.name, tables.quality.maximise, tables.reference) == ("top1", True, 0.9174)
    assert (tables.main_cost, tables.seed, len(tables.layers)) == ("latency_ms_predicted", 7, 22)
    written = pd.read_csv(run / "mpic" / "front.csv", dtype={"config_id": str})
    read = tables.results["mpic"].front
    assert read["config_id"].tolist() == written["config_id"].tolist()
    np.testing.assert_allclose(read["top1_drop_measured_high"], written["top1_drop_measured_high"], rtol=1e-15)


def test_numbers_come_back_exactly_as_they_were_written(write_run):
    run = write_run()
    edit_csv(run / "mpic" / "front.csv", with_cell(0, "latency_ms_predicted", "0.30000000000000004"))
    assert RunTables.load(run).results["mpic"].front["latency_ms_predicted"].iloc[0] == 0.1 + 0.2


def test_names_that_look_like_numbers_or_holes_stay_text(write_run):
    run = write_run(devices=["chip"], pick=False)
    first, second = pd.read_csv(run / "chip" / "front.csv", dtype=str)["config_id"].tolist()[:2]
    for name in ("front.csv", "measured.csv"):
        edit_csv(run / "chip" / name, lambda table: table.replace({first: "NA", second: "00012e3"}))
    assert RunTables.load(run).results["chip"].front["config_id"].tolist()[:2] == ["NA", "00012e3"]


def test_a_divergence_is_minimised(write_run):
    tables = RunTables.load(write_run(quality="kl"))
    assert not tables.quality.maximise
    assert "kl" not in tables.costs
    assert tables.quality.loss(np.array([0.5]), 0.125).tolist() == [0.375]


def test_only_the_named_devices_are_read(write_run):
    run = write_run()
    (run / "mpic" / "front.csv").unlink()
    tables = RunTables.load(run, devices=["gap9_ne16"])
    assert list(tables.results) == ["gap9_ne16"]
    assert tables.devices[3] == "gap9_ne16"


def test_a_device_that_is_not_in_the_run_is_named(write_run):
    with pytest.raises(
        RunFolderError, match=r"expected devices of the run .*\(nvidia_t4, mpic.*\), got nano; name one"
    ):
        RunTables.load(write_run(), devices=["nano"])


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(
        RunFolderError, match=r"expected a run folder with resolved\.json, got none in .*; name another"
    ):
        RunTables.load(tmp_path)


@pytest.mark.parametrize("name", ["layers.csv", "mpic/front.csv", "mpic/measured.csv", "mpic/predicted.csv"])
def test_a_missing_file_is_named(write_run, name):
    run = write_run()
    (run / name).unlink()
    with pytest.raises(RunFolderError, match=f"expected the file .*{re.escape(name)}, got none; .*--resume"):
        RunTables.load(run)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", r"expected a CSV table in .*front\.csv, got No columns"),
        ("config_id,bits\n1,2,3\n4,5,6,7\n", r"expected a CSV table in .*front\.csv, got Error tokenizing"),
        (
            "config_id,bits\n",
            r"expected the columns latency_ms_predicted, .*, samples in .*front\.csv, got config_id, bits",
        ),
    ],
)
def test_a_damaged_table_is_named(write_run, content, match):
    run = write_run()
    (run / "mpic" / "front.csv").write_text(content)
    with pytest.raises(RunFolderError, match=match):
        RunTables.load(run)


def test_a_table_that_is_not_text_is_named(write_run):
    run = write_run()
    (run / "mpic" / "front.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RunFolderError, match=r"expected a CSV table in .*front\.csv, got 'utf-8' codec"):
        RunTables.load(run)


@pytest.mark.parametrize("cell", ["", "nan", "inf", "fast"])
def test_a_cell_that_is_no_number_is_named_with_its_line(write_run, cell):
    run = write_run()
    edit_csv(run / "mpic" / "measured.csv", with_cell(2, "size_kib", cell))
    match = rf"expected finite numbers in column size_kib of .*measured\.csv, got '{cell}' in line 4; restore the file"
    with pytest.raises(RunFolderError, match=match):
        RunTables.load(run)


def test_bits_must_name_every_layer(write_run):
    run = write_run()
    edit_csv(run / "layers.csv", lambda table: table.iloc[1:])
    with pytest.raises(RunFolderError, match=r"expected the precision of 21 layers .* got 22 in line 2"):
        RunTables.load(run)


def test_a_front_of_another_run_is_refused(write_run):
    run = write_run()
    edit_csv(run / "mpic" / "measured.csv", lambda table: table.assign(config_id=table["config_id"] + "x"))
    with pytest.raises(RunFolderError, match=r"expected every configuration of .*front\.csv in measured\.csv"):
        RunTables.load(run)


@pytest.mark.parametrize("content", ["{}", '{"config_id": "nobody"}'])
def test_a_pick_that_was_not_measured_is_refused(write_run, content):
    run = write_run()
    (run / "mpic" / "pick.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"expected the config_id of a measured configuration in .*pick\.json"):
        RunTables.load(run)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"seed": "x"}, r"got a fault at seed \("),
        ({"columns": {}}, r"expected a column for each objective .* got none for accuracy, latency_ms"),
        ({"quality": "top5"}, r"expected one quality objective with the column top5_measured"),
        ({"objectives": {"maximize": ["accuracy"], "minimize": []}}, r"at least one minimised cost"),
    ],
)
def test_a_resolved_experiment_with_a_fault_is_refused(write_run, changes, match):
    run = write_run()
    edit_resolved(run, **changes)
    with pytest.raises(RunFolderError, match=match):
        RunTables.load(run)


def test_a_resolved_experiment_that_is_no_json_is_refused(write_run):
    run = write_run()
    (run / "resolved.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"expected JSON in .*resolved\.json"):
        RunTables.load(run)


def test_an_infeasible_device_needs_no_tables(write_run):
    run = write_run(extra={"infeasible": {"mpic": "512 KiB of 448 KiB"}})
    for path in (run / "mpic").iterdir():
        path.unlink()
    device = RunTables.load(run).results["mpic"]
    assert device.emptiness == "No feasible configuration on mpic: 512 KiB of 448 KiB"
    assert device.front.empty
