import io
import json

import numpy as np
import pytest
from rich.console import Console

from hwdse.report.summary import best_quality, cheapest, cheapest_within, front_hypervolume
from hwdse.report.tables import RunTables
from hwdse.report.terminal import (
    compare_rows,
    compare_table,
    front_rows,
    front_table,
    pick_rows,
    pick_table,
    quality_cells,
)
from hwdse.report.words import number


def printed(table):
    console = Console(width=80, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


@pytest.mark.parametrize("case", [{}, {"quality": "kl"}, {"points": 1, "pick": False}, {"points": 0, "pick": False}])
def test_tables_fit_80_columns(write_run, case):
    tables = RunTables.load(write_run(**case))
    for table in (front_table(tables, "mpic"), pick_table(tables), compare_table(tables)):
        lines = printed(table).splitlines()
        assert max(map(len, lines)) <= 80
        assert "order of magnitude" in printed(compare_table(tables))


def test_no_number_is_cut_off(write_run):
    tables = RunTables.load(write_run())
    assert "…" not in printed(front_table(tables, "mpic")) + printed(pick_table(tables)) + printed(
        compare_table(tables)
    )


def test_front_rows_are_the_front_in_plain_values(write_run):
    tables = RunTables.load(write_run())
    front = tables.results["mpic"].front
    rows = json.loads(json.dumps(front_rows(tables, "mpic")))
    assert [row["latency_ms_predicted"] for row in rows] == sorted(front["latency_ms_predicted"])
    by_id = front.set_index("config_id")
    for row in rows:
        assert all(row[column] == by_id.loc[row["config_id"], column] for column in tables.quality.columns)
        assert row["samples"] == 1452
    assert [row["config_id"] for row in rows if row["picked"]] == [tables.results["mpic"].pick]


def test_pick_table_marks_every_device_that_has_one(write_run):
    tables = RunTables.load(write_run())
    (tables.run / "mpic" / "pick.json").unlink()
    tables = RunTables.load(tables.run)
    assert [row["device"] for row in pick_rows(tables)] == ["nvidia_t4", "stm32h7a3", "gap9_ne16"]
    text = printed(pick_table(tables, front_rows(tables, "mpic")[:1]))
    assert "mpic" in text
    assert "nvidia_t4" not in text
    assert "Nothing was picked." in printed(pick_table(tables, []))


def test_compare_rows_against_every_row_of_the_front(write_run):
    tables = RunTables.load(write_run())
    for row in json.loads(json.dumps(compare_rows(tables, drop=0.02))):
        front = tables.results[row["device"]].front
        assert (row["front_points"], row["measured_points"], row["drop_limit"]) == (len(front), 120, 0.02)
        small = front[front["top1_drop_measured"] <= 0.02]["latency_ms_predicted"].min()
        assert row["cheapest_within_drop"]["latency_ms_predicted"] == small
        assert row["cheapest_within_drop"]["top1_drop_measured"] <= 0.02
        assert row["smallest"]["size_kib"] == front["size_kib"].min()
        assert row["fastest"]["latency_ms_predicted"] == front["latency_ms_predicted"].min()
        assert row["best_quality"]["top1_measured"] == front["top1_measured"].max()


def test_an_empty_front_compares_as_nothing(write_run):
    row = compare_rows(RunTables.load(write_run(points=0, pick=False)))[0]
    assert (row["front_points"], row["hypervolume"]) == (0, 0.0)
    assert row["cheapest_within_drop"] is row["smallest"] is row["fastest"] is row["best_quality"] is None


def test_the_best_divergence_is_the_smallest(write_run):
    tables = RunTables.load(write_run(quality="kl"))
    device = tables.results["mpic"]
    assert best_quality(tables, device)["kl_measured"] == device.front["kl_measured"].min()
    assert cheapest(tables, device, "size_kib")["size_kib"] == device.front["size_kib"].min()
    assert cheapest_within(tables, device, drop=-1.0) is None


def test_hypervolume_is_the_share_of_random_points_that_the_front_dominates(write_run):
    tables = RunTables.load(write_run(minimize=("latency_ms", "size_kib")))
    device = tables.results["mpic"]
    names = ["latency_ms_predicted", "size_kib", "top1_measured"]
    measured = device.measured[names].to_numpy() * (1, 1, -1)
    front = device.front[names].to_numpy() * (1, 1, -1)
    probes = np.random.default_rng(5).uniform(measured.min(axis=0), measured.max(axis=0), (40_000, 3))
    dominated = np.zeros(len(probes), dtype=bool)
    for point in front:
        dominated |= (point <= probes).all(axis=1)
    assert front_hypervolume(tables, device) == pytest.approx(dominated.mean(), abs=0.01)


@pytest.mark.parametrize("quality", ["top1", "kl"])
def test_a_drop_stands_before_its_interval(write_run, quality):
    tables = RunTables.load(write_run(quality=quality))
    row = pick_rows(tables)[0]
    scale = 100 if quality == "top1" else 1
    drop, low, high = (scale * row[f"{tables.quality.drop}{end}"] for end in ("", "_low", "_high"))
    texts = [f"{v:.2f}" if quality == "top1" else number(v, digits=2) for v in (drop, low, high)]
    assert quality_cells(tables, row)[1] == f"{texts[0]}\n{texts[1]} to {texts[2]}"
    assert quality_cells(tables, row, gap=" ")[1] == f"{texts[0]} ({texts[1]} to {texts[2]})"
