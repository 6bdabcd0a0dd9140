"""The tables of an analysis folder, read and checked once: the figures of an analysis see nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwdse.errors import InputError, RunFolderError
from hwdse.files import read_cells
from hwdse.formats import parse

__all__ = ["SECOND", "AnalysisTables", "TensorTables"]

SECOND = ".second"
"""What follows a layer's name in the name of its second operand, where that is no weight."""

KINDS = ("weight", "activation")
UNITS = ("value", "share of channel maximum")
POOLS = ("all", "within")
GRID = ["low", "high", "scale", "zero_point"]
RANKS = [f"{rank}{end}" for rank in ("kendall", "spearman") for end in ("", "_low", "_high")]
EDGE_TOLERANCE = 1e-9
"""Share of a tensor's range by which two neighbouring bins may overlap: edges that were rounded when written."""


@dataclass(frozen=True)
class TensorTables:
    """Distribution of one tensor, and what every format would do to it under one scheme.

    Attributes
    ----------
    name
        Its name.
    kind
        ``weight`` or ``activation``.
    histogram
        Rows of ``histograms.csv``.
    difficulty
        Rows of ``difficulty.csv``; there may be none.
    """

    name: str
    kind: str
    histogram: pd.DataFrame
    difficulty: pd.DataFrame

    @property
    def unit(self) -> str:
        """Unit of values, clip points and levels."""
        return str(self.histogram["unit"].iloc[0])

    @property
    def count(self) -> float:
        """Number of values seen."""
        return float(self.histogram["count"].sum())

    @property
    def zeros(self) -> float:
        """Number of values that are exactly zero."""
        point = self.histogram["left"] == self.histogram["right"]
        return float(self.histogram.loc[point, "count"].sum())

    @cached_property
    def bins(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Edges ``(n + 1,)`` and counts ``(n,)`` without the exact zeros; gaps between bins are bins of count 0."""
        wide = self.histogram[self.histogram["left"] < self.histogram["right"]].sort_values("left")
        left, right, count = (wide[name].to_numpy(float) for name in ("left", "right", "count"))
        if not left.size:
            return np.zeros(1), np.zeros(0)
        gap = np.append(left[1:] - right[:-1] > EDGE_TOLERANCE * (right[-1] - left[0]), False)
        places = np.flatnonzero(gap) + 1
        edges = np.append(np.insert(left, places, right[gap]), right[-1])
        return edges, np.insert(count, places, 0.0)

    @cached_property
    def best(self) -> pd.DataFrame:
        """The row with the highest predicted SQNR of every format, fewest bits first."""
        ranked = self.difficulty.sort_values("sqnr_db_predicted", ascending=False, kind="stable")
        rows = ranked.drop_duplicates("format").set_index("format", drop=False).rename_axis(index=None)
        return rows.loc[self.difficulty["format"].unique()].sort_values("bits", kind="stable")

    @property
    def reference(self) -> str | None:
        """The integer format with the fewest bits, else the format with the fewest; ``None`` without a format."""
        names = self.best["format"].tolist()
        return min(names, key=lambda name: not parse(name).is_integer) if names else None


@dataclass(frozen=True)
class AnalysisTables:
    """Every table of an analysis.

    Attributes
    ----------
    folder
        The analysis folder.
    layers
        One row per layer in execution order.
    histograms
        Bins of every tensor.
    difficulty
        One row per (scheme, tensor, format, calibrator).
    correlation
        One row per (score, scheme, pool); there may be none.
    """

    folder: Path
    layers: pd.DataFrame
    histograms: pd.DataFrame
    difficulty: pd.DataFrame
    correlation: pd.DataFrame

    @classmethod
    def load(cls, folder: Path) -> AnalysisTables:
        """Return the tables of the analysis folder ``folder``.

        Raises
        ------
        RunFolderError
            If a table is missing or damaged, or tables disagree.
        """
        layers = _read(folder / "layers.csv", text=["layer", "op_class", "input"], numbers=["macs", "weight_count"])
        histograms = _read(
            folder / "histograms.csv",
            text=["tensor", "kind", "layer", "unit"],
            numbers=["left", "right", "count"],
        )
        difficulty = _read(
            folder / "difficulty.csv",
            text=["scheme", "tensor", "kind", "layer", "format", "calibrator", "levels"],
            numbers=["bits"],
            open_numbers=[*GRID, "sqnr_db_predicted"],
        )
        correlation = _read(
            folder / "correlation.csv", text=["score", "scheme", "pool"], numbers=["pairs", "groups"],
            open_numbers=RANKS,
        )  # fmt: skip
        for name, table in (("layers", layers), ("histograms", histograms), ("difficulty", difficulty)):
            if table.empty:
                raise RunFolderError(f"expected rows in {folder / name}.csv, got none; analyze again")
        _check_layers(layers, folder / "layers.csv")
        _check_histograms(histograms, layers, folder / "histograms.csv")
        _check_difficulty(difficulty, histograms, folder / "difficulty.csv")
        _check_correlation(correlation, difficulty, folder / "correlation.csv")
        return cls(folder, layers, histograms, difficulty, correlation)

    @property
    def schemes(self) -> list[str]:
        """All schemes, in the order of the difficulty table."""
        return list(dict.fromkeys(self.difficulty["scheme"]))

    @cached_property
    def _bins(self) -> Mapping[tuple[str, str], pd.DataFrame]:
        return {(str(kind), str(name)): rows for (kind, name), rows in self.histograms.groupby(["kind", "tensor"])}

    @cached_property
    def _scores(self) -> Mapping[tuple[str, str, str], pd.DataFrame]:
        groups = self.difficulty.groupby(["scheme", "kind", "tensor"])
        return {(str(scheme), str(kind), str(name)): rows for (scheme, kind, name), rows in groups}

    @cached_property
    def _weights(self) -> Mapping[str, str]:
        weights = self.histograms[self.histograms["kind"] == "weight"]
        return dict(zip(weights["layer"], weights["tensor"], strict=True))

    def _tensor(self, scheme: str, kind: str, name: str) -> TensorTables | None:
        if (kind, name) not in self._bins:
            return None
        none = self.difficulty.iloc[:0]
        return TensorTables(name, kind, self._bins[kind, name], self._scores.get((scheme, kind, name), none))

    def operands(self, scheme: str, layer: str) -> tuple[TensorTables | None, TensorTables | None]:
        """Return the weight of ``layer``, or the second operand in its place, and its input; ``None`` if not there."""
        row = self.layers.set_index("layer").loc[layer]
        weight = self._weights.get(layer)
        if weight is None:
            second = self._tensor(scheme, "activation", layer + SECOND)
        else:
            second = self._tensor(scheme, "weight", weight)
        return second, self._tensor(scheme, "activation", str(row["input"]))


def _read(path: Path, *, text: Sequence[str], numbers: Sequence[str], open_numbers: Sequence[str] = ()) -> pd.DataFrame:
    """Return the named columns of a CSV table; numbers are finite, those of ``open_numbers`` may be empty or inf."""
    try:
        table = read_cells(path)
    except FileNotFoundError as error:
        raise RunFolderError(
            f"expected the file {path}, got none; is {path.parent} the folder of a finished analysis?"
        ) from error
    except ValueError as error:
        raise RunFolderError(f"expected a CSV table in {path}, got {error}; analyze again") from error
    wanted = [*text, *numbers, *open_numbers]
    missing = [name for name in wanted if name not in table.columns]
    if missing:
        raise RunFolderError(
            f"expected the columns {', '.join(wanted)} in {path}, got none called {', '.join(missing)}; analyze again"
        )
    columns = {name: table[name] for name in text}
    columns |= {name: _floats(table[name], path, closed=name in numbers) for name in (*numbers, *open_numbers)}
    return pd.DataFrame(columns)


def _floats(cells: pd.Series, path: Path, *, closed: bool) -> pd.Series:
    values = []
    for line, cell in enumerate(cells, start=2):
        try:
            value = float(cell or "nan")
        except ValueError:
            value = None
        if value is None or (closed and not np.isfinite(value)):
            raise RunFolderError(
                f"expected {'finite ' if closed else ''}numbers in column {cells.name} of {path}, got {cell!r} in line "
                f"{line}; analyze again"
            )
        values.append(value)
    return pd.Series(values, dtype=float)


def _refuse(wrong: pd.Series, path: Path, expected: str, got: pd.Series) -> None:
    """Raise an error that names the first row where ``wrong`` is true."""
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise RunFolderError(
            f"expected {expected} in {path}, got {got.tolist()[row]!r} in line {row + 2}; analyze again"
        )


def _check_layers(layers: pd.DataFrame, path: Path) -> None:
    _refuse(layers["layer"].duplicated(), path, "every layer once", layers["layer"])


def _check_histograms(histograms: pd.DataFrame, layers: pd.DataFrame, path: Path) -> None:
    _refuse(~histograms["kind"].isin(KINDS), path, f"the kinds {' and '.join(KINDS)}", histograms["kind"])
    _refuse(~histograms["unit"].isin(UNITS), path, f"the units {' and '.join(UNITS)}", histograms["unit"])
    _refuse(~histograms["layer"].isin(layers["layer"]), path, "the layers of layers.csv", histograms["layer"])
    left, right = histograms["left"], histograms["right"]
    _refuse(~((left < right) | ((left == 0) & (right == 0))), path, "left < right, or both 0 for exact zeros", left)
    _refuse(histograms["count"] < 0, path, "counts of at least 0", histograms["count"])
    tensors = histograms.groupby(["kind", "tensor"], sort=False)
    _refuse(tensors["unit"].transform("nunique") > 1, path, "one unit for every tensor", histograms["tensor"])
    _refuse(tensors["count"].transform("sum") <= 0, path, "values in every tensor", histograms["tensor"])
    ordered = histograms[left < right].sort_values("left", kind="stable")
    bins = ordered.groupby(["kind", "tensor"], sort=False)
    slack = EDGE_TOLERANCE * (bins["right"].transform("max") - bins["left"].transform("min"))
    overlap = (bins["right"].shift() - ordered["left"] > slack).reindex(histograms.index, fill_value=False)
    _refuse(overlap, path, "bins that do not overlap", histograms["left"])


def _check_difficulty(difficulty: pd.DataFrame, histograms: pd.DataFrame, path: Path) -> None:
    known = pd.MultiIndex.from_frame(histograms[["kind", "tensor"]])
    strange = ~pd.MultiIndex.from_frame(difficulty[["kind", "tensor"]]).isin(known)
    _refuse(pd.Series(strange), path, "the tensors of histograms.csv", difficulty["tensor"])
    fine = difficulty["levels"].map(_is_list)
    _refuse(~fine, path, "levels as finite numbers with spaces between them", difficulty["levels"])
    # A learned format is its list of levels: it needs neither a range nor a scale.
    fixed = difficulty["levels"] == ""
    _refuse(fixed & ~(difficulty["low"] <= difficulty["high"]), path, "low <= high", difficulty["low"])
    _refuse(fixed & ~(difficulty["scale"] > 0), path, "positive scales", difficulty["scale"])
    _refuse(fixed & difficulty["zero_point"].isna(), path, "zero points", difficulty["tensor"])
    infinite = difficulty[GRID].isin([np.inf, -np.inf]).any(axis=1)
    _refuse(infinite, path, "finite ranges and scales", difficulty["tensor"])
    for name in difficulty["format"].unique():
        try:
            parse(name)
        except InputError as error:
            raise RunFolderError(f"expected names of number formats in {path}, got {name!r}: {error}") from error
    cells = ["scheme", "kind", "tensor", "format", "calibrator"]
    _refuse(difficulty.duplicated(cells), path, "one row per scheme, tensor, format and calibrator",
            difficulty["tensor"])  # fmt: skip


def _is_list(cell: str) -> bool:
    try:
        return bool(np.isfinite(np.array(cell.split(), dtype=np.float64)).all())
    except ValueError:
        return False


def _check_correlation(correlation: pd.DataFrame, difficulty: pd.DataFrame, path: Path) -> None:
    _refuse(~correlation["pool"].isin(POOLS), path, f"the pools {' and '.join(POOLS)}", correlation["pool"])
    known = correlation["scheme"].isin(difficulty["scheme"])
    _refuse(~known, path, "the schemes of difficulty.csv", correlation["scheme"])
    _refuse(correlation[RANKS].abs().max(axis=1) > 1 + EDGE_TOLERANCE, path, "correlations in [-1, 1]",
            correlation["score"])  # fmt: skip
    _refuse(correlation.duplicated(["score", "scheme", "pool"]), path, "one row per score, scheme and pool",
            correlation["score"])  # fmt: skip
