"""Fits to predictions of a profile whose calibration is known, against closed forms and by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy.stats import gmean

from hwdse.errors import InputError
from hwdse.hardware import HardwareProfile, load_profile
from hwdse.networks import layer_graph
from hwdse.published import PublishedRow, published_path, read_rows
from hwdse.published.fit import (
    COEFFICIENTS,
    MOST,
    NOISE,
    PRECISION_SPREAD,
    Coefficient,
    chosen,
    fit,
    leave_one_network_out,
)
from hwdse.published.terms import Terms, terms_of

TINY = ("resnet8", "ds_cnn", "autoencoder_folded", "mobilenet_v1_0.25_96")


def bare(name: str) -> HardwareProfile:
    profile = load_profile(name)
    return HardwareProfile(profile.spec.model_copy(update={"calibration": None}), profile.table)


def shipped_rows(name: str) -> tuple[PublishedRow, ...]:
    path = published_path(name)
    assert path is not None
    return read_rows(path)


def shipped(name: str) -> Terms:
    return terms_of(bare(name), shipped_rows(name), layer_graph)[0]


def of(profile: str, *choices: tuple[str, str]) -> Terms:
    """Return the terms of networks at precisions; what is published is still to come."""
    rows = [PublishedRow(network=n, precision=p, latency_ms=1.0, source="Lab2024") for n, p in choices]
    return terms_of(bare(profile), rows, layer_graph)[0]


def as_if(
    terms: Terms, values: Mapping[str, float], *, noise: NDArray[np.float64] | float = 0.0, factor: float = 1.0
) -> Terms:
    """Return the terms with what a device with these values would publish."""
    return replace(terms, latencies_ms=terms.latency_ms(values) * factor * np.exp(noise))


# Known values come back.


@examples(max_examples=25)
@given(st.floats(0.2, 5), st.integers(1, 12), st.integers(0, 1000))
def test_a_factor_of_everything_has_a_closed_form(true: float, count: int, seed: int) -> None:
    """Normal errors and a normal belief in logarithms: the precision-weighted mean of the rows and of 0."""
    terms = of("stm32h7a3", *[(TINY[i % len(TINY)], "W8A8") for i in range(count)])
    errors = np.log(true) + np.random.default_rng(seed).normal(0, 0.2, count)
    found = fit(as_if(terms, {}, noise=errors), chosen(terms, ["W8A8"]))
    weight = count / NOISE**2
    assert np.log(found["W8A8"]) == pytest.approx(
        errors.mean() * weight / (weight + PRECISION_SPREAD**-2), abs=1e-5, rel=1e-4
    )


@pytest.mark.parametrize(
    ("name", "true"),
    [
        ("hailo8", {"compute": 0.6, "traffic": 1.8}),
        ("hailo8", {"compute": 1.9, "traffic": 0.7}),
        ("snapdragon_8gen3", {"compute": 0.5, "Wfp16Afp16": 1.6, "W8A16": 1.3, "us_per_layer": 3.0}),
        ("snapdragon_8gen3", {"traffic": 3.0, "us_per_layer": 1.0, "us_per_inference": 90.0}),
        ("nvidia_t4", {"us_per_layer": 20.0, "fp32": 1.4}),
        ("nvidia_t4", {"us_per_inference": 300.0, "fp32": 0.8}),
        ("stm32h747", {"W8A8": 0.6}),
        ("google_edge_tpu", {"us_per_layer": 60.0}),
        ("stm32n6", {"compute": 1.4}),
    ],
)
def test_what_the_rows_determine_comes_back(name: str, true: Mapping[str, float]) -> None:
    terms = as_if(shipped(name), true)
    found = fit(terms, chosen(terms, list(true)))
    assert_allclose([found[key] for key in true], list(true.values()), rtol=0.06)
    assert_allclose(terms.latency_ms(found), terms.latencies_ms, rtol=0.03)


@pytest.mark.parametrize(
    ("name", "true", "between"),
    [
        ("hailo8", {"compute": 0.6, "depthwise": 2.0, "traffic": 1.8}, "depthwise"),  # they all wait for the memory
        ("stm32n6", {"compute": 1.4, "depthwise": 2.5}, "depthwise"),  # mostly depthwise networks
        ("nvidia_t4", {"W4A4": 1.2, "us_per_layer": 20.0, "fp32": 1.4, "W8A8": 0.7}, "W4A4"),
    ],
)
def test_what_they_do_not_determine_stays_nearer_to_what_was_believed(
    name: str, true: Mapping[str, float], between: str
) -> None:
    """The latencies come back nonetheless."""
    terms = as_if(shipped(name), true)
    found = fit(terms, chosen(terms, list(true)))
    assert 1 - 1e-6 <= found[between] < true[between] * 0.95
    assert_allclose(terms.latency_ms(found), terms.latencies_ms, rtol=0.03)


@examples(max_examples=10)
@given(st.floats(0.4, 2.5), st.floats(0.5, 2.0), st.floats(0.6, 1.7))
def test_any_values_within_the_beliefs_come_back(compute: float, narrow: float, wide: float) -> None:
    true = {"compute": compute, "Wfp16Afp16": narrow, "W8A16": wide}
    terms = as_if(shipped("snapdragon_8gen3"), true)
    found = fit(terms, chosen(terms, list(true)))
    assert_allclose([found[key] for key in true], list(true.values()), rtol=0.06)


def objective(terms: Terms, coefficients: Sequence[Coefficient], centres: Sequence[float], logs: NDArray[np.float64]):
    """Return minus the logarithm of the posterior, up to a constant and a factor."""
    predicted = terms.latency_ms({c.name: np.exp(value) for c, value in zip(coefficients, logs, strict=True)})
    spreads = np.array([c.spread for c in coefficients])
    misses = np.log(predicted / terms.latencies_ms) / NOISE
    return (misses**2).sum() + (((logs - np.log(centres)) / spreads) ** 2).sum()


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("hailo8", ["compute", "traffic", "depthwise", "pointwise", "linear"]),
        ("nvidia_t4", ["compute", "fp32", "W4A4"]),
        ("snapdragon_8elite", ["compute", "W8A16", "Wfp16Afp16", "traffic"]),
        ("stm32l4r5", ["W8A8", "depthwise"]),
    ],
)
def test_nothing_near_the_fit_is_likelier(name: str, names: list[str]) -> None:
    terms = shipped(name)
    coefficients = chosen(terms, names)
    found = fit(terms, coefficients)
    logs = np.log([found[key] for key in names])
    centres = np.ones(len(names))
    best = objective(terms, coefficients, centres, logs)
    assert best < objective(terms, coefficients, centres, np.zeros(len(names)))
    rng = np.random.default_rng(0)
    for size in (0.001, 0.01, 0.1):
        for step in rng.normal(0, size, (40, len(names))):
            assert objective(terms, coefficients, centres, logs + step) > best - 1e-4


# Beliefs.


@pytest.mark.parametrize("name", ["traffic", "linear", "W4A4", "fp32"])
def test_a_factor_that_no_row_tells_of_stays_at_one(name: str) -> None:
    """A microcontroller without traffic, convolutional networks without a linear layer, int8 alone."""
    terms = as_if(of("stm32h7a3", ("resnet8", "W8A8")), {"compute": 3.0})
    if name == "linear":
        terms = replace(terms, classes=np.where(terms.classes == "linear", "", terms.classes))
    known = {**COEFFICIENTS, name: COEFFICIENTS.get(name, Coefficient(name, PRECISION_SPREAD))}
    assert fit(terms, [known["compute"], known[name]])[name] == pytest.approx(1, abs=1e-6)


def test_what_is_right_already_stays() -> None:
    """Predictions of the profile as it is: factors of 1, and the times that it states."""
    terms = as_if(shipped("snapdragon_8gen3"), {})
    assert terms.us_per_layer > 0
    found = fit(terms, chosen(terms, ["compute", "traffic", "us_per_layer", "depthwise", "W8A16"]))
    expected = {"compute": 1, "traffic": 1, "us_per_layer": terms.us_per_layer, "depthwise": 1, "W8A16": 1}
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", ["us_per_layer", "us_per_inference"])
def test_a_time_that_is_not_stated_starts_at_a_twentieth_of_a_typical_latency(name: str) -> None:
    terms = of("stm32h7a3", *[(network, "W8A8") for network in TINY])
    assert (terms.us_per_layer, terms.us_per_inference) == (0, 0)
    layers = np.median([len(layer_graph(network).layers) for network in TINY])
    typical_us = 0.0
    for _ in range(60):  # until a twentieth of the median latency with this time in it is this time
        median_ms = np.median(terms.latency_ms({name: typical_us}))
        typical_us = 0.05 * float(median_ms) * 1e3 / (layers if name == "us_per_layer" else 1)
    near = as_if(terms, {name: typical_us})
    assert fit(near, chosen(near, [name]))[name] == pytest.approx(typical_us, rel=1e-5)
    far = as_if(terms, {})
    assert fit(far, chosen(far, [name]))[name] < 0.5 * typical_us


def test_more_rows_move_further() -> None:
    found = []
    for count in (1, 2, 4, 8, 16):
        terms = of("stm32h7a3", *[(TINY[i % 4], "W8A8") for i in range(count)])
        found.append(fit(as_if(terms, {}, factor=4.0), chosen(terms, ["W8A8"]))["W8A8"])
    assert (np.diff(found) > 0).all()
    assert 3.8 < found[0] < found[-1] < 4.0


def test_a_wider_belief_moves_further() -> None:
    terms = as_if(of("stm32h7a3", *[(network, "W8A8") for network in TINY]), {}, factor=4.0)
    found = [fit(terms, [Coefficient("compute", spread)])["compute"] for spread in (0.05, 0.2, 0.7, 2.0)]
    assert (np.diff(found) > 0).all()
    assert found[0] < 2 < found[1]


# Energies.


@pytest.mark.parametrize("name", ["gap9_ne16", "stm32h7a3", "stm32l4r5", "zcu102_filmqnn"])
def test_the_energy_factor_is_a_geometric_mean(name: str) -> None:
    terms = shipped(name)
    found = fit(terms, chosen(terms, ["compute"]))
    assert found["energy"] == pytest.approx(gmean(terms.energies_mj / terms.energy_mj({"compute": found["compute"]})))
    factors = terms.energies_mj / terms.energy_mj(found)
    assert np.log(factors).sum() == pytest.approx(0, abs=1e-9)


def test_rows_without_an_energy_do_not_count_in_it() -> None:
    terms = shipped("stm32h7a3")
    some = replace(terms, energies_mj=np.where([True, False, True, False], terms.energies_mj, np.nan))
    found = fit(some, chosen(some, ["W8A8"]))
    predicted = terms.energy_mj({"W8A8": found["W8A8"]})
    assert found["energy"] == pytest.approx(gmean((terms.energies_mj / predicted)[[0, 2]]))


def test_there_is_no_energy_factor_without_energies_or_without_a_power() -> None:
    terms = shipped("stm32h7a3")
    without = replace(terms, energies_mj=np.full(len(terms.rows), np.nan))
    assert set(fit(without, chosen(without, ["W8A8"]))) == {"W8A8"}
    no_power = replace(terms, power_mw=0.0)
    assert not terms.dynamic_mj.any()
    assert set(fit(no_power, chosen(no_power, ["W8A8"]))) == {"W8A8"}


# Which coefficients.


def default_names(terms: Terms) -> list[str]:
    return [one.name for one in chosen(terms)]


@pytest.mark.parametrize(
    ("networks", "expected"),
    [
        (1, ["compute"]),
        (4, ["compute"]),
        (5, ["compute"]),
        (6, ["compute", "traffic"]),
        (8, ["compute", "traffic", "us_per_layer"]),
        (10, ["compute", "traffic", "us_per_layer", "depthwise"]),
        (12, ["compute", "traffic", "us_per_layer", "depthwise", "us_per_inference"]),
        (20, ["compute", "traffic", "us_per_layer", "depthwise", "us_per_inference"]),
    ],
)
def test_the_number_by_default_follows_from_the_networks(networks: int, expected: list[str]) -> None:
    terms = shipped("hailo8")
    assert len(terms.rows) == 20
    assert default_names(terms.take(np.arange(20) < networks)) == expected


def test_two_precisions_beside_the_commonest_come_first() -> None:
    terms = shipped("snapdragon_8gen3")
    counts = Counter(row.precision for row in terms.rows)
    (commonest, _), *further = counts.most_common()
    assert default_names(terms) == ["compute", *(name for name, _ in further), "traffic", "us_per_layer"]
    assert commonest not in default_names(terms)


def test_a_device_without_traffic_or_networks_without_depthwise_layers_leave_them_out() -> None:
    terms = of("stm32h7a3", *[(n, "W8A8") for n in ("resnet8", "resnet18", "resnet34", "resnet50", "resnet101",
               "googlenet", "inception_v3", "resnet20_cifar", "resnet32_cifar100", "squeezenet1_1")])  # fmt: skip
    assert not terms.traffic_ms.any()
    assert default_names(terms) == ["compute", "us_per_layer", "us_per_inference", "pointwise"]


def test_five_coefficients_are_the_most() -> None:
    terms = shipped("hailo8")
    assert MOST == 5
    five = ["compute", "traffic", "depthwise", "linear", "W8A8"]
    assert [one.name for one in chosen(terms, five)] == five
    with pytest.raises(InputError, match=r"expected 1 to 5 coefficients, each once, got compute, .*; leave some out"):
        chosen(terms, [*five, "pointwise"])


@pytest.mark.parametrize("names", [[], ["compute", "compute"]])
def test_none_at_all_and_one_twice_are_errors(names: list[str]) -> None:
    with pytest.raises(InputError, match=r"expected 1 to 5 coefficients, each once, got .*; leave some out"):
        chosen(shipped("hailo8"), names)


@pytest.mark.parametrize("name", ["speed", "energy", "W4A4", "integer_layers"])
def test_an_unknown_name_is_one_sentence(name: str) -> None:
    with pytest.raises(InputError, match=rf"^expected coefficients out of compute, .*W8A8, got {name}; correct .*$"):
        chosen(shipped("hailo8"), ["compute", name])


# Networks left out.


@pytest.mark.parametrize(
    ("name", "coefficients"),
    [("nvidia_t4", ["us_per_layer", "fp32"]), ("gap9_ne16", ["compute"]), ("snapdragon_8gen3", ["compute", "W8A16"])],
)
def test_each_network_is_predicted_by_a_fit_without_its_rows(name: str, coefficients: list[str]) -> None:
    rows, profile, terms = shipped_rows(name), bare(name), shipped(name)
    latencies, energies = leave_one_network_out(terms, chosen(terms, coefficients))
    for network in dict.fromkeys(row.network for row in rows):
        rest, _ = terms_of(profile, [row for row in rows if row.network != network], layer_graph)
        own, _ = terms_of(profile, [row for row in rows if row.network == network], layer_graph)
        values = fit(rest, chosen(terms, coefficients))
        place = terms.networks == network
        assert_allclose(latencies[place], own.latency_ms(values), rtol=1e-9)
        assert_allclose(energies[place], own.energy_mj(values), rtol=1e-9)


def test_what_is_published_of_a_network_has_no_say_in_its_own_prediction() -> None:
    terms = shipped("gap9_ne16")
    coefficients = chosen(terms, ["compute", "us_per_layer"])
    wild = replace(terms, latencies_ms=terms.latencies_ms * np.where(terms.networks == "ds_cnn", 50.0, 1.0))
    first, second = (leave_one_network_out(one, coefficients)[0] for one in (terms, wild))
    same = terms.networks == "ds_cnn"
    assert_array_equal(first[same], second[same])
    assert (np.abs(second / first - 1)[~same] > 0.1).any()


def test_one_network_cannot_be_left_out() -> None:
    terms = of("stm32h7a3", ("resnet8", "W8A8"), ("resnet8", "W4A8"))
    with pytest.raises(InputError, match="expected rows of at least 2 networks to leave one out, got 1; add rows"):
        leave_one_network_out(terms, chosen(terms, ["compute"]))
