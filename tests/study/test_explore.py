"""Explorations of a space that is small enough to be measured whole."""

from __future__ import annotations

import gc
import itertools
import json
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from hwdse.capture import capture
from hwdse.errors import InputError
from hwdse.evaluate import Evaluation, Evaluator, Pool, evaluation_of, evaluator
from hwdse.formats import Precision
from hwdse.front import Front
from hwdse.graph import BitConfig
from hwdse.hardware import load_profile
from hwdse.infeasible import Infeasible
from hwdse.pareto import non_dominated
from hwdse.report.tables import RunTables
from hwdse.study import Budget, explore

TINY = Path(__file__).parents[1] / "tiny"
ALL = ["nvidia_t4", "mpic", "stm32h7a3", "gap9_ne16"]


def test_a_budget_that_covers_the_space_gives_the_true_front(start, tiny):
    """Oracle: every configuration of either device, measured one by one."""
    study = start(evaluations=1000)
    assert re.fullmatch(rf"<Study of mpic, stm32h7a3: {study.meter.evaluations} evaluations in \d+ s>", repr(study))
    for name in ("mpic", "stm32h7a3"):
        problem = study.problems[name]
        state, space = study.state(problem), problem.space
        choices = [np.flatnonzero(row) for row in space.allowed]
        genes = np.array(list(itertools.product(*choices)), dtype=np.uint8)
        bits = [problem.bits(row) for row in genes]
        quality = np.array(
            [
                Evaluator(tiny.evaluation)
                .score(state.network, config_of(problem, text))
                .per_sample.mean(dtype=np.float64)
                for text in bits
            ]
        )
        costs = space.evaluate(genes)[:, [space.column(c) for c in problem.objectives]]
        best = non_dominated(np.column_stack([-quality, costs]))
        measured, front = study.measured(name), study.front(name)
        assert sorted(measured["bits"]) == sorted(bits)
        assert sorted(front.table["bits"]) == sorted(text for text, is_best in zip(bits, best, strict=True) if is_best)
        found = front.table.set_index("bits")
        for text, value, row in zip(bits, quality, costs, strict=True):
            if text in found.index:
                assert found.loc[text, "top1_measured"] == value
                assert tuple(found.loc[text, list(problem.objectives)]) == tuple(row)
    schemes = study.prepared.states
    assert study.meter.evaluations == sum(len(state.measured) for state in schemes.values())


def config_of(problem, bits) -> BitConfig:
    return BitConfig(dict(zip(problem.graph.layer_index, map(Precision.parse, bits.split()), strict=True)))


def test_devices_of_one_scheme_share_every_evaluation(start, scored, tmp_path):
    study = start(devices=ALL, evaluations=24, out=tmp_path / "run")
    keys = {name: problem.profile.scheme.key for name, problem in study.problems.items()}
    assert keys["nvidia_t4"] == keys["mpic"] != keys["stm32h7a3"] == keys["gap9_ne16"]
    assert len(scored) == 25  # and full precision, once for all
    assert len(set(scored)) == 25
    assert sum(bits == "fp32" for _, bits in scored) == 1
    assert study.meter.evaluations == 24
    pool = Pool(tmp_path / "run" / "evaluations.db")
    assert len(pool) == 25
    for name, problem in study.problems.items():
        runnable = [
            bits for key, bits in scored if key == keys[name] and bits != "fp32" and problem.known(bits) is not None
        ]
        assert list(study.measured(name)["bits"]) == runnable
    shared = set(study.measured("mpic")["bits"]) & set(study.measured("nvidia_t4")["bits"])
    assert len(shared) == len(study.measured("nvidia_t4"))


def test_a_device_that_joins_costs_only_what_it_asks_for(start, scored):
    start(devices=["mpic"], evaluations=1000)
    alone = set(scored)
    scored.clear()
    start(devices=["mpic", "nvidia_t4"], evaluations=1000)
    assert set(scored) == alone


def test_the_same_seed_gives_the_same_tables_in_another_process(start, tmp_path, contents):
    start(out=tmp_path / "here", seed=5)
    code = (
        "import sys; from pathlib import Path; from hwdse.capture import capture\n"
        "from hwdse.experiment import load_experiment, make_inputs; from hwdse.study import Budget, explore\n"
        "path = Path(sys.argv[1]); inputs = make_inputs(load_experiment(path), path.parent)\n"
        "explore(inputs.model, capture(inputs.model, inputs.example), calibration=inputs.calibration,\n"
        "        evaluation=inputs.evaluation, devices=['mpic', 'stm32h7a3'], precisions=['W2A8', 'W4A4', 'W8A8'],\n"
        "        objectives=['accuracy', 'latency_ms', 'size_kib'], budget=Budget(evaluations=16), seed=5,\n"
        "        out=Path(sys.argv[2]))\n"
    )
    subprocess.run([sys.executable, "-c", code, TINY / "tiny.toml", tmp_path / "there"], check=True, timeout=120)
    here, there = contents(tmp_path / "here"), contents(tmp_path / "there")
    assert here.keys() == there.keys()
    assert [name for name in here if here[name] != there[name]] == ["evaluations.db"]  # it holds how long things took


def test_killed_at_any_moment_and_resumed_a_run_finds_the_same(tmp_path):
    script = Path(__file__).with_name("killing.py")
    done = subprocess.run(
        [sys.executable, script, TINY / "tiny.toml", tmp_path], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["wrong"] == []
    assert said["steps"] > 2 * 9
    assert said["kills"] >= 2
    assert said["whole"]["evaluations"] == 10  # 9 and full precision: nothing was counted twice


def test_resuming_a_finished_run_does_nothing_new(start, scored, tmp_path, contents):
    start(out=tmp_path)
    before = contents(tmp_path)
    scored.clear()
    study = start(out=tmp_path, resume=True)
    assert scored == []
    assert study.meter.evaluations == 16
    assert contents(tmp_path) == before


def test_resuming_with_a_larger_budget_goes_on(start, scored, tmp_path):
    start(out=tmp_path / "run", evaluations=9)
    scored.clear()
    start(out=tmp_path / "run", evaluations=16, resume=True)
    assert len(scored) == 7
    start(out=tmp_path / "whole", evaluations=16)
    for name in ("mpic/front.csv", "mpic/measured.csv", "stm32h7a3/front.csv", "stm32h7a3/predicted.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_resuming_with_a_smaller_budget_loses_nothing(start, scored, tmp_path, contents):
    start(out=tmp_path)
    before = contents(tmp_path)
    scored.clear()
    start(out=tmp_path, evaluations=3, resume=True)
    assert scored == []
    assert contents(tmp_path) == before


def test_resume_without_a_run_starts_one(start, tmp_path):
    start(out=tmp_path / "new", resume=True, evaluations=5)
    assert len(RunTables.load(tmp_path / "new").results["mpic"].measured) <= 5
    with pytest.raises(InputError, match="expected a run folder to go on with, got none"):
        start(resume=True)


def test_what_is_on_disk_is_valid_after_every_evaluation(start, tiny, tmp_path):
    """A crash in the middle leaves fronts that can be read, and the run goes on."""
    calls = itertools.count()

    def crashing(outputs, targets):
        if next(calls) == 2 * 9:  # two batches an evaluation: after full precision and 8 others
            raise ValueError("out of memory")
        return (outputs.argmax(-1) == targets).float()

    evaluation = evaluation_of(tiny.evaluation.batches, crashing)
    ticking = itertools.count(0, 10)  # so that tables are written after every evaluation
    with pytest.raises(InputError, match="'crashing' to score a batch, got ValueError: out of memory"):
        start(evaluation=evaluation, out=tmp_path, clock=lambda: float(next(ticking)))
    tables = RunTables.load(tmp_path)
    assert len({b for r in tables.results.values() for b in r.measured["bits"]}) >= 4
    assert sum(json.loads((tmp_path / "resolved.json").read_text())["evaluations"].values()) == 8
    study = start(evaluation=evaluation, out=tmp_path, resume=True)
    assert study.meter.evaluations == 16


class Clock:
    """Stands still, except that every evaluation takes a second."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    scores = evaluator.batch_scores

    def slow(*arguments, **keywords):
        clock.now += 0.5  # there are two batches
        return scores(*arguments, **keywords)

    monkeypatch.setattr(evaluator, "batch_scores", slow)
    return clock


@pytest.mark.parametrize("seconds", [3.0, 9.5, 10.0])
def test_seconds_are_kept_to_within_one_evaluation(seconds, start, clock):
    study = start(evaluations=1000, seconds=seconds, clock=clock)
    assert seconds - 1.0 < clock.now - 100.0 <= seconds
    assert study.meter.evaluations == int(seconds) - 1  # full precision takes a second too
    assert study.meter.seconds == clock.now - 100.0


def test_seconds_of_earlier_sessions_count(start, clock, tmp_path):
    start(evaluations=1000, seconds=6.0, clock=clock, out=tmp_path)
    study = start(evaluations=1000, seconds=9.0, clock=clock, out=tmp_path, resume=True)
    assert study.meter.evaluations == 9
    assert study.meter.seconds == 9.0


def test_evaluations_are_counted_over_all_devices(start, scored):
    assert start(devices=ALL, evaluations=5).meter.evaluations == 5
    assert len(scored) == 6


@pytest.mark.parametrize(
    ("budget", "sentence"),
    [
        ({"evaluations": 0}, "at least 1 evaluation, got 0"),
        ({"seconds": 0.0}, "more than 0 seconds, a finite number, got 0"),
        ({"seconds": -1.0}, "more than 0 seconds, a finite number, got -1"),
        ({"seconds": float("nan")}, "more than 0 seconds, a finite number, got nan"),
        ({"seconds": float("inf")}, "more than 0 seconds, a finite number, got inf"),
    ],
)
def test_a_budget_of_nothing_is_refused(budget, sentence):
    with pytest.raises(InputError, match=sentence):
        Budget(**budget)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"seed": -1}, "expected a seed of at least 0, got -1"),
        ({"devices": []}, "expected one device or more, each once, got none"),
        ({"devices": ["mpic", "mpic"]}, "each once, got mpic, mpic"),
        ({"devices": ["mpci"]}, "did you mean mpic"),
        ({"precisions": []}, "expected at least one candidate precision, got none"),
        ({"precisions": ["W9000"]}, "W9000"),
        ({"objectives": ["latency_ms"]}, "expected accuracy and at least one cost as objectives, got latency_ms"),
        ({"objectives": ["accuracy"]}, "expected accuracy and at least one cost as objectives, got accuracy"),
        ({"objectives": ["accuracy", "size_kib", "size_kib"]}, "expected every objective once"),
        ({"objectives": ["accuracy", "latency_ms", "latency_ms_predicted"]}, "expected every objective once"),
        ({"objectives": ["accuracy", "speed"]}, "got 'speed'"),
        ({"fixed": {"steam": "W8A8"}}, "did you mean stem"),
        ({"calibration": []}, "at least one batch of calibration data, got none"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_before_anything_is_written(changes, sentence, start, scored, tmp_path):
    with pytest.raises(InputError, match=sentence):
        start(out=tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()
    assert scored == []


def test_a_graph_of_another_model_is_refused(tiny, captured, part):
    with pytest.raises(
        InputError, match=r"expected the graph of this model, got another one \(parameter body.weight\)"
    ):
        explore(
            part("other_model")(), captured, calibration=tiny.calibration, evaluation=tiny.evaluation, devices=["mpic"]
        )


def test_a_cost_may_be_named_by_its_column(start):
    by_name, by_column = start(), start(objectives=("accuracy", "latency_ms_predicted", "size_kib"))
    pd.testing.assert_frame_equal(by_name.front("mpic").table, by_column.front("mpic").table)


def test_a_fixed_precision_is_no_candidate_of_the_others(start):
    study = start(precisions=["W2A8", "W4A4"], fixed={"stem": "W8A8"}, evaluations=1000)
    for name in ("mpic", "stm32h7a3"):
        bits = study.measured(name)["bits"].str.split(" ", expand=True)
        assert set(bits[0]) == {"W8A8"}
        assert set(bits[[1, 2, 3]].to_numpy().ravel()) == {"W2A8", "W4A4"}
        assert len(bits) == 2**3


def small(tmp_path: Path, name: str, kib: float) -> Path:
    """Write a device with so much memory for weights and activations together."""
    text = f"""
schema_version = 1
name = "{name}"
title = "a chip of {kib} KiB"
kind = "mcu"
software_stack = "none"
note = "for a test"
batch = 1
clock_mhz = {{ value = 100, kind = "datasheet", source = "none" }}

[sources]
none = "made up"

[scheme]
weights = "symmetric"
activations = "symmetric"
weight_granularity = "per_channel"
full_range = false
unsigned_activations = true

[[rates]]
weights = "int8"
activations = "int8"
macs_per_cycle = {{ value = 1.0, kind = "datasheet", source = "none" }}

[[rates]]
weights = "int4"
activations = "int4"
macs_per_cycle = {{ value = 2.0, kind = "datasheet", source = "none" }}

[[memories]]
name = "SRAM"
holds = ["weights", "activations"]
capacity_kib = {{ value = {kib}, kind = "datasheet", source = "none" }}

[power]
active_mw = {{ value = 10, kind = "datasheet", source = "none" }}
"""
    (tmp_path / f"{name}.toml").write_text(text)
    return tmp_path / f"{name}.toml"


def test_a_device_without_energy_is_explored_if_nobody_asks_for_it(start, tmp_path):
    path = small(tmp_path, "silent", 64)
    text = path.read_text()
    path.write_text(text[: text.index("[power]")])
    study = start(devices=[load_profile(path), "mpic"], evaluations=6)
    assert "energy_mj_predicted" not in study.front("silent").table
    assert "energy_mj_predicted" in study.front("mpic").table
    with pytest.raises(InputError, match="leave energy_mj out"):
        start(devices=[load_profile(path)], objectives=("accuracy", "energy_mj"))


def test_a_single_sample_is_refused_before_anything_is_written(start, tiny, tmp_path):
    (x, y), *_ = tiny.evaluation.batches
    with pytest.raises(InputError, match="at least 2 samples for an interval, got 1"):
        start(evaluation=evaluation_of([(x[:1], y[:1])], "negative_kl"), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("metric", ["sqnr_db", "negative_kl", "agreement", "log_likelihood"])
def test_every_metric_makes_a_front(metric, start, tiny, tmp_path):
    study = start(evaluation=evaluation_of(tiny.evaluation.batches, metric), evaluations=6, out=tmp_path / "run")
    column = f"{metric}_measured"
    front = study.front("mpic").table
    assert (front[f"{column}_low"] <= front[column]).all()
    assert (front[column] <= front[f"{column}_high"]).all()
    assert RunTables.load(tmp_path / "run").quality.column == column


def test_a_device_that_nothing_fits_does_not_stop_the_others(start, tmp_path):
    tight = load_profile(small(tmp_path, "tight", 0.01))
    study = start(devices=[tight, "mpic"], out=tmp_path / "run")
    reason = study.problems["tight"].infeasible
    assert reason is not None
    assert reason.limit == "memory_kib"
    assert reason.requested == pytest.approx(0.01)
    assert reason.best is not None
    assert reason.best > 0.01
    assert study.problems["mpic"].infeasible is None
    assert len(study.measured("tight")) == 0
    assert isinstance(study.front("tight").pick(), Infeasible)
    assert len(study.front("mpic")) > 0
    results = RunTables.load(tmp_path / "run").results
    assert str(reason) in results["tight"].emptiness
    assert results["mpic"].emptiness == ""
    # One byte more than the least demand lets something fit, and everything that is measured does.
    enough = load_profile(small(tmp_path, "enough", reason.best + 1 / 1024))
    fitting = start(devices=[enough], evaluations=1000)
    assert fitting.problems["enough"].infeasible is None
    assert 1 <= len(fitting.measured("enough")) < 2**4
    assert (fitting.measured("enough")["memory_kib"] <= reason.best + 1 / 1024).all()


def test_all_devices_too_small_is_a_result(start, scored, tmp_path):
    tight = load_profile(small(tmp_path, "tight", 0.01))
    study = start(devices=[tight], out=tmp_path / "run")
    assert study.meter.evaluations == 0
    assert [bits for _, bits in scored] == ["fp32"]
    assert RunTables.load(tmp_path / "run").results["tight"].infeasible


def test_memory_does_not_grow_with_evaluations(start, tiny, monkeypatch):
    """Each further evaluation leaves its result behind and nothing else, least of all its scores."""
    held: list[int] = []
    score = Evaluator.score

    def watched(self, network, config, **options):
        if len(held) in {20, 60}:
            gc.collect()
        held.append(tracemalloc.get_traced_memory()[0])
        return score(self, network, config, **options)

    samples = [(x.repeat(100, 1, 1, 1), y.repeat(100)) for x, y in tiny.evaluation.batches]
    monkeypatch.setattr(Evaluator, "score", watched)
    tracemalloc.start()
    try:
        start(evaluation=Evaluation(samples, tiny.evaluation.metric), evaluations=62, devices=["mpic"])
    finally:
        tracemalloc.stop()
    scores_bytes = sum(4 * len(labels) for _, labels in samples)
    assert (held[60] - held[20]) / 40 < 4000 < scores_bytes / 5


def test_the_study_answers_for_its_devices_only(start):
    study = start(evaluations=5)
    assert isinstance(study.front("mpic"), Front)
    assert study.front(load_profile("mpic")).device == "mpic"
    with pytest.raises(InputError, match=r"expected a device of this study \(mpic, stm32h7a3\), got 'gap9_ne16'"):
        study.front("gap9_ne16")


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(16, 16)
        self.second = nn.Linear(16, 16)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(torch.relu(self.first(x.flatten(1))))


def test_a_model_may_share_weights(tiny):
    with torch.random.fork_rng(devices=[]):
        model = Tied().eval()
    study = explore(
        model,
        capture(model, tiny.example),
        calibration=tiny.calibration,
        evaluation=tiny.evaluation,
        devices=["mpic"],
        budget=Budget(evaluations=3),
    )
    assert (study.measured("mpic")["bits"].str.split().map(set).map(len) == 1).all()
