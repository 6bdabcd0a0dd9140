import copy
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hwdse.errors import InputError, ProfileError
from hwdse.formats import FAMILIES, Precision
from hwdse.graph import Layer
from hwdse.hardware import check, list_profiles, load_profile, parse_profile, profile_paths, search_path
from hwdse.hardware.lut import COLUMNS

FORMATS = "; ".join(family.spelling for family in FAMILIES.values())

MINIMAL = """\
schema_version = 1
name = "{name}"
title = "Tiny"
kind = "mcu"
software_stack = "none"
note = "none"
batch = 1
{table}
[sources]
Lab = "measured"
[scheme]
weights = "symmetric"
activations = "symmetric"
weight_granularity = "per_channel"
full_range = false
unsigned_activations = true
[[rates]]
weights = "int8"
activations = "int8"
gmac_per_s = {{ value = {rate}, kind = "measured", source = "Lab" }}
"""
ROW = "conv,16,32,3x3,2x2,1,7x7,int8,int8,1,0.25,kernel,measured,Lab"


def write(folder: Path, name: str, *, rate: float = 1.0, table: str = "") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(MINIMAL.format(name=name, rate=rate, table=table))
    return path


def test_the_four_devices_are_there_and_share_two_schemes() -> None:
    assert {"gap9_ne16", "mpic", "nvidia_t4", "stm32h7a3"} <= set(list_profiles())
    scheme = {name: load_profile(name).scheme for name in ("gap9_ne16", "mpic", "nvidia_t4", "stm32h7a3")}
    assert scheme["mpic"] == scheme["nvidia_t4"] != scheme["gap9_ne16"] == scheme["stm32h7a3"]


def test_profiles_of_the_variable_come_before_packaged_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, rate in ((first, 1.0), (second, 2.0)):
        folder.mkdir()
        write(folder, "mpic", rate=rate)
    write(second, "own")
    monkeypatch.setenv("HWDSE_PROFILES", os.pathsep.join([str(first), str(second)]))
    assert search_path()[:2] == (first, second)
    assert profile_paths()["mpic"] == first / "mpic.toml"
    assert load_profile("own").title == "Tiny"
    rate = load_profile("mpic").spec.rates[0].gmac_per_s
    assert rate is not None
    assert rate.value == 1.0


def test_a_file_is_loaded_by_its_path(tmp_path: Path) -> None:
    path = write(tmp_path, "board")
    assert repr(load_profile(path)) == "<HardwareProfile board: Tiny; 1 precisions>"
    assert load_profile(path) == load_profile(str(path))
    assert check(path) == ()


def test_an_unknown_name_names_the_closest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HWDSE_PROFILES", raising=False)
    with pytest.raises(
        InputError, match=r"expected the name of a hardware profile, got 'mpci', which is unknown; did you mean mpic\?"
    ):
        load_profile("mpci")
    with pytest.raises(
        InputError, match=r"got 'zzzz', which is unknown; known: amd_epyc_zen4, .*mpic, .*nvidia_t4, .*stm32h7a3"
    ):
        load_profile("zzzz")


def test_files_that_are_no_profiles_give_one_sentence(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    assert check(missing) == ("expected a readable file, got: No such file or directory",)
    broken = tmp_path / "broken.toml"
    broken.write_text("schema_version = 1\nname = \n")
    (fault,) = check(broken)
    assert fault.startswith("expected TOML, got: ")
    assert "line 2" in fault
    broken.write_bytes(b'name = "\xff"')
    assert check(broken) == ("expected text in UTF-8, got byte 0xff at position 8",)
    broken.write_text(MINIMAL.format(name="broken", rate=1.0, table="").replace("version = 1", "version = 2"))
    assert check(broken) == ("schema_version: expected 1, got 2; see the README beside the profiles",)
    with pytest.raises(ProfileError, match=r"broken.toml has 1 fault:\n  schema_version: expected 1, got 2"):
        load_profile(broken)


def faulty(raw: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(ProfileError, match="fault") as caught:
        parse_profile(raw)
    return caught.value.faults


def change(raw: dict[str, Any], path: str, value: Any) -> None:
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    part: Any = raw
    for step in steps:
        part = part[step]
    if value is None:
        del part[last]
    else:
        part[last] = value


FAULTS = [
    ("rates.2.gmac_per_s.value", -1, "rates[2].gmac_per_s.value: expected a positive number, got -1"),
    ("rates.0.macs_per_cycle.value", 0, "rates[0].macs_per_cycle.value: expected a positive number, got 0"),
    ("rates.0.macs_per_cycle.value", "2", "rates[0].macs_per_cycle.value: expected a number, got '2'"),
    ("rates.0.macs_per_cycle.value", True, "rates[0].macs_per_cycle.value: expected a number, got True"),
    ("clock_mhz.value", float("nan"), "clock_mhz.value: expected a finite number, got nan"),
    ("clock_mhz.value", float("inf"), "clock_mhz.value: expected a finite number, got inf"),
    ("clock_mhz.kind", "guess", "clock_mhz.kind: expected 'measured', 'derived', 'datasheet', 'modelled' or "
     "'estimate', got 'guess'"),
    ("clock_mhz.kind", "estimate", "clock_mhz: expected an estimate to give its interval, got no low or no high; "
     "add both"),
    ("clock_mhz.low", 101, "clock_mhz: expected low <= value <= high, got 101, 100, 100"),
    ("clock_mhz.high", 99, "clock_mhz: expected low <= value <= high, got 100, 100, 99"),
    ("clock_mhz.source", "Lab2025", "clock_mhz.source: expected a key of [sources], got 'Lab2025'; did you mean "
     "Lab2024?"),
    ("clock_mhz", None, "rates[0].macs_per_cycle: expected clock_mhz beside it, got none; add it or use gmac_per_s"),
    ("clock_mhz", 100, "clock_mhz: expected a table, got 100"),
    ("clock_mhz.unit", "MHz", "clock_mhz.unit: expected no such key; known: value, kind, source, low, high, note"),
    ("title", None, "title: expected a value, got nothing; add it"),
    ("titel", "x", "titel: expected no such key; did you mean title?"),
    ("kind", "toaster", "kind: expected 'gpu', 'npu', 'mcu', 'cpu', 'fpga' or 'accelerator', got 'toaster'"),
    ("name", "My board", "name: expected text that matches ^[a-z0-9][a-z0-9_.-]*$, got 'My board'"),
    ("batch", 0, "batch: expected a number of at least 1, got 0"),
    ("batch", 1.5, "batch: expected a whole number, got 1.5"),
    ("note", "", "note: expected text, got ''"),
    ("sources.Spare2024", "x", "sources.Spare2024: expected a figure that cites it, got none; remove it"),
    ("scheme.full_range", 1, "scheme.full_range: expected true or false, got 1"),
    ("scheme.weights", "odd", "scheme.weights: expected 'symmetric' or 'affine', got 'odd'"),
    ("rates", [], "rates: expected at least 1 entry, got []"),
    ("rates.0.weights", "int17", f"rates[0].weights: expected a number format ({FORMATS}), got 'int17'"),
    ("rates.0.activations", "uint8", "rates[0].activations: expected the signed name (the scheme decides the sign), "
     "got 'uint8'; write 'int8'"),
    ("rates.1.weights", "int8", "rates[1]: expected one rate per pair and class, got int8 x int8 for every class as in "
     "rates[0]"),
    ("rates.3.op_classes", ["conv", "dense"], "rates[3].op_classes[1]: expected 'conv', 'pointwise', 'depthwise', "
     "'grouped', 'linear' or 'matmul', got 'dense'"),
    ("rates.2.op_classes", ["grouped"], "rates[2].op_classes: expected an [efficiency] of grouped, got none; add it"),
    ("rates.0.gmac_per_s", {"value": 1, "kind": "measured", "source": "Lab2024"},
     "rates[0]: expected one of macs_per_cycle, gmac_per_s and cycles, got macs_per_cycle and gmac_per_s"),
    ("rates.2.gmac_per_s", None, "rates[2]: expected one of macs_per_cycle, gmac_per_s and cycles, got none"),
    ("rates.1.container", "int4", "rates[1]: expected a container wider than W4A8, got 'int4'"),
    ("rates.0.container", "int8", "rates[0]: expected a container wider than W8A8, got 'int8'"),
    ("rates.1.pj_per_mac", {"value": 1, "kind": "measured", "source": "Lab2024"},
     "rates[0].pj_per_mac: expected an energy for all rates or none, got none here"),
    ("efficiency.conv.value", 1.01, "efficiency.conv.value: expected a number of at most 1, got 1.01"),
    ("efficiency.conv.value", 0.0, "efficiency.conv.value: expected a positive number, got 0.0"),
    ("tile.input_channels.value", 2.5, "tile.input_channels.value: expected a whole number, got 2.5"),
    ("memories.0.capacity_kib.value", 0, "memories[0].capacity_kib.value: expected a positive number, got 0"),
    ("memories.0.reserved_kib.value", 64, "memories[0]: expected reserved_kib below capacity_kib (64), got 64"),
    ("memories.0.holds", ["ice"], "memories[0].holds[0]: expected 'weights' or 'activations', got 'ice'"),
    ("memories.0.holds", [], "memories[0]: expected holds or moves to name what moves here, got [] with "
     "bandwidth_gb_per_s or pj_per_byte"),
    ("memories.1.name", "SRAM", "memories[1].name: expected unique names, got 'SRAM' as in memories[0]"),
    ("memories.0.pj_per_byte", {"value": 1, "kind": "measured", "source": "Lab2024"},
     "power.active_mw: expected the whole power alone, got pj_per_mac or pj_per_byte too; use static_mw"),
    ("overhead.us_per_layer.value", -1, "overhead.us_per_layer.value: expected a number of at least 0, got -1"),
    ("power.static_mw", {"value": 1, "kind": "measured", "source": "Lab2024"},
     "power: expected either active_mw or static_mw, got both"),
    ("table", "../elsewhere.csv", "table: expected text that matches ^[^/\\\\]+\\.csv$, got '../elsewhere.csv'"),
    ("table", "missing.csv", "table: expected a file beside the profile, got 'missing.csv', which does not exist"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "sentence"), FAULTS, ids=[f"{path}={value}" for path, value, _ in FAULTS])
def test_every_fault_has_its_sentence(raw: dict[str, Any], path: str, value: Any, sentence: str) -> None:
    change(raw, path, value)
    assert sentence in faulty(raw)


def test_the_base_of_these_tests_has_no_fault(raw: dict[str, Any]) -> None:
    assert parse_profile(raw).name == "board"


def test_all_faults_of_a_file_come_at_once(raw: dict[str, Any]) -> None:
    chosen = [fault for fault in FAULTS if fault[0] in {
        "rates.2.gmac_per_s.value", "titel", "sources.Spare2024", "efficiency.conv.value", "memories.1.name",
        "clock_mhz.source", "overhead.us_per_layer.value",
    } and fault[1] != 0.0]  # fmt: skip
    for path, value, _ in chosen:
        change(raw, path, value)
    assert len(chosen) == 7
    assert sorted(faulty(raw)) == sorted(sentence for _, _, sentence in chosen)


VERSION = "schema_version: expected 1, got {}; see the README beside the profiles"


def test_a_list_whose_entries_have_faults_is_not_too_short(raw: dict[str, Any]) -> None:
    raw["rates"] = [raw["rates"][2]]
    change(raw, "rates.0.gmac_per_s.kind", "guess")
    assert [fault.partition(":")[0] for fault in faulty(raw)] == ["rates[0].gmac_per_s.kind"]


@pytest.mark.parametrize(("version", "shown"), [(2, "2"), ("1", "'1'"), (True, "True"), (None, "nothing")])
def test_another_version_hides_no_other_fault(raw: dict[str, Any], version: Any, shown: str) -> None:
    change(raw, "schema_version", version)
    change(raw, "batch", 0)
    assert faulty(raw) == (VERSION.format(shown), "batch: expected a number of at least 1, got 0")


def test_a_misspelt_key_is_one_fault_and_hides_none_inside(raw: dict[str, Any]) -> None:
    for right, wrong in (("clock_mhz", "clok_mhz"), ("title", "titel"), ("sources", "source")):
        raw[wrong] = raw.pop(right)
    raw["rates"][2]["gmac_per_sec"] = raw["rates"][2].pop("gmac_per_s") | {"value": -1}
    assert sorted(faulty(raw)) == [
        "clok_mhz: expected no such key; did you mean clock_mhz?",
        "rates[2].gmac_per_s.value: expected a positive number, got -1",
        "rates[2].gmac_per_sec: expected no such key; did you mean gmac_per_s?",
        "source: expected no such key; did you mean sources?",
        "titel: expected no such key; did you mean title?",
    ]


@pytest.mark.parametrize("sources", [None, 5, {}], ids=["absent", "no table", "empty"])
def test_without_sources_citations_are_no_faults_of_their_own(raw: dict[str, Any], sources: Any) -> None:
    change(raw, "sources", sources)
    assert [fault.partition(":")[0] for fault in faulty(raw)] == ["sources"]


def test_a_misspelt_citation_does_not_leave_its_source_unused(tmp_path: Path) -> None:
    path = write(tmp_path, "board")
    path.write_text(path.read_text().replace('source = "Lab"', 'source = "Labb"'))
    assert check(path) == ("rates[0].gmac_per_s.source: expected a key of [sources], got 'Labb'; did you mean Lab?",)


def test_the_clock_is_missed_once(raw: dict[str, Any]) -> None:
    assert sum("macs_per_cycle" in rate for rate in raw["rates"]) > 1
    change(raw, "clock_mhz", None)
    assert faulty(raw) == ("rates[0].macs_per_cycle: expected clock_mhz beside it, got none; add it or use gmac_per_s",)


def test_an_efficiency_is_missed_once(raw: dict[str, Any]) -> None:
    for i, rate in enumerate(raw["rates"][1:3], start=1):
        rate["op_classes"] = ["grouped"]
        rate["weights"] = f"int{i + 1}"
    grouped = [fault for fault in faulty(raw) if "grouped" in fault]
    assert grouped == ["rates[1].op_classes: expected an [efficiency] of grouped, got none; add it"]


def test_formats_of_a_faulty_rate_are_not_missed_elsewhere(raw: dict[str, Any]) -> None:
    figure = {"value": 1, "kind": "measured", "source": "Lab2024"}
    raw["rates"] = [raw["rates"][0] | {"activations": "int88"}]
    del raw["efficiency"]
    raw["conversions"] = [{"from": "int8", "to": "fp32", "us": figure}]
    raw["nodes"] = [{"operator": "add", "activations": "int8", "us": figure}]
    raw.pop("switch", None)
    assert [fault.partition(":")[0] for fault in faulty(raw)] == ["rates[0].activations"]


def test_faults_of_a_table_leave_no_source_unused(tmp_path: Path) -> None:
    path = with_table(tmp_path, ROW.replace(",Lab", ",Paper").replace("0.25", "fast"))
    path.write_text(path.read_text().replace("[sources]\n", '[sources]\nPaper = "printed"\n'))
    assert check(path) == ("board.csv:2: latency_ms: expected a number, got 'fast'",)


def test_the_name_is_the_file_name(tmp_path: Path) -> None:
    path = write(tmp_path, "board").rename(tmp_path / "other.toml")
    assert check(path) == ("name: expected the file's name (other), got 'board'; rename one of them",)


def with_table(folder: Path, *rows: str, header: str = ",".join(COLUMNS)) -> Path:
    path = write(folder, "board", table='table = "board.csv"')
    (folder / "board.csv").write_text("\n".join([header, *rows]) + "\n")
    return path


def test_a_latency_table_is_found_by_exact_shape(tmp_path: Path) -> None:
    profile = load_profile(with_table(tmp_path, ROW, "linear,64,10,,,1,,int8,int8,1,0.125,layer,measured,Lab"))
    conv = Layer(
        "c", "conv", "x", "y", (16, 14, 14), (32, 7, 7), 225792, "c.weight", (32, 16, 3, 3), 32, (3, 3), (2, 2)
    )
    linear = Layer("l", "linear", "y", "z", (64,), (10,), 640, "l.weight", (10, 64))
    w8a8, w4a8 = Precision.parse("W8A8"), Precision.parse("W4A8")
    found = profile.table.lookup(conv, w8a8)
    assert found is not None
    assert (found.latency_ms, found.scope, found.source) == (0.25, "kernel", "Lab")
    assert profile.table.lookup(linear, w8a8) is not None
    assert profile.table.lookup(conv, w4a8) is None
    assert profile.has_measured_table
    assert profile.accuracy_note.startswith("2 layer shapes of board are from a measured table (batch of 1)")


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (ROW.replace("0.25", "-1"), "board.csv:2: latency_ms: expected a positive number, got -1"),
        (ROW.replace("0.25", "fast"), "board.csv:2: latency_ms: expected a number, got 'fast'"),
        (ROW.replace("0.25", "nan"), "board.csv:2: latency_ms: expected a finite number, got nan"),
        (ROW.replace("3x3", "3xx"), "board.csv:2: kernel[1]: expected a whole number, got ''"),
        (ROW.replace("kernel,", "part,"), "board.csv:2: scope: expected 'kernel' or 'layer', got 'part'"),
        (ROW.replace(",1,0.25", ",8,0.25"), "board.csv:2: batch: expected the profile's batch (1), got 8"),
        (ROW.replace("Lab", "Labor"), "board.csv:2: source: expected a key of [sources] (Lab), got 'Labor'"),
        (f"{ROW}\n{ROW}", "board.csv:3: conv: expected one row per shape and precision, got W8A8 of this shape again"),
        ("conv,16", "board.csv:2: groups: expected a whole number, got None"),
    ],
)
def test_faults_of_a_latency_table_name_the_line(tmp_path: Path, row: str, fault: str) -> None:
    assert fault in check(with_table(tmp_path, row))


def test_a_table_of_other_columns_is_a_fault(tmp_path: Path) -> None:
    assert check(with_table(tmp_path, header="op,latency_ms")) == (
        f"board.csv: expected the columns {','.join(COLUMNS)}",
    )


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.floats(), st.text(max_size=5), st.just([]), st.just({}),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip


def places(part: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    steps = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    return [path] * bool(path) + [place for key, value in steps for place in places(value, (*path, key))]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_profile_raises_nothing_but_a_profile_error(raw: dict[str, Any], data: st.DataObject) -> None:
    mutated = copy.deepcopy(raw)
    for _ in range(data.draw(st.integers(1, 4))):
        *steps, last = data.draw(st.sampled_from(places(mutated)))
        part: Any = mutated
        for step in steps:
            part = part[step]
        action = data.draw(st.sampled_from(["replace", "remove", "insert", "repeat"]))
        if action == "remove" and len(mutated) > 1:
            del part[last]
        elif action == "insert" and isinstance(part, dict):
            part[data.draw(st.text(max_size=8))] = data.draw(JUNK)
        elif action == "repeat" and isinstance(part, list):
            part.append(copy.deepcopy(part[last]))
        else:
            part[last] = data.draw(JUNK)
    try:
        name, faults = parse_profile(mutated).name, ()
    except ProfileError as error:
        name, faults = None, error.faults
    assert name == mutated.get("name") if not faults else name is None
    assert all(": expected" in fault or fault.startswith("expected") for fault in faults)
