"""Printing for people and for machines: tables and progress on a terminal, JSON on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

__all__ = ["CONSOLE", "Watcher", "fail", "note", "print_json", "watched"]

# Without emoji and markup: ":fire:" in a name is no picture, and "[/b]" no end of a style.
CONSOLE = Console(highlight=False, emoji=False, markup=False)
_ERRORS = Console(stderr=True, highlight=False, emoji=False, markup=False)


def fail(sentence: str) -> None:
    """Print an error sentence to standard error."""
    _ERRORS.print(f"error: {sentence}", markup=False, soft_wrap=True)


def note(sentence: str) -> None:
    """Print to standard error what the user should know."""
    _ERRORS.print(f"note: {sentence}", markup=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print JSON to standard output."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


class Watcher:
    """Shows stages as bars with the time left."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._task: TaskID | None = None

    def start(self, stage: str, total: int | None) -> None:
        """Say that ``stage`` begins."""
        self._task = self._bar.add_task(stage, total=total)

    def advance(self) -> None:
        """Say that a step is done."""
        if self._task is not None:
            self._bar.advance(self._task)

    def warn(self, sentence: str) -> None:
        """Print a warning above the bars."""
        self._bar.console.print(f"note: {sentence}", markup=False, soft_wrap=True)


@contextmanager
def watched(*, only_live: bool = False) -> Iterator[Watcher]:
    """Show progress on standard error while the context lasts; what user code prints goes there too.

    With ``only_live`` nothing is shown where standard error is no terminal: an answer that takes seconds leaves no bars
    in a log.
    """
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    hidden = only_live and not _ERRORS.is_terminal
    with Bar(*columns, console=_ERRORS, disable=hidden, transient=only_live) as bar, redirect_stdout(sys.stderr):
        yield Watcher(bar)
