"""Every reader of the package with good files for it, and the ways in which these are damaged."""

from __future__ import annotations

import gzip
import io
import json
import random
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from hwdse.commands.compare import _rankings
from hwdse.cost import cost_table
from hwdse.evaluate.evaluator import Scores
from hwdse.evaluate.pool import Key, Pool
from hwdse.experiment import load_experiment
from hwdse.files import read_json
from hwdse.formats import Precision, Scheme, parse
from hwdse.graph import BitConfig
from hwdse.hardware import load_profile, recorded_profile
from hwdse.hardware.measure.table import Record
from hwdse.networks import layer_graph
from hwdse.networks.store import path_of, read_graph
from hwdse.published.rows import read_rows
from hwdse.quantize.checkpoint import read_checkpoint, write_checkpoint
from hwdse.quantize.fitted import Fitted
from hwdse.quantize.quantizer import CASTS
from hwdse.quantize.rebuilt import Rebuilt
from hwdse.quantize.recipe import Recipe
from hwdse.quantize.store import Store
from hwdse.quantize.weights import quantize_weight
from hwdse.report.analysis import AnalysisTables
from hwdse.report.binding import binding_of
from hwdse.report.citations import cite, entries_of
from hwdse.report.comparison import Asked, choose_devices
from hwdse.report.fleet import Fleet
from hwdse.report.fronts import load_front
from hwdse.report.optuna_study import write_studies
from hwdse.report.page import write as page
from hwdse.report.seconds import evaluation_seconds
from hwdse.report.tables import RunTables
from hwdse.report.terminal import compare_rows, pick_table
from hwdse.report.write import write_report
from hwdse.study.fleet import FleetPlan
from hwdse.study.folder import RunFolder
from hwdse.study.measure import parse_bits
from hwdse.study.tables import load_sensitivity
from tests.fuzz.mutate import NASTY, csv_text, damaged, json_tree, toml_text
from tests.listener import Listener

__all__ = ["Subject", "subjects"]

ROOT = Path(__file__).parents[2]
PROFILES = ROOT / "hardware_profiles"
Damage = Callable[[bytes, random.Random], bytes]
IDENTITY: dict[str, Any] = {}
"""What the run is about."""

BLIND_SHARE = 0.4
"""Of the inputs, damaged by bytes alone."""


@dataclass(frozen=True)
class Subject:
    """A reader.

    Attributes
    ----------
    name
        What it reads.
    files
        Good files, of which one is damaged.
    read
        Reads, given the file.
    weight
        Share of all inputs, against the other subjects' weights.
    seconds
        Processor time at most; what draws figures may take longer.
    """

    name: str
    files: tuple[Path, ...]
    read: Callable[[Path], object]
    weight: float = 1.0
    seconds: float = 2.0
    _good: dict[Path, bytes] = field(default_factory=dict)

    def damage(self, rng: random.Random) -> tuple[Path, bytes]:
        """Return one of the files, and what it may say instead."""
        path = rng.choice(self.files)
        good = self._good.setdefault(path, path.read_bytes())
        return path, damage_of(path.suffix, good, rng)

    def undo(self, path: Path) -> None:
        """Make the file good again."""
        path.write_bytes(self._good[path])


def damage_of(suffix: str, content: bytes, rng: random.Random) -> bytes:
    """Return ``content`` damaged: blindly, or by who knows what the suffix stands for."""
    return (damaged if rng.random() < BLIND_SHARE else KNOWING.get(suffix, damaged))(content, rng)


def _json(content: bytes, rng: random.Random) -> bytes:
    return json.dumps(json_tree(json.loads(content), rng), ensure_ascii=rng.random() < 0.5).encode("utf-8", "replace")


def _gzip(content: bytes, rng: random.Random) -> bytes:
    inner = gzip.decompress(content)
    return gzip.compress(_json(inner, rng) if rng.random() < 0.8 else damaged(inner, rng), 1, mtime=0)


def _npz(content: bytes, rng: random.Random) -> bytes:
    """Return an archive with a damaged header, or a damaged array."""
    with np.load(io.BytesIO(content)) as archive:
        arrays = {name: archive[name] for name in archive.files}
    name = rng.choice(list(arrays))
    if name == "header":
        arrays[name] = np.array(json.dumps(json_tree(json.loads(str(arrays[name])), rng)))
    else:
        arrays[name] = rng.choice(
            (
                np.zeros(3),
                np.zeros((0, 2)),
                np.array("text"),
                np.array(5),
                arrays[name].astype(np.int8),
                np.full_like(arrays[name], np.nan),
                arrays[name][..., None],
                np.zeros(2, dtype=[("a", "f4")]),
                np.zeros(2, dtype="M8[s]"),
                np.zeros(2, dtype=">f4"),
                arrays[name].astype(complex),
            )
        )
    made = io.BytesIO()
    np.savez(made, **arrays)
    return _rezipped(made.getvalue(), rng) if rng.random() < 0.3 else made.getvalue()


def _rezipped(content: bytes, rng: random.Random) -> bytes:
    """Return an archive of which one member is damaged by bytes, with a sum that is right."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w") as new:
        chosen = rng.choice(old.namelist())
        for name in old.namelist():
            part = old.read(name)
            new.writestr(name, damaged(part, rng) if name == chosen else part)
    return made.getvalue()


def _safetensors(content: bytes, rng: random.Random) -> bytes:
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    if rng.random() < 0.5:
        inner = json_tree(json.loads(header["__metadata__"]["hwdse"]), rng)
        header["__metadata__"]["hwdse"] = json.dumps(inner)
        tensors = load_tensors(content)
        name = rng.choice(list(tensors))
        if rng.random() < 0.5:
            other = rng.choice((torch.zeros(3), torch.zeros(()), torch.zeros(1, 2), tensors[name].to(torch.int8)))
            tensors[name] = rng.choice((other, tensors[name] * float("nan")))
        return save_tensors(tensors, metadata={"hwdse": header["__metadata__"]["hwdse"]})
    text = json.dumps(json_tree(header, rng)).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def _torch(content: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.5:
        return _rezipped(content, rng)
    made = io.BytesIO()
    torch.save(json_tree({"about": {"x": "y"}, "state": {"a": [1, 2.0, {"b": 3}], "c": 0}}, rng), made)
    return made.getvalue()


def _sqlite(content: bytes, rng: random.Random) -> bytes:
    """Return a database with other values in its cells, or other tables."""
    with closing(sqlite3.connect(":memory:")) as database:
        database.deserialize(content)
        columns = [row[1] for row in database.execute("PRAGMA table_info(evaluations)")]
        value = rng.choice(
            (*(v for v in NASTY if isinstance(v, str | float | None)), 0, -1, 2**40, b"", b"\x78\x9c\x03\0")
        )
        match rng.randrange(6):
            case 0:
                database.execute(f"ALTER TABLE evaluations DROP COLUMN {rng.choice(columns[1:])}")
            case 1:
                database.execute(f"ALTER TABLE {rng.choice(('about', 'evaluations'))} RENAME TO x")
            case 2:
                database.execute("UPDATE about SET value = ?", (value,))
            case _:
                column = rng.choice([*columns[1:], "scores", "seconds", "bits"])
                try:
                    database.execute(f"UPDATE OR IGNORE evaluations SET {column} = ?", (value,))
                except (sqlite3.IntegrityError, UnicodeEncodeError):
                    return damaged(content, rng)
        database.commit()
        return database.serialize()


def _words(content: bytes, rng: random.Random) -> bytes:
    words = content.decode().split()
    for _ in range(rng.randint(1, 3)):
        words[rng.randrange(len(words))] = str(rng.choice(NASTY))
    return rng.choice((" ", "\t", "  ", "\n")).join(words).encode("utf-8", "replace")


KNOWING: Mapping[str, Damage] = {
    ".csv": csv_text,
    ".json": _json,
    ".toml": toml_text,
    ".gz": _gzip,
    ".npz": _npz,
    ".pt": _torch,
    ".safetensors": _safetensors,
    ".db": _sqlite,
    ".txt": _words,
}


def explored(folder: Path, *, whole: bool) -> Path:
    """Return ``folder`` with a run of the tiny network; one of two devices and an analysis, too, if ``whole``."""
    shutil.copytree(ROOT / "tests" / "tiny", folder / "tiny")
    verbs: dict[str, tuple[str, ...]] = {"single": ("explore", "--device", "mpic")}
    verbs |= {"run": ("explore",), "analysis": ("analyze",)} if whole else {}
    for name, (verb, *more) in verbs.items():
        command = [sys.executable, "-m", "hwdse", verb, folder / "tiny" / "tiny.toml", "--out", folder / name, *more]
        subprocess.run(list(map(str, command)), check=True, capture_output=True, cwd=ROOT)
    for run in [folder / name for name, (verb, *_) in verbs.items() if verb == "explore"]:
        (run / "mpic" / "verify.json").write_text('{"latency_ms_measured": 0.5, "latency_ms_predicted": 0.4}')
        (run / "mpic" / "tuned" / "0a").mkdir(parents=True)
        (run / "mpic" / "tuned" / "0a" / "tuned.json").write_text('{"by": "finetune"}')
        (run / "fleet.csv").write_text(
            "drop_level,largest_regret_predicted,scheme,bits\n0.1,0.2,s,W8A8 W8A8 W8A8 W8A8\n"
        )
    return folder


def _tables(run: Path) -> tuple[Path, ...]:
    """Return the files of a run that its tables are read from."""
    found = [p for p in sorted(run.rglob("*")) if p.suffix in (".json", ".csv") and "figures" not in p.parts]
    return tuple(p for p in found if p.name not in ("statistics.csv", "interactions.csv", "fleet.csv"))


def _page(path: Path) -> object:
    with patch.object(page, "_plotly", lambda: "/*! library */"):  # four megabytes that are no input
        return page.page_text(page.RunState.of(_run(path)))


def _run(path: Path) -> Path:
    return next(parent for parent in path.parents if (parent / "layers.csv").exists())


def _choose(path: Path) -> object:
    """Do what ``hwdse pick`` does."""
    tables = RunTables.load(_run(path))
    found = []
    for device, result in tables.results.items():
        if not result.emptiness:
            front = load_front(tables.run, device, tables=tables)
            row = front.pick_row(maximum={tables.quality.drop: tables.max_drop}, minimize=next(iter(tables.costs)))
            if isinstance(row, int):
                found.append({"device": device, **front.table.iloc[row].to_dict()})
    return pick_table(tables, found)


def _compare(path: Path) -> object:
    """Do what ``hwdse compare`` does, but for the drawing."""
    tables = RunTables.load(_run(path))
    choice = choose_devices(tables, Asked({}, {}, {}))
    bindings = [binding_of(tables, tables.results[name], row) for name, row in choice.rows.items()]
    return bindings, _rankings(tables, choice), Fleet(tables).facts, compare_rows(tables, drop=tables.max_drop)


def _seconds(path: Path) -> object:
    tables = RunTables.load(_run(path))
    return [evaluation_seconds(tables, device) for device in tables.results.values()]


def _optuna(path: Path) -> object:
    out = path.parent / "study.db"
    out.unlink(missing_ok=True)
    return write_studies(RunTables.load(_run(path)), out, Listener())


def _resume(path: Path) -> object:
    """Do what a resumed run does with its folder before it measures."""
    run = _run(path)
    RunFolder(run, resume=True).check(IDENTITY)
    return FleetPlan(1, run)


def _device(path: Path) -> object:
    """Read a profile, and ask it what a study asks."""
    profile = load_profile(path)
    graph = layer_graph("autoencoder")
    candidates = profile.candidates([Precision.parse(text) for text in ("W8A8", "W4A8", "fp32")])
    return cost_table(graph, profile, candidates, metrics=["latency_ms", "size_kib"]) if candidates else profile


def _published(path: Path) -> object:
    graph = layer_graph("autoencoder")
    return [row.label if len(row.precision.split()) > 1 else row.precisions(graph) for row in read_rows(path)]


@dataclass(frozen=True)
class _Files:
    """Where the good files lie."""

    folder: Path

    def made(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def copies(self, name: str, paths: list[Path]) -> tuple[Path, ...]:
        return tuple(self.made(f"{name}/{path.name}", path.read_bytes()) for path in paths)


def subjects(folder: Path, *, whole: bool = True) -> list[Subject]:
    """Return all readers with good files in ``folder``; but for those that need two devices, if not ``whole``."""
    files = _Files(explored(folder, whole=whole))
    run = folder / "single"
    read = _tables(run)
    IDENTITY.update(json.loads((run / "resolved.json").read_text())["identity"])
    files.copies("profiles", sorted(PROFILES.glob("*.csv")))
    profiles = files.copies("profiles", sorted(PROFILES.glob("*.toml")))
    record = b"\n".join((PROFILES / "amd_epyc_zen4_measurements.csv").read_bytes().split(b"\n")[:25])
    shipped = [p for p in sorted((ROOT / "experiments").glob("*.toml")) if p.name != "any_format.toml"]
    experiments = [*shipped, ROOT / "tests" / "tiny" / "tiny.toml"]
    bits = files.made("bits.txt", b"W8A8 W4A8 fp32 Wnf4A8 Wposit8_0A8 Wcodebook4A8 W2A2 W16A16")
    bib = files.made("references.bib", (PROFILES / "references.bib").read_bytes())
    graphs = [path_of(name) for name in ("autoencoder", "autoencoder_folded", "ds_cnn", "resnet8")]
    found = [
        Subject("experiment", files.copies("experiments", experiments), load_experiment, 1.5),
        Subject("profile", profiles, _device, 5),
        Subject("latency table", (profiles[0].with_name("nvidia_t4.csv"),), _latencies, 1.5),
        Subject("measurements", (files.made("measurements.csv", record),), lambda p: Record(p).rows, 3),
        Subject("published rows", files.copies("rows", sorted(PROFILES.glob("*_published.csv"))), _published, 4),
        Subject("run: tables", read, lambda p: RunTables.load(_run(p)), 1.5),
        Subject("run: page", read, _page, 1),
        Subject("run: pick", read, _choose, 1),
        Subject("run: cite", read, lambda p: cite(_run(p)), 0.08),
        Subject("run: resume", (run / "resolved.json", run / "fleet.csv"), _resume, 2),
        Subject("run: profile", (run / "resolved.json",), lambda p: recorded_profile(read_json(p), "mpic"), 1),
        Subject("run: sensitivity", (run / "sensitivity.csv",), _sensitivity(run), 2),
        Subject("run: seconds", (run / "evaluations.db",), _seconds, 0.25),
        _pool(files),
        *_weights(files),
        Subject("graph", files.copies("graphs", graphs), read_graph, 4),
        Subject("configuration", (bits,), _configuration, 5),
        Subject(
            "bibliography", (bib,), lambda p: list(entries_of(p.read_text(encoding="utf-8", errors="replace"))), 0.5
        ),
    ]
    return [*found, *_whole(folder / "run", folder / "analysis")] if whole else found


def _whole(run: Path, analysis: Path) -> list[Subject]:
    """Return the readers of several devices, and of an analysis."""
    read = _tables(run)
    return [
        Subject("run: compare", read, _compare, 0.2),
        Subject("run: optuna", read, _optuna, 0.01),
        Subject("run: figures", read, lambda p: write_report(_run(p), every=True), 0.003, seconds=60.0),
        Subject("analysis", tuple(sorted(analysis.glob("*.csv"))), lambda p: _analysis(p.parent), 0.2),
    ]


def _latencies(path: Path) -> object:
    return _device(path.with_suffix(".toml"))


def _analysis(folder: Path) -> object:
    tables = AnalysisTables.load(folder)
    found = []
    for scheme in tables.schemes:
        for layer in tables.layers["layer"]:
            found += [(t.unit, t.count, t.bins, t.reference) for t in tables.operands(scheme, layer) if t is not None]
    return found


def _configuration(path: Path) -> object:
    words = path.read_text(encoding="utf-8", errors="replace")
    return parse_bits({f"l{i}": i for i in range(8)}, words).bits


def _sensitivity(run: Path) -> Callable[[Path], object]:
    table = [line.split(",") for line in (run / "sensitivity.csv").read_text().splitlines()[1:]]
    scheme = table[0][0]
    groups = tuple(dict.fromkeys(row[1] for row in table if row[0] == scheme))
    names = tuple(dict.fromkeys(row[2] for row in table if row[0] == scheme))
    candidates = tuple(map(Precision.parse, names))
    return lambda path: load_sensitivity(path, scheme, groups=groups, candidates=candidates, methods=("kl",))


def _pool(files: _Files) -> Subject:
    path = files.folder / "pool" / "evaluations.db"
    path.parent.mkdir()
    pool, keys = Pool(path), [Key("n", "d", "s", "r", "top1", bits) for bits in ("W8A8", "W4A8", "W2A8")]
    for key in keys:
        pool.put(key, Scores(np.arange(40, dtype=np.float32), 0.5))
    pool.close()

    def read(path: Path) -> object:
        pool = Pool(path)
        try:
            found = [pool.get(key) for key in keys]
            pool.put(keys[0], Scores(np.ones(50, dtype=np.float32), 0.1))
            return found, len(pool)
        finally:
            pool.close()

    return Subject("pool", (path,), read, 0.6)


def _weights(files: _Files) -> list[Subject]:
    """Return the readers of numbers that were found."""
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(6, 2, 3, 3, generator=generator)
    store = Store(files.folder / "weights", {"network": "n", "calibration": "c"})
    paths, nearest = [], {}
    for name in ("int4", "codebook4"):
        shelf, nearest[name] = store.shelf("s", "r", name), quantize_weight(weight, parse(name), scheme=Scheme())
        shelf.put("conv.weight", Rebuilt(nearest[name], torch.zeros(6), 3))
        shelf.put_ranges({"x": 1, "y": 0})
        paths.append(shelf._path("conv.weight"))

    def shelf_of(path: Path) -> Any:
        return store.shelf("s", "r", path.parent.name)

    config = BitConfig({"conv": Precision.parse("W4A8"), "fc": Precision.parse("Wcodebook4A8")})
    biases, quantizers = {"conv": torch.zeros(6)}, dict(CASTS)
    fitted = Fitted(config, {"conv.weight": nearest["int4"], "fc.weight": nearest["codebook4"]}, biases, quantizers)
    about = {"network": "n"}
    npz = fitted.save(files.folder / "fitted" / "weights.npz", about)
    state = {"step": 3, "optimizer": {"state": {0: {"exp_avg": weight}}}, "checks": [(0, 0.5)], "best": None}
    checkpoint = write_checkpoint(files.folder / "checkpoint" / "checkpoint.pt", state, about)
    ranges = (paths[0].parent / "activations.json",)
    recipe = files.made(
        "recipe.json", json.dumps({"weight_rounding": "adaround", "adaround": {"beta": [20, 2]}}).encode()
    )
    return [
        Subject("weights", tuple(paths), lambda p: shelf_of(p).get("conv.weight", nearest[p.parent.name]), 4),
        Subject("ranges", ranges, lambda p: shelf_of(p).ranges({"x": 2, "y": 1}), 4),
        Subject("fitted weights", (npz,), lambda p: Fitted.load(p, about), 3),
        Subject("checkpoint", (checkpoint,), lambda p: read_checkpoint(p, about), 3),
        Subject("recipe", (recipe,), lambda p: Recipe.of(read_json(p)).key, 4),
    ]
