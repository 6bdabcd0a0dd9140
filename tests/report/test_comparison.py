import io
import json

import numpy as np
import pandas as pd
import pytest
import typer
from rich.console import Console

from hwdse.commands.compare import compare
from hwdse.errors import InputError
from hwdse.report.comparison import Asked, choose_devices
from hwdse.report.summary import common_box, common_hypervolume
from hwdse.report.tables import RunTables

LATENCY, ENERGY = "latency_ms_predicted", "energy_mj_predicted"


def printed(table):
    console = Console(width=80, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def within(run, device, **limits):
    front = pd.read_csv(run / device / "front.csv")
    for column, value in limits.items():
        front = front[front[column] <= value]
    return front


def test_without_limits_the_allowed_drop_is_one_and_energy_decides(write_run):
    run = write_run()
    tables = RunTables.load(run)
    choice = choose_devices(tables, Asked())
    assert choice.by == ENERGY
    assert choice.asked.maximum == {"top1_drop_measured": 0.01}
    cheapest = {name: within(run, name, top1_drop_measured=0.01)[ENERGY].min() for name in tables.results}
    assert list(choice.rows) == sorted(cheapest, key=cheapest.get)
    assert {name: row[ENERGY] for name, row in choice.rows.items()} == cheapest
    fastest = {name: within(run, name, top1_drop_measured=0.01)[LATENCY].min() for name in tables.results}
    assert {name: row[LATENCY] for name, row in choice.cheapest(LATENCY).items()} == fastest
    facts = json.loads(json.dumps(choice.facts))
    assert [row["rank"] for row in facts["devices"]] == [1, 2, 3, 4]
    text = printed(choice.table())
    assert "cheapest within a drop of 1 point" in text
    assert "Ranked by energy." in text
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text


def test_prices_of_all_that_meet_the_limits_decide(write_run):
    run = write_run()
    tables = RunTables.load(run)
    prices = {"nvidia_t4": 2200.0, "mpic": 3.0, "stm32h7a3": 3.0, "gap9_ne16": 0.0}
    choice = choose_devices(tables, Asked(prices=prices))
    assert choice.by == "price"
    assert list(choice.rows) == ["gap9_ne16", "mpic", "stm32h7a3", "nvidia_t4"]  # equal prices: the faster first
    assert choice.facts["devices"][0]["price_usd"] == 0.0
    text = printed(choice.table())
    assert "2200" in text
    assert "Ranked by price." in text
    assert max(map(len, text.splitlines())) <= 80
    del prices["mpic"]
    some = choose_devices(tables, Asked(prices=prices))
    assert some.by == ENERGY
    assert "No price was given for mpic, so prices do not decide." in printed(some.table())
    # A device that fails needs no price.
    slow = float(within(run, "mpic")[LATENCY].min())
    few = choose_devices(tables, Asked({LATENCY: float(np.nextafter(slow, 0.0))}, prices={"nvidia_t4": 9.0}))
    assert (list(few.rows), few.by) == (["nvidia_t4"], "price")


def test_without_energy_the_main_cost_decides(write_run):
    run = write_run(minimize=("latency_ms", "size_kib"))
    for name in ("front.csv", "measured.csv"):
        table = pd.read_csv(run / "mpic" / name, dtype={"config_id": str}).drop(columns=ENERGY)
        table.to_csv(run / "mpic" / name, index=False)
    assert choose_devices(RunTables.load(run), Asked()).by == LATENCY
    assert choose_devices(RunTables.load(run, devices=["nvidia_t4", "stm32h7a3"]), Asked()).by == ENERGY


def test_devices_that_fail_say_why(write_run):
    run = write_run(extra={"infeasible": {"stm32h7a3": "memory_kib 1 was requested"}})
    (run / "stm32h7a3" / "front.csv").unlink()
    tables = RunTables.load(run)
    limit = float(within(run, "mpic", top1_drop_measured=0.01)[LATENCY].min())
    choice = choose_devices(tables, Asked({"latency_ms": limit}))
    assert list(choice.rows) == ["nvidia_t4", "mpic"]
    assert list(choice.fails) == ["stm32h7a3", "gap9_ne16"]
    assert choice.fails["stm32h7a3"] == "No feasible configuration on stm32h7a3: memory_kib 1 was requested"
    assert choice.fails["gap9_ne16"].startswith(f"infeasible: latency_ms {limit!r} ms was requested")
    below = choose_devices(tables, Asked({"latency_ms": float(np.nextafter(limit, 0.0))}))
    assert list(below.rows) == ["nvidia_t4"]
    text = printed(choose_devices(tables, Asked({"latency_ms": 1e-9})).table())
    assert "No device meets the limits." in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("own", ["accuracy", "top1_measured", "top1_measured_low"])
def test_a_limit_on_quality_takes_the_place_of_the_allowed_drop(write_run, own):
    choice = choose_devices(RunTables.load(write_run()), Asked(minimum={own: 0.5}))
    assert choice.asked.maximum == {}
    assert choice.limits == f"{own} >= 0.5"


def test_a_divergence_is_an_upper_limit(write_run):
    choice = choose_devices(RunTables.load(write_run(quality="kl")), Asked({"kl_measured": 0.05}))
    assert all(row["kl_measured"] <= 0.05 for row in choice.rows.values())
    assert choice.asked.maximum == {"kl_measured": 0.05}


def test_what_makes_no_sense_is_named(write_run):
    tables = RunTables.load(write_run(), devices=["mpic", "nvidia_t4"])
    with pytest.raises(InputError, match=r"prices of devices compared here \(nvidia_t4, mpic\), got stm32h7a3"):
        choose_devices(tables, Asked(prices={"stm32h7a3": 3.0}))
    with pytest.raises(InputError, match=r"nvidia_t4: expected a metric of this front .*, got 'memory_kib'.* leave"):
        choose_devices(tables, Asked({"memory_kib": 3.0}))


def test_the_common_hypervolume_is_the_share_of_random_points_below_the_front(write_run):
    tables = RunTables.load(write_run(minimize=("latency_ms", "size_kib"), extra={"max_drop": 0.02}))
    box = common_box(tables)
    rng = np.random.default_rng(5)
    fronts = {name: device.front for name, device in tables.results.items()}
    useful = pd.concat([front[front["top1_drop_measured"] <= 0.1] for front in fronts.values()])
    assert (box.cheapest, box.costliest) == (useful[LATENCY].min(), useful[LATENCY].max())
    assert (box.best, box.worst) == (useful["top1_measured"].max(), useful["top1_measured"].min())
    latency = np.exp(rng.uniform(np.log(box.cheapest), np.log(box.costliest), 40_000))
    quality = rng.uniform(box.worst, box.best, 40_000)
    for name, device in tables.results.items():
        dominated = np.zeros(len(latency), dtype=bool)
        for row in fronts[name].itertuples():
            dominated |= (row.latency_ms_predicted <= latency) & (row.top1_measured >= quality)
        assert common_hypervolume(tables, device, box) == pytest.approx(dominated.mean(), abs=0.01)


def test_a_faster_copy_of_a_device_has_more_common_hypervolume_by_its_factor(write_run):
    """In logarithms a factor in cost is a shift: the share grows by the shift, as long as both fronts lie inside."""
    run = write_run(devices=("nvidia_t4", "mpic"), minimize=("latency_ms",))
    for name in ("front.csv", "measured.csv"):
        table = pd.read_csv(run / "nvidia_t4" / name, dtype=str)
        table[LATENCY] = [repr(4.0 * float(value)) for value in table[LATENCY]]
        table.to_csv(run / "mpic" / name, index=False)
    (run / "mpic" / "pick.json").unlink()
    tables = RunTables.load(run)
    box = common_box(tables)
    fast, slow = (common_hypervolume(tables, device, box) for device in tables.results.values())
    front = tables.results["nvidia_t4"].front
    useful = front[front["top1_drop_measured"] <= 0.05]
    span = np.log(box.costliest / box.cheapest)
    # Beyond its costliest point the fast front goes on at its best quality, the full height of the box.
    assert fast - slow == pytest.approx(np.log(4.0) / span, rel=1e-9)
    assert box.costliest == pytest.approx(4.0 * useful[LATENCY].max())


def test_an_empty_front_has_no_box(write_run):
    assert common_box(RunTables.load(write_run(points=0, pick=False))) is None


@pytest.mark.parametrize(
    "case",
    [
        {"quality": "kl"},
        {"points": 1, "pick": False},
        {"points": 0, "pick": False},
        {"configs": 4, "minimize": ("size_kib",)},
        {"devices": ("mpic",), "minimize": ("energy_mj", "size_kib")},
        {"extra": {"max_drop": 0.0}},
    ],
)
def test_unusual_runs_are_compared_and_drawn(write_run, case, tmp_path):
    run = write_run(**case)
    compare(run, devices=(), maximum=(), minimum=(), price=(), out=tmp_path / "figures", show_all=True, as_json=False)
    tables = RunTables.load(run)
    choice = choose_devices(tables, Asked())
    out = tmp_path / "limited"
    try:
        compare(
            run, devices=(), maximum=("size_kib=1e9",), minimum=(), price=(), out=out, show_all=False, as_json=False
        )
        code = 0
    except typer.Exit as stop:
        code = stop.exit_code
    assert code == (0 if choice.rows else 3)
    captions = (tmp_path / "figures" / "compare-captions.md").read_text()
    assert "**compare-fleet.**" in captions
    predicted = {c for c in (tables.main_cost, choice.by) if c.endswith("_predicted")} if choice.rows else set()
    assert {c for c in tables.costs.values() if f"compare-ranking-{c}." in captions} == predicted & {
        *tables.costs.values()
    }


def test_what_devices_are_ranked_by_is_shown(write_run):
    tables = RunTables.load(write_run(minimize=("latency_ms", "size_kib")))
    choice = choose_devices(tables, Asked())
    if choice.by == ENERGY:  # known, though no objective
        assert "Energy" in printed(choice.table())
    assert choice.table().columns[-1].header.startswith("Energy" if choice.by == ENERGY else "Size")
