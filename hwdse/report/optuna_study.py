"""A run as Optuna studies [Akiba2019]_, one per device, which the standard dashboard opens.

Optuna makes the database, the studies and their names. Trials go into its tables in bulk: adding them one by one takes
tens of milliseconds each.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, distribution_to_json
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy import Connection, MetaData, Table, insert
from sqlalchemy.exc import SQLAlchemyError

from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.progress import SILENT, Progress
from hwdse.reason import reason_of
from hwdse.report.tables import DeviceTables, RunTables
from hwdse.report.words import axis_label
from hwdse.search.suggestions import quiet_optuna

__all__ = ["study_name", "write_studies"]

Rows = list[dict[str, Any]]


def study_name(tables: RunTables, device: str) -> str:
    """Return what the study of a device is called."""
    return f"{tables.name} on {device}"


def write_studies(tables: RunTables, out: Path, progress: Progress = SILENT) -> Path:
    """Write one Optuna study per device of ``tables`` to the SQLite file ``out``, whole or not at all.

    A trial is a measured configuration, in the order of measuring. Its parameters are the tied groups, with the
    precision as a category; its values are the measured quality (shares in percent) and the costs, named as in the
    figures; its user attributes are ``config_id``, ``uniform``, ``on front``, ``picked``, ``within noise``,
    ``samples``, the quality's ``95 %`` interval, its ``drop`` with the interval, and the ``90 %`` interval of what is
    predicted. A device with nothing measured gets a study without trials, which says why.

    Raises
    ------
    InputError
        If ``out`` is there already, its folder is not, or the installed Optuna has other tables.
    """
    if out.exists():
        raise InputError(f"expected a file that is not there yet, got {out}; remove it or name another one")
    if not out.parent.is_dir():
        raise InputError(f"expected a folder to write to, got no folder {out.parent}; make it or name another one")
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    progress.start("studies", len(tables.results))
    try:
        with quiet_optuna():
            storage = RDBStorage(f"sqlite:///{temporary}")
            try:
                for result in tables.results.values():
                    _write_study(storage, tables, result)
                    progress.advance()
            finally:
                storage.remove_session()
                storage.engine.dispose()
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    return out


def _write_study(storage: RDBStorage, tables: RunTables, result: DeviceTables) -> None:
    """Let Optuna make the study of a device, and fill it."""
    quality = StudyDirection.MAXIMIZE if tables.quality.maximise else StudyDirection.MINIMIZE
    name = study_name(tables, result.device)
    study = optuna.create_study(
        storage=storage, study_name=name, directions=[quality, *[StudyDirection.MINIMIZE] * len(tables.costs)]
    )
    columns = (tables.quality.column, *tables.costs.values())
    study.set_metric_names([axis_label(column) for column in columns])
    about = {
        "run": str(tables.run),
        "device": result.device,
        "seed": tables.seed,
        "full precision": _in_reader_units(tables, tables.full_precision.quality),
        "device note": result.note,
        "nothing measured": result.emptiness if result.measured.empty else "",
    }
    for key, value in about.items():
        if value not in ("", None):
            study.set_user_attr(key, value)
    if not result.measured.empty:
        try:
            with storage.engine.begin() as connection:
                _insert_trials(connection, name, tables, result)
        except (KeyError, SQLAlchemyError) as error:
            raise InputError(
                f"expected the database tables of Optuna 5, got others from Optuna {optuna.__version__} "
                f"({reason_of(error)}); install optuna 5"
            ) from error


def _insert_trials(connection: Connection, name: str, tables: RunTables, result: DeviceTables) -> None:
    """Insert a trial per measured configuration, a statement per table."""
    schema = MetaData()
    schema.reflect(connection)
    studies, trials = schema.tables["studies"], schema.tables["trials"]
    study = connection.scalar(studies.select().with_only_columns(studies.c.study_id).filter_by(study_name=name))
    first = _next_key(connection, trials)
    now = datetime.now(UTC).replace(tzinfo=None)
    keys = range(first, first + len(result.measured))
    rows = {
        "trials": [
            {
                "trial_id": key,
                "number": number,
                "study_id": study,
                "state": TrialState.COMPLETE.name,
                "datetime_start": now,
                "datetime_complete": now,
            }
            for number, key in enumerate(keys)
        ],
        "trial_values": _values(tables, result, keys),
        "trial_params": _parameters(tables, result, keys),
        "trial_user_attributes": _attributes(tables, result, keys),
    }
    for name_of_table, its_rows in rows.items():
        table = schema.tables[name_of_table]
        if unknown := sorted(set(its_rows[0]) - set(table.columns.keys())):  # SQLAlchemy would leave them out unasked
            raise KeyError(f"{name_of_table} without {', '.join(unknown)}")
        connection.execute(insert(table), its_rows)


def _next_key(connection: Connection, trials: Table) -> int:
    """Return the first free key of the trials."""
    taken = connection.scalars(trials.select().with_only_columns(trials.c.trial_id)).all()
    return max(taken, default=0) + 1


def _values(tables: RunTables, result: DeviceTables, keys: Sequence[int]) -> Rows:
    """Return the rows of the objectives' values."""
    measured = result.measured
    columns = [measured[tables.quality.column] * tables.quality.factor, *(measured[c] for c in tables.costs.values())]
    return [
        {"trial_id": key, "objective": objective, "value": value, "value_type": "FINITE"}
        for objective, values in enumerate(columns)
        for key, value in zip(keys, values.tolist(), strict=True)
    ]


def _parameters(tables: RunTables, result: DeviceTables, keys: Sequence[int]) -> Rows:
    """Return the rows of the parameters: a group's precision is that of its first layer."""
    bits = [text.split() for text in result.measured["bits"]]
    places = {group: place for place, group in reversed(list(enumerate(tables.layers["group"])))}
    rows: Rows = []
    for group, place in sorted(places.items(), key=lambda item: item[1]):
        chosen = [precisions[place] for precisions in bits]
        choices = sorted(set(chosen), key=_width)
        codes = {text: code for code, text in enumerate(choices)}
        distribution = distribution_to_json(CategoricalDistribution(choices))
        rows += [
            {
                "trial_id": key,
                "param_name": group,
                "param_value": float(codes[text]),
                "distribution_json": distribution,
            }
            for key, text in zip(keys, chosen, strict=True)
        ]
    return rows


def _width(text: str) -> tuple[int, int, str]:
    """Return what precisions are sorted by, narrow ones first.

    >>> sorted(["W8A8", "W4A8", "Wnf4A8", "W4A4"], key=_width)
    ['W4A4', 'W4A8', 'Wnf4A8', 'W8A8']
    """
    precision = Precision.parse(text)
    return precision.weights.bits, precision.activations.bits, text


def _attributes(tables: RunTables, result: DeviceTables, keys: Sequence[int]) -> Rows:
    """Return the rows of the user attributes."""
    front = set(result.front["config_id"])
    quality = tables.quality
    bits = list(result.measured["bits"])
    factors = {
        c: f for c in tables.costs.values() if c in result.uncertainty and (f := result.factors(c, bits)) is not None
    }
    rows: Rows = []
    for place, (key, row) in enumerate(zip(keys, result.measured.to_dict("records"), strict=True)):
        shown = {column: _in_reader_units(tables, row[column]) for column in quality.columns}
        attributes = {
            "config_id": row["config_id"],
            "uniform": row["uniform"],
            "on front": row["config_id"] in front,
            "picked": row["config_id"] == result.pick,
            "within noise": row["within_noise"] == "yes",
            "samples": int(row["samples"]),
            f"{axis_label(quality.column)}, 95 %": [shown[f"{quality.column}_{end}"] for end in ("low", "high")],
            "drop": shown[quality.drop],
            "drop, 95 %": [shown[f"{quality.drop}_{end}"] for end in ("low", "high")],
            **{
                f"{axis_label(column)}, 90 %": [row[column] / factor[place], row[column] * factor[place]]
                for column, factor in factors.items()
            },
        }
        rows += [{"trial_id": key, "key": name, "value_json": json.dumps(value)} for name, value in attributes.items()]
    return rows


def _in_reader_units(tables: RunTables, value: float | None) -> float | None:
    """Return a quality as it is shown: shares in percent."""
    return None if value is None else value * tables.quality.factor
