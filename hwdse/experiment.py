"""An experiment file: what to explore, on which devices, with which data and budget."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from torch import nn

from hwdse.errors import InputError
from hwdse.evaluate.metrics import METRICS, Evaluation, evaluation_of
from hwdse.factories import load_factory
from hwdse.formats import Precision

__all__ = ["Experiment", "Inputs", "load_experiment"]

SCHEMA_VERSION = 1


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ModelSection(_Section):
    """The network: factories of the model and of its example inputs."""

    factory: str
    example: str
    dynamic_dims: list[int] = [0]


class DataSection(_Section):
    """Calibration batches, evaluation batches (batch, target), and how a sample is scored."""

    calibration: str
    evaluation: str
    metric: str = "top1"


class SpaceSection(_Section):
    """Candidate precisions, intersected with what each device supports, and layers that are not free."""

    precisions: list[str] = Field(min_length=1)
    fixed: dict[str, str] = {}

    @field_validator("precisions")
    @classmethod
    def _parse_precisions(cls, value: list[str]) -> list[str]:
        return [str(Precision.parse(text)) for text in value]

    @field_validator("fixed")
    @classmethod
    def _parse_fixed(cls, value: dict[str, str]) -> dict[str, str]:
        return {name: str(Precision.parse(text)) for name, text in value.items()}


class ObjectivesSection(_Section):
    """What the front is about."""

    maximize: list[Literal["accuracy"]] = Field(default=["accuracy"], min_length=1, max_length=1)
    minimize: list[str] = Field(min_length=1)


class QuantizeSection(_Section):
    """How ranges are found."""

    weight_ranges: Literal["minmax", "mse"] = "minmax"
    activation_ranges: str = "mse"


class BudgetSection(_Section):
    """How much may be measured."""

    evaluations: int = Field(default=100, ge=1)
    seconds: float | None = Field(default=None, gt=0)

    @field_validator("seconds", mode="before")
    @classmethod
    def _whole_seconds(cls, value: object) -> object:
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


class PickSection(_Section):
    """Which configuration is picked where nobody asks: the cheapest that loses at most ``max_drop`` quality."""

    max_drop: float = Field(default=0.01, ge=0)


class Experiment(_Section):
    """A whole experiment file."""

    schema_version: Literal[1]
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(default=0, ge=0)
    devices: list[str] = Field(min_length=1)
    model: ModelSection
    data: DataSection
    space: SpaceSection
    objectives: ObjectivesSection
    quantize: QuantizeSection = QuantizeSection()
    budget: BudgetSection = BudgetSection()
    pick: PickSection = PickSection()

    @model_validator(mode="after")
    def _unique_devices(self) -> Experiment:
        if len(set(self.devices)) != len(self.devices):
            raise ValueError(f"expected each device once, got {', '.join(self.devices)}")
        return self


@dataclass(frozen=True)
class Inputs:
    """What an experiment's factories make.

    Attributes
    ----------
    model
        The trained network.
    example
        Example inputs.
    calibration
        Batches, kept in memory.
    evaluation
        Samples and metric.
    """

    model: nn.Module
    example: Any
    calibration: list[Any]
    evaluation: Evaluation


def load_experiment(path: Path) -> Experiment:
    """Return the experiment in the file ``path``.

    Raises
    ------
    InputError
        If the file is missing, is no TOML, or has faults; all of them are named.
    """
    if not path.is_file():
        raise InputError(f"expected an experiment file, got no file {path}")
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"expected TOML in {path}, got a fault: {error}") from error
    try:
        return Experiment.model_validate(raw)
    except ValidationError as error:
        faults = "".join(f"\n  {_sentence(e)}" for e in error.errors())
        raise InputError(f"experiment {path} has {error.error_count()} fault(s):{faults}") from error


def _sentence(fault: Any) -> str:
    """Return one fault of pydantic as path and sentence."""
    path = ".".join(str(part) for part in fault["loc"]) or "experiment"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "missing":
        return f"{path}: expected a value, got none; add it"
    if fault["type"] == "extra_forbidden":
        return f"{path}: expected only known keys, got this one; remove it or correct its spelling"
    got = "" if "got" in message else f", got {fault['input']!r}"
    return f"{path}: {message}{got}"


def make_inputs(experiment: Experiment, folder: Path) -> Inputs:
    """Call the experiment's factories, which stand relative to ``folder``, and return what they make.

    Raises
    ------
    InputError
        If a factory is missing, fails, or makes something else than asked.
    """
    model = _call(experiment.model.factory, folder)
    if not isinstance(model, nn.Module):
        raise InputError(f"expected a torch.nn.Module from {experiment.model.factory}, got {type(model).__name__}")
    calibration = list(_call(experiment.data.calibration, folder))
    if not calibration:
        raise InputError(f"expected calibration batches from {experiment.data.calibration}, got none")
    metric: str | Callable[[Any, Any], torch.Tensor] = experiment.data.metric
    if isinstance(metric, str) and metric not in METRICS and ":" in metric:
        metric = load_factory(metric, folder=folder)
    evaluation = evaluation_of(_call(experiment.data.evaluation, folder), metric)
    return Inputs(model, _call(experiment.model.example, folder), calibration, evaluation)


def _call(name: str, folder: Path) -> Any:
    """Call the factory ``name``; what goes wrong inside becomes one sentence."""
    factory = load_factory(name, folder=folder)
    try:
        return factory()
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"expected factory {name!r} to run, got {type(error).__name__}: {error}") from error
