"""The examples of CONTRIBUTING.md, as a reader would follow them: files written, parts registered, lines run."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwdse.formats import families
from hwdse.hardware import check
from hwdse.plugins import load_plugin, plugin_names
from tests.installed import install

TEXT = (Path(__file__).resolve().parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
SECTIONS = re.split(r"^### ", TEXT.partition("## Extending, one example each")[2].partition("\n## ")[0], flags=re.M)[1:]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", flags=re.M | re.S)
FILE = re.compile(r"# (\S+\.(?:py|toml))\n")
NAMES = ["A device", "A number format", "A calibrator", "A search", "A runtime", "An exporter"]


def blocks(section: str) -> tuple[dict[str, str], list[str]]:
    """Return the files of an example by name, and the lines that use them."""
    files: dict[str, str] = {}
    uses: list[str] = []
    for language, text in BLOCK.findall(section):
        named = FILE.match(text)
        if named:
            files[named[1]] = text
        else:
            assert language == "python"
            uses.append(text)
    return files, uses


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Return a function that writes and registers the files of an example; nothing of them stays."""

    def written(files: dict[str, str]) -> Path:
        points = tomllib.loads(files.pop("pyproject.toml", "")).get("project", {}).get("entry-points", {})
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text, encoding="utf-8")
        install(tmp_path, "my-package", points)
        for group, names in points.items():
            assert set(names) <= set(plugin_names(group))
            assert len(plugin_names(group)) > len(names) or group == "hwdse.references"  # the group is one that is read
        return tmp_path

    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    before = dict(families.FAMILIES)
    yield written
    families.FAMILIES.clear()
    families.FAMILIES.update(before)
    families.parse.cache_clear()
    load_plugin.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        del sys.modules[name]


def test_every_kind_of_extension_has_an_example_with_a_use() -> None:
    assert [section.splitlines()[0] for section in SECTIONS] == NAMES
    for section in SECTIONS:
        files, uses = blocks(section)
        assert files
        assert uses
        assert all("assert" in use for use in uses)


@pytest.mark.parametrize("section", SECTIONS, ids=NAMES)
def test_the_example_runs(section: str, write) -> None:
    files, uses = blocks(section)
    if "An exporter" in section:
        pytest.importorskip("onnx")
    folder = write(files)
    for use in uses:
        exec(compile(use, "CONTRIBUTING.md", "exec"), {})
    for path in folder.glob("*.toml"):
        assert check(path) == ()
    if "REFERENCES" in section:
        assert load_plugin("hwdse.references", "half")["ranges by half"].startswith("@misc{Half2024,")


def test_the_line_that_an_exporter_goes_beside_is_there() -> None:
    export = Path(__file__).resolve().parents[1] / "hwdse" / "commands" / "export.py"
    text = export.read_text(encoding="utf-8")
    assert 'write_json(out.with_suffix(".encodings.json"), deployment.encodings)' in text
