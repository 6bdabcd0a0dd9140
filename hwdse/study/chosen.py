"""The choices of a run in their order, in ``choices.csv``: a resumed run takes them over instead of making them again.

A line is written before its evaluation begins, so a killed process loses none that counts; what follows a torn line is
chosen again, to the same effect.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self, TextIO, cast

from hwdse.files import write_bytes

__all__ = ["Chosen", "ChosenFile"]


@dataclass(frozen=True)
class Chosen:
    """A configuration that was chosen to be measured.

    Attributes
    ----------
    scheme, bits
        What is measured.
    device
        Who chose it; empty for a uniform precision.
    turn
        Which of the device's turns it was.
    ceiling
        Harm from which on it is hopeless.
    settled
        How many results of the run were known when it was chosen.
    tolerance
        The budget's at that time.
    """

    scheme: str
    bits: str
    device: str
    turn: int
    ceiling: float
    settled: int
    tolerance: float

    @classmethod
    def read(cls, row: Sequence[str]) -> Chosen:
        """Return what a row of the file says."""
        scheme, bits, device, turn, ceiling, settled, tolerance = row
        return cls(scheme, bits, device, int(turn), float(ceiling), int(settled), float(tolerance))


class ChosenFile:
    """Keeps the choices of a run; a context that closes the file.

    Parameters
    ----------
    path
        The file; ``None`` keeps nothing.
    is_possible
        Returns False for a choice that no session of this run can have made.

    Attributes
    ----------
    earlier
        Choices of earlier sessions, up to the first line that cannot be read or is not possible.
    """

    def __init__(self, path: Path | None, is_possible: Callable[[Chosen], bool] = lambda _: True) -> None:
        self.earlier: list[Chosen] = []
        self._path, self._file = path, cast(TextIO | None, None)
        if path is None:
            return
        there = path.read_bytes() if path.is_file() else b""
        kept = self._read(there, is_possible) or f"{','.join(field.name for field in fields(Chosen))}\n".encode()
        if kept != there:
            write_bytes(path, kept)

    def __enter__(self) -> Self:
        if self._path is not None:
            self._file = self._path.open("a", encoding="utf-8", newline="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, chosen: Chosen) -> None:
        """Append a choice; once this returns, the end of the process does not lose it."""
        if self._file is not None:
            csv.writer(self._file, lineterminator="\n").writerow(vars(chosen).values())
            self._file.flush()

    def _read(self, content: bytes, is_possible: Callable[[Chosen], bool]) -> bytes:
        """Read the choices, and return what of ``content`` is whole."""
        lines = content.split(b"\n")[:-1]
        whole = lines[:1]
        for line in lines[1:]:
            try:
                chosen = Chosen.read(next(csv.reader([line.decode()])))
            except (ValueError, csv.Error, StopIteration):
                break
            if not is_possible(chosen):
                break
            self.earlier.append(chosen)
            whole.append(line)
        return b"".join(line + b"\n" for line in whole)
