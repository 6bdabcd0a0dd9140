"""What a run used is cited, what it did not use is not, and the output is BibTeX."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from hwdse.errors import InputError
from hwdse.hardware import load, load_profile
from hwdse.plugins import load_plugin
from hwdse.report.citations import CITED, bibliography, cite, entries_of
from tests.installed import install

ROOT = Path(__file__).resolve().parents[2]
BIB = ROOT / "hardware_profiles" / "references.bib"
ALWAYS = {"Agresti2005", "Barlow1972", "Chan1983", "Emmerich2006", "NemhauserUllmann1969", "Pebay2008",
          "Rasmussen2006", "Williams2009", "Wilson1927", "Jacob2018"}  # fmt: skip


def parse_bibtex(text: str) -> dict[str, dict[str, str]]:
    """Return the fields of every entry; what is no BibTeX fails."""
    entries: dict[str, dict[str, str]] = {}
    text = re.sub(r"^%.*$", "", text, flags=re.M)
    while text.strip():
        head = re.match(r"\s*@[a-z]+\{([A-Za-z0-9_.:-]+),\s*", text)
        assert head, f"expected an entry, got {text[:40]!r}"
        assert head[1] not in entries, f"{head[1]} stands twice"
        text, fields = text[head.end() :], {}
        while not text.startswith("}"):
            name = re.match(r"([a-z]+)\s*=\s*\{", text)
            assert name, f"expected a field of {head[1]}, got {text[:40]!r}"
            depth, end = 1, name.end()
            while depth:
                depth += {"{": 1, "}": -1}.get(text[end], 0) * (text[end - 1] != "\\")
                end += 1
            assert name[1] not in fields
            fields[name[1]] = text[name.end() : end - 1]
            separator = re.match(r"\s*,?\s*", text[end:])
            assert separator
            text = text[end + separator.end() :]
        text = text[1:]
        assert fields.get("title"), f"{head[1]} has no title"
        entries[head[1]] = fields
    return entries


def keys_of(run: Path) -> set[str]:
    return {entry.key for entry in cite(run).entries}


def methods_of(run: Path) -> set[str]:
    """Return the keys that are not those of a device alone."""
    return {entry.key for entry in cite(run).entries if not all(use.startswith("device ") for use in entry.uses)}


def with_formats(run: Path, device: str, precision: str) -> Path:
    """Let the first measured configuration of a device have another first layer."""
    path = run / device / "measured.csv"
    table = pd.read_csv(path, dtype={"config_id": str}, keep_default_na=False)
    table.loc[0, "bits"] = " ".join([precision, *table.loc[0, "bits"].split()[1:]])
    table.to_csv(path, index=False)
    return run


def test_every_feature_names_entries_of_the_bibliography() -> None:
    known = bibliography()
    assert all(keys.split() for keys in CITED.values())
    assert {key for keys in CITED.values() for key in keys.split()} <= set(known)
    assert all(keys.split() == sorted(set(keys.split())) for keys in CITED.values())


def test_the_bibliography_is_what_a_parser_of_bibtex_reads() -> None:
    text = BIB.read_text(encoding="utf-8")
    assert dict(entries_of(text)).keys() == parse_bibtex(text).keys()


def test_the_output_is_sorted_bibtex_with_each_entry_once(write_run) -> None:
    found = cite(write_run())
    keys = [entry.key for entry in found.entries]
    assert keys == sorted(set(keys))
    parsed, whole = parse_bibtex(found.bibtex), parse_bibtex(BIB.read_text(encoding="utf-8"))
    assert list(parsed) == keys
    assert all(parsed[key] == whole[key] for key in keys)
    assert found.missing == ()


def test_a_plain_run_cites_what_every_run_uses_and_no_more(write_run) -> None:
    assert methods_of(write_run()) == ALWAYS


@pytest.mark.parametrize(
    ("precision", "keys"),
    [
        ("Wcodebook4A8", {"Lloyd1982", "Max1960", "Panter1951"}),
        ("Wquantile4A8", {"Jia2025"}),
        ("Wnf4A8", {"Dettmers2023"}),
        ("Wapot4A8", {"Li2020"}),
        ("Wpot4A8", {"Li2020"}),
        ("Wposit8_1A8", {"Gustafson2017"}),
        ("WternaryA8", {"Li2016"}),
        ("WbinaryA8", {"Rastegari2016"}),
        ("Wfp8_e4m3Afp8_e4m3", {"OCPFP8", "OCPMX2023"}),
        ("fp32", set()),
    ],
)
def test_a_format_is_cited_where_it_was_measured(precision, keys, write_run) -> None:
    run = write_run(devices=("mpic",))
    before = keys_of(run)
    assert not keys & before
    assert keys_of(with_formats(run, "mpic", precision)) == before | keys


RECIPE = {"weight_ranges": "minmax", "activation_ranges": "mse", "weight_rounding": "nearest"}


@pytest.mark.parametrize(
    ("quantize", "keys"),
    [
        ({}, set()),
        ({"weight_rounding": "gram", "activation_ranges": "output"}, {"Frantar2023"}),
        ({"weight_rounding": "adaround"}, {"Nagel2020"}),
        ({"weight_rounding": "adaround", "adaround": {"by_block": True}}, {"Nagel2020", "Li2021"}),
        ({"weight_rounding": "nearest", "adaround": {"by_block": True}}, set()),
        ({"equalization": True, "bias_correction": "local"}, {"Nagel2019"}),
        ({"weight_ranges": "entropy", "activation_ranges": "aciq_gauss"}, {"Migacz2017", "Banner2019"}),
        ({"weight_ranges": "l2.4"}, {"Li2021"}),
    ],
)
def test_a_recipe_is_cited_by_its_methods(quantize, keys, write_run) -> None:
    assert methods_of(write_run(extra={"quantize": RECIPE | quantize})) == ALWAYS | keys


@pytest.mark.parametrize(
    ("loss", "keys"),
    [
        ("kl", {"Kullback1951", "Madow1949"}),
        ("jsd", {"Lin1991", "Madow1949"}),
        ("fisher", {"Martens2020", "Madow1949"}),
        ("difficulty", {"Widrow2008"}),
    ],
)
def test_a_sensitivity_is_cited_by_its_source(loss, keys, write_run) -> None:
    assert methods_of(write_run(extra={"identity": {"loss": loss}})) == ALWAYS | keys


@pytest.mark.parametrize(
    ("quality", "keys"),
    [
        ("agreement", {"Agresti2005", "Wilson1927"}),
        ("negative_kl", {"Student1908"}),
        ("margin", {"Agresti2005", "Wilson1927", "Student1908"}),  # a function of the user's own: either
    ],
)
def test_means_have_other_intervals_than_shares(quality, keys, write_run) -> None:
    intervals = {"Agresti2005", "Wilson1927", "Student1908"}
    assert methods_of(write_run(quality=quality, devices=("mpic",))) & intervals == keys


def test_nsga2_is_cited_where_the_space_was_too_large_to_list(write_run) -> None:
    run = write_run(devices=("mpic",))
    for groups, expected in ((8, False), (9, True)):  # 4^8 = 65,536 and 4^9 = 262,144 configurations
        rows = [(f"g{g}", c, "closed form") for g in range(groups) for c in "abcd"]
        table = pd.DataFrame(rows, columns=["group", "candidate", "latency_origin"])
        table.to_csv(run / "mpic" / "costs.csv", index=False)
        assert ("Deb2002" in keys_of(run)) == expected


def test_tuning_and_a_fleet_are_cited(write_run) -> None:
    run = write_run()
    (run / "fleet.csv").write_text("config_id\n")
    folder = run / "mpic" / "tuned" / "0123"
    folder.mkdir(parents=True)
    (folder / "tuned.json").write_text(json.dumps({"by": "finetune"}))
    assert methods_of(run) == ALWAYS | {"Kouvelis1997", "Esser2020", "Hinton2015", "Kingma2015"}


def test_devices_are_cited_by_the_sources_of_their_profiles(write_run) -> None:
    uses = {entry.key: entry.uses for entry in cite(write_run(devices=("nvidia_t4", "mpic"))).entries}
    for name in ("nvidia_t4", "mpic"):
        cited = {key for key, found in uses.items() if f"device {name}" in found}
        assert cited == set(load_profile(name).spec.sources)


def test_a_source_in_words_becomes_an_entry_of_its_own(write_run) -> None:
    sources = load_profile("amd_epyc_zen4").spec.sources
    found = parse_bibtex(cite(write_run(devices=("amd_epyc_zen4",))).bibtex)
    title = found["amd_epyc_zen4_system"]["title"]
    assert title.strip("{}").replace("\\", "") == sources["system"]


def test_a_device_without_a_profile_is_missing(write_run) -> None:
    found = cite(write_run(devices=("mpic", "my_chip")))
    assert found.missing == ("my_chip",)
    assert "Ottavi2020" in {entry.key for entry in found.entries}


def test_the_profile_that_a_run_was_explored_with_is_found(write_run, tmp_path) -> None:
    text = (ROOT / "hardware_profiles" / "mpic.toml").read_text(encoding="utf-8")
    (tmp_path / "my_chip.toml").write_text(text.replace('name = "mpic"', 'name = "my_chip"'), encoding="utf-8")
    run = write_run(devices=("my_chip",), extra={"profiles": {"my_chip": str(tmp_path / "my_chip.toml")}})
    found = cite(run)
    assert found.missing == ()
    assert "device my_chip" in {use for entry in found.entries for use in entry.uses}


def test_a_package_brings_its_own_sources(write_run, tmp_path, monkeypatch) -> None:
    (tmp_path / "half_sources.py").write_text(
        'REFERENCES = {"ranges by half*": "@misc{Half2020,\\n  title = {Half of a {Range}},\\n}"}\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    install(tmp_path, "half-sources", {"hwdse.references": {"half": "half_sources:REFERENCES"}})
    try:
        run = write_run(extra={"quantize": RECIPE | {"weight_ranges": "half_range"}})
        found = cite(run)
        assert parse_bibtex(found.bibtex)["Half2020"] == {"title": "Half of a {Range}"}
        assert {e.key: e.uses for e in found.entries}["Half2020"] == ("ranges by half_range",)
        assert "Half2020" not in keys_of(write_run("other", extra={"quantize": RECIPE}))
    finally:
        load_plugin.cache_clear()


def test_the_bibliography_of_an_installed_package_is_inside_it(tmp_path, monkeypatch) -> None:
    (tmp_path / "hwdse" / "hardware_profiles").mkdir(parents=True)
    (tmp_path / "hwdse" / "hardware_profiles" / "references.bib").write_text("@misc{Only1, title = {One}}")
    monkeypatch.setattr(load, "__file__", str(tmp_path / "hwdse" / "hardware" / "load.py"))
    assert bibliography() == {"Only1": "@misc{Only1, title = {One}}"}
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'hardware_profiles = "hwdse/hardware_profiles"' in text.partition("wheel.force-include]")[2]


def test_what_is_missing_in_the_bibliography_is_said(write_run, monkeypatch) -> None:
    run = write_run()
    monkeypatch.setattr("hwdse.report.citations.bibliography", dict)
    with pytest.raises(InputError, match=r"expected an entry of references\.bib for Agresti2005, .*, got none; add it"):
        cite(run)


def test_an_entry_that_does_not_end_is_said() -> None:
    with pytest.raises(InputError, match=r"expected a closing brace of the entry A1, got none"):
        list(entries_of("@misc{A1, title = {B}"))
