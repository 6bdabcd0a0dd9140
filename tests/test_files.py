import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwdse.errors import RunFolderError
from hwdse.files import (
    inside,
    is_left_over,
    parse_json,
    parse_toml,
    read_cells,
    read_csv,
    read_json,
    write_bytes,
    write_csv,
    write_json,
    write_text,
)


def test_missing_folders_are_made(tmp_path):
    path = write_text(tmp_path / "a" / "b" / "c.txt", "grün")
    assert path.read_bytes() == "grün".encode()
    assert os.listdir(path.parent) == ["c.txt"]


@pytest.mark.parametrize("step", ["write_bytes", "replace"])
def test_a_write_that_fails_leaves_the_old_file_whole(step, tmp_path, monkeypatch):
    path = write_text(tmp_path / "a.txt", "old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, step, fail)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(path, b"new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_what_json_cannot_say_is_not_written(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert read_json(tmp_path / "a.json") == {"x": 1}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{", "expected JSON in .*a.json"),
        (b"\xff", "expected JSON in .*a.json"),
        (b"[]", "expected an object in .*got list"),
    ],
)
def test_damaged_json_is_named(content, sentence, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(RunFolderError, match=sentence):
        read_json(tmp_path / "a.json")
    with pytest.raises(RunFolderError, match=r"expected a run folder with none\.json"):
        read_json(tmp_path / "none.json")


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_numbers_come_back_bit_for_bit(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("t") / "t.csv"
    write_csv(path, pd.DataFrame({"bits": ["NA"] * len(values), "x": values}))
    table = read_csv(path, text=("bits",))
    assert table["x"].to_numpy().tobytes() == np.array(values).tobytes()
    assert table["bits"].tolist() == ["NA"] * len(values)
    path.unlink()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"x,y\n1,2,3\n4,5,6,7\n", b"x\nsome\n", b"x\n\xff\n"])
def test_damaged_tables_are_named(content, tmp_path):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(RunFolderError, match=r"expected a CSV table in .*t\.csv, got .*; restore the file"):
        read_csv(tmp_path / "t.csv", text=())
    with pytest.raises(RunFolderError, match=r"expected a table .*none\.csv, got none"):
        read_csv(tmp_path / "none.csv", text=())


def test_left_over_files_are_told_by_their_name(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Path, "replace", lambda path, _: seen.append(path))
    write_text(tmp_path / "a.csv", "x")
    assert is_left_over(seen[0])
    assert not is_left_over(tmp_path / ".bashrc")
    assert not is_left_over(tmp_path / "notes.tmp")


def test_json_ends_with_a_line_break(tmp_path):
    text = write_json(tmp_path / "a.json", {"ü": [1, 2.5]}).read_text()
    assert text.endswith("}\n")
    assert json.loads(text) == {"ü": [1, 2.5]}


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "/etc", "a\\b", "C:x", "a\0", "a\nb", "ä" * 101, "\ud800"])
def test_a_name_that_is_no_plain_name_is_refused(name, tmp_path):
    with pytest.raises(RunFolderError, match="expected a plain name of a file or folder in"):
        inside(tmp_path, "device", name)


def test_plain_names_make_a_path_and_links_do_not_lead_out(tmp_path):
    assert inside(tmp_path / "run", "ä b.c-1", "x" * 200) == tmp_path / "run" / "ä b.c-1" / ("x" * 200)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "within").symlink_to(tmp_path / "run")
    (tmp_path / "run" / "out").symlink_to(tmp_path)
    assert inside(tmp_path / "run", "within", "a").name == "a"
    with pytest.raises(RunFolderError, match="got a link that leads out of it"):
        inside(tmp_path / "run", "out", "a")


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "[-Infinity]",
        "1e999",
        "9" * 30,
        str(2**63),
        "9" * 5000,
        "[" * 40 + "]" * 40,
        "[" * 100000,
        '"\\ud800"',
        '{"\\udfff": 1}',
    ],
)
def test_json_that_no_file_of_ours_has_is_refused(text):
    with pytest.raises(ValueError, match=r"too large|no JSON|levels of nesting|surrogates"):
        parse_json(text)


@pytest.mark.parametrize("text", ["a" + ".a" * 40 + " = 1", "a = " + "[" * 5000, f"a = {2**63}", "a = " + "9" * 5000])
def test_toml_that_no_file_of_ours_has_is_refused(text):
    with pytest.raises(ValueError, match=r"too large|levels of nesting|4300 digits"):
        parse_toml(text)


def test_what_a_run_writes_is_read():
    assert parse_json('{"a": [1, -2.5e-300, "ü😀", null, true]}') == {"a": [1, -2.5e-300, "ü😀", None, True]}
    assert parse_toml("a = [1, inf]\n[b]\nc = 'ü'") == {"a": [1, float("inf")], "b": {"c": "ü"}}


@pytest.mark.parametrize("content", ["a,b\n1,2,3\n", "a,b\n1,2,3\n4,5,6\n"])
def test_rows_that_are_longer_than_the_header_are_refused(content, tmp_path):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(ValueError, match=r"rows that are longer than the header"):
        read_cells(tmp_path / "t.csv")
