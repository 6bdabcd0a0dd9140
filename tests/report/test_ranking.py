"""The order of devices under the interval of their predictions, against closed forms."""

import io
import json
from itertools import permutations

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import multivariate_normal, norm

from hwdse.errors import RunFolderError
from hwdse.report.comparison import Asked, choose_devices
from hwdse.report.devices import draw_devices
from hwdse.report.drawing import style
from hwdse.report.ranking import DRAWS, Ranking, draw_ranking, rank_devices, ranking_tables
from hwdse.report.tables import RunTables

UNCERTAINTY = {"mpic": {"latency_ms_predicted": 1.3}, "nvidia_t4": {"latency_ms_predicted": 2.0}}
SAMPLING = 4 * 0.5 / np.sqrt(DRAWS)


def ranking(costs, factors):
    names = tuple("abcdefghijkl"[: len(costs)])
    return Ranking("latency_ms_predicted", names, np.array(costs, dtype=float), tuple(factors))


def printed(table):
    console = Console(width=80, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


@pytest.mark.parametrize("factors", [(1.3, 1.5), (2.0, 1.0), (10.0, 1.2)])
@pytest.mark.parametrize("costs", [(1.0, 1.05), (1.0, 1.5), (1.0, 4.0)])
def test_two_log_normals_come_in_order_with_their_closed_probability(costs, factors):
    found = ranking(costs, factors)
    sd = np.hypot(*(np.log(factors) / norm.ppf(0.95)))
    expected = norm.cdf(np.log(costs[1] / costs[0]) / sd)
    assert found.before[0, 1] == pytest.approx(expected, abs=SAMPLING)
    assert found.whole == found.best[0] == found.before[0, 1]
    assert found.before[1, 0] == pytest.approx(1 - found.before[0, 1])


def test_three_log_normals_by_quadrature():
    # a < b and b < c: two differences, jointly normal with correlation from the shared b.
    costs, factors = (1.0, 1.2, 1.5), (1.4, 1.8, 1.3)
    a, b, c = (np.log(factors) / norm.ppf(0.95)) ** 2
    means = np.log([costs[0] / costs[1], costs[1] / costs[2]])
    whole = multivariate_normal.cdf([0, 0], mean=means, cov=[[a + b, -b], [-b, b + c]])
    found = ranking(costs, factors)
    assert found.whole == pytest.approx(whole, abs=SAMPLING)
    first = multivariate_normal.cdf(
        [0, 0], mean=np.log([costs[0] / costs[1], costs[0] / costs[2]]), cov=[[a + b, a], [a, a + c]]
    )
    assert found.best[0] == pytest.approx(first, abs=SAMPLING)
    assert found.best.sum() == pytest.approx(1.0)


def test_without_uncertainty_the_order_stands():
    found = ranking((1.0, 2.0, 3.0), (1.0, 1.0, 1.0))
    assert found.whole == 1.0
    assert found.before.tolist() == [[0, 1, 1], [0, 0, 1], [0, 0, 0]]
    assert found.rank_interval.tolist() == [[1, 1], [2, 2], [3, 3]]


def test_equal_devices_are_in_every_order_alike():
    found = ranking((1.0,) * 3, (2.0,) * 3)
    orders, counts = np.unique(found.ranks, axis=0, return_counts=True)
    assert sorted(map(tuple, orders)) == sorted(permutations((1, 2, 3)))
    np.testing.assert_allclose(counts / DRAWS, 1 / 6, atol=SAMPLING)
    assert found.rank_interval.tolist() == [[1, 3]] * 3


def test_ninety_per_cent_of_the_draws_lie_within_the_factor():
    found = ranking((3.0, 5.0), (1.5, 4.0))
    inside = np.abs(found.draws - np.log(found.costs)) <= np.log(found.factors)
    np.testing.assert_allclose(inside.mean(axis=0), 0.9, atol=SAMPLING)


def test_what_no_interval_is_known_of_takes_a_factor_of_ten_and_says_so(write_run):
    tables = RunTables.load(write_run(extra={"uncertainty": UNCERTAINTY}))
    found = rank_devices(tables, "latency_ms_predicted", choose_devices(tables, Asked()).rows)
    facts = json.loads(json.dumps(found.facts))
    by_name = {row["device"]: row for row in facts["devices"]}
    assert by_name["mpic"]["factor"] == 1.3
    assert by_name["mpic"]["high"] == pytest.approx(1.3 * by_name["mpic"]["latency_ms_predicted"])
    assert by_name["mpic"]["note"] == ""
    for name in ("stm32h7a3", "gap9_ne16"):
        assert by_name[name]["factor"] == 10.0
        assert by_name[name]["note"] == "no interval: order of magnitude"
    assert tables.results["mpic"].factor("size_kib", "W8A8") == 1.0  # counted, not predicted
    text = "".join(printed(table) for table in ranking_tables(tables, found))
    assert "* no interval: order of magnitude; chances and ranks take a factor of 10." in text
    assert text.count("none*") == 2
    costs = [row["latency_ms_predicted"] for row in facts["devices"]]
    assert costs == sorted(costs)


@pytest.mark.parametrize("count", [1, 2, 12])
def test_any_number_of_devices_has_tables_and_a_figure(write_run, count):
    names = [f"some_device_{i:02}" for i in range(count)]
    tables = RunTables.load(write_run(devices=names, configs=24, minimize=("latency_ms",)))
    found = rank_devices(tables, "latency_ms_predicted", choose_devices(tables, Asked()).rows)
    for table in ranking_tables(tables, found):
        assert max(map(len, printed(table).splitlines())) <= 80
        assert "…" not in printed(table)
    with style():
        drawing = draw_ranking(tables, found)
        draw_devices(tables).figure.draw_without_rendering()
        drawing.figure.draw_without_rendering()
    assert drawing.points["device"].tolist() == list(found.devices)
    if count == 2:
        row = drawing.points.set_index("device").loc[found.devices[0]]
        assert row[f"before_{found.devices[1]}"] == found.before[0, 1]


def test_the_figure_of_all_fronts_says_which_device_has_no_interval(write_run):
    tables = RunTables.load(write_run(extra={"uncertainty": UNCERTAINTY}))
    caption = draw_devices(tables).caption
    assert "Dashed and hollow: no interval: order of magnitude (stm32h7a3, gap9_ne16)." in caption


@pytest.mark.parametrize("factor", [0.9, "wide", None])
def test_a_factor_that_is_none_is_refused(write_run, factor):
    run = write_run(extra={"uncertainty": {"mpic": {"latency_ms_predicted": factor}}})
    with pytest.raises(RunFolderError, match=r"got a fault at uncertainty\.mpic\.latency_ms_predicted"):
        RunTables.load(run)
