import pandas as pd
import pytest

from hwdse.errors import RunFolderError
from hwdse.report.fronts import load_front
from hwdse.report.tables import RunTables


def test_the_front_comes_back_with_every_column(write_run):
    run = write_run()
    front = load_front(run, "mpic")
    table = pd.read_csv(run / "mpic" / "front.csv", dtype={"config_id": str})
    assert front.device == "mpic"
    assert list(front.table.columns) == list(table.columns)
    assert front.table["config_id"].tolist() == table["config_id"].tolist()
    lines = (run / "mpic" / "front.csv").read_text().splitlines()
    place = lines[0].split(",").index("latency_ms_predicted")
    assert [repr(v) for v in front.table["latency_ms_predicted"]] == [
        repr(float(x.split(",")[place])) for x in lines[1:]
    ]
    assert [(o.name, o.column, o.maximize) for o in front.objectives] == [
        ("accuracy", "top1_measured", True),
        ("latency_ms", "latency_ms_predicted", False),
        ("energy_mj", "energy_mj_predicted", False),
        ("size_kib", "size_kib", False),
    ]
    assert len(front.layers) == 22


def test_reach_is_that_of_the_device(write_run):
    run = write_run(extra={"reach": {"mpic": {"size_kib": 1.5}, "nvidia_t4": {"size_kib": 2.5}}})
    assert load_front(run, "mpic").reach == {"size_kib": 1.5}
    assert load_front(run, "stm32h7a3").reach == {}
    assert load_front(run, "nvidia_t4", tables=RunTables.load(run)).reach == {"size_kib": 2.5}


def test_a_quality_that_is_minimised_stays_so(write_run):
    front = load_front(write_run(quality="kl"), "mpic")
    assert [o.maximize for o in front.objectives] == [False] * 4


def test_a_run_without_a_front_says_why(write_run):
    run = write_run(extra={"infeasible": {"mpic": "memory_kib 1 was requested"}})
    (run / "mpic" / "front.csv").unlink()
    with pytest.raises(RunFolderError, match=r"expected a front of mpic in .*, got none: .*memory_kib 1 was requested"):
        load_front(run, "mpic")


def test_a_device_of_another_run_is_refused(write_run):
    with pytest.raises(RunFolderError, match=r"expected devices of the run .*, got mpci"):
        load_front(write_run(), "mpci")


def test_words_where_numbers_belong_are_named(write_run):
    run = write_run()
    table = pd.read_csv(run / "mpic" / "front.csv", dtype=str)
    table["bops_g"] = "many"
    table.to_csv(run / "mpic" / "front.csv", index=False)
    with pytest.raises(RunFolderError, match=r"expected finite numbers in column bops_g of .*front\.csv, got 'many'"):
        load_front(run, "mpic")
