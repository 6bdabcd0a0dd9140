"""Profiles held against published figures: what is claimed is what the cost models then predict."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from hwdse.cost.energy import EnergyModel
from hwdse.cost.latency import LatencyModel
from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.hardware import HardwareProfile, load_profile
from hwdse.hardware.schema import ProfileFile
from hwdse.networks import layer_graph
from hwdse.published import PublishedRow, published_path, read_rows
from hwdse.published.fit import MOST, chosen, leave_one_network_out
from hwdse.published.result import calibration_of, fitted_profile, hold_against, with_claim
from hwdse.published.score import interval_factor, score
from hwdse.published.terms import terms_of

FITTED = ("hailo8", "gap9_ne16", "google_edge_tpu", "stm32h7a3", "stm32h747", "snapdragon_8gen3", "qcs6490_rb3gen2")


def bare(name: str) -> HardwareProfile:
    profile = load_profile(name)
    return HardwareProfile(profile.spec.model_copy(update={"calibration": None, "accuracy": None}), profile.table)


def shipped_rows(name: str) -> tuple[PublishedRow, ...]:
    path = published_path(name)
    assert path is not None
    return read_rows(path)


def modelled(model: LatencyModel | EnergyModel, profile: HardwareProfile, row: PublishedRow) -> float:
    """Return what a cost model says of a row in one precision on a device without switches."""
    graph = layer_graph(row.network)
    assert " " not in row.precision
    costs = model.costs(graph, profile, [Precision.parse(row.precision)])
    return float(costs.values.sum() + costs.constant + (costs.switches.sum() if costs.switches is not None else 0.0))


def assert_is_read_again(profile: HardwareProfile) -> None:
    """Assert that the profile keeps to its schema, which copies with other sections do not check."""
    assert ProfileFile.model_validate(profile.spec.model_dump(mode="json", exclude_none=True)) == profile.spec


@pytest.mark.parametrize("name", FITTED)
def test_a_fitted_profile_predicts_what_its_validation_says(name: str) -> None:
    rows = shipped_rows(name)
    fitted = fitted_profile(bare(name), rows, layer_graph)
    found = fitted.validation
    assert found.profile is fitted.profile
    assert_is_read_again(fitted.profile)
    assert_allclose(found.shipped_ms, [modelled(LatencyModel(), fitted.profile, row) for row in found.terms.rows])
    if fitted.profile.has_energy:
        assert_allclose(found.shipped_mj, [modelled(EnergyModel(), fitted.profile, row) for row in found.terms.rows])
    assert 1 <= len(set(fitted.values) - {"energy"}) <= MOST
    assert calibration_of(fitted.profile) == pytest.approx(dict(fitted.values), rel=1e-4)


@pytest.mark.parametrize("name", FITTED)
def test_its_claim_is_that_of_networks_left_out(name: str) -> None:
    rows = shipped_rows(name)
    fitted = fitted_profile(bare(name), rows, layer_graph)
    accuracy = fitted.profile.spec.accuracy
    assert accuracy is not None
    terms, failed = terms_of(bare(name), rows, layer_graph)
    latencies, energies = leave_one_network_out(terms, chosen(terms))
    expected = score(latencies, terms.latencies_ms)
    assert accuracy.basis == "leave_one_network_out"
    assert accuracy.rows is not None
    assert accuracy.networks is not None
    assert accuracy.latency_error_percent is not None
    assert accuracy.latency_spearman is not None
    assert (accuracy.rows.value, accuracy.networks.value) == (len(terms.rows), len({row.network for row in terms.rows}))
    assert expected.factor <= accuracy.latency_factor.value <= expected.factor + 0.0011
    assert accuracy.latency_error_percent.value == pytest.approx(100 * expected.median_error, abs=0.0051)
    assert accuracy.latency_spearman.value == pytest.approx(expected.spearman, abs=0.00051)
    assert_allclose(fitted.validation.left_out_ms, latencies, rtol=1e-5)
    mmacs = [layer_graph(row.network).macs / 1e6 for row in terms.rows]
    assert accuracy.smallest_mmacs is not None
    assert accuracy.largest_mmacs is not None
    ends = (accuracy.smallest_mmacs.value, accuracy.largest_mmacs.value)
    assert ends == pytest.approx((min(mmacs), max(mmacs)), rel=1e-3)
    known = np.isfinite(terms.energies_mj)
    if known.any():
        assert accuracy.energy_factor is not None
        factor = interval_factor(energies[known], terms.energies_mj[known])
        assert factor <= accuracy.energy_factor.value <= factor + 0.0011
    else:
        assert accuracy.energy_factor is None
    assert [one.row for one in fitted.validation.unpriceable] == [one.row for one in failed]
    assert fitted.validation.inside >= 0.9


@pytest.mark.parametrize("name", FITTED)
def test_the_fit_is_better_than_none(name: str) -> None:
    """On its own rows, in the sense of the fit: squares of logarithms."""
    rows = shipped_rows(name)
    before, after = (
        held.shipped_ms / held.terms.latencies_ms
        for held in (
            hold_against(bare(name), rows, layer_graph),
            fitted_profile(bare(name), rows, layer_graph).validation,
        )
    )
    assert (np.log(after) ** 2).sum() <= (np.log(before) ** 2).sum() * (1 + 1e-6)


def test_figures_say_where_they_come_from() -> None:
    rows = [row.model_copy(update={"source": "Lab2024"}) for row in shipped_rows("stm32h7a3")]
    rows[3] = rows[3].model_copy(update={"source": "Lab2023"})
    fitted = fitted_profile(bare("stm32h7a3"), rows, layer_graph, names=["W8A8", "us_per_layer"])
    calibration, accuracy = fitted.profile.spec.calibration, fitted.profile.spec.accuracy
    assert calibration is not None
    assert accuracy is not None
    assert calibration.us_per_layer is not None
    assert calibration.energy is not None
    for quantity in (calibration.precisions["W8A8"], calibration.us_per_layer, calibration.energy):
        assert (quantity.kind, quantity.source) == ("derived", "Lab2024")
        assert quantity.note == "fitted to 4 published latencies of 4 networks"
    assert accuracy.latency_factor.source == "Lab2024"
    sources = fitted.profile.spec.sources
    assert set(sources) - set(load_profile("stm32h7a3").spec.sources) == {"Lab2024"}
    assert sources["Lab2024"] == "published figures of whole networks on STM32H7A3, Cortex-M7 at 280 MHz"


def test_a_source_that_is_known_keeps_its_words() -> None:
    fitted = fitted_profile(bare("stm32h7a3"), shipped_rows("stm32h7a3"), layer_graph)
    assert fitted.profile.spec.sources == load_profile("stm32h7a3").spec.sources


def test_a_calibration_that_was_there_has_no_say() -> None:
    rows = shipped_rows("gap9_ne16")
    assert load_profile("gap9_ne16").spec.calibration is not None
    again, anew = (fitted_profile(p, rows, layer_graph) for p in (load_profile("gap9_ne16"), bare("gap9_ne16")))
    assert again.values == anew.values
    assert again.profile.spec.calibration == anew.profile.spec.calibration


def test_rows_of_the_claim_alone_are_not_fitted_to() -> None:
    rows = shipped_rows("nvidia_t4")
    uniform, mixed = ([row for row in rows if row.is_uniform == kept] for kept in (True, False))
    wild = [row.model_copy(update={"latency_ms": 100 * row.latency_ms}) for row in mixed]
    plain = fitted_profile(bare("nvidia_t4"), uniform, layer_graph, names=["us_per_layer"])
    claimed = fitted_profile(bare("nvidia_t4"), uniform, layer_graph, names=["us_per_layer"], claim_rows=wild)
    assert claimed.values == plain.values
    assert claimed.profile.spec.calibration == plain.profile.spec.calibration
    assert len(claimed.validation.terms.rows) == len(rows)
    assert claimed.validation.shipped.worst_error == pytest.approx(0.99, abs=0.01)
    assert plain.validation.shipped.worst_error < 0.1
    assert plain.profile.spec.accuracy is not None
    assert plain.profile.spec.accuracy.basis == "fitted"


def test_errors_reach_the_caller() -> None:
    rows = shipped_rows("stm32h7a3")
    with pytest.raises(InputError, match=r"expected coefficients out of compute, .*, got speed; correct the name"):
        fitted_profile(bare("stm32h7a3"), rows, layer_graph, names=["speed"])
    unknown = [row.model_copy(update={"network": "resnet9"}) for row in rows]
    for hold in (fitted_profile, with_claim, hold_against):
        with pytest.raises(InputError, match="expected a reference network, got 'resnet9'; did you mean resnet8"):
            hold(bare("stm32h7a3"), unknown, layer_graph)


# Held against, without a new fit.


@pytest.mark.parametrize("name", [*FITTED, "nvidia_t4", "esp32s3"])
def test_a_shipped_profile_states_what_holding_it_against_its_rows_gives(name: str) -> None:
    profile = load_profile(name)
    found = hold_against(profile, shipped_rows(name), layer_graph)
    accuracy = profile.spec.accuracy
    assert accuracy is not None
    assert accuracy.rows is not None
    assert accuracy.networks is not None
    best = found.left_out or found.shipped
    assert (accuracy.rows.value, accuracy.networks.value) == (best.rows, found.networks)
    least = 2.0 if found.left_out is None and best.rows < 10 else 1.0
    assert accuracy.latency_factor.value == pytest.approx(max(least, best.factor), abs=0.0011)
    assert found.inside >= 0.9


def test_nothing_is_left_out_without_a_fit_or_with_two_networks() -> None:
    rows = shipped_rows("gap9_ne16")
    assert hold_against(load_profile("gap9_ne16"), rows, layer_graph).left_out is not None
    assert hold_against(bare("gap9_ne16"), rows, layer_graph).left_out is None
    two = hold_against(load_profile("gap9_ne16"), rows[:2], layer_graph)
    assert two.networks == 2
    assert two.left_out is None
    assert np.isnan(two.table["latency_ms_left_out_predicted"]).all()


def test_inside_counts_the_rows_in_the_interval_of_the_profile() -> None:
    profile = bare("gap9_ne16")
    rows = shipped_rows("gap9_ne16")
    found = hold_against(profile, rows, layer_graph)
    assert np.isnan(found.inside)
    ratios = np.sort(np.exp(np.abs(np.log(found.shipped_ms / found.terms.latencies_ms))))
    accuracy = {"basis": "analogy"}
    for place, ratio in enumerate(ratios):
        stated = {**accuracy, "latency_factor": {"value": float(ratio), "kind": "derived", "source": "MLPerfTiny10"}}
        claimed = ProfileFile.model_validate(
            {**profile.spec.model_dump(mode="json", exclude_none=True), "accuracy": stated}
        )
        held = hold_against(HardwareProfile(claimed, profile.table), rows, layer_graph)
        assert held.inside == pytest.approx((place + 1) / len(ratios))


def test_energies_are_scored_where_they_are_known() -> None:
    rows = list(shipped_rows("gap9_ne16"))
    held = hold_against(bare("gap9_ne16"), [rows[0], rows[1].model_copy(update={"energy_mj": None})], layer_graph)
    assert held.energy is not None
    assert held.energy.rows == 1
    assert held.energy.mean_error == pytest.approx(abs(held.shipped_mj[0] / held.terms.energies_mj[0] - 1))
    assert np.isnan(held.table["energy_mj_predicted"][1])
    assert hold_against(load_profile("hailo8"), shipped_rows("hailo8"), layer_graph).energy is None


def test_the_table_has_a_row_for_every_figure() -> None:
    rows = shipped_rows("gap9_ne16")
    held = hold_against(load_profile("gap9_ne16"), rows, layer_graph)
    table = held.table
    assert table["network"].tolist() == [row.network for row in rows]
    assert table["precision"].tolist() == ["W8A8"] * 4
    assert table["latency_ms_published"].tolist() == [row.latency_ms for row in rows]
    assert table["energy_mj_published"].tolist() == [row.energy_mj for row in rows]
    assert_array_equal(table["latency_ms_predicted"], held.shipped_ms)
    assert_array_equal(table["latency_ms_left_out_predicted"], held.left_out_ms)
    assert_array_equal(table["energy_mj_left_out_predicted"], held.left_out_mj)
    assert set(table["profile"]) == {"gap9_ne16"}
    assert set(table["kind"]) == {"measured"}
    assert set(table["source"]) == {"MLPerfTiny10"}


# Claims of few rows.


def two_networks(name: str, count: int) -> list[PublishedRow]:
    """Return rows of two networks that are predicted within a few per cent."""
    terms, _ = terms_of(bare(name), shipped_rows(name), layer_graph)
    rng = np.random.default_rng(0)
    first = {row.network: (row, ms) for row, ms in zip(terms.rows, terms.latency_ms({}), strict=True)}
    pairs: Sequence[tuple[PublishedRow, float]] = list(first.values())[:2] * (count // 2)
    return [row.model_copy(update={"latency_ms": float(ms * rng.normal(1, 0.02))}) for row, ms in pairs]


@pytest.mark.parametrize("name", ["stm32h7a3", "gap9_ne16", "hailo8"])
def test_a_few_close_rows_claim_no_less_than_a_factor_of_two(name: str) -> None:
    profile = bare(name)
    for count, least in ((2, 2.0), (8, 2.0), (10, 1.01), (20, 1.01)):
        claimed = with_claim(profile, two_networks(name, count), layer_graph)
        accuracy = claimed.spec.accuracy
        assert accuracy is not None
        assert accuracy.basis == "unfitted"
        assert accuracy.rows is not None
        assert accuracy.rows.value == count
        assert least <= accuracy.latency_factor.value < least * 1.1
        assert claimed.spec.calibration is None
        assert_is_read_again(claimed)


def test_two_rows_that_are_far_off_claim_what_they_must() -> None:
    rows = [row.model_copy(update={"latency_ms": 5 * row.latency_ms}) for row in two_networks("stm32h7a3", 2)]
    accuracy = with_claim(bare("stm32h7a3"), rows, layer_graph, basis="fitted").spec.accuracy
    assert accuracy is not None
    assert accuracy.basis == "fitted"
    assert accuracy.latency_factor.value > 5


def test_a_claim_leaves_the_calibration_as_it_is() -> None:
    profile = load_profile("gap9_ne16")
    claimed = with_claim(profile, shipped_rows("gap9_ne16"), layer_graph)
    assert claimed.spec.calibration == profile.spec.calibration
    assert claimed.spec.accuracy is not None
    assert claimed.spec.accuracy.basis == "leave_one_network_out"
