import io

import pandas as pd
import pytest
from rich.console import Console

from hwdse.errors import RunFolderError
from hwdse.report.binding import binding_of, binding_table, draw_binding
from hwdse.report.fronts import load_front
from hwdse.report.tables import RunTables

LATENCY = {"compute": 3.0, "DRAM": 5.0, "overhead": 2.0}


def printed(table):
    console = Console(width=80, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def record(run, device):
    """Write a table of resources in which every group takes the same time at every precision."""
    groups = pd.read_csv(run / "layers.csv")["group"]
    rows = [
        (group, candidate, resource, ms)
        for group in groups
        for candidate in ("W2A8", "W4A4", "W4A8", "W8A8")
        for resource, ms in LATENCY.items()
    ]
    table = pd.DataFrame(rows, columns=["group", "candidate", "resource", "latency_ms"])
    table.to_csv(run / device / "resources.csv", index=False)


def bound(run, device="mpic"):
    tables = RunTables.load(run, devices=[device])
    return tables, binding_of(tables, tables.results[device], load_front(run, device, tables=tables).table.iloc[0])


def test_shares_are_those_of_the_chosen_rows(write_run):
    run = write_run()
    # Compute takes ten times as long at 8 bits: 30 to 5 and 2 there, 3 to 5 and 2 elsewhere.
    record(run, "mpic")
    table = pd.read_csv(run / "mpic" / "resources.csv")
    table.loc[(table["candidate"] == "W8A8") & (table["resource"] == "compute"), "latency_ms"] = 30.0
    table.to_csv(run / "mpic" / "resources.csv", index=False)
    tables, found = bound(run)
    bits = load_front(run, "mpic", tables=tables).table.iloc[0]["bits"].split()
    wide = bits.count("W8A8")
    total = len(bits) * (5.0 + 2.0) + wide * 30.0 + (len(bits) - wide) * 3.0
    assert 0 < wide < len(bits)
    assert found.shares["DRAM"] == pytest.approx(5.0 * len(bits) / total)
    assert sum(found.shares.values()) == pytest.approx(1.0)
    assert found.resource == next(iter(found.shares)) == max(found.shares, key=found.shares.get)


def test_the_largest_share_binds_until_a_memory_is_nearly_full(write_run):
    run = write_run()
    record(run, "mpic")
    size = float(load_front(run, "mpic").table.iloc[0]["size_kib"])
    for limit, binding in ((size / 0.89, "DRAM"), (size / 0.91, "size_kib")):
        again = write_run(f"run{limit}", extra={"limits": {"mpic": {"size_kib": limit, "activation_kib": 1e6}}})
        record(again, "mpic")
        tables, found = bound(again)
        assert found.resource == binding
        assert found.facts["memories"]["size_kib"] == {"used": size, "limit": limit, "share": size / limit}
        assert found.facts["memories"]["activation_kib"]["share"] == pytest.approx(32e-6)
        text = printed(binding_table(tables, [found]))
        assert ("memory for" in text) == (binding == "size_kib")
        assert "50 % DRAM" in text
        assert max(map(len, text.splitlines())) <= 80


def test_what_was_not_recorded_is_said(write_run):
    run = write_run()
    tables, found = bound(run)
    assert found.shares is None
    assert found.resource is None
    assert found.facts["latency_shares"] is None
    text = printed(binding_table(tables, [found]))
    assert "not recorded;" in text
    assert draw_binding(tables, [found]).caption == "Latency by resource: not recorded; explore again."


def test_devices_with_and_without_a_record_stand_together(write_run):
    run = write_run()
    record(run, "mpic")
    tables = RunTables.load(run)
    found = [
        binding_of(tables, device, load_front(run, name, tables=tables).table.iloc[0])
        for name, device in tables.results.items()
    ]
    drawing = draw_binding(tables, found)
    drawing.figure.draw_without_rendering()
    points = drawing.points.query("kind == 'latency'")
    assert dict(zip(points["name"], points["share"], strict=True)) == pytest.approx(
        {"DRAM": 0.5, "compute": 0.3, "overhead": 0.2}
    )


def test_a_choice_that_is_missing_is_named(write_run):
    run = write_run()
    record(run, "mpic")
    table = pd.read_csv(run / "mpic" / "resources.csv")
    table[table["group"] != "conv1"].to_csv(run / "mpic" / "resources.csv", index=False)
    with pytest.raises(RunFolderError, match=r"resources\.csv, got none for conv1 at W8A8; explore again"):
        bound(run)
    table.drop(columns="resource").to_csv(run / "mpic" / "resources.csv", index=False)
    with pytest.raises(
        RunFolderError, match=r"expected the columns resource in .*resources\.csv, got group, candidate, latency_ms"
    ):
        bound(run)


def test_a_limit_that_is_none_is_refused(write_run):
    with pytest.raises(RunFolderError, match=r"got a fault at limits\.mpic\.size_kib"):
        RunTables.load(write_run(extra={"limits": {"mpic": {"size_kib": 0.0}}}))


def test_what_no_layer_takes_is_a_resource_of_its_own(write_run):
    run = write_run()
    record(run, "mpic")
    path = run / "mpic" / "front.csv"
    front = pd.read_csv(path, dtype=str)
    layers = len(front["bits"][0].split())
    own = layers * sum(LATENCY.values())
    front["latency_ms_predicted"] = str(4 * own)  # three quarters are per inference and between layers
    front.to_csv(path, index=False)
    _, found = bound(run)
    assert found.shares["beside"] == pytest.approx(0.75)
    assert found.resource == "beside"
    assert sum(found.shares.values()) == pytest.approx(1.0)
