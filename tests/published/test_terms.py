"""Terms against the cost models: the same profile with the same values in its calibration gives the same figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from hwdse.cost.energy import EnergyModel
from hwdse.cost.latency import LatencyModel
from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.graph import LayerGraph
from hwdse.hardware import HardwareProfile, load_profile
from hwdse.hardware.schema import Calibration, Switch
from hwdse.networks import layer_graph
from hwdse.published import PublishedRow, published_path, read_rows
from hwdse.published.fit import COEFFICIENTS
from hwdse.published.terms import terms_of

# A table and mixed rows; time per node; traffic beside compute; pJ per MAC; spilled weights; active power alone.
PROFILES = ("nvidia_t4", "snapdragon_8gen3", "hailo8", "gap9_ne16", "google_edge_tpu", "stm32h7a3", "stm32h747")


def figure(value: float) -> dict[str, object]:
    return {"value": value, "kind": "derived", "source": "Lab2024"}


def calibrated(profile: HardwareProfile, values: Mapping[str, float]) -> HardwareProfile:
    """Return the profile with these values as its calibration, and no others."""
    own = {name: figure(value) for name, value in values.items() if name in (*COEFFICIENTS, "energy")}
    precisions = {name: figure(value) for name, value in values.items() if name not in own}
    calibration = Calibration.model_validate({**own, "precisions": precisions}) if values else None
    return HardwareProfile(profile.spec.model_copy(update={"calibration": calibration}), profile.table)


def modelled(
    model: LatencyModel | EnergyModel, profile: HardwareProfile, row: PublishedRow, graph: LayerGraph
) -> float:
    """Return what a cost model says of a row: the chosen values, what is constant, and the switches between them."""
    candidates = profile.precisions
    costs = model.costs(graph, profile, candidates)
    chosen = [candidates.index(precision) for precision in row.precisions(graph)]
    total = costs.constant + sum(costs.values[i, c] for i, c in enumerate(chosen))
    if costs.switches is not None:
        pairs = costs.pairs if costs.pairs is not None else graph.edges
        total += sum(costs.switches[e, chosen[a], chosen[b]] for e, (a, b) in enumerate(pairs))
    return float(total)


def random_values(profile: HardwareProfile, seed: int) -> dict[str, float]:
    """Return a value for every coefficient there is."""
    rng = np.random.default_rng(seed)
    factors = [name for name, one in COEFFICIENTS.items() if not one.is_time] + [str(p) for p in profile.precisions]
    times = [name for name, one in COEFFICIENTS.items() if one.is_time]
    return {
        **{name: float(rng.uniform(0.3, 3)) for name in (*factors, "energy")},
        **{name: float(rng.uniform(0, 60)) for name in times},
    }


def random_row(profile: HardwareProfile, network: str, seed: int) -> PublishedRow:
    """Return a row in which every layer has any precision that the device runs it at."""
    rng = np.random.default_rng(seed)
    options = [[p for p in profile.precisions if profile.supports(layer, p)] for layer in layer_graph(network).layers]
    parts = [str(own[rng.integers(len(own))]) for own in options]
    return PublishedRow(network=network, precision=" ".join(parts), latency_ms=1.0, energy_mj=1.0, source="Lab2024")


def shipped_rows(name: str) -> tuple[PublishedRow, ...]:
    path = published_path(name)
    assert path is not None
    return read_rows(path)


def assert_as_modelled(profile: HardwareProfile, rows: Sequence[PublishedRow], values: Mapping[str, float]) -> None:
    terms, failed = terms_of(profile, rows, layer_graph)
    assert list(terms.rows) == [row for row in rows if row not in [one.row for one in failed]]
    device = calibrated(profile, values)
    latencies = [modelled(LatencyModel(), device, row, layer_graph(row.network)) for row in terms.rows]
    assert_allclose(terms.latency_ms(values), latencies, rtol=1e-9)
    if profile.has_energy:
        energies = [modelled(EnergyModel(), device, row, layer_graph(row.network)) for row in terms.rows]
        assert_allclose(terms.energy_mj(values), energies, rtol=1e-9)
    else:
        assert_array_equal(terms.energy_mj(values), 0)


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_latencies_and_energies_are_those_of_the_cost_models(name: str, seed: int | None) -> None:
    """Published rows, with no calibration and with random values of everything."""
    profile = load_profile(name)
    assert_as_modelled(profile, shipped_rows(name), random_values(profile, seed) if seed is not None else {})


@pytest.mark.parametrize("key", [*COEFFICIENTS, "W8A8", "W4A4", "energy"])
@pytest.mark.parametrize("name", ["nvidia_t4", "gap9_ne16"])
def test_one_value_alone(key: str, name: str) -> None:
    profile = load_profile(name)
    assert_as_modelled(profile, shipped_rows(name), {key: 1.7})


@pytest.mark.parametrize("name", ["nvidia_t4", "snapdragon_8gen3", "gap9_ne16", "stm32h7a3", "amd_epyc_zen4"])
@pytest.mark.parametrize("network", ["resnet18", "resnet8", "ds_cnn", "mobilenet_v2"])
def test_rows_of_mixed_precisions(name: str, network: str) -> None:
    """With conversions and operators between layers too: those of a processor with times by direction."""
    profile = load_profile(name)
    rows = [random_row(profile, network, seed) for seed in range(3)]
    for row in rows:
        assert_as_modelled(profile, [row], random_values(profile, 4))
    assert_as_modelled(profile, rows, random_values(profile, 5))


def test_switches_between_formats_count_once_per_border() -> None:
    profile = load_profile("nvidia_t4")
    switch = Switch.model_validate({"us": figure(7.0), "us_per_melement": figure(30.0)})
    slow = HardwareProfile(profile.spec.model_copy(update={"switch": switch}), profile.table)
    rows = [random_row(profile, "resnet18", seed) for seed in range(4)]
    assert_as_modelled(slow, rows, random_values(profile, 1))
    with_switches, without = (terms_of(device, rows, layer_graph)[0].latency_ms({}) for device in (slow, profile))
    assert (with_switches > without + 0.007).all()


def test_units_of_their_own_hand_over() -> None:
    """The core runs a transformer's products of activations, the accelerator the rest."""
    profile = load_profile("stm32n6")
    row = random_row(profile, "vit_tiny", 1)
    assert terms_of(profile, [row], layer_graph)[0].beside_ms > 0
    assert_as_modelled(profile, [row], random_values(profile, 2))


def test_a_calibration_that_is_there_is_not_in_the_terms() -> None:
    profile = load_profile("hailo8")
    rows = shipped_rows("hailo8")
    bare = calibrated(profile, {})
    assert profile.spec.calibration is not None
    first, second = (terms_of(device, rows, layer_graph)[0] for device in (profile, bare))
    assert_array_equal(first.latency_ms({}), second.latency_ms({}))
    stated = profile.spec.calibration.model_dump(exclude_none=True)
    own = {key: figure["value"] for key, figure in stated.items() if key != "precisions"}
    assert (first.latency_ms(own) != first.latency_ms({})).any()
    expected = [modelled(LatencyModel(), profile, row, layer_graph(row.network)) for row in first.rows]
    assert_allclose(first.latency_ms(own), expected, rtol=1e-9)


def test_a_batch_counts_as_one_inference() -> None:
    profile = load_profile("stm32h7a3")
    many = HardwareProfile(profile.spec.model_copy(update={"batch": 8}), profile.table)
    rows = shipped_rows("stm32h7a3")
    assert_as_modelled(many, rows, random_values(profile, 3))
    one, eight = (terms_of(device, rows, layer_graph)[0].latency_ms({}) for device in (profile, many))
    assert_allclose(eight, 8 * one, rtol=1e-9)  # nothing but MACs


@pytest.mark.parametrize("name", ["nvidia_t4", "gap9_ne16", "hailo8"])
def test_rows_that_are_taken_keep_their_figures(name: str) -> None:
    profile = load_profile(name)
    terms, _ = terms_of(profile, shipped_rows(name), layer_graph)
    values = random_values(profile, 6)
    rng = np.random.default_rng(0)
    for kept in (np.ones(len(terms.rows), bool), *(rng.random((5, len(terms.rows))) < 0.5)):
        kept[rng.integers(len(kept))] = True
        part = terms.take(kept)
        alone, _ = terms_of(
            profile, [row for row, is_kept in zip(terms.rows, kept, strict=True) if is_kept], layer_graph
        )
        assert part.rows == alone.rows
        for own in ("latencies_ms", "energies_mj", "starts", "compute_ms", "traffic_ms", "table_ms", "overheads"):
            assert_array_equal(getattr(part, own), getattr(alone, own))
        for own in ("classes", "precisions", "nodes", "beside_ms", "dynamic_mj", "networks", "macs"):
            assert_array_equal(getattr(part, own), getattr(alone, own))
        assert_allclose(part.latency_ms(values), terms.latency_ms(values)[kept], rtol=1e-12)
        assert_allclose(part.energy_mj(values), terms.energy_mj(values)[kept], rtol=1e-12)


def test_a_row_taken_twice_over_is_the_row() -> None:
    terms, _ = terms_of(load_profile("nvidia_t4"), shipped_rows("nvidia_t4"), layer_graph)
    first = np.arange(len(terms.rows)) % 2 == 0
    second = np.arange(first.sum()) == 3
    assert terms.take(first).take(second).rows == (terms.rows[6],)
    assert terms.take(first).take(second).latency_ms({}) == pytest.approx(terms.latency_ms({})[6])


# What a profile does not predict.


def test_rows_that_are_not_predicted_are_reported_with_a_reason() -> None:
    profile = load_profile("stm32h7a3")
    good = shipped_rows("stm32h7a3")[0]
    bad = {
        "W16A16": good.model_copy(update={"precision": "W16A16"}),
        "got 3": good.model_copy(update={"precision": "W8A8 W8A8 W8A8"}),
    }
    terms, failed = terms_of(profile, [bad["W16A16"], good, bad["got 3"]], layer_graph)
    assert terms.rows == (good,)
    assert [one.row for one in failed] == list(bad.values())
    for one, word in zip(failed, bad, strict=True):
        assert one.reason.startswith("expected ")
        assert word in one.reason
    assert "stm32h7a3 supports" in failed[0].reason
    with pytest.raises(InputError, match="expected a reference network, got 'resnet9'; did you mean resnet8"):
        terms_of(profile, [good, good.model_copy(update={"network": "resnet9"})], layer_graph)


def test_no_row_that_is_predicted_is_an_error() -> None:
    rows = [row.model_copy(update={"precision": "W16A16"}) for row in shipped_rows("stm32h7a3")]
    sentence = "expected a row that stm32h7a3 predicts, got none: expected a precision that stm32h7a3 supports"
    with pytest.raises(InputError, match=sentence):
        terms_of(load_profile("stm32h7a3"), rows, layer_graph)


def test_a_graph_is_asked_for_by_its_name() -> None:
    """Rows of networks of one's own: the graph is what the function gives."""
    row = PublishedRow(network="mine.py:model mine.py:example", precision="W8A8", latency_ms=1.0, source="Lab2024")
    profile = load_profile("stm32h7a3")
    asked: list[str] = []

    def graph_of(name: str) -> LayerGraph:
        asked.append(name)
        return layer_graph("resnet8")

    terms, _ = terms_of(profile, [row], graph_of)
    assert asked == ["mine.py:model mine.py:example"]
    same = row.model_copy(update={"network": "resnet8"})
    assert terms.latency_ms({}) == pytest.approx(modelled(LatencyModel(), calibrated(profile, {}), same, graph_of("")))
    assert str(Precision.parse("W8A8")) == terms.precisions[0]
