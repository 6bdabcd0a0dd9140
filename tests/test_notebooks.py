"""Every notebook, run in a kernel of its own as a reader would, and kept without what it showed."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NAMES = [
    "01_first_front",
    "02_bring_your_own_network",
    "03_describe_a_chip",
    "04_figures_for_a_paper",
    "05_from_pick_to_running_onnx",
]
SECONDS_PER_CELL = 300


def test_all_notebooks_are_here() -> None:
    assert [path.stem for path in NOTEBOOKS] == NAMES


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_shows_pictures_and_leaves_nothing(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {name: tmp_path / name for name in ("work", "temporary", "jupyter", "ipython")}
    for folder in folders.values():
        folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folders["temporary"]))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(folders["jupyter"]))
    monkeypatch.setenv("IPYTHONDIR", str(folders["ipython"]))
    for name in ("MPLBACKEND", "HWDSE_PROFILES"):  # the kernel's own way to show pictures, and shipped profiles
        monkeypatch.delenv(name, raising=False)
    beside = sorted(os.listdir(FOLDER))

    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(folders["work"])}}
    NotebookClient(notebook, timeout=SECONDS_PER_CELL, kernel_name="python3", resources=resources).execute()

    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    said = "".join(output.text for output in outputs if output.get("name") == "stderr")
    assert not re.search(r"Warning:|Traceback", said), said
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    assert os.listdir(folders["work"]) == []
    assert not list(folders["temporary"].glob("tmp*"))  # what tempfile names so; torch keeps a folder of its own
    assert sorted(os.listdir(FOLDER)) == beside


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_kept_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_has_no_path_of_one_machine(path: Path) -> None:
    sources = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
    assert not re.findall(r"[\"'](?:/|~|[A-Z]:\\)[\w/\\.-]*", sources)
