import io
import json

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from hwdse.report.comparison import Asked
from hwdse.report.drawing import style
from hwdse.report.fleet import Fleet, draw_fleet, fleet_tables
from hwdse.report.tables import RunTables

LATENCY = "latency_ms_predicted"


def printed(table):
    console = Console(width=80, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def share(run, devices, *, rows=40, seed=0):
    """Give every device the first ``rows`` configurations of the first one, each with its own costs and drops."""
    rng = np.random.default_rng(seed)
    first = pd.read_csv(run / devices[0] / "measured.csv", dtype={"config_id": str}).fillna({"uniform": ""})
    for name in devices[1:]:
        table = pd.read_csv(run / name / "measured.csv", dtype={"config_id": str}).fillna({"uniform": ""})
        table.loc[: rows - 1, ["config_id", "bits", "uniform"]] = first.loc[
            : rows - 1, ["config_id", "bits", "uniform"]
        ]
        table.loc[: rows - 1, "top1_drop_measured"] = first.loc[: rows - 1, "top1_drop_measured"] + rng.normal(
            0, 0.002, rows
        )
        table = table.drop_duplicates("bits")
        table.to_csv(run / name / "measured.csv", index=False)
        table.drop(columns=["uniform", "within_noise"]).to_csv(run / name / "front.csv", index=False)
        (run / name / "pick.json").unlink(missing_ok=True)


@pytest.fixture
def shared_run(write_run):
    run = write_run()
    share(run, ["nvidia_t4", "mpic", "stm32h7a3", "gap9_ne16"])
    return run


def by_hand(run, devices, drop):
    """The smallest largest regret within a drop, configuration by configuration."""
    tables = {name: pd.read_csv(run / name / "measured.csv").set_index("bits") for name in devices}
    best = np.inf
    own = {name: table[table["top1_drop_measured"] <= drop][LATENCY].min() for name, table in tables.items()}
    for bits in tables[devices[0]].index:
        rows = [table.loc[bits] for table in tables.values() if bits in table.index]
        if len(rows) == len(devices) and all(row["top1_drop_measured"] <= drop for row in rows):
            regret = max(row[LATENCY] / own[name] - 1 for name, row in zip(devices, rows, strict=True))
            best = min(best, regret)
    return best


@pytest.mark.parametrize("devices", [None, ["mpic", "gap9_ne16"]])
def test_the_regret_is_the_smallest_of_all_shared_configurations(shared_run, devices):
    tables = RunTables.load(shared_run, devices=devices)
    fleet = Fleet(tables)
    for drop in (fleet.least_drop, 0.005, 0.01, 0.03, 0.5):
        found = fleet.best(drop)
        expected = by_hand(shared_run, fleet.devices, drop)
        assert (found is None) == (expected == np.inf)
        if found is not None:
            assert found.regret.max() == pytest.approx(expected, rel=1e-12)
            assert (found.regret >= 0).all()
    below = float(np.nextafter(fleet.least_drop, -1.0))
    assert fleet.best(below) is None
    assert by_hand(shared_run, fleet.devices, below) == np.inf


def test_the_curve_is_the_regret_at_every_drop(shared_run):
    fleet = Fleet(RunTables.load(shared_run))
    curve = fleet.curve()
    drops = [shared.drop for shared in curve]
    assert drops == sorted(drops)
    assert drops[0] == fleet.least_drop
    assert len(curve) > 3
    for drop in np.linspace(drops[0], 0.05, 40):
        step = [shared for shared in curve if shared.drop <= drop][-1]
        assert step.regret.max() == fleet.best(float(drop)).regret.max()


def test_tables_and_figure_show_the_regret_by_device(shared_run):
    fleet = Fleet(RunTables.load(shared_run))
    facts = json.loads(json.dumps(fleet.facts))
    assert facts["reason"] == ""
    assert facts["shared_measured"] == len(fleet.common)
    best = facts["best"]
    for row in best["devices"]:
        assert row["regret"] == pytest.approx(row[f"shared_{LATENCY}"] / row[f"own_{LATENCY}"] - 1)
    assert best["largest_regret"] == max(row["regret"] for row in best["devices"])
    first, second = map(printed, fleet_tables(fleet))
    assert f"{100 * best['largest_regret']:.1f} %" in first
    assert best["config_id"] in first
    assert "Largest regret by allowed drop" in second
    assert max(map(len, (first + second).splitlines())) <= 80
    with style():
        drawing = draw_fleet(fleet)
        drawing.figure.draw_without_rendering()
    allowed = drawing.points[drawing.points["series"] == "allowed"]
    assert allowed["regret"].tolist() == [row["regret"] for row in best["devices"]]
    assert f"costs at most {100 * best['largest_regret']:.1f} % more" in drawing.figure.get_suptitle()


def test_devices_that_share_nothing_are_named(write_run):
    run = write_run()  # every device has configurations of its own, but for the uniform ones
    for name in ("mpic", "stm32h7a3"):
        for file in ("front.csv", "measured.csv"):
            table = pd.read_csv(run / name / file, dtype={"config_id": str, "uniform": str}).fillna({"uniform": ""})
            uniform = [len(set(bits.split()[1:-1])) == 1 for bits in table["bits"]]
            table[~np.array(uniform)].to_csv(run / name / file, index=False)
        (run / name / "pick.json").unlink(missing_ok=True)
    fleet = Fleet(RunTables.load(run, devices=["nvidia_t4", "mpic", "gap9_ne16"]))
    assert fleet.common == []
    assert fleet.reason.startswith(
        "No measured configuration is shared by nvidia_t4 and mpic; mpic and gap9_ne16; add [fleet] evaluations"
    )
    assert fleet.facts["best"] is None
    assert fleet.reason in " ".join(printed(fleet_tables(fleet)[0]).split())
    assert draw_fleet(fleet).caption == fleet.reason
    for name, candidate in (("nvidia_t4", "W8A8"), ("mpic", "W2A8"), ("gap9_ne16", "W8A8")):
        rows = [("conv1", candidate, 1.0, "closed form"), ("linear", "W4A4", 1.0, "closed form")]
        table = pd.DataFrame(rows, columns=["group", "candidate", LATENCY, "latency_origin"])
        table.to_csv(run / name / "costs.csv", index=False)
    fleet = Fleet(RunTables.load(run, devices=["nvidia_t4", "mpic", "gap9_ne16"]))
    assert fleet.reason == "No precision of conv1 runs on all of nvidia_t4, mpic, gap9_ne16; compare fewer devices."


def test_limits_hold_for_the_one_configuration_on_every_device(shared_run):
    tables = RunTables.load(shared_run)
    free = Fleet(tables, Asked(maximum={"top1_drop_measured": 0.5}))
    before = free.best(0.5)
    limit = float(np.nextafter(before.shared.min(), 0.0))  # just too strict for it on the fastest device
    fleet = Fleet(tables, Asked(maximum={"latency_ms": limit, "top1_drop_measured": 0.5}))
    measured = [tables.results[name].measured.drop_duplicates("bits").set_index("bits") for name in fleet.devices]
    every = [b for b in measured[0].index if all(b in t.index and t.loc[b, LATENCY] <= limit for t in measured)]
    assert fleet.common == every
    assert before.bits not in every
    assert fleet.allowed == 0.5
    if not every:
        assert " none within " in fleet.sentence or fleet.sentence.endswith(f"within {fleet.limits} on each of them.")
    facts = json.loads(json.dumps(fleet.facts))
    assert facts["limits"] == fleet.limits == f"latency_ms <= {limit:.6g}, a drop of 50 points"
    for table in fleet_tables(fleet):
        printed(table)
    with style():
        draw_fleet(fleet).figure.draw_without_rendering()


def test_limits_that_leave_nothing_in_common_are_said(shared_run):
    tables = RunTables.load(shared_run)
    slowest = min(tables.results["gap9_ne16"].measured[LATENCY].min(), 1e9)
    fleet = Fleet(tables, Asked(maximum={"latency_ms": float(np.nextafter(slowest, 0.0))}))
    assert fleet.best(1.0) is None
    none = [name for name in fleet.devices if tables.results[name].measured[LATENCY].min() >= slowest]
    have = "has" if len(none) == 1 else "have"
    assert fleet.sentence == f"One configuration for all: none. {', '.join(none)} {have} none within {fleet.limits}."
    assert fleet.sentence.split("none. ")[1] in " ".join(printed(fleet_tables(fleet)[0]).split())
    assert draw_fleet(fleet).caption == fleet.reason


def test_a_limit_of_quality_takes_the_place_of_the_allowed_drop(shared_run):
    tables = RunTables.load(shared_run)
    fleet = Fleet(tables, Asked(minimum={"accuracy": 0.8}))
    assert fleet.allowed == np.inf
    assert fleet.facts["allowed_drop"] is None
    shared = fleet.best(fleet.allowed)
    assert (shared.quality >= 0.8).all()
    assert fleet.sentence.startswith(f"One configuration for all: {shared.config_id}, within accuracy >= 0.8 at most")
    with style():
        assert "within accuracy >= 0.8" in draw_fleet(fleet).figure.get_suptitle().replace("\n", " ")


def test_one_device_is_no_fleet(write_run):
    fleet = Fleet(RunTables.load(write_run(), devices=["mpic"]))
    assert fleet.best(1.0) is None
    assert fleet.reason == "A fleet takes two devices or more with measured configurations; compare more devices."


def test_a_drop_that_none_is_within_says_which_would_do(shared_run):
    resolved = json.loads((shared_run / "resolved.json").read_text())
    (shared_run / "resolved.json").write_text(json.dumps(resolved | {"max_drop": 1e-6}))
    fleet = Fleet(RunTables.load(shared_run))
    expected = fleet.least_drop
    assert expected > 1e-6
    text = " ".join(printed(fleet_tables(fleet)[0]).split())
    assert "No shared configuration is within a drop of 0.0001 points on all devices" in text
    words = text.split("drops by ")[1].split(" point")[0]
    assert expected * 100 <= float(words) < expected * 100 + 0.002
    assert fleet.best(float(words) / 100) is not None
    with style():
        draw_fleet(fleet).figure.draw_without_rendering()
