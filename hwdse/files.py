"""Files that are written whole or not at all, and files to read that anybody may have written.

What is read may be damaged, or made to do damage: it is checked here once, whatever it is about. Text says what it can
be told as, numbers are finite and of ordinary size, nesting is shallow, and no name leads out of its folder.
"""

from __future__ import annotations

import json
import math
import os
import tomllib
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import pandas as pd

from hwdse.errors import InputError, RunFolderError
from hwdse.reason import reason_of

__all__ = [
    "check_file",
    "check_folder",
    "inside",
    "is_left_over",
    "lock",
    "parse_json",
    "parse_toml",
    "read_cells",
    "read_csv",
    "read_json",
    "write_bytes",
    "write_csv",
    "write_json",
    "write_text",
]

DEEPEST = 32
"""Levels of nesting; a run's files have five."""

LARGEST = 2**63
"""No whole number that anything counts is as large."""

LONGEST = 200
"""Bytes of a name, so that a suffix and the mark of a temporary file have room in the 255 of a file system."""


def check_folder(path: Path) -> None:
    """Check that files can be written to the folder ``path``, which need not be there yet; nothing of it is left.

    Something is written to find out, since rights alone do not say: root has them on what is mounted read-only, too.

    Raises
    ------
    InputError
        If nothing can be written there.
    """
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    try:
        with TemporaryDirectory(dir=there, prefix=".", suffix=".tmp"):
            pass
    except OSError as error:
        raise InputError(
            f"expected a folder to write to, got {path}, and {there} is none ({error.strerror}); name another one"
        ) from error


def check_file(path: Path) -> None:
    """Check that the file ``path`` can be written, anew or in place of an old one.

    Raises
    ------
    InputError
        If it is a folder, or nothing can be written where it would lie.
    """
    if path.is_dir():
        raise InputError(f"expected a file to write, got the folder {path}; name another one")
    check_folder(path.parent)


def write_bytes(path: Path, content: bytes) -> Path:
    """Write ``content`` to ``path``, whole or not at all, and return ``path``; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def is_left_over(path: Path) -> bool:
    """Return True if ``path`` is a temporary file of a process that was killed while it wrote.

    >>> is_left_over(Path("run/.front.csv.4711.tmp")), is_left_over(Path("run/front.csv"))
    (True, False)
    """
    return path.name.startswith(".") and path.suffix == ".tmp"


def lock(descriptor: int) -> bool:
    """Lock an open file or folder until it is closed, or its process ends however; return False if another has it.

    Where the system has no such locks, nothing is locked, and nobody else has anything.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_text(path: Path, text: str) -> Path:
    """Write ``text`` to ``path`` in UTF-8, whole or not at all."""
    return write_bytes(path, text.encode())


def write_csv(path: Path, table: pd.DataFrame) -> Path:
    """Write ``table`` to ``path``, whole or not at all; floats with all their digits."""
    return write_text(path, table.to_csv(index=False))


def write_json(path: Path, value: Mapping[str, Any]) -> Path:
    """Write ``value`` to ``path``, whole or not at all."""
    return write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def inside(folder: Path, *names: str) -> Path:
    """Return the path of a file in ``folder``, a name for each level; every path made of names that were read is so.

    Raises
    ------
    RunFolderError
        If a name is more than one plain name, or a link on the way leads out of the folder.

    >>> inside(Path("run"), "mpic", "front.csv").as_posix()
    'run/mpic/front.csv'
    """
    for name in names:
        if not _is_plain(name):
            raise RunFolderError(
                f"expected a plain name of a file or folder in {folder}, got {name[:LONGEST]!a}; rename it where "
                "it comes from"
            )
    path = folder.joinpath(*names)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise RunFolderError(f"expected {path} to lie in {folder}, got a link that leads out of it; remove the link")
    return path


def _is_plain(name: str) -> bool:
    r"""Return True if ``name`` is the name of one file on any system.

    >>> [_is_plain(name) for name in ("mpic", "a b", "..", "a/b", "C:evil", "a\x00")]
    [True, True, False, False, False, False]
    """
    return (
        name.strip(". ") != ""
        and not any(mark in "/\\:" or unicodedata.category(mark) in ("Cc", "Cs") for mark in name)
        and len(name.encode()) <= LONGEST
    )


def parse_json(text: str) -> Any:
    """Return the value in a JSON text.

    Raises
    ------
    ValueError
        If it is none, or has what no file of ours has: NaN, numbers that no float holds, deep nesting, half characters.
    """
    try:
        value = json.loads(text, parse_float=_finite, parse_int=_whole, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError(f"more than {DEEPEST} levels of nesting") from error
    _check_tree(value)
    return value


def parse_toml(text: str) -> dict[str, Any]:
    """Return the table in a TOML text.

    Raises
    ------
    ValueError
        If it is none, or deeply nested, or has whole numbers beyond 64 bits.
    """
    try:
        value = tomllib.loads(text)
    except RecursionError as error:
        raise ValueError(f"more than {DEEPEST} levels of nesting") from error
    _check_tree(value)
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"a number that is too large: {text[:40]}")
    return value


def _whole(text: str) -> int:
    if len(text.lstrip("-")) > len(str(LARGEST)):
        raise ValueError(f"a number that is too large: {text[:40]}")
    return int(text)


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text}, which is no JSON")


def _check_tree(value: object) -> None:
    """Check nesting, whole numbers and characters of what a file holds, level by level."""
    level, depth = [value], 0
    while level:
        if depth > DEEPEST:
            raise ValueError(f"more than {DEEPEST} levels of nesting")
        for part in level:
            if isinstance(part, str):
                part.encode()
            elif isinstance(part, int) and not -LARGEST <= part < LARGEST:
                raise ValueError("a number that is too large")
        tables = [part for part in level if isinstance(part, dict)]
        lists = [part for part in level if isinstance(part, list)]
        for table in tables:
            "".join(table).encode()
        level = [inner for table in tables for inner in table.values()] + [inner for part in lists for inner in part]
        depth += 1


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a run's JSON file.

    Raises
    ------
    RunFolderError
        If it is missing or damaged.
    """
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        got = f"the file {path.parent}" if path.parent.is_file() else f"none in {path.parent}"
        raise RunFolderError(
            f"expected a run folder with {path.name}, got {got}; name another folder, or explore to make one"
        ) from error
    except (OSError, ValueError) as error:
        raise RunFolderError(
            f"expected JSON in {path}, got {reason_of(error)}; explore again into another folder"
        ) from error
    if not isinstance(value, dict):
        raise RunFolderError(f"expected an object in {path}, got {type(value).__name__}")
    return value


def read_cells(path: Path) -> pd.DataFrame:
    """Return a CSV table with a header, every cell as the text that was written: "NA" may be a name.

    Raises
    ------
    FileNotFoundError
        If there is no file.
    ValueError
        If it is no table: no text, no header, or rows that are longer than it.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(error.strerror) from error
    except ValueError as error:
        raise ValueError(" ".join(str(error).split())) from error
    if not isinstance(table.index, pd.RangeIndex):  # what pandas makes of more cells than the header has
        raise ValueError("rows that are longer than the header")  # noqa: TRY004  (of the file, no argument)
    return table


def read_csv(path: Path, *, text: Sequence[str]) -> pd.DataFrame:
    """Return a run's table: columns ``text`` as they stand, all others as the numbers that were written, bit for bit.

    Raises
    ------
    RunFolderError
        If it is missing or damaged, or has no column of ``text``.
    """
    try:
        table = read_cells(path)
        if absent := [name for name in text if name not in table.columns]:
            raise ValueError(f"one without the columns {', '.join(absent)}")  # noqa: TRY301  (told like all else that is wrong)
        # float() gives back the exact number.
        numbers = {name: list(map(float, table[name])) for name in table.columns if name not in text}
        return pd.DataFrame({name: numbers.get(name, table[name]) for name in table.columns}, columns=table.columns)
    except FileNotFoundError as error:
        raise RunFolderError(f"expected a table {path}, got none; explore again into another folder") from error
    except (ValueError, TypeError) as error:
        raise RunFolderError(f"expected a CSV table in {path}, got {error}; restore the file") from error
