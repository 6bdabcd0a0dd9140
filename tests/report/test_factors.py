"""A prediction is as sure as the least sure precision of the configuration that it is of, and of no other."""

import optuna
import pytest
from optuna.exceptions import ExperimentalWarning

from hwdse.commands.answer import default_picks
from hwdse.errors import RunFolderError
from hwdse.report.optuna_study import study_name, write_studies
from hwdse.report.page.payload import page_payload
from hwdse.report.pareto import draw_pareto
from hwdse.report.ranking import rank_devices
from hwdse.report.tables import RunTables

pytestmark = pytest.mark.filterwarnings(f"ignore::{ExperimentalWarning.__module__}.{ExperimentalWarning.__name__}")

LATENCY = "latency_ms_predicted"
EXTRA = {"uncertainty": {"mpic": {LATENCY: 1.1}}, "widening": {"mpic": {"W2A8": 2.0, "W4A8": 1.5}}}


@pytest.fixture
def tables(write_run):
    return RunTables.load(write_run(devices=("mpic", "stm32h7a3"), extra=EXTRA))


def of(bits):
    """Return the factor of a configuration, from its definition."""
    return 1.1 * (2.0 if "W2A8" in bits.split() else 1.5 if "W4A8" in bits.split() else 1.0)


def test_a_configuration_is_as_sure_as_its_least_sure_precision(tables):
    device = tables.results["mpic"]
    factors = device.factors(LATENCY, ["W8A8 W8A8", "W8A8 W4A8", "W2A8 W4A8"])
    assert factors.tolist() == pytest.approx([1.1, 1.65, 2.2])
    assert device.factor(LATENCY, "W8A8 W4A8") == pytest.approx(1.65)
    assert device.factors("energy_mj_predicted", ["W8A8"]) is None
    assert device.factor("size_kib", "W2A8") == 1.0  # counted, not predicted
    assert tables.results["stm32h7a3"].factor(LATENCY, "W8A8") is None


def test_a_run_that_does_not_say_which_precisions_are_less_sure_has_one_factor(write_run):
    tables = RunTables.load(write_run(extra={"uncertainty": EXTRA["uncertainty"]}))
    assert tables.results["mpic"].factor(LATENCY, "W2A8 W8A8") == 1.1


def test_every_answer_has_the_interval_of_its_own_precisions(tables):
    front = tables.results["mpic"].front
    assert len({of(bits) for bits in front["bits"]}) > 1  # else this would say nothing
    for _, row in front.iterrows():
        rows = {"mpic": row, "stm32h7a3": tables.results["stm32h7a3"].front.iloc[0]}
        ranked = rank_devices(tables, LATENCY, rows)
        assert dict(zip(ranked.devices, ranked.known, strict=True)) == {"mpic": of(row["bits"]), "stm32h7a3": None}
    (found, _) = default_picks(tables.run)
    assert found[f"{LATENCY}_high"] == pytest.approx(found[LATENCY] * of(found["bits"]))


def test_the_figure_states_the_smallest_and_the_largest_factor_of_the_front(tables):
    factors = sorted({of(bits) for bits in tables.results["mpic"].front["bits"]})
    panel = draw_pareto(tables, "mpic").figure.axes[0]
    assert panel.get_xlabel().endswith(f"90 % within a factor of {factors[0]:.2f} to {factors[-1]:.2f}")


def test_the_page_and_the_study_know_each_configurations_factor(tables, tmp_path):
    payload = page_payload(tables)
    mpic = next(device for device in payload["devices"] if device["name"] == "mpic")
    bits, ids = mpic["measured"]["bits"], mpic["measured"]["config_id"]
    by_id = tables.results["mpic"].measured.set_index("config_id")["bits"]
    for letters, config in zip(bits, ids, strict=True):
        grown = mpic["uncertainty"][LATENCY] * max(mpic["widening"][letter] for letter in letters)
        assert grown == pytest.approx(of(by_id[config]))
    path = tmp_path / "study.db"
    write_studies(tables, path)
    study = optuna.load_study(study_name=study_name(tables, "mpic"), storage=f"sqlite:///{path}")
    for trial in study.trials:
        low, high = trial.user_attrs["Latency (ms, predicted), 90 %"]
        assert (high / low) ** 0.5 == pytest.approx(of(by_id[trial.user_attrs["config_id"]]))


@pytest.mark.parametrize("factor", [0.9, "wide", None])
def test_a_widening_that_is_none_is_refused(write_run, factor):
    run = write_run(extra={"widening": {"mpic": {"W2A8": factor}}})
    with pytest.raises(RunFolderError, match=r"got a fault at widening\.mpic\.W2A8"):
        RunTables.load(run)
