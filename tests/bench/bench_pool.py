"""Asking a pool and putting an evaluation into it, against the same with bare statements; and a very large run."""

from __future__ import annotations

import json
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from large import MADE, make
from rich.console import Console
from timing import row

from hwdse.evaluate import Evaluations, Key, Pool, Scores, SharedPool

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.postgres import Lab, Server, binaries

GROUPS, SAMPLES, REPEATS = 50, 10_000, 200
EVALUATIONS = 100_000
_COLUMNS = 11

# Not ru_maxrss: it starts at what the parent had when it forked.
TIMED = """
import sys
from time import perf_counter
from pathlib import Path
started = perf_counter()
{work}
seconds = perf_counter() - started
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
sys.stderr.write(f"{{seconds}} {{status['VmHWM'].split()[0]}}")
"""
VERB = """
from hwdse.cli import app
sys.argv = ["hwdse", *sys.argv[2:], sys.argv[1], "--json"]
try:
    app()
except SystemExit as end:
    assert not end.code, end.code
"""
RESUME = """
sys.path.insert(0, {bench!r})
from large import explored
explored(Path(sys.argv[1]), int(sys.argv[2]), resume=True)
"""
READ = """
import json
from hwdse.evaluate import Key, Pool
pool = Pool(Path(sys.argv[1]) / "evaluations.db")
keys = [Key(*words) for words in json.loads(Path(sys.argv[2]).read_text())]
samples = 0
for start in range(0, len(keys), 1000):
    found = pool.get_many(keys[start : start + 1000])
    assert len(found) == len(keys[start : start + 1000])
    samples += sum(scores.per_sample.size for scores in found.values())
"""


def key_of(i: int) -> Key:
    """Return where an evaluation of a network of 50 groups is kept."""
    return Key(
        "n" * 32, "d" * 32, "w-symmetric.a-affine", "gram", "top1", " ".join([*["W4A8"] * (GROUPS - 1), f"W{i}A8"])
    )


def overheads(pool: Evaluations, bare: Callable[[str, Key, np.ndarray], None]) -> tuple[float, float]:
    """Return the median milliseconds of asking for an evaluation and keeping it, of a pool and of bare statements."""
    rng = np.random.default_rng(0)
    ours, theirs = [], []
    for i in range(REPEATS):
        key, scores = key_of(i), (rng.random(SAMPLES) < 0.8).astype(np.float32)
        started = perf_counter()
        assert pool.get(key) is None
        pool.put(key, Scores(scores, 1.0))
        between = perf_counter()
        bare(f"bare {i}", key, scores)
        theirs.append(1e3 * (perf_counter() - between))
        ours.append(1e3 * (between - started))
    return statistics.median(ours), statistics.median(theirs)


def _values(address: str, key: Key, scores: np.ndarray) -> tuple[object, ...]:
    packed = zlib.compress(scores.tobytes(), 1)
    return (address, *vars(key).values(), float(scores.mean()), int(scores.size), 1.0, packed)


def sqlite_row() -> dict[str, Any]:
    """Return the row of a pool in a file."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        pool = Pool(Path(folder) / "pool.db")
        pool.put(key_of(-1), Scores(np.ones(1, dtype=np.float32), 0.0))
        database = sqlite3.connect(Path(folder) / "pool.db", isolation_level=None)

        def bare(address: str, key: Key, scores: np.ndarray) -> None:
            database.execute("SELECT scores FROM evaluations WHERE fingerprint = ?", [address]).fetchall()
            marks = ", ".join("?" * _COLUMNS)
            database.execute(f"INSERT INTO evaluations VALUES ({marks})", _values(address, key, scores))

        ours, theirs = overheads(pool, bare)
        database.close()
        pool.close()
    name = f"get and put, 50 groups, 10,000 scores, SQLite (two bare statements: {theirs:.2f} ms)"
    return row(name, ours, unit="ms", target=5.0)


def postgres_rows() -> list[dict[str, Any]]:
    """Return the row of a pool on a server of one's own; none where PostgreSQL is not installed."""
    programs = binaries()
    if programs is None:
        Console(stderr=True).print("no PostgreSQL server is installed: its row is left out")
        return []
    import psycopg

    server = Server(programs)
    folder = tempfile.mkdtemp(dir=".")
    try:
        lab = Lab(server)
        own, shared = Pool(Path(folder) / "pool.db"), Pool(lab.url())
        with psycopg.connect(lab.url(), autocommit=True) as database:

            def bare(address: str, key: Key, scores: np.ndarray) -> None:
                database.execute("SELECT scores FROM evaluations WHERE fingerprint = %s", [address]).fetchall()
                marks = ", ".join(["%s"] * _COLUMNS)
                database.execute(f"INSERT INTO evaluations VALUES ({marks})", _values(address, key, scores))

            ours, theirs = overheads(SharedPool(own, shared), bare)
        own.close()
        shared.close()
    finally:
        server.remove()
        shutil.rmtree(folder)
    name = f"the same, PostgreSQL and the run's own file (two bare statements on PostgreSQL: {theirs:.2f} ms)"
    return [row(name, ours, unit="ms", target=10.0)]


def measured(work: str, *arguments: str) -> tuple[float, float]:
    """Return the seconds and the peak memory in MiB of a process that does ``work``, its imports included."""
    done = subprocess.run(
        [sys.executable, "-c", TIMED.format(work=work), *arguments], capture_output=True, text=True, check=True
    )
    seconds, kib = done.stderr.splitlines()[-1].split()
    return float(seconds), int(kib) / 1024


def large_rows() -> list[dict[str, Any]]:
    """Return the rows of a run with 100,000 evaluations."""
    rows = []
    with tempfile.TemporaryDirectory(dir=".") as folder:
        run, asked = Path(folder) / "run", Path(folder) / "keys.json"
        asked.write_text(json.dumps([list(vars(key).values()) for key in make(run, EVALUATIONS)]))
        for name, work, arguments in (
            ("all evaluations read from the pool", READ, [str(asked)]),
            ("resumed for one more", RESUME.format(bench=str(Path(__file__).parent)), [str(EVALUATIONS + MADE + 1)]),
            ("hwdse report", VERB, ["report"]),
            ("hwdse compare", VERB, ["compare"]),
        ):
            seconds, mib = measured(work, str(run), *arguments)
            rows.append(row(f"{EVALUATIONS:,} evaluations, {name}", seconds, unit="s", target=20.0))
            rows.append(row(f"{EVALUATIONS:,} evaluations, {name}, peak memory", mib, unit="MiB", target=1024.0))
        page = (run / "report.html").stat().st_size / 1e6
        rows.append(row(f"{EVALUATIONS:,} evaluations, page", page, unit="MB", target=6.0))
    return rows


def run() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    return [sqlite_row(), *postgres_rows(), *large_rows()]
