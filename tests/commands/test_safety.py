"""What a run folder of somebody else may not do: run code, write elsewhere, be taken for markup."""

from __future__ import annotations

import json
import os
import pickle
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from hwdse.errors import InputError, RunFolderError
from hwdse.evaluate.pool import Key, Pool
from hwdse.networks.store import read_graph
from hwdse.quantize.checkpoint import read_checkpoint
from hwdse.quantize.fitted import Fitted
from hwdse.quantize.store import Store
from hwdse.report.page.write import write_page
from hwdse.report.seconds import evaluation_seconds
from hwdse.report.tables import RunTables

TRAP = """
from pathlib import Path
Path(r"{marker}").touch()
def model(): raise SystemExit(7)
example = calibration = evaluation = model
"""

EXPERIMENT = """
schema_version = 1
name = "tiny"
devices = ["mpic", "stm32h7a3"]
[model]
factory = "trap.py:model"
example = "trap.py:example"
[data]
calibration = "trap.py:calibration"
evaluation = "trap.py:evaluation"
metric = "trap.py:model"
[space]
precisions = ["W8A8"]
[objectives]
minimize = ["latency_ms"]
"""


@pytest.fixture
def marker(tmp_path) -> Path:
    return tmp_path / "marker"


@pytest.fixture
def trapped(run, marker) -> Path:
    """Return a run whose experiment and whose record name factories that leave a marker when they are imported."""
    for place in (run, run.parent):
        (place / "trap.py").write_text(TRAP.format(marker=marker))
    (run / "experiment.toml").write_text(EXPERIMENT)
    resolved = json.loads((run / "resolved.json").read_text())
    resolved |= {"experiment": str(run / "experiment.toml"), "model": "trap.py:model", "metric": "trap.py:model"}
    (run / "resolved.json").write_text(json.dumps(resolved))
    return run


READING = {
    "report": ["report", "--figures"],
    "compare": ["compare"],
    "pick": ["pick", "--device", "mpic"],
    "cite": ["cite"],
    "optuna": ["optuna", "--out", "study.db"],
}


@pytest.mark.parametrize("name", READING)
def test_factories_are_never_imported_to_read_a_run(name, trapped, marker, shell, monkeypatch):
    monkeypatch.chdir(trapped.parent)  # the trap is beside, too
    verb, *more = READING[name]
    answer = shell(verb, trapped, *more)
    assert answer.code == 0, answer.err
    assert not marker.exists()


def test_verify_imports_what_the_user_names_and_nothing_else(trapped, marker, shell, tmp_path):
    answer = shell("verify", trapped, "--device", "mpic")
    assert answer.code == 2
    assert "verify calls no code that a run folder names; add --experiment and the file" in answer.error
    good = tmp_path / "good"
    good.mkdir()
    (good / "mine.toml").write_text(EXPERIMENT.replace("trap.py", "mine.py"))
    answer = shell("verify", trapped, "--device", "mpic", "--experiment", good / "mine.toml")
    assert answer.code == 2
    assert "expected a Python file for factory 'mine.py:model'" in answer.error
    assert not marker.exists()


def test_the_trap_works(trapped, marker, shell, tmp_path):
    """``export`` says that it calls the factories, and does."""
    answer = shell("export", trapped, "--device", "mpic", "--out", tmp_path / "a.onnx")
    assert answer.code == 2
    assert marker.exists()
    assert "calls the factories" in " ".join(shell("export", "--help", COLUMNS="200").out.split())


class Planted:
    """What leaves a marker when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.marker),)


def of_objects(path: Path, planted: Planted) -> None:
    np.savez(path, header=np.array([planted], dtype=object), weight0=np.array([planted], dtype=object))


def of_pickle(path: Path, planted: Planted) -> None:
    path.write_bytes(pickle.dumps(planted))


def of_torch(path: Path, planted: Planted) -> None:
    torch.save({"about": {"x": planted}, "state": {"y": planted}}, path)


def zipped(path: Path, planted: Planted) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.npy", pickle.dumps(planted))


def of_rows(path: Path, planted: Planted) -> None:
    Pool(path).close()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "INSERT INTO evaluations VALUES (?, 'n', 'd', 's', 'r', 'm', 'b', 1, 1, ?, ?)",
            (KEY.fingerprint, pickle.dumps(planted), pickle.dumps(planted)),
        )


KEY = Key("n", "d", "s", "r", "m", "b")


def read_shelf(path: Path) -> None:
    store = Store(path.parent, {"network": "n"})
    shelf = store.shelf("s", "r", "int8")
    shelf.folder.mkdir(parents=True)
    path.rename(shelf.folder / "w.safetensors")
    shelf.get("w", None)


def read_ranges(path: Path) -> None:
    shelf = Store(path.parent, {"network": "n"}).shelf("s", "r", "int8")
    shelf.folder.mkdir(parents=True)
    path.rename(shelf.folder / "activations.json")
    shelf.ranges({})


PLACES = {
    "fitted weights": lambda path: Fitted.load(path, {}),
    "a checkpoint": lambda path: read_checkpoint(path, {}),
    "a weight": read_shelf,
    "ranges": read_ranges,
    "a pool": lambda path: Pool(path).get(KEY),
    "a graph": read_graph,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("plant", [of_objects, of_pickle, of_torch, zipped, of_rows])
def test_no_pickle_is_opened(place, plant, tmp_path, marker):
    path = tmp_path / "planted.npz"
    plant(path, Planted(marker))
    with pytest.raises(InputError, match="expected"):
        PLACES[place](path)
    assert not marker.exists()


def test_what_is_planted_works(tmp_path, marker):
    of_torch(tmp_path / "a.pt", Planted(marker))
    torch.load(tmp_path / "a.pt", weights_only=False)
    assert marker.exists()


def test_no_pickle_is_opened_in_a_run_folder(run, marker):
    """A pickle in the place of each file that the page and its parts read."""
    files = [path for path in sorted(run.rglob("*")) if path.suffix in (".json", ".csv", ".db")]
    assert len(files) > 15
    refused = 0
    for path in files:
        before = path.read_bytes()
        of_pickle(path, Planted(marker))
        try:
            tables = RunTables.load(run)
            write_page(run)
            for device in tables.results.values():
                evaluation_seconds(tables, device)
        except RunFolderError:
            refused += 1
        path.write_bytes(before)
        assert not marker.exists()
    assert refused > 15


def renamed(run: Path, name: str) -> None:
    """Give the device mpic another name in everything that names it."""
    record = (run / "resolved.json").read_text()
    (run / "resolved.json").write_text(record.replace('"mpic"', json.dumps(name)))


NAMES = {
    "above": "../../evil",
    "absolute": "/tmp/evil",
    "separator": "a/b",
    "backslash": "a\\b",
    "drive": "C:evil",
    "null": "a\0b",
    "line": "a\nb",
    "parent": "..",
    "empty": "",
    "long": "a" * 300,
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("verb", ["report", "compare", "pick", "optuna", "export"])
def test_names_stay_in_the_run_folder(name, verb, cli, run, tmp_path, contents):
    if verb == "pick" and name == "null":
        pytest.skip("no command line has a null in it")
    renamed(run, NAMES[name])
    before = contents(tmp_path)
    device = ["--device", NAMES[name].replace("\0", "")] if verb in ("pick", "export") else []
    out = ["--out", tmp_path / "out.onnx"] if verb in ("optuna", "export") else []
    answer = cli(verb, run, *device, *out)
    assert answer.code == 2
    expected = (
        "expected devices of the run" if (name, verb) == ("null", "export") else "expected a plain name of a file"
    )
    assert expected in answer.error
    assert contents(tmp_path) == before


def test_half_a_character_is_no_name(cli, run):
    renamed(run, "a\ud800")
    assert "expected JSON in" in cli("report", run).error


def test_a_configuration_cannot_lead_out(cli, run, tmp_path, contents):
    measured = run / "mpic" / "measured.csv"
    config = json.loads((run / "mpic" / "pick.json").read_text())["config_id"]
    for path in (measured, run / "mpic" / "front.csv", run / "mpic" / "pick.json"):
        path.write_text(path.read_text().replace(config, "../../../evil"))
    before = contents(tmp_path)
    answer = cli("finetune", run, "--device", "mpic")
    assert answer.code == 2
    assert "expected a plain name of a file or folder in" in answer.error
    assert contents(tmp_path) == before


@pytest.mark.parametrize("folder", ["mpic", "figures"])
def test_links_cannot_lead_out(folder, cli, run, tmp_path, contents):
    (run / folder).rename(tmp_path / "elsewhere")
    (run / folder).symlink_to(tmp_path / "elsewhere")
    before = contents(tmp_path / "elsewhere")
    answer = cli("report", run, "--figures")
    assert answer.code == 2
    assert "got a link that leads out of it; remove the link" in answer.error
    assert contents(tmp_path / "elsewhere") == before


def test_names_are_words_in_figures_and_tables(cli, run):
    """Neither a formula, which would have faults, nor the end of a style."""
    name = "$\\frac{ [-b] {{"
    for path in (run / "layers.csv", run / "sensitivity.csv", *run.glob("*/*.csv")):
        path.write_text(path.read_text().replace("stem", name))
    resolved = json.loads((run / "resolved.json").read_text())
    resolved |= {"name": "$^ [/a]", "titles": {"mpic": "$\\x$ [/b]"}, "worth": {"mpic": ["[/c] $\\y$"]}}
    resolved |= {"device_notes": {"mpic": "[/d]: $\\z$"}}
    (run / "resolved.json").write_text(json.dumps(resolved))
    for arguments in (["report", run, "--figures"], ["compare", run], ["pick", run, "--device", "mpic"]):
        answer = cli(*arguments)
        assert answer.code == 0, answer.err
    assert "[/a]" in answer.out


def test_a_database_that_never_answers_is_no_pool(run):
    """A view that counts without end in the place of the table."""
    (run / "evaluations.db").unlink()
    database = sqlite3.connect(run / "evaluations.db")
    database.execute(
        "CREATE VIEW evaluations AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
        "SELECT i AS bits, i AS seconds, 'x' AS scheme, 'y' AS recipe FROM n"
    )
    database.close()
    tables = RunTables.load(run)
    with pytest.raises(RunFolderError, match=r"expected a database of evaluations in .*, got: .*no table evaluations"):
        evaluation_seconds(tables, next(iter(tables.results.values())))
