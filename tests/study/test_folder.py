import re

import pytest

from hwdse.errors import InputError, RunFolderError
from hwdse.files import read_json
from hwdse.study.folder import RunFolder

IDENTITY = {"network": "a", "devices": {"mpic": "x"}, "seed": 0}


def test_nothing_is_written_before_it_is_opened(tmp_path):
    folder = RunFolder(tmp_path / "a" / "run")
    folder.check(IDENTITY)
    assert not (tmp_path / "a").exists()
    folder.open(IDENTITY, {"name": "n"}, None)
    assert read_json(tmp_path / "a" / "run" / "resolved.json") == {"name": "n", "identity": IDENTITY}
    packages = read_json(tmp_path / "a" / "run" / "environment.json")["packages"]
    assert {"hwdse", "torch"} <= packages.keys()


def test_what_a_killed_write_left_behind_is_nobodys(tmp_path):
    (tmp_path / ".resolved.json.4711.tmp").write_text("{")
    for resume in (False, True):
        assert not RunFolder(tmp_path, resume=resume).is_resumed


def test_a_resumed_run_keeps_saying_what_it_said(tmp_path):
    RunFolder(tmp_path / "run").open(IDENTITY, {"evaluations": 5}, None)
    again = RunFolder(tmp_path / "run", resume=True)
    assert again.is_resumed
    again.check(IDENTITY)
    again.open(IDENTITY, {"evaluations": 0}, None)
    assert read_json(tmp_path / "run" / "resolved.json")["evaluations"] == 5
    again.resolve(IDENTITY, {"evaluations": 6})
    assert read_json(tmp_path / "run" / "resolved.json")["evaluations"] == 6


@pytest.mark.parametrize(
    ("change", "named"),
    [({"seed": 1}, "seed"), ({"devices": {"mpic": "y"}, "network": "b"}, "devices, network"), ({"fixed": {}}, "fixed")],
)
def test_what_differs_is_named(change, named, tmp_path):
    RunFolder(tmp_path / "run").open(IDENTITY, {}, None)
    with pytest.raises(RunFolderError, match=f"got another {named}; name another folder"):
        RunFolder(tmp_path / "run", resume=True).check(IDENTITY | change)


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=re.escape(f"got the file {tmp_path / 'file'}; name another one")):
        RunFolder(tmp_path / "file")
    with pytest.raises(InputError, match=re.escape(f"and {tmp_path / 'file'} is none (Not a directory)")):
        RunFolder(tmp_path / "file" / "run")
