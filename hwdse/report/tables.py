"""The result tables of a run folder, read and checked once: figures and terminal tables see nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from hwdse.errors import RunFolderError
from hwdse.files import inside, read_json
from hwdse.report.reading import read_table
from hwdse.report.words import PERCENT, axis_label, drop_text, split_column

Floats = NDArray[np.float64]

DEFAULT_DROP = 0.01
"""Drop of quality that a pick may have where the experiment does not say."""

PREDICTED = ("quality_predicted", "quality_predicted_low", "quality_predicted_high")
ROOFLINE_NUMBERS = (
    "macs",
    "memory_bytes",
    "memory_gb_per_s",
    "compute_gmac_per_s",
    "bound_ms_predicted",
    "latency_ms_predicted",
)

__all__ = ["DEFAULT_DROP", "DeviceTables", "FullPrecision", "Quality", "RunTables", "device_of"]


class FullPrecision(BaseModel):
    """Measured quality of the network in full precision; ``None`` where it has no finite value (SQNR).

    ``doubt`` says where it is not shown to beat a guess.
    """

    quality: float | None
    low: float | None = None
    high: float | None = None
    samples: int
    doubt: str = ""


class _Objectives(BaseModel):
    maximize: list[str] = []
    minimize: list[str] = []


class _Limits(BaseModel):
    """What somebody asked a pick to be."""

    maximum: dict[str, float] = {}
    minimum: dict[str, float] = {}
    minimize: str | None = None


class _Identity(BaseModel):
    """What the run is about, as far as a report needs it."""

    loss: str = "kl"
    recipe: str = ""


class _Resolved(BaseModel):
    """The keys of ``resolved.json`` that a report needs; others may be there too."""

    name: str
    seed: int
    devices: list[str]
    objectives: _Objectives
    quality: str
    columns: dict[str, str]
    full_precision: FullPrecision
    device_notes: dict[str, str] = {}
    worth: dict[str, tuple[str, ...]] = {}
    infeasible: dict[str, str] = {}
    reach: dict[str, dict[str, float]] = {}
    limits: dict[str, dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]]] = {}
    uncertainty: dict[str, dict[str, Annotated[float, Field(ge=1, allow_inf_nan=False)]]] = {}
    widening: dict[str, dict[str, Annotated[float, Field(ge=1, allow_inf_nan=False)]]] = {}
    constants: dict[str, dict[str, Annotated[float, Field(allow_inf_nan=False)]]] = {}
    titles: dict[str, str] = {}
    max_drop: float = DEFAULT_DROP
    schemes: dict[str, str] = {}
    profiles: dict[str, str] = {}
    identity: _Identity = _Identity()


@dataclass(frozen=True)
class Quality:
    """The measured quality: its name, whether more of it is better, and the names of its columns."""

    name: str
    maximise: bool

    @property
    def column(self) -> str:
        """Column of the measured value.

        >>> Quality("top1", True).column
        'top1_measured'
        """
        return f"{self.name}_measured"

    @property
    def drop(self) -> str:
        """Column of the paired difference from full precision, positive where it is worse."""
        return f"{self.name}_drop_measured"

    @property
    def columns(self) -> list[str]:
        """All columns: value and drop, each with its 95 % interval."""
        return [f"{column}{end}" for column in (self.column, self.drop) for end in ("", "_low", "_high")]

    @property
    def factor(self) -> float:
        """Number that a value is multiplied with to be shown: 100 for shares, which are shown in percent."""
        return 100.0 if self.name in PERCENT else 1.0

    @property
    def label(self) -> str:
        """Words for an axis, with the unit and, where it is not obvious, the direction."""
        return axis_label(self.column) + ("" if self.maximise else "\nlower is better")

    def loss(self, values: NDArray[np.float64], reference: float) -> NDArray[np.float64]:
        """Return how much worse than ``reference`` each value is.

        >>> Quality("kl", False).loss(np.array([0.5, 0.25]), 0.25).tolist()
        [0.25, 0.0]
        """
        return reference - values if self.maximise else values - reference


@dataclass(frozen=True)
class DeviceTables:
    """What a run found for one device.

    Attributes
    ----------
    device
        Its name.
    front, measured, predicted
        The tables of those names; ``front`` may be empty.
    pick
        The chosen configuration's identifier, or ``None`` where nothing was picked.
    asked
        What somebody wanted of it, in words; empty where nobody said.
    note
        A caveat about the device's figures; empty where there is none.
    worth
        What narrower precisions buy on it, and where they do not pay, in sentences.
    infeasible
        Why no configuration fits the device; empty where some do.
    limits
        Column to the most that fits the device's memories.
    uncertainty
        Column to a factor ``f``: 90 % of published figures lie within predicted / f to predicted x f.
    widening
        Precision to what such factors grow by in a configuration that uses it; see :meth:`factors`.
    resources
        Latency by group, candidate and resource; ``None`` where the run did not record it.
    costs
        What each candidate costs each group: one row per (group, candidate) with a column per additive metric; ``None``
        where the run did not record it.
    constants
        Column to what no choice changes; empty where the run did not record it.
    title
        The profile's words for the device; its name where there are none.
    roofline
        What bounds every layer at every candidate; ``None`` where the run did not record it.
    scheme
        Key of its quantization scheme; empty where the run does not say.
    verified
        What ``hwdse verify`` found of one configuration; empty where none was verified.
    """

    device: str
    front: pd.DataFrame
    measured: pd.DataFrame
    predicted: pd.DataFrame
    pick: str | None = None
    asked: str = ""
    note: str = ""
    worth: tuple[str, ...] = ()
    infeasible: str = ""
    limits: Mapping[str, float] = field(default_factory=dict)
    uncertainty: Mapping[str, float] = field(default_factory=dict)
    widening: Mapping[str, float] = field(default_factory=dict)
    resources: pd.DataFrame | None = None
    costs: pd.DataFrame | None = None
    constants: Mapping[str, float] = field(default_factory=dict)
    title: str = ""
    roofline: pd.DataFrame | None = None
    scheme: str = ""
    verified: Mapping[str, Any] = field(default_factory=dict)

    def factors(self, column: str, bits: Iterable[str]) -> Floats | None:
        """Return the factor of the 90 % interval in ``column`` of each configuration; ``None`` where none is known.

        1 for what is counted. ``bits`` are the configurations' precisions, layer by layer, as the tables have them.
        """
        if split_column(column)[2] != "predicted":
            return np.array([1.0 for _ in bits])
        if column not in self.uncertainty:
            return None
        grown = [max([1.0, *(self.widening.get(one, 1.0) for one in {*text.split()})]) for text in bits]
        return self.uncertainty[column] * np.array(grown)

    def factor(self, column: str, bits: str) -> float | None:
        """Return what :meth:`factors` says of one configuration."""
        found = self.factors(column, [bits])
        return None if found is None else float(found[0])

    @property
    def note_sentence(self) -> str:
        """The whole note with the device's name, as a sentence; empty without one."""
        return f"{self.device}: {self.note}." if self.note else ""

    @property
    def caveat_sentence(self) -> str:
        """The caveat with the device's name, as a sentence for a caption; empty without one."""
        return f"{self.device}: {self.caveat}." if self.note else ""

    @property
    def samples(self) -> str:
        """On how many samples configurations were measured, in words: one number, or the fewest and the most."""
        return " to ".join(f"{n:.0f}" for n in sorted({*self.measured["samples"].agg(["min", "max"])}))

    @property
    def space_size(self) -> int:
        """Configurations in its design space; 0 where the run did not record it."""
        return 0 if self.costs is None else prod(map(int, self.costs.groupby("group").size()))

    @property
    def caveat(self) -> str:
        """The words of the note before its colon, short enough for a title.

        >>> empty = pd.DataFrame()
        >>> DeviceTables("chip", empty, empty, empty, note="order of magnitude: from a datasheet").caveat
        'order of magnitude'
        """
        return self.note.split(":")[0]

    @property
    def picked(self) -> pd.DataFrame:
        """The picked configuration's row of the measured table; no row where nothing was picked."""
        return self.measured[self.measured["config_id"] == self.pick]

    @property
    def emptiness(self) -> str:
        """A sentence that says why there is no front; empty where there is one."""
        if self.infeasible:
            return f"No feasible configuration on {self.device}: {self.infeasible}"
        if self.measured.empty:
            return f"No configuration was measured for {self.device}."
        if self.front.empty:
            return f"None of the {len(self.measured)} measured configurations is on the front of {self.device}."
        return ""


@dataclass(frozen=True)
class RunTables:
    """Every result table of a run.

    Attributes
    ----------
    run
        The run folder.
    name, seed
        Of the experiment.
    devices
        All devices of the run, whether their tables were loaded or not: a device's place decides its colour.
    quality
        The measured quality.
    costs
        Columns of the minimised costs by objective, in the order of the experiment.
    full_precision
        The network's quality in full precision.
    layers
        One row per layer in execution order.
    results
        Tables by device, for the devices that were asked for.
    reach
        By device, column to a value that no configuration of the design space is better than.
    max_drop
        Drop of quality that a pick may have where nobody says otherwise.
    sensitivity
        Measured harm by ``scheme``, ``group`` and ``candidate`` in the column :attr:`loss`; no row where the run has
        no such table.
    loss, recipe
        Name of the harm, and key of how the network was quantized.
    """

    run: Path
    name: str
    seed: int
    devices: tuple[str, ...]
    quality: Quality
    costs: Mapping[str, str]
    full_precision: FullPrecision
    layers: pd.DataFrame
    results: Mapping[str, DeviceTables]
    reach: Mapping[str, Mapping[str, float]]
    max_drop: float
    sensitivity: pd.DataFrame
    loss: str
    recipe: str

    @classmethod
    def load(cls, run: Path, *, devices: Sequence[str] | None = None) -> RunTables:
        """Return the tables of the run folder ``run``, for all of its devices or for ``devices`` alone.

        Raises
        ------
        RunFolderError
            If a file is missing or damaged, tables disagree, or a device is not one of the run's.
        """
        resolved = _read_resolved(run / "resolved.json")
        unknown = sorted(set(devices or ()) - set(resolved.devices))
        if unknown:
            known = ", ".join(resolved.devices)
            got = ", ".join(unknown)
            raise RunFolderError(f"expected devices of the run {run} ({known}), got {got}; name one of them")
        quality, costs = _objectives(resolved, run / "resolved.json")
        layers = read_table(run / "layers.csv", text=["layer", "group"], numbers=["macs", "weight_count"])
        wanted = [name for name in resolved.devices if devices is None or name in devices]
        columns = list(costs.values())
        results = {name: _read_device(run, name, resolved, quality, columns, len(layers)) for name in wanted}
        return cls(
            run=run,
            name=resolved.name,
            seed=resolved.seed,
            devices=tuple(resolved.devices),
            quality=quality,
            costs=costs,
            full_precision=resolved.full_precision,
            layers=layers,
            results=results,
            reach=resolved.reach,
            max_drop=resolved.max_drop,
            sensitivity=_read_sensitivity(run / "sensitivity.csv", resolved.identity.loss),
            loss=resolved.identity.loss,
            recipe=resolved.identity.recipe,
        )

    def title_of(self, device: str) -> str:
        """Return what a figure of ``device`` is titled: the run, the device and its caveat."""
        result = self.results[device]
        return f"{self.name} on {device}" + (f" ({result.caveat})" if result.note else "")

    @property
    def objectives(self) -> list[str]:
        """Columns of all objectives: the costs in their order, the quality last."""
        return [*self.costs.values(), self.quality.column]

    @property
    def reference(self) -> float | None:
        """Quality in full precision, ``None`` where it is not a finite number."""
        value = self.full_precision.quality
        return value if value is not None and np.isfinite(value) else None

    def cost_like(self, word: str) -> str | None:
        """Return the first cost column whose objective starts with ``word``, ``None`` without one."""
        return next((column for objective, column in self.costs.items() if objective.startswith(word)), None)

    @property
    def main_cost(self) -> str:
        """The column that devices are compared on: latency where it is an objective, else the first cost."""
        return self.cost_like("latency") or next(iter(self.costs.values()))


def device_of(run: Path, device: str | None) -> str:
    """Return ``device``, or where it is ``None`` the only device of the run folder ``run``.

    Raises
    ------
    RunFolderError
        If none is named and the run has several, or ``run`` is no run folder.
    """
    if device is not None:
        return device
    devices = _read_resolved(run / "resolved.json").devices
    if len(devices) != 1:
        raise RunFolderError(
            f"expected one device of the run {run} ({', '.join(devices)}), got none; name it by --device"
        )
    return devices[0]


def _read_resolved(path: Path) -> _Resolved:
    try:
        return _Resolved.model_validate(read_json(path))
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "the file"
        raise RunFolderError(
            f"expected a resolved experiment in {path}, got a fault at {where} ({fault['msg']}); "
            "run hwdse explore again"
        ) from error


def _objectives(resolved: _Resolved, path: Path) -> tuple[Quality, dict[str, str]]:
    """Return the quality and the cost columns by objective."""
    named = [*resolved.objectives.maximize, *resolved.objectives.minimize]
    missing = [name for name in named if name not in resolved.columns]
    if missing:
        raise RunFolderError(f"expected a column for each objective in {path}, got none for {', '.join(missing)}")
    measured = f"{resolved.quality}_measured"
    qualities = [name for name in named if resolved.columns[name] == measured]
    rest = [name for name in resolved.objectives.maximize if name not in qualities]
    costs = {name: resolved.columns[name] for name in resolved.objectives.minimize if name not in qualities}
    if len(qualities) != 1 or rest or not costs:
        raise RunFolderError(
            f"expected one quality objective with the column {measured} and at least one minimised cost in {path}, "
            f"got maximize {resolved.objectives.maximize}, minimize {resolved.objectives.minimize}"
        )
    return Quality(resolved.quality, qualities[0] in resolved.objectives.maximize), costs


def _check_bits(table: pd.DataFrame, layers: int, path: Path) -> None:
    counts = np.array([len(bits.split()) for bits in table["bits"]], dtype=np.int64)
    wrong = np.flatnonzero(counts != layers)
    if wrong.size:
        row = int(wrong[0])
        raise RunFolderError(
            f"expected the precision of {layers} layers (layers.csv) in column bits of {path}, "
            f"got {counts[row]} in line {row + 2}; the tables belong to different networks"
        )


def _read_pick(path: Path, measured: pd.DataFrame, quality: Quality) -> tuple[str | None, str]:
    """Return the picked configuration and within what it was asked for, in words."""
    if not path.exists():
        return None, ""
    pick = read_json(path)
    if str(pick.get("config_id")) not in set(measured["config_id"]):
        raise RunFolderError(f"expected the config_id of a measured configuration in {path}, got none; pick again")
    return str(pick["config_id"]), _asked_words(pick.get("asked"), path, quality)


def _asked_words(asked: object, path: Path, quality: Quality) -> str:
    """Return what somebody asked a pick to be, in words; empty where nobody did."""
    if asked is None:
        return ""
    try:
        limits = _Limits.model_validate(asked)
    except ValidationError as error:
        raise RunFolderError(f"expected limits under asked in {path}, got a fault; pick again") from error
    words = [
        f"a drop of at most {drop_text(quality.name, value)}" if name == quality.drop else f"{name} at most {value:.6g}"
        for name, value in limits.maximum.items()
    ]
    words += [f"{name} at least {value:.6g}" for name, value in limits.minimum.items()]
    words += [f"lowest {limits.minimize}"] if limits.minimize else []
    return ", ".join(words) or "the knee of the front"


def _read_resources(path: Path) -> pd.DataFrame | None:
    """Return latencies by group, candidate and resource; ``None`` where the run did not record them."""
    if not path.exists():
        return None
    return read_table(path, text=["group", "candidate", "resource"], numbers=["latency_ms"])


def _read_costs(path: Path) -> pd.DataFrame | None:
    """Return what each candidate costs each group, by metric; ``None`` where the run did not record it."""
    if not path.exists():
        return None
    return read_table(path, text=["group", "candidate"], numbers=[], left_out=["latency_origin"])


def _read_roofline(path: Path) -> pd.DataFrame | None:
    """Return what bounds every layer at every candidate; ``None`` where the run did not record it."""
    if not path.exists():
        return None
    table = read_table(path, text=["layer", "candidate", "memory", "latency_origin"], numbers=ROOFLINE_NUMBERS)
    for name in ROOFLINE_NUMBERS:
        if name != "memory_gb_per_s" and (table[name] <= 0).any():
            line = int((table[name] <= 0).to_numpy().argmax()) + 2
            raise RunFolderError(f"expected numbers above 0 in column {name} of {path}, got another in line {line}")
    return table


def _read_sensitivity(path: Path, loss: str) -> pd.DataFrame:
    """Return the measured harm; a table without a row where there is no file."""
    text = ["scheme", "group", "candidate"]
    if not path.exists():
        return pd.DataFrame(columns=[*text, loss, "samples"])
    return read_table(path, text=text, numbers=[loss, "samples"])


def _read_verified(path: Path) -> dict[str, Any]:
    """Return what a verification found, empty where there was none."""
    found = read_json(path) if path.exists() else {}
    for name in ("latency_ms_measured", "latency_ms_predicted"):
        value = found.get(name)
        if value is not None and not (isinstance(value, int | float) and np.isfinite(value) and value > 0):
            raise RunFolderError(f"expected a time above 0 as {name} in {path}, got {value!r}; verify again")
    return found


def _read_device(
    run: Path, device: str, resolved: _Resolved, quality: Quality, costs: Sequence[str], layers: int
) -> DeviceTables:
    folder, infeasible = inside(run, device), resolved.infeasible.get(device, "")
    text, numbers = ["config_id", "bits"], [*costs, *quality.columns, "samples"]
    about: dict[str, Any] = {
        "note": resolved.device_notes.get(device, ""),
        "worth": resolved.worth.get(device, ()),
        "limits": resolved.limits.get(device, {}),
        "uncertainty": resolved.uncertainty.get(device, {}),
        "widening": resolved.widening.get(device, {}),
        "constants": resolved.constants.get(device, {}),
        "title": resolved.titles.get(device, device),
        "scheme": resolved.schemes.get(device, ""),
    }
    if infeasible and not (folder / "front.csv").exists():
        empty = pd.DataFrame({name: pd.Series(dtype=str) for name in (*text, "uniform", "within_noise")}
                             | {name: pd.Series(dtype=float) for name in numbers})  # fmt: skip
        empty = empty.assign(loss_predicted=pd.Series(dtype=float))
        predicted = pd.DataFrame({"bits": pd.Series(dtype=str)}
                                 | {name: pd.Series(dtype=float) for name in (*costs, *PREDICTED)})  # fmt: skip
        return DeviceTables(device, empty, empty, predicted, infeasible=infeasible, **about)
    front = read_table(folder / "front.csv", text=text, numbers=numbers, left_out=())
    words = [*text, "uniform", "within_noise"]
    measured = read_table(folder / "measured.csv", text=words, numbers=numbers, extra=["loss_predicted"], left_out=())
    predicted = read_table(
        folder / "predicted.csv", text=["bits"], numbers=costs, holes=PREDICTED[:1], extra=PREDICTED[1:]
    )
    strangers = sorted(set(front["config_id"]) - set(measured["config_id"]))
    if strangers:
        raise RunFolderError(
            f"expected every configuration of {folder / 'front.csv'} in measured.csv, got {strangers[0]} in the front "
            "alone; the tables belong to different runs"
        )
    _check_bits(front, layers, folder / "front.csv")
    _check_bits(measured, layers, folder / "measured.csv")
    pick, asked = _read_pick(folder / "pick.json", measured, quality)
    return DeviceTables(
        device=device,
        front=front,
        measured=measured,
        predicted=predicted,
        pick=pick,
        asked=asked,
        infeasible=infeasible,
        resources=_read_resources(folder / "resources.csv"),
        costs=_read_costs(folder / "costs.csv"),
        roofline=_read_roofline(folder / "roofline.csv"),
        verified=_read_verified(folder / "verify.json"),
        **about,
    )
