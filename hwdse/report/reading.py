"""A table of a run folder with the columns that a report needs, every number checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hwdse.errors import RunFolderError

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
        # As text first: float() gives back the exact number that was written, and "NA" may be a name.
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise RunFolderError(
            f"expected the file {path}, got none; is {path.parent} a finished run? Run hwdse explore with --resume"
        ) from None
    except (OSError, UnicodeDecodeError, pd.errors.EmptyDataError, pd.errors.ParserError) as error:
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
    values = []
    for line, cell in enumerate(cells, start=2):
        try:
            value = float(cell) if cell else np.nan
        except ValueError:
            value = np.inf
        if not (np.isfinite(value) or (holes and np.isnan(value))):
            raise RunFolderError(
                f"expected finite numbers in column {cells.name} of {path}, got {cell!r} in line {line}; "
                "restore the file"
            )
        values.append(value)
    return pd.Series(values, dtype=float)
