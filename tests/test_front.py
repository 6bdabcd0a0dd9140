from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.front import Front, Objective
from hwdse.graph import BitConfig
from hwdse.infeasible import Infeasible, Reason
from hwdse.pareto import knee
from hwdse.units import beside

ACCURACY = Objective("accuracy", "top1_measured", maximize=True)
LATENCY = Objective("latency_ms", "latency_ms_predicted", maximize=False)
SIZE = Objective("size_kib", "size_kib", maximize=False)


def make_front(**changes):
    table = pd.DataFrame(
        {
            "config_id": ["a", "b", "c", "d", "e"],
            "bits": ["W2A8 W2A8", "W4A8 W2A8", "W4A8 W4A8", "W8A8 W4A8", "W8A8 W8A8"],
            "latency_ms_predicted": [10.0, 20.0, 30.0, 40.0, 50.0],
            "size_kib": [25.0, 45.0, 35.0, 55.0, 100.0],
            "energy_mj_predicted": [1.0, 2.0, 4.0, 3.0, 5.0],
            "top1_measured": [0.60, 0.80, 0.85, 0.90, 0.91],
            "top1_measured_low": [0.55, 0.75, 0.80, 0.86, 0.87],
            "top1_measured_high": [0.65, 0.85, 0.90, 0.94, 0.95],
            "samples": [1000] * 5,
        }
    )
    fields = {
        "table": table,
        "objectives": (ACCURACY, LATENCY, SIZE),
        "layers": ("conv1", "fc"),
        "reach": {"latency_ms_predicted": 5.0},
        "device": "mpic",
    }
    return Front(**fields | changes)


def picked(front, **limits):
    row = front.pick(**limits)
    return row.bits if isinstance(row, BitConfig) else row


@pytest.mark.parametrize(
    ("limits", "bits"),
    [
        ({"latency_ms": 30.0}, "W4A8 W4A8"),  # exactly at the limit
        ({"latency_ms": 29.999999}, "W4A8 W2A8"),
        ({"latency_ms": 10}, "W2A8 W2A8"),
        ({"latency_ms_predicted": 49.0}, "W8A8 W4A8"),  # by column
        ({"latency_ms": 45.0, "size_kib": 54.9}, "W4A8 W4A8"),
        ({"latency_ms": 45.0, "accuracy": 0.6}, "W8A8 W4A8"),  # with a cost limit, the best quality
        ({"accuracy": 0.85}, "W4A8 W4A8"),  # with quality alone, the cheapest
        ({"accuracy": 0.8500001}, "W8A8 W4A8"),
        ({"accuracy": 0.75, "minimize": "size_kib"}, "W4A8 W4A8"),
        ({"accuracy": 0.81, "minimize": "energy_mj_predicted"}, "W8A8 W4A8"),  # a column that is no objective
        ({"top1_measured_low": 0.86}, "W8A8 W4A8"),  # a quality's lower end is raised too
        ({"energy_mj_predicted": 3.0}, "W8A8 W4A8"),
        ({"minimize": "latency_ms"}, "W2A8 W2A8"),
        ({"latency_ms": 45.0, "minimize": "energy_mj_predicted"}, "W2A8 W2A8"),
    ],
)
def test_pick(limits, bits):
    assert picked(make_front(), **limits) == bits


def test_pick_gives_the_precision_of_every_layer():
    config = make_front().pick(latency_ms=20.0)
    assert config.precisions == {"conv1": Precision.parse("W4A8"), "fc": Precision.parse("W2A8")}


def test_without_limits_the_knee():
    front = make_front()
    row = front.pick_row()
    points = front.table[["top1_measured", "latency_ms_predicted", "size_kib"]].to_numpy() * [-1, 1, 1]
    assert row == knee(points)
    assert front.table["config_id"][row] == "c"


def test_ties_go_to_the_smaller_costs():
    table = make_front().table.assign(top1_measured=0.9, latency_ms_predicted=10.0)
    assert make_front(table=table).pick_row(maximum={"latency_ms": 99.0}) == 0
    table = table.assign(size_kib=[3.0, 2.0, 1.0, 2.0, 3.0])
    assert make_front(table=table).pick_row(maximum={"latency_ms": 99.0}) == 2
    assert make_front(table=table).pick_row(minimum={"accuracy": 0.9}) == 2


def test_a_quality_that_is_minimised_counts_as_quality():
    table = make_front().table.rename(columns=lambda name: name.replace("top1", "kl"))
    table = table.assign(kl_measured=[0.5, 0.4, 0.3, 0.2, 0.1])
    front = make_front(table=table, objectives=(LATENCY, Objective("kl", "kl_measured", maximize=False)))
    assert front.pick_row(maximum={"kl": 0.3}) == 2  # the fastest that is good enough
    assert front.pick_row(maximum={"latency_ms": 40.0}) == 3  # the best that is fast enough


def test_upper_and_lower_limits_by_hand():
    front = make_front()
    assert front.pick_row(maximum={"latency_ms": 33}, minimum={"accuracy": 0.8}) == 2
    assert front.pick_row(minimum={"latency_ms": 33}) == 4  # a lower limit on a cost is a limit on a cost
    assert front.pick_row(minimum={"accuracy": 0.85}, minimize="size_kib") == 2


def test_below_the_whole_design_space():
    found = make_front().pick(latency_ms=4.0)
    assert found.reason is Reason.UNREACHABLE
    assert (found.limit, found.requested, found.best, found.best_with_others) == ("latency_ms", 4.0, 5.0, 10.0)
    assert found.gap == 6.0
    assert found.relaxations == {"latency_ms": 10.0}
    assert "raise latency_ms from 4 to 10 ms (configuration a)" in found.levers[0]
    assert "another device" in found.levers[1]
    assert make_front().pick(latency_ms=5.0).reason is Reason.UNMEASURED  # exactly what the space reaches


def test_below_what_was_measured():
    found = make_front().pick(latency_ms=9.99)
    assert found.reason is Reason.UNMEASURED
    assert (found.best, found.conflict) == (10.0, ("latency_ms",))
    assert found.gap == pytest.approx(0.01)
    assert any("measure more configurations" in lever and "beyond 5" in lever for lever in found.levers)
    assert make_front().pick(latency_ms=found.relaxations["latency_ms"]).bits == "W2A8 W2A8"


def test_accuracy_that_nothing_reaches():
    found = make_front().pick(accuracy=0.95)
    assert (found.reason, found.limit, found.best) == (Reason.UNMEASURED, "accuracy", 0.91)
    assert "lower accuracy from 0.95 to 0.91 (configuration e)" in str(found)
    assert picked(make_front(), accuracy=0.91) == "W8A8 W8A8"


def test_limits_that_exclude_each_other():
    front = make_front()
    found = front.pick(latency_ms=35.0, accuracy=0.88, size_kib=1000.0)
    assert found.reason is Reason.CONFLICT
    assert set(found.conflict) == {"latency_ms", "accuracy"}
    assert found.relaxations == {"latency_ms": 40.0, "accuracy": 0.85}
    assert found.limit == "accuracy"  # 0.03 of 0.88 is the smaller step than 5 of 35
    assert (found.best, found.best_with_others) == (0.91, 0.85)
    assert found.levers == (
        "lower accuracy from 0.88 to 0.85 (configuration c)",
        "raise latency_ms from 35 to 40 ms (configuration d)",
    )
    assert "latency_ms and accuracy exclude each other" in str(found)
    assert picked(front, latency_ms=40.0, accuracy=0.88, size_kib=1000.0) == "W8A8 W4A8"
    assert isinstance(front.pick(latency_ms=39.99, accuracy=0.88, size_kib=1000.0), Infeasible)
    assert picked(front, latency_ms=35.0, accuracy=0.85, size_kib=1000.0) == "W4A8 W4A8"
    assert isinstance(front.pick(latency_ms=35.0, accuracy=0.8501, size_kib=1000.0), Infeasible)


def test_no_single_limit_is_enough():
    found = make_front().pick(latency_ms=12.0, size_kib=24.0, accuracy=0.9)
    assert found.reason is Reason.UNMEASURED  # size alone is out of reach
    found = make_front().pick(latency_ms=12.0, energy_mj_predicted=1.5, accuracy=0.9)
    assert found.reason is Reason.CONFLICT
    assert found.conflict == ("latency_ms", "accuracy")
    assert found.relaxations == {"accuracy": 0.6}
    both = make_front().table.assign(energy_mj_predicted=[9.0, 2.0, 9.0, 9.0, 9.0])
    found = make_front(table=both).pick(latency_ms=12.0, energy_mj_predicted=2.5, accuracy=0.9)
    assert found.relaxations == {}
    assert found.best_with_others is None
    assert found.levers == (
        "raise latency_ms from 12 to 20 ms and lower accuracy from 0.9 to 0.8 together (configuration b)",
    )
    assert make_front(table=both).pick(latency_ms=20.0, energy_mj_predicted=2.5, accuracy=0.8).bits == "W4A8 W2A8"


def test_a_lever_is_rounded_to_the_side_that_works():
    table = make_front().table.assign(latency_ms_predicted=np.array([10.0, 20.0, 30.0, 40.0, 50.0]) + 1 / 3)
    front = make_front(table=table)
    found = front.pick(latency_ms=9.0)
    assert "raise latency_ms from 9 to 10.34 ms" in found.levers[0]
    assert front.pick_row(maximum={"latency_ms": 10.34}) == 0
    assert isinstance(front.pick_row(maximum={"latency_ms": 10.33}), Infeasible)


@pytest.mark.parametrize(
    ("limit", "sentence"),
    [
        (
            9.0,
            "latency_ms 9 ms was requested; no configuration that is known reaches it: best alone 10.33 ms",
        ),
        (10.33, "best alone 10.333 ms, gap 0.00333 ms. To change that: raise latency_ms from 10.33 to 10.34 ms"),
        (10.3333, "best alone 10.33333 ms, gap 3.33e-05 ms. To change that: raise latency_ms from 10.3333 to 10.34 ms"),
    ],
)
def test_as_few_digits_as_tell_a_value_from_the_limit(limit, sentence):
    table = make_front().table.assign(latency_ms_predicted=np.array([10.0, 20.0, 30.0, 40.0, 50.0]) + 1 / 3)
    assert sentence in str(make_front(table=table).pick(latency_ms=limit))


@given(value=st.floats(1e-9, 1e9), bound=st.floats(1e-9, 1e9))
def test_a_shortened_value_stays_on_its_side(value, bound):
    for rounding in (ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN):
        short = beside(value, bound, rounding)
        assert np.sign(short - bound) == np.sign(value - bound)
        assert short == pytest.approx(value, rel=1e-3)
    assert beside(value, bound, ROUND_CEILING) >= value >= beside(value, bound, ROUND_FLOOR)


def test_an_empty_front_is_infeasible():
    found = make_front(table=make_front().table.iloc[:0]).pick(latency_ms=3.0)
    assert found.reason is Reason.EMPTY
    assert str(found).startswith("infeasible: no configuration was measured")


@pytest.mark.parametrize(
    ("limits", "match"),
    [
        ({"latency": 3.0}, r"expected a metric of this front \(accuracy, .*\), got 'latency'; did you mean latency_ms"),
        ({"bits": 3.0}, "expected a metric of this front"),
        ({"latency_ms": np.nan}, "finite number as the limit of latency_ms, got nan"),
        ({"latency_ms": "33"}, "finite number as the limit of latency_ms, got '33'"),
        ({"minimize": "watts"}, "expected a metric of this front .*, got 'watts'"),
    ],
)
def test_pick_refuses(limits, match):
    with pytest.raises(InputError, match=match):
        make_front().pick(**limits)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"objectives": ()}, "at least 1 objective"),
        ({"objectives": (Objective("x", "y", maximize=False),)}, r"missing \['y'\]"),
        ({"layers": ("conv1",)}, r"expected 1 precisions \(layers\) in bits of row 0, got 2"),
        (
            {"table": make_front().table.assign(size_kib=np.nan)},
            "number in column size_kib of every row, got NaN in row 0",
        ),
    ],
)
def test_front_checks_its_table(changes, match):
    with pytest.raises(InputError, match=match):
        make_front(**changes)


def test_a_front_shows_its_ends():
    assert repr(make_front()) == (
        "<Front of mpic with 5 configurations: accuracy 0.6 to 0.91; latency_ms 10 to 50; size_kib 25 to 100>"
    )
    assert repr(make_front(table=make_front().table.iloc[:0], device="")) == (
        "<Front of a device with 0 configurations: accuracy; latency_ms; size_kib>"
    )


def test_config_of_a_row_that_is_not_there():
    with pytest.raises(InputError, match="row of the front from 0 to 4, got 5"):
        make_front().config(5)


def test_an_accuracy_in_percent_is_refused():
    with pytest.raises(InputError, match=r"expected accuracy as a share from 0 to 1, got 98; did you mean 0\.98\?"):
        make_front().pick(accuracy=98)
    assert isinstance(make_front().pick(accuracy=1.0), Infeasible)


def with_drops():
    front = make_front()
    return make_front(table=front.table.assign(top1_drop_measured=0.92 - front.table["top1_measured"]))


def test_a_column_may_be_called_without_its_tier():
    assert picked(make_front(), energy_mj=3.0) == picked(make_front(), energy_mj_predicted=3.0)
    assert make_front().column("energy_mj") == "energy_mj_predicted"
    assert make_front().pick(minimize="energy_mj").bits == "W2A8 W2A8"


def test_a_limit_on_the_drop_is_one_on_quality():
    assert picked(with_drops(), top1_drop_measured=0.08) == picked(with_drops(), accuracy=0.85) == "W4A8 W4A8"


@pytest.mark.parametrize(("value", "meant"), [(1.0, "0.01"), (2, "0.02"), (50.0, "0.5")])
def test_a_drop_in_points_is_taken_for_one(value, meant):
    with pytest.raises(InputError, match=f"as a share below 1, where 0.01 is a point, got .*did you mean {meant}"):
        with_drops().pick(top1_drop_measured=value)


def test_what_is_maximised_cannot_be_minimised():
    with pytest.raises(InputError, match="expected a cost to minimise, got accuracy, of which more is better"):
        make_front().pick(minimize="accuracy")


def test_rows_that_meet_limits():
    front = make_front()
    assert front.meets(maximum={"latency_ms": 40.0}, minimum={"accuracy": 0.8}).tolist() == [
        False,
        True,
        True,
        True,
        False,
    ]
    assert front.meets().all()
