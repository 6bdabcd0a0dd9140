"""The shipped profiles as a whole: clean, sourced, honest about their errors, and of use."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwdse.cost import cost_table, network_totals
from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.graph import LayerGraph
from hwdse.hardware import HardwareProfile, Kind, check, load_profile, profile_paths
from hwdse.networks import layer_graph, reference_networks
from hwdse.published import read_rows

FOLDER = Path(__file__).parents[2] / "hardware_profiles"
PROFILES = sorted(path.stem for path in FOLDER.glob("*.toml"))
PUBLISHED = sorted(FOLDER.glob("*_published.csv"))
NETWORKS = ("resnet18", "resnet8", "ds_cnn")
KINDS = {"gpu", "npu", "mcu", "cpu", "fpga", "accelerator"}
REASON = re.compile(r"expected .+, got .+; .+")


def load(name: str) -> HardwareProfile:
    return load_profile(FOLDER / f"{name}.toml")


def is_measured_here(name: str) -> bool:
    """Return whether a profile was measured rather than cited: its sources say where and how."""
    return (FOLDER / f"{name}_measurements.csv").is_file()


@pytest.fixture(scope="module")
def bibliography() -> set[str]:
    return set(re.findall(r"^@\w+\{(\w+),", (FOLDER / "references.bib").read_text(encoding="utf-8"), flags=re.M))


def figures(part: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield path and content of every figure in a file."""
    if isinstance(part, dict):
        if "value" in part and "kind" in part:
            yield path, part
        for key, value in part.items():
            yield from figures(value, f"{path}.{key}")
    elif isinstance(part, list):
        for i, value in enumerate(part):
            yield from figures(value, f"{path}[{i}]")


def test_there_are_many_devices_of_every_kind() -> None:
    assert len(PROFILES) >= 24
    assert {load(name).spec.kind for name in PROFILES} == KINDS


def test_all_of_them_are_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HWDSE_PROFILES", raising=False)
    found = profile_paths()
    assert {name: found[name].parent for name in PROFILES} == dict.fromkeys(PROFILES, FOLDER)


def test_titles_are_their_own() -> None:
    assert len({load(name).title for name in PROFILES}) == len(PROFILES)


@pytest.mark.parametrize("name", PROFILES)
def test_it_has_no_fault(name: str) -> None:
    assert check(FOLDER / f"{name}.toml") == ()


@pytest.mark.parametrize("name", [name for name in PROFILES if not is_measured_here(name)])
def test_its_sources_are_in_the_bibliography(name: str, bibliography: set[str]) -> None:
    sources = set(load(name).spec.sources)
    assert sources
    assert sources <= bibliography


@pytest.mark.parametrize("name", PROFILES)
def test_it_says_how_far_off_it_is(name: str) -> None:
    profile = load(name)
    assert profile.spec.accuracy is not None or profile.has_measured_table
    if profile.spec.accuracy is not None:
        assert "90 % interval" in profile.accuracy_note
        assert profile.uncertainty("latency_ms_predicted") == profile.spec.accuracy.latency_factor.value


def test_claims_are_from_as_many_figures_as_there_are() -> None:
    for name in PROFILES:
        accuracy, path = load(name).spec.accuracy, FOLDER / f"{name}_published.csv"
        if accuracy is None or (load(name).has_measured_table and not path.is_file()):
            continue  # measured here, not published
        assert (accuracy.basis == "analogy") == (not path.is_file()), name
        if accuracy.rows is not None and accuracy.networks is not None:
            rows = read_rows(path)
            assert accuracy.rows.value <= len(rows), name
            assert accuracy.networks.value <= len({row.network for row in rows}), name


@pytest.mark.parametrize("name", PROFILES)
def test_an_estimate_has_its_interval(name: str) -> None:
    found = list(figures(tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))))
    assert found
    for path, figure in found:
        if figure["kind"] == Kind.ESTIMATE:
            assert figure["low"] <= figure["value"] <= figure["high"], path


def test_there_are_published_figures() -> None:
    assert len(PUBLISHED) >= 10


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_published_figures_are_of_a_profile_a_reference_network_and_a_source(
    path: Path, bibliography: set[str]
) -> None:
    profile = load(path.stem.removesuffix("_published"))
    rows = read_rows(path)
    for row in rows:
        assert row.source in bibliography
        assert row.network in reference_networks()
        assert set(row.precisions(layer_graph(row.network))) <= set(profile.precisions), row
    latencies = {(row.network, row.precision): row.latency_ms for row in rows}
    assert [latencies[row.network, row.precision] for row in rows] == [row.latency_ms for row in rows]  # none disagree


def latency_ms(graph: LayerGraph, profile: HardwareProfile, precision: Precision) -> float:
    table = cost_table(graph, profile, [precision], metrics=["latency_ms"])
    return float(network_totals(table, np.zeros((1, len(graph.layers)), dtype=np.int64))[0, 0])


@pytest.mark.parametrize("name", PROFILES)
def test_it_predicts_a_network_or_says_why_not(name: str) -> None:
    profile = load(name)
    predicted, reasons = [], []
    for network in NETWORKS:
        for precision in profile.precisions:
            try:
                predicted.append(latency_ms(layer_graph(network), profile, precision))
            except InputError as error:
                reasons.append(str(error))
    assert predicted
    assert all(isfinite(latency) and latency > 0 for latency in predicted)
    assert all(REASON.fullmatch(reason) for reason in reasons), reasons
