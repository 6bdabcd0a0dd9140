"""Answers from a run folder: without the network, without torch, and always with a reason."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest


def front_of(run, device="mpic"):
    return pd.read_csv(run / device / "front.csv", dtype={"config_id": str})


@pytest.mark.parametrize(
    "arguments",
    [
        ["pick", "RUN", "--device", "mpic", "--max", "latency_ms=1"],
        ["pick", "RUN", "--device", "mpic", "--max", "latency_ms=1", "--json"],
        ["compare", "RUN"],
        ["report", "RUN", "--figures"],
        ["cite", "RUN"],
        ["optuna", "RUN", "--out", "OUT"],
        ["profiles", "list"],
        ["profiles", "show", "nvidia_t4"],
        ["profiles", "check"],
    ],
)
def test_answers_need_neither_the_network_nor_torch(arguments, run):
    """The experiment's folder is gone, and a process that imports torch, or warns, fails."""
    places = {"RUN": str(run), "OUT": str(run.parent / "run.db")}
    words = [places.get(word, word) for word in arguments]
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['hwdse', *sys.argv[1:]]\n"
        "from hwdse.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout


def test_both_sides_of_the_switching_points(cli, run):
    front = front_of(run).sort_values("latency_ms_predicted")
    latencies, quality = front["latency_ms_predicted"].to_numpy(), front["top1_measured"].to_numpy()
    assert len(front) > 2
    for i, latency in enumerate(latencies):
        answer = cli("pick", run, "--device", "mpic", "--max", f"latency_ms={float(latency)!r}", "--json")
        picked = json.loads(answer.out)
        assert answer.code == 0
        assert picked["top1_measured"] == quality[: i + 1].max()
        assert picked["latency_ms_predicted"] <= latency
    below = float(np.nextafter(latencies[0], 0.0))
    answer = cli("pick", run, "--device", "mpic", "--max", f"latency_ms={below!r}")
    assert answer.code == 3
    assert answer.out == ""
    assert answer.error.startswith(f"error: mpic: infeasible: latency_ms {below!r} ms was requested; ")
    best = re.search(r"best alone (\S+) ms", answer.error)
    assert best is not None
    assert float(best[1]) == pytest.approx(latencies[0])
    assert float(best[1]) > below
    assert "To change that: raise latency_ms" in answer.error


def test_the_two_sides_of_an_accuracy(cli, run):
    best = front_of(run)["top1_measured"].max()
    assert cli("pick", run, "--device", "mpic", "--min", f"accuracy={float(best)!r}").code == 0
    answer = cli("pick", run, "--device", "mpic", "--min", f"accuracy={float(np.nextafter(best, 2.0))!r}")
    assert answer.code == 3
    assert "infeasible: accuracy" in answer.error


def test_limits_that_exclude_each_other_are_both_named(cli, run):
    front = front_of(run)
    accuracy, size = float(front["top1_measured"].max()), float(front["size_kib"].min())
    assert front[(front["top1_measured"] == accuracy) & (front["size_kib"] == size)].empty
    limits = ["--max", f"size_kib={size!r}", "--min", f"accuracy={accuracy!r}"]
    answer = cli("pick", run, "--device", "mpic", *limits, "--json")
    facts = json.loads(answer.out)
    assert answer.code == 3
    assert answer.err == ""
    assert facts["device"] == "mpic"
    assert sorted(facts["infeasible"]["conflict"]) == ["accuracy", "size_kib"]
    for name, bound in facts["infeasible"]["relaxations"].items():
        changed = {"size_kib": size, "accuracy": accuracy} | {name: bound}
        relaxed = ["--max", f"size_kib={changed['size_kib']!r}", "--min", f"accuracy={changed['accuracy']!r}"]
        assert cli("pick", run, "--device", "mpic", *relaxed).code == 0


def test_an_infeasible_pick_leaves_the_old_one(cli, run):
    assert cli("pick", run, "--device", "mpic", "--max", "latency_ms=1").code == 0
    before = (run / "mpic" / "pick.json").read_bytes()
    assert cli("pick", run, "--device", "mpic", "--max", "latency_ms=1e-9").code == 3
    assert (run / "mpic" / "pick.json").read_bytes() == before


def test_a_pick_is_a_row_of_the_front_with_what_was_asked(cli, run):
    answer = cli("pick", run, "--device", "mpic", "--max", "latency_ms=1", "--min", "accuracy=0.5", "--json")
    picked = json.loads(answer.out)
    assert answer.err == ""
    assert json.loads((run / "mpic" / "pick.json").read_text()) == picked
    assert picked.pop("device") == "mpic"
    assert picked.pop("asked") == {"maximum": {"latency_ms": 1.0}, "minimum": {"accuracy": 0.5}, "minimize": None}
    rows = front_of(run).set_index("config_id")
    row = rows.loc[picked.pop("config_id")]
    for column in ("latency_ms_predicted", "energy_mj_predicted"):
        if column in row.index:  # the profile states a factor of 3
            assert picked.pop(f"{column}_low") == pytest.approx(row[column] / 3)
            assert picked.pop(f"{column}_high") == pytest.approx(row[column] * 3)
    assert picked == row.to_dict()


def test_the_page_shows_the_pick(cli, run):
    """As if it were drawn after the pick, where there is a page; none is drawn where there is none."""
    page = run / "report.html"
    before = page.read_bytes()
    latency = float(front_of(run)["latency_ms_predicted"].min())
    answer = cli("pick", run, "--device", "mpic", "--max", f"latency_ms={latency!r}")
    assert answer.code == 0
    drawn = page.read_bytes()
    assert drawn != before
    assert f"{page}: drawn again with it; figures show it after hwdse report {run} --figures" in answer.out
    assert cli("report", run).code == 0
    assert page.read_bytes() == drawn
    page.unlink()
    answer = cli("pick", run, "--device", "mpic")
    assert answer.code == 0
    assert "drawn again" not in answer.out
    assert not page.exists()


def test_the_metric_to_minimise_decides(cli, run):
    front = front_of(run)
    for name in ("size_kib", "latency_ms"):
        column = {"latency_ms": "latency_ms_predicted"}.get(name, name)
        answer = cli("pick", run, "--device", "mpic", "--min", "accuracy=0", "--minimize", name, "--json")
        assert json.loads(answer.out)[column] == front[column].min()


BAD = {
    "device": (["--device", "mpci"], r"expected devices of the run .* \(mpic, stm32h7a3\), got mpci"),
    "outside": (["--device", "../run/mpic"], r"expected devices of the run"),
    "metric": (["--device", "mpic", "--max", "latncy_ms=3"], r"got 'latncy_ms'; did you mean latency_ms\?"),
    "number": (
        ["--device", "mpic", "--max", "latency_ms=fast"],
        r"metric=number, .*, got 'latency_ms=fast'; correct it",
    ),
    "no number": (["--device", "mpic", "--max", "latency_ms"], r"metric=number, .*, got 'latency_ms'"),
    "no name": (["--device", "mpic", "--min", "=3"], r"metric=number, .*, got '=3'"),
    "nan": (["--device", "mpic", "--max", "latency_ms=nan"], r"metric=number, .*, got 'latency_ms=nan'"),
    "infinite": (["--device", "mpic", "--max", "latency_ms=inf"], r"metric=number, .*, got 'latency_ms=inf'"),
    "twice": (
        ["--device", "mpic", "--max", "size_kib=1", "--max", "size_kib=2"],
        r"one limit of a kind for size_kib, got 1 and 2",
    ),
    "minimize": (["--device", "mpic", "--minimize", "speed"], r"expected a metric of this front .*, got 'speed'"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_pick_that_makes_no_sense_is_named(name, cli, run, contents):
    arguments, sentence = BAD[name]
    before = contents(run)
    answer = cli("pick", run, *arguments)
    assert answer.code == 2
    assert answer.out == ""
    assert re.search(sentence, answer.error), answer.error
    assert contents(run) == before


@pytest.mark.parametrize(
    "arguments",
    [["pick"], ["export", "--out", "x.onnx"], ["verify"], ["refine"], ["finetune"]],
    ids=lambda words: words[0],
)
def test_one_of_several_devices_must_be_named(arguments, cli, run, contents):
    before = contents(run)
    answer = cli(arguments[0], run, *arguments[1:])
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == (
        f"error: expected one device of the run {run} (mpic, stm32h7a3), got none; name it by --device\n"
    )
    assert contents(run) == before


def test_the_only_device_need_not_be_named(cli, run):
    resolved = json.loads((run / "resolved.json").read_text())
    (run / "resolved.json").write_text(json.dumps(resolved | {"devices": ["stm32h7a3"]}))
    answer = cli("pick", run, "--json")
    assert answer.code == 0
    assert json.loads(answer.out)["device"] == "stm32h7a3"
    assert (run / "stm32h7a3" / "pick.json").is_file()


def test_json_of_every_verb_parses(cli, run):
    compared = json.loads(cli("compare", run, "--json").out)
    assert [row["device"] for row in compared["devices"]] == ["mpic", "stm32h7a3"]
    assert [row["device"] for row in json.loads(cli("compare", run, "--device", "mpic", "--json").out)["devices"]] == [
        "mpic"
    ]
    assert json.loads(cli("report", run, "--json").out) == {
        "page": str(run / "report.html"),
        "figures": [],
        "infeasible": {},
    }
    figures = json.loads(cli("report", run, "--figures", "--width", "single", "--json").out)["figures"]
    assert all(Path(figure).parent == run / "figures" / "single" for figure in figures)
    assert {"roofline-mpic.pdf", "attainment.csv", "pareto-mpic.png"} <= {Path(path).name for path in figures}
    profiles = json.loads(cli("profiles", "list", "--json").out)
    assert {"mpic", "nvidia_t4", "stm32h7a3", "gap9_ne16"} <= {p["name"] for p in profiles["profiles"]}
    assert profiles["damaged"] == []
    assert json.loads(cli("profiles", "show", "mpic", "--json").out)["name"] == "mpic"


def test_figures_of_one_column_lie_beside_those_of_two(cli, run):
    before = (run / "figures" / "pareto-mpic.pdf").read_bytes()
    answer = cli("report", run, "--figures", "--width", "single")
    assert answer.code == 0
    drawn = run / "figures" / "single"
    count = len(list(drawn.glob("*.pdf")))
    assert count == len(list(drawn.glob("*.png"))) > 4
    assert answer.out == f"{drawn}: {count} figures as PDF, PNG and CSV, captions.md\n{run / 'report.html'}\n"
    assert (run / "figures" / "pareto-mpic.pdf").read_bytes() == before


def test_what_explore_says_is_on_the_right_stream(finished):
    run, answer = finished
    assert "measure" in answer.err
    assert "16 evaluations, measured in" in answer.out
    assert f"run folder: {run}" in answer.out
    assert "━" not in answer.out.replace("─", "")
    assert "error" not in answer.err


def test_json_of_explore_is_alone_on_standard_output(shell, experiment, tmp_path):
    """Even where a factory prints."""
    path = experiment(('"parts.py:model"', '"parts.py:noisy_model"'), ('"mpic", "stm32h7a3"', '"mpic"'))
    answer = shell("explore", path, "--out", tmp_path / "run", "--budget-evaluations", "4", "--json")
    said = json.loads(answer.out)
    assert answer.code == 0
    assert "loading weights" in answer.err
    assert said["run"] == str(tmp_path / "run")
    assert [pick["device"] for pick in said["picks"]] == ["mpic"]
    assert said["infeasible"] == {}


def test_names_that_look_like_pictures_stay_text(cli, experiment, tmp_path):
    answer = cli("explore", experiment(('"parts.py:model"', '"parts.py:fire:"')), "--out", tmp_path / "run")
    assert "'parts.py:fire:'" in answer.error
