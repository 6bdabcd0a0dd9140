"""What the page is given: the numbers of the tables, and candidates' costs that add up to what the tables say."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from hwdse.report.page import payload
from hwdse.report.page.payload import FIRST_LETTER, page_payload
from hwdse.report.tables import RunTables
from tests.report.additive import CONSTANT_MS, make_additive


@pytest.fixture
def additive(write_run):
    """Return a function that gives the tables of a run with known parts of its latency, and the switches' time."""

    def write(*, constants: bool = True):
        run = write_run(devices=["chip"], layers=10, configs=40)
        switches = make_additive(run, "chip", constants=constants)
        return RunTables.load(run), switches

    return write


def chosen(shown, bits):
    """Return the place of the precision of each group, from the letters of a configuration."""
    return {g: ord(bits[layer]) - ord(FIRST_LETTER) for layer, g in enumerate(shown["layers"]["group"])}


def test_the_numbers_are_those_of_the_tables(write_run):
    tables = RunTables.load(write_run())
    payload = json.loads(json.dumps(page_payload(tables), allow_nan=False))
    assert [device["name"] for device in payload["devices"]] == list(tables.results)
    for shown, device in zip(payload["devices"], tables.results.values(), strict=True):
        measured = shown["measured"]
        for column in (*tables.costs.values(), *tables.quality.columns, "samples", "bops_g", "activation_kib"):
            assert measured[column] == device.measured[column].tolist()
        names = [precision["name"] for precision in payload["precisions"]]
        for bits, letters in zip(device.measured["bits"], measured["bits"], strict=True):
            assert bits.split() == [names[ord(letter) - ord(FIRST_LETTER)] for letter in letters]
        assert [measured["config_id"][row] for row in shown["front"]] == device.front["config_id"].tolist()
        assert measured["config_id"][shown["pick"]] == device.pick
        assert measured["uniform"] == device.measured["uniform"].tolist()


def test_precisions_have_their_bits(write_run):
    payload = page_payload(RunTables.load(write_run(devices=["chip"])))
    bits = {p["name"]: (p["weights"]["bits"], p["activations"]["bits"]) for p in payload["precisions"]}
    assert bits == {"W2A8": (2, 8), "W4A4": (4, 4), "W4A8": (4, 8), "W8A8": (8, 8)}


def test_costs_by_layer_and_kind_add_up_to_the_cost_of_every_point(additive):
    tables, switches = additive()
    payload = page_payload(tables)
    shown = payload["devices"][0]
    table = shown["breakdown"]["latency_ms_predicted"]
    assert sorted(table["by_kind"]) == ["between", "compute", "overhead"]
    assert table["fixed"] == CONSTANT_MS
    for row, bits in enumerate(shown["measured"]["bits"]):
        groups = chosen(payload, bits)
        assert len(groups) == 9
        inside = math.fsum(costs[g][c] for costs in table["by_kind"].values() for g, c in groups.items())
        total = shown["measured"]["latency_ms_predicted"][row]
        rest = switches[shown["measured"]["config_id"][row]]
        assert inside + table["fixed"] + rest == pytest.approx(total, rel=1e-12)
        size = shown["breakdown"]["size_kib"]["by_kind"]["size_kib"]
        weights = math.fsum(size[g][c] for g, c in groups.items())
        assert weights == pytest.approx(shown["measured"]["size_kib"][row], rel=1e-12)


def test_costs_that_do_not_add_up_have_no_breakdown(additive):
    tables, _ = additive(constants=False)
    breakdown = page_payload(tables)["devices"][0]["breakdown"]
    assert set(breakdown) == {"latency_ms_predicted", "size_kib"}  # energy is an objective without a table
    assert breakdown["latency_ms_predicted"]["fixed"] is None


def test_a_run_without_tables_of_costs_has_no_breakdown(write_run):
    payload = page_payload(RunTables.load(write_run(devices=["chip"])))
    assert payload["devices"][0]["breakdown"] == {}


def test_a_large_cloud_is_thinned_and_keeps_its_ends(write_run):
    run = write_run(devices=["chip"])
    cloud = pd.DataFrame({"bits": "W8A8", "quality_predicted": 0.9}, index=range(9000))
    for column in ("latency_ms_predicted", "energy_mj_predicted", "size_kib"):
        cloud[column] = np.arange(9000.0) + 1
    cloud.to_csv(run / "chip" / "predicted.csv", index=False)
    shown = page_payload(RunTables.load(run))["devices"][0]["cloud"]
    assert len(shown["top1_measured"]) == 2000
    assert (shown["size_kib"][0], shown["size_kib"][-1]) == (1.0, 9000.0)


def test_many_measured_configurations_are_thinned_and_the_front_is_kept(write_run, monkeypatch):
    run = write_run()
    tables = RunTables.load(run)
    whole = page_payload(tables)["devices"]
    monkeypatch.setattr(payload, "MEASURED_POINTS", 2 * len(whole))
    shown = page_payload(tables)["devices"]
    for device, before, result in zip(shown, whole, tables.results.values(), strict=True):
        kept = device["measured"]["config_id"]
        assert device["total"] == len(result.measured) == len(before["measured"]["config_id"]) > len(kept)
        assert [kept[row] for row in device["front"]] == result.front["config_id"].tolist()
        assert kept[device["start"]] == before["measured"]["config_id"][before["start"]]
        assert set(result.measured.loc[result.measured["uniform"] != "", "config_id"]) <= set(kept)
        assert kept == [name for name in result.measured["config_id"] if name in kept]  # in the order of measuring
        assert device["window"] == before["window"]
        by_name = result.measured.set_index("config_id")
        assert device["measured"]["size_kib"] == by_name.loc[kept, "size_kib"].tolist()


def test_devices_without_a_front_say_why(write_run):
    run = write_run(extra={"infeasible": {"mpic": "512 KiB of 448 KiB"}})
    for path in (run / "mpic").iterdir():
        path.unlink()
    shown = page_payload(RunTables.load(run))["devices"][1]
    assert shown["emptiness"] == "No feasible configuration on mpic: 512 KiB of 448 KiB"
    assert (shown["start"], shown["pick"], shown["window"], shown["front"]) == (None, None, None, [])


@pytest.mark.parametrize("quality", ["top1", "kl"])
def test_objectives_say_which_way_is_better(write_run, quality):
    objectives = page_payload(RunTables.load(write_run(quality=quality)))["objectives"]
    first, *costs = objectives
    assert first["column"] == f"{quality}_measured"
    assert (first["maximise"], first["factor"]) == ((True, 100.0) if quality == "top1" else (False, 1.0))
    assert [o["name"] for o in costs] == ["latency_ms", "energy_mj", "size_kib"]
    assert not any(o["maximise"] for o in costs)
    assert (costs[0]["words"], costs[0]["unit"], costs[0]["tier"]) == ("Latency", "ms", "predicted")
