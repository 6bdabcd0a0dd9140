"""A table of a run folder with the columns that a report needs, every number checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hwdse.errors import RunFolderError
from hwdse.files import read_cells

__all__ = ["read_table"]


def read_table(
    path: Path,
    *,
    text: Sequence[str],
    numbers: Sequence[str],
    holes: Sequence[str] = (),
    extra: Sequence[str] = (),
    left_out: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Return the named columns of a CSV table.

    Numbers must be finite, except that cells of ``holes`` and of ``extra`` may be empty; a column of ``extra`` that is
    absent is one of empty cells. Where ``left_out`` is given, all other columns but these are read as numbers too, and
    the order is that of the file.

    Raises
    ------
    RunFolderError
        If it is missing or damaged: no table, without a column, or with a cell that is no finite number.
    """
    try:
        table = read_cells(path)
    except FileNotFoundError:
        raise RunFolderError(
            f"expected the file {path}, got none; is {path.parent} a finished run? Run hwdse explore with --resume"
        ) from None
    except ValueError as error:
        raise RunFolderError(f"expected a CSV table in {path}, got {error}; restore the file") from error
    missing = [name for name in (*text, *numbers, *holes) if name not in table.columns]
    if missing:
        raise RunFolderError(f"expected the columns {', '.join(missing)} in {path}, got {', '.join(table.columns)}")
    named = (*text, *numbers, *holes, *extra)
    rest = [] if left_out is None else [name for name in table.columns if name not in (*named, *left_out)]
    table = table.assign(**{name: "" for name in extra if name not in table.columns})
    columns = {name: table[name] for name in text}
    columns |= {
        name: _floats(table[name], path, holes=name in (*holes, *extra)) for name in (*named[len(text) :], *rest)
    }
    return pd.DataFrame(columns if left_out is None else {n: columns[n] for n in table.columns if n in columns})


def _floats(cells: pd.Series, path: Path, *, holes: bool) -> pd.Series:
    values = np.array([_number(cell) for cell in cells.tolist()], dtype=np.float64)
    wrong = ~np.isfinite(values) & ~(np.isnan(values) & holes)
    if wrong.any():
        row = int(wrong.argmax())
        raise RunFolderError(
            f"expected finite numbers in column {cells.name} of {path}, got {cells.iloc[row]!r} in line {row + 2}; "
            "restore the file"
        )
    return pd.Series(values)


def _number(cell: str) -> float:
    """Return the number in a cell: NaN where it is empty, and infinity where it holds something else."""
    try:
        return float(cell) if cell else np.nan
    except ValueError:
        return np.inf
