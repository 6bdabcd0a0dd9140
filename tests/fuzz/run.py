"""Damage files and read them: no traceback, no hang, nothing written elsewhere, nothing started, nothing unpickled.

``python tests/fuzz/run.py --inputs 100000 --seed 0`` prints a row per reader, and ends with 1 if anything went wrong;
what did so is kept under ``--keep``. ``--only NAME`` takes the readers whose name contains it.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[2]))

from rich.console import Console
from rich.progress import track
from rich.table import Table

from hwdse.errors import HwdseError
from tests.fuzz.guard import Guard, Hang, limit_memory
from tests.fuzz.subjects import Subject, subjects

MEMORY_BYTES = 3 * 2**30
OUT = Console(width=110, markup=False, highlight=False, soft_wrap=True)
ERRORS = Console(stderr=True)


def outcome(subject: Subject, guard: Guard, rng: random.Random) -> tuple[str, Path, bytes]:
    """Read one damaged file; return ``read``, ``refused``, or what went wrong, with the file and what it said."""
    path, content = subject.damage(rng)
    path.write_bytes(content)
    guard.faults.clear()
    said = "read"
    try:
        with warnings.catch_warnings(), guard.armed(subject.seconds):
            warnings.simplefilter("ignore")
            subject.read(path)
    except HwdseError as error:
        said = "refused" if is_sentence(str(error)) else f"no sentence: {error!s:.100}"
    except Hang as error:
        said = f"hang: {error}"
    except Exception as error:
        said = f"{type(error).__name__} in {origin(error)}: {error!s:.100}"
    subject.undo(path)
    return (f"forbidden: {guard.faults[0]}" if guard.faults else said), path, content


def is_sentence(text: str) -> bool:
    """Return True if an error says something that can be printed."""
    try:
        return bool(text.strip()) and "Traceback" not in text and bool(text.encode())
    except UnicodeEncodeError:
        return False


def origin(error: BaseException) -> str:
    """Return the last line of the package that an error went through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/hwdse/" in frame.filename]
    return f"{frames[-1].filename.rpartition('/hwdse/')[2]}:{frames[-1].lineno}" if frames else "?"


def counts_of(all_subjects: list[Subject], inputs: int) -> dict[str, int]:
    """Return how many inputs each reader gets, so many together at least."""
    whole = sum(subject.weight for subject in all_subjects)
    return {subject.name: math.ceil(inputs * subject.weight / whole) for subject in all_subjects}


def main() -> int:
    """Run, print a row per reader, and return the exit code."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--inputs", type=int, default=100_000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", default="")
    options.add_argument("--keep", type=Path, default=Path("fuzz-failures"))
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        chosen = [subject for subject in subjects(Path(name)) if given.only in subject.name]
        for subject in chosen:
            subject.read(subject.files[0])  # good files are read
        guard = Guard(Path(name))
        limit_memory(MEMORY_BYTES)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        failures: dict[tuple[str, str], Counter[str]] = {}
        counts = counts_of(chosen, given.inputs)
        order = [subject for subject in chosen for _ in range(counts[subject.name])]
        random.Random(given.seed).shuffle(order)  # so that the time left is known from the start
        rows = {subject.name: Counter[str]() for subject in chosen}
        spent = dict.fromkeys(rows, 0.0)
        began, began_working = time.perf_counter(), time.process_time()
        for number, subject in enumerate(track(order, "reading", console=ERRORS)):
            started = time.perf_counter()
            said, path, content = outcome(subject, guard, random.Random(f"{given.seed} {number}"))
            spent[subject.name] += time.perf_counter() - started
            kind = said if said in ("read", "refused") else "failed"
            rows[subject.name][kind] += 1
            if kind == "failed":
                key = (subject.name, said.partition(": ")[0])
                if key not in failures:
                    given.keep.mkdir(parents=True, exist_ok=True)
                    kept = (
                        given.keep / f"{len(failures)}-{subject.name.replace(': ', '-').replace(' ', '-')}-{path.name}"
                    )
                    kept.write_bytes(content)
                    failures[key] = Counter()
                failures[key][said] += 1
        seconds, worked = time.perf_counter() - began, time.process_time() - began_working
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        show(rows, spent, failures)
        total = sum(map(Counter.total, rows.values()))
        OUT.print(
            f"{total} inputs in {seconds:.0f} s, {total / seconds:.0f} a second ({total / worked:.0f} a second of "
            f"processor time), memory grew by {grown:.0f} MiB"
        )
    return 1 if failures else 0


def show(rows: dict[str, Counter[str]], spent: dict[str, float], failures: dict[tuple[str, str], Counter[str]]) -> None:
    """Print a row per reader, then every sort of failure with an example."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("reader", "inputs", "read", "refused", "failed", "ms each"):
        table.add_column(heading, justify="left" if heading == "reader" else "right")
    for name, row in rows.items():
        cells = [row.total(), row["read"], row["refused"], row["failed"]]
        table.add_row(name, *map(str, cells), f"{1000 * spent[name] / row.total():.1f}")
    OUT.print(table)
    for (name, sort), found in failures.items():
        OUT.print(f"FAILED {found.total()} x {name}: {sort}: {found.most_common(1)[0][0]!a}")


if __name__ == "__main__":
    sys.exit(main())
