"""One configuration for all devices: planned from what was measured, and the same however often a run is resumed."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import isotonic_regression

from hwdse.errors import InputError
from hwdse.evaluate import Pool
from hwdse.quantize.recipe import Recipe
from hwdse.study.device import LOSS
from hwdse.study.fleet import _loss_by_harm, rising

DEVICES = ("mpic", "stm32h7a3")
PRECISIONS = ("W2A8", "W4A4", "W4A8", "W8A8")


@pytest.fixture
def same(contents):
    """A function that compares what two runs found; only the pool says how long things took."""

    def compare(here, there):
        ours, theirs = contents(here), contents(there)
        assert ours.keys() == theirs.keys()
        return [name for name in ours if ours[name] != theirs[name] and name != "evaluations.db"] == []

    return compare


def test_without_levels_nothing_changes(start, tmp_path, contents):
    start(out=tmp_path / "plain", evaluations=8)
    start(out=tmp_path / "none", evaluations=8, fleet=0)
    plain, none = contents(tmp_path / "plain"), contents(tmp_path / "none")
    assert plain.keys() == none.keys()
    assert "fleet.csv" not in plain
    assert [name for name in plain if plain[name] != none[name]] == ["evaluations.db"]


@pytest.fixture
def wide(start):
    """A function that explores with a fleet, on devices, precisions and weights that leave something to plan."""

    def run(**changes):
        arguments = {"devices": DEVICES, "precisions": PRECISIONS, "evaluations": 12, "fleet": 12, "recipe": Recipe()}
        return start(**(arguments | changes))

    return run


def test_what_is_planned_is_measured_on_all_devices(wide, scored, tmp_path):
    study = wide(out=tmp_path)
    plan = pd.read_csv(tmp_path / "fleet.csv")
    assert len(plan) > 1
    assert study.meter.evaluations == 12 + len(plan)
    assert scored[-len(plan) :] == list(zip(plan["scheme"], plan["bits"], strict=True))
    for name in DEVICES:
        assert set(plan["bits"]) <= set(study.measured(name)["bits"])


def test_no_other_configuration_is_better_for_all(wide, tmp_path):
    """Of all configurations of the space with no more predicted loss, none has a smaller largest regret."""
    study = wide(out=tmp_path)
    plan = pd.read_csv(tmp_path / "fleet.csv").drop_duplicates("bits")
    problems = list(study.problems.values())
    space = problems[0].space
    everything = np.array(list(itertools.product(*(np.flatnonzero(row) for row in space.allowed))), dtype=np.uint8)
    known = [[problem.known(problems[0].bits(genes)) for problem in problems] for genes in everything]

    def numbers(name):
        columns = [problem.space.column(name) for problem in problems]
        rows = [row for row in known if all(row)]
        return np.array([[found.metrics[c] for found, c in zip(row, columns, strict=True)] for row in rows])

    def chosen(bits, name):
        return np.array([problem.known(bits).metrics[problem.space.column(name)] for problem in problems])

    losses, costs = numbers(LOSS.name), numbers("latency_ms_predicted")
    for row in plan.itertuples():
        within = (losses <= chosen(row.bits, LOSS.name)).all(axis=1)
        paid = chosen(row.bits, "latency_ms_predicted")
        assert not (costs[within] < paid * (1 - 1e-9)).all(axis=1).any()


@pytest.mark.parametrize("evaluations", [7, 12, 20])
def test_resuming_a_finished_run_changes_nothing(evaluations, wide, scored, tmp_path, contents):
    """Whatever the devices would have asked for next: some of it is in the pool, for the fleet."""
    wide(out=tmp_path, evaluations=evaluations)
    before = contents(tmp_path)
    for changes in ({}, {"evaluations": 3}, {"fleet": 0}):  # a smaller budget and no fleet lose nothing either
        scored.clear()
        wide(out=tmp_path, resume=True, **({"evaluations": evaluations} | changes))
        assert scored == []
        assert contents(tmp_path) == before


def test_what_the_devices_ask_for_next_may_be_measured_for_the_fleet_already(wide, tmp_path):
    """So the test above is one: without the plan, a resumed run would go on with what it finds in the pool."""
    found = 0
    for evaluations in range(8, 20, 2):
        wide(out=tmp_path / f"{evaluations}", evaluations=evaluations)
        plan = pd.read_csv(tmp_path / f"{evaluations}" / "fleet.csv")
        longer = wide(evaluations=evaluations + 4, fleet=0)
        late = {(s.key, bits) for s in longer.prepared.states.values() for bits in s.measured}
        found += bool(late & set(zip(plan["scheme"], plan["bits"], strict=True)))
    assert found > 0


def test_a_run_that_dies_while_it_measures_the_fleet_goes_on(wide, monkeypatch, tmp_path, same):
    wide(out=tmp_path / "whole")
    planned = len(pd.read_csv(tmp_path / "whole" / "fleet.csv"))
    put = Pool.put
    for after in range(planned):
        out, steps = tmp_path / f"died{after}", itertools.count()

        def dying(pool, key, scores, steps=steps, after=after):
            if next(steps) == 1 + 12 + after:  # after full precision, the budget, and some of the fleet
                raise KeyboardInterrupt("stopped")
            put(pool, key, scores)

        monkeypatch.setattr(Pool, "put", dying)
        with pytest.raises(KeyboardInterrupt, match="stopped"):
            wide(out=out)
        monkeypatch.setattr(Pool, "put", put)
        wide(out=out, resume=True)
        assert same(out, tmp_path / "whole")


def test_a_fleet_added_later_is_that_of_a_run_that_had_it_from_the_start(wide, scored, tmp_path, same):
    wide(out=tmp_path / "late", fleet=0)
    wide(out=tmp_path / "early")
    scored.clear()
    wide(out=tmp_path / "late", resume=True)
    assert len(scored) == len(pd.read_csv(tmp_path / "late" / "fleet.csv"))
    assert same(tmp_path / "late", tmp_path / "early")


def test_a_larger_budget_keeps_what_the_fleet_had(wide, tmp_path):
    first = wide(out=tmp_path, evaluations=8)
    assert len(pd.read_csv(tmp_path / "fleet.csv")) > 0
    had = {name: set(first.measured(name)["bits"]) for name in first.problems}
    second = wide(out=tmp_path, evaluations=16, resume=True)
    for name, bits in had.items():
        assert bits <= set(second.measured(name)["bits"])


def test_one_device_has_no_fleet(start, tmp_path):
    study = start(out=tmp_path, devices=["mpic"], evaluations=5, fleet=4)
    assert study.meter.evaluations == 5
    assert not (tmp_path / "fleet.csv").exists()


def test_fewer_than_no_levels_are_refused(start):
    with pytest.raises(InputError, match="expected 0 fleet levels or more, got -1"):
        start(fleet=-1)


@given(arrays(float, st.integers(0, 30), elements=st.floats(-1e3, 1e3)))
def test_rising_is_isotonic_regression(values):
    expected = isotonic_regression(values).x if len(values) else values
    np.testing.assert_allclose(rising(values), expected, atol=1e-9)


@pytest.mark.parametrize("devices", [("gap9_ne16", "stm32h7a3"), ("stm32h7a3", "gap9_ne16")])
def test_devices_with_columns_of_their_own_read_their_own_loss(wide, tmp_path, devices):
    """One scheme, but one of the two has a memory that holds both weights and activations, and so a further column."""
    precisions = ("W2A8", "W4A8", "W8A8")
    study = wide(out=tmp_path / devices[0], devices=devices, precisions=precisions)
    columns = [study.problems[name].space.column(LOSS.name) for name in devices]
    assert columns[0] != columns[1]
    state = study.state(study.problems[devices[0]])
    _, losses = _loss_by_harm(state, [study.problems[name] for name in devices])
    predicted = {
        float(problem.known(bits).metrics[problem.space.column(LOSS.name)])
        for problem in study.problems.values()
        for bits in state.measured
        if problem.known(bits) is not None
    }
    assert set(losses) <= predicted
