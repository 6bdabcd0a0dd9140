"""The measured front of a device, read back from its run folder: what a pick is made from, without the network."""

from __future__ import annotations

from pathlib import Path

from hwdse.errors import InputError, RunFolderError
from hwdse.files import inside
from hwdse.front import Front, Objective
from hwdse.report.tables import RunTables

__all__ = ["load_front"]


def load_front(run: Path, device: str, *, tables: RunTables | None = None) -> Front:
    """Return the front of ``device`` in the run folder ``run``, with all columns of its table.

    Parameters
    ----------
    tables
        The run's tables, if they were loaded already.

    Raises
    ------
    RunFolderError
        If the run has no such device, or a table is missing or damaged.
    """
    tables = tables or RunTables.load(run, devices=[device])
    path = inside(run, device, "front.csv")
    if not path.is_file():
        raise RunFolderError(f"expected a front of {device} in {run}, got none: {tables.results[device].emptiness}")
    quality = Objective("accuracy", tables.quality.column, maximize=tables.quality.maximise)
    costs = [Objective(name, column, maximize=False) for name, column in tables.costs.items()]
    try:
        return Front(
            tables.results[device].front,
            (quality, *costs),
            tuple(tables.layers["layer"]),
            reach=tables.reach.get(device, {}),
            device=device,
        )
    except InputError as error:
        raise RunFolderError(f"expected a front in {path}, got a damaged one: {error}") from error
