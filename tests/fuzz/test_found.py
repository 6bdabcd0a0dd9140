"""What fuzzing found once: one file for each sort of fault, refused in one sentence ever since."""

from __future__ import annotations

import csv
import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from hwdse.errors import InputError, RunFolderError
from hwdse.formats import Precision
from hwdse.hardware import check, profile_paths, recorded_profile
from hwdse.quantize.fitted import Fitted
from hwdse.study.measure import parse_bits
from hwdse.study.tables import load_sensitivity


@pytest.mark.parametrize("place", ["x" * 5000, "a\0b", "", "/dev/null"])
def test_a_profile_whose_path_is_none_is_looked_for_by_name(place):
    found = recorded_profile({"profiles": {"mpic": place}}, "mpic")
    assert found is not None
    assert found.name == "mpic"


def test_a_configuration_has_a_precision_for_each_layer():
    with pytest.raises(InputError, match="expected the precision of 2 layers, got 1; write one for each"):
        parse_bits({"a": 0, "b": 1}, "W8A8")
    assert parse_bits({"a": 0, "b": 1}, "W8A8 W4A8").bits == "W8A8 W4A8"


@pytest.mark.parametrize("samples", ["9" * 400, "inf", "nan", ""])
def test_a_number_of_samples_is_a_number(samples, tmp_path):
    path = tmp_path / "sensitivity.csv"
    path.write_text(f"scheme,group,candidate,kl,samples\ns,g,W8A8,0.5,{samples}\n")
    with pytest.raises(RunFolderError, match=r"expected (the sensitivity of every group|a CSV table)"):
        load_sensitivity(path, "s", groups=("g",), candidates=(Precision.parse("W8A8"),), methods=("kl",))


@pytest.mark.parametrize("kind", ["header of an array", "packed bytes"])
def test_an_archive_that_is_damaged_inside(kind, tmp_path: Path):
    array = io.BytesIO()
    np.save(array, np.array('{"about": {}}'))
    content = array.getvalue()
    if kind == "header of an array":
        content = content.replace(b"{'descr'", b"{('''scr")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.npy", content)
    made = packed.getvalue()
    if kind == "packed bytes":
        made = made[:45] + b"\xff" * 12 + made[57:]
    (tmp_path / "weights.npz").write_bytes(made)
    with pytest.raises(RunFolderError, match=r"expected fitted weights in .*, got a damaged file"):
        Fitted.load(tmp_path / "weights.npz", {})


@pytest.mark.parametrize("name", ["9" * 5000 + ".csv", "../mpic.csv", "a\\u0000.csv"])
def test_a_table_lies_beside_its_profile(name, tmp_path):
    folder = tmp_path / "profiles"
    folder.mkdir()
    (tmp_path / "mpic.csv").write_text("secret")
    text = profile_paths()["mpic"].read_text(encoding="utf-8")
    (folder / "mpic.toml").write_text(text.replace("batch = 1", f'batch = 1\ntable = "{name}"', 1), encoding="utf-8")
    faults = check(folder / "mpic.toml")
    assert any(fault.startswith("table: expected a file beside the profile") for fault in faults)
    assert not any("secret" in fault or "columns" in fault for fault in faults)


def test_a_cell_of_separators_alone_is_one_fault(tmp_path):
    for suffix in (".toml", ".csv"):
        shutil.copy(profile_paths()["nvidia_t4"].with_suffix(suffix), tmp_path)
    table = tmp_path / "nvidia_t4.csv"
    rows = list(csv.reader(table.read_text(encoding="utf-8").splitlines()))
    rows[1][rows[0].index("output_size")] = "x" * 5000
    table.write_text("\n".join(",".join(row) for row in rows), encoding="utf-8")
    faults = check(tmp_path / "nvidia_t4.toml")
    assert [fault for fault in faults if fault.startswith("nvidia_t4.csv:2: ")] == [
        f"nvidia_t4.csv:2: output_size: expected a list, got '{'x' * 56}..."
    ]
