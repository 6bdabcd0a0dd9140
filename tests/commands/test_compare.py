"""``hwdse compare`` from end to end: without the network, and always with a reason."""

import json
import re

import pandas as pd
import pytest

FIGURES = (
    "compare-binding",
    "compare-fleet",
    "compare-fronts",
    "compare-ranking-energy_mj_predicted",
    "compare-ranking-latency_ms_predicted",
)


def front_of(run, device):
    return pd.read_csv(run / device / "front.csv", dtype={"config_id": str})


def test_everything_is_printed_in_80_columns_and_drawn(cli, run, tmp_path, contents):
    before = contents(run)
    answer = cli("compare", run, "--out", tmp_path / "figures", "--all")
    assert answer.code == 0
    assert answer.err == ""
    lines = [line for line in answer.out.splitlines() if not line.startswith(str(tmp_path))]
    assert max(map(len, lines)) <= 80
    for title in (
        "tiny: devices compared",
        "tiny: cheapest within a drop of 1 point",
        "tiny: what binds",
        "tiny: order by latency, and whether it survives its uncertainty",
        "tiny: one configuration for all within a drop of 1 point",
    ):
        assert title in answer.out
    written = (tmp_path / "figures" / "compare-tables.txt").read_text()
    assert written.splitlines() == [line.rstrip() for line in lines]
    names = [f"{stem}.{suffix}" for stem in FIGURES for suffix in ("csv", "pdf", "png")]
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == sorted(
        [*names, "compare-captions.md", "compare-tables.txt"]
    )
    assert contents(run) == before
    first = contents(tmp_path / "figures")
    cli("compare", run, "--out", tmp_path / "figures")
    assert contents(tmp_path / "figures") == first


def test_the_choice_fits_a_screen(cli, run):
    answer = cli("compare", run)
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert len(lines) <= 24
    assert lines[0].strip() == "tiny: cheapest within a drop of 1 point"
    assert answer.out.count("tiny: ") == 1
    folder = run / "figures"
    assert lines[-2:] == [
        f"{folder / 'compare-tables.txt'}: what else there is to compare", f"{folder / 'compare-*'}: figures"
    ]  # fmt: skip
    assert max(map(len, lines[:-2])) <= 80
    said = json.loads(cli("compare", run, "--json").out)
    first = said["rankings"][0]["devices"][0]
    assert f"By latency: {first['device']} first with a chance of" in answer.out
    assert "One configuration for all: " in answer.out


def test_figures_go_into_the_run_by_default(cli, run):
    said = json.loads(cli("compare", run, "--json").out)
    assert set(said) == {"run", "devices", "cheapest", "binding", "rankings", "fleet", "figures"}
    assert all(path.startswith(str(run / "figures" / "compare-")) for path in said["figures"])
    assert all((run / "figures" / path).is_file() for path in said["figures"])
    assert (run / "figures" / "devices.png").is_file()  # what the run drew of itself stays


def test_limits_and_prices_choose_the_device(cli, run):
    fastest = {name: float(front_of(run, name)["latency_ms_predicted"].min()) for name in ("mpic", "stm32h7a3")}
    slow, fast = sorted(fastest, key=fastest.get, reverse=True)
    limits = ["--max", f"latency_ms={(fastest[slow] + fastest[fast]) / 2!r}", "--min", "accuracy=0"]
    said = json.loads(cli("compare", run, *limits, "--json").out)
    assert [row["device"] for row in said["cheapest"]["devices"]] == [fast]
    assert said["cheapest"]["fails"][slow].startswith("infeasible: latency_ms ")
    assert [each["device"] for each in said["binding"]] == [fast]
    prices = ["--price", f"{slow}=1", "--price", f"{fast}=2.5"]
    said = json.loads(cli("compare", run, "--min", "accuracy=0", *prices, "--json").out)
    assert said["cheapest"]["ranked_by"] == "price"
    assert [(row["device"], row["price_usd"]) for row in said["cheapest"]["devices"]] == [(slow, 1.0), (fast, 2.5)]


def test_no_device_within_the_limits_is_an_answer(cli, run):
    answer = cli("compare", run, "--max", "latency_ms=1e-9")
    assert answer.code == 3
    assert answer.error == (
        "error: no device of mpic, stm32h7a3 meets the limits: latency_ms <= 1e-09, a drop of 1 point"
    )
    assert "mpic: infeasible: latency_ms 1e-09 ms was requested" in " ".join(answer.out.split())
    answer = cli("compare", run, "--max", "latency_ms=1e-9", "--json")
    assert answer.code == 3
    assert answer.err == ""
    assert set(json.loads(answer.out)["cheapest"]["fails"]) == {"mpic", "stm32h7a3"}


BAD = {
    "device": (["--device", "mpci"], r"expected devices of the run .* \(mpic, stm32h7a3\), got mpci"),
    "metric": (["--max", "latncy_ms=3"], r"mpic: expected a metric of this front .*did you mean latency_ms\?"),
    "number": (["--min", "accuracy=high"], r"a limit as metric=number, .*, got 'accuracy=high'; correct it"),
    "price": (["--price", "mpic=cheap"], r"a price as device=USD, such as mpic=4.50, got 'mpic=cheap'; correct it"),
    "no price": (["--price", "mpic"], r"a price as device=USD, .*, got 'mpic'"),
    "no device": (["--price", "=3"], r"a price as device=USD, .*, got '=3'"),
    "negative": (["--price", "mpic=-1"], r"a price as device=USD, .*, got 'mpic=-1'"),
    "nan": (["--price", "mpic=nan"], r"a price as device=USD, .*, got 'mpic=nan'"),
    "infinite": (["--price", "mpic=inf"], r"a price as device=USD, .*, got 'mpic=inf'"),
    "twice": (["--price", "mpic=1", "--price", "mpic=2"], r"expected one price of mpic, got 1 and 2; drop one"),
    "stranger": (
        ["--device", "mpic", "--price", "stm32h7a3=2"],
        r"prices of devices compared here \(mpic\), got stm32h7a3",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_makes_no_sense_is_named(name, cli, run, contents):
    arguments, sentence = BAD[name]
    before = contents(run)
    answer = cli("compare", run, *arguments)
    assert answer.code == 2
    assert answer.out == ""
    assert re.search(sentence, answer.error), answer.error
    assert contents(run) == before


def test_a_folder_that_cannot_be_written_is_named(cli, run):
    (run / "file").write_text("")
    answer = cli("compare", run, "--out", run / "file")
    assert answer.code == 2
    assert "expected a folder to write to, got " in answer.error


def test_an_experiment_asks_for_a_fleet(cli, experiment, tmp_path):
    path = experiment(
        ("evaluations = 16", "evaluations = 10\n\n[fleet]\nevaluations = 12"), ('"W4A4"', '"W4A4", "W4A8"')
    )
    run = tmp_path / "run"
    assert cli("explore", path, "--out", run).code == 0
    plan = pd.read_csv(run / "fleet.csv")
    assert len(plan) > 0
    for device in ("mpic", "stm32h7a3"):
        measured = pd.read_csv(run / device / "measured.csv")
        assert set(plan["bits"]) <= set(measured["bits"])
    fleet = json.loads(cli("compare", run, "--json").out)["fleet"]
    assert fleet["shared_measured"] >= plan["bits"].nunique()


def test_a_fleet_of_less_than_nothing_is_refused(cli, experiment, tmp_path):
    path = experiment(("[budget]", "[fleet]\nevaluations = -1\n[budget]"))
    answer = cli("explore", path, "--out", tmp_path / "run")
    assert answer.code == 2
    assert "fleet.evaluations: expected a number of at least 0, got -1" in answer.error
