"""An experiment file: what to explore, on which devices, with which data and budget."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from torch import nn

from hwdse.cost import metric_column
from hwdse.errors import InputError
from hwdse.evaluate.metrics import METRICS, Evaluation, evaluation_of
from hwdse.factories import call_factory, load_factory
from hwdse.formats import Precision
from hwdse.hardware.faults import sentences
from hwdse.plugins import plugin_names
from hwdse.quantize.recipe import DEFAULT_RECIPE, OUTPUT, Recipe

__all__ = ["Experiment", "Inputs", "load_experiment"]

SCHEMA_VERSION = 1


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


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

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, value: str) -> str:
        if value not in METRICS and ":" not in value:
            raise ValueError(f"expected {', '.join(METRICS)}, or file.py:function, got {value!r}")
        return value


class SpaceSection(_Section):
    """Candidate precisions, intersected with what each device supports, and layers that are not free."""

    precisions: list[str] = Field(min_length=1)
    fixed: dict[str, str] = {}

    @field_validator("precisions")
    @classmethod
    def _parse_precisions(cls, value: list[str]) -> list[str]:
        return [_precision(text) for text in value]

    @field_validator("fixed")
    @classmethod
    def _parse_fixed(cls, value: dict[str, str]) -> dict[str, str]:
        return {name: _precision(text) for name, text in value.items()}


def _precision(text: str) -> str:
    """Return a precision's name, checked."""
    try:
        return str(Precision.parse(text))
    except InputError as error:
        raise ValueError(str(error)) from error


class ObjectivesSection(_Section):
    """What the front is about."""

    maximize: list[Literal["accuracy"]] = Field(default=["accuracy"], min_length=1, max_length=1)
    minimize: list[str] = Field(min_length=1)

    @field_validator("minimize")
    @classmethod
    def _are_costs(cls, value: list[str]) -> list[str]:
        for name in value:
            if name == "accuracy":
                raise ValueError("expected costs to minimise, got accuracy; it is maximised")
            try:
                metric_column(name)
            except InputError as error:
                raise ValueError(str(error)) from error
        return value


class AdaRoundSection(_Section):
    """How rounding is learned, where it is."""

    iterations: int = Field(default=2000, ge=1)
    batch: int = Field(default=32, ge=1)
    by_block: bool = False


class QuantizeSection(_Section):
    """How ranges and weights are found."""

    weight_ranges: str = DEFAULT_RECIPE.weight_ranges
    activation_ranges: str = DEFAULT_RECIPE.activation_ranges
    weight_rounding: Literal["nearest", "gram", "adaround"] = "gram"
    bias_correction: Literal["none", "local", "global"] = "none"
    equalization: bool = False
    path: str = "int8"
    adaround: AdaRoundSection = AdaRoundSection()

    @field_validator("weight_ranges", "activation_ranges")
    @classmethod
    def _known_calibrator(cls, value: str, info: ValidationInfo) -> str:
        known = [*plugin_names("hwdse.calibrators"), *([OUTPUT] if info.field_name == "activation_ranges" else [])]
        if value not in known:
            raise ValueError(f"expected one of {', '.join(known)}, got {value!r}")
        return value

    @model_validator(mode="after")
    def _is_recipe(self) -> QuantizeSection:
        try:
            Recipe.of(self.model_dump())
        except InputError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def recipe(self) -> Recipe:
        """The recipe that the section describes."""
        return Recipe.of(self.model_dump())


class SearchSection(_Section):
    """What predicts harm before anything is measured."""

    loss: Literal["kl", "jsd", "cosine", "fisher", "difficulty"] = "kl"


class BudgetSection(_Section):
    """How much may be measured."""

    evaluations: int = Field(default=100, ge=1)
    seconds: float | None = Field(default=None, gt=0)
    tolerance: float = Field(default=0.0, ge=0, lt=1)

    @field_validator("seconds", mode="before")
    @classmethod
    def _whole_seconds(cls, value: object) -> object:
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


class FleetSection(_Section):
    """How many configurations for all devices at once are measured after the budget is spent, one per level of harm."""

    evaluations: int = Field(default=0, ge=0)


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
    search: SearchSection = SearchSection()
    budget: BudgetSection = BudgetSection()
    fleet: FleetSection = FleetSection()
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
        raise InputError(f"expected an experiment file, got no file {path}; correct the path")
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"expected TOML in {path}, got a fault: {error}; correct it") from error
    version = raw.get("schema_version")
    if version != SCHEMA_VERSION or isinstance(version, bool):
        got = "nothing" if version is None else repr(version)
        raise InputError(f"expected schema_version = {SCHEMA_VERSION} in {path}, got {got}; change the file to that")
    try:
        return Experiment.model_validate(raw)
    except ValidationError as error:
        faults = sentences(error, Experiment)
        noun = "fault" if len(faults) == 1 else "faults"
        listed = "".join(f"\n  {fault}" for fault in faults)
        raise InputError(f"experiment {path} has {len(faults)} {noun}:{listed}") from error


def make_inputs(experiment: Experiment, folder: Path) -> Inputs:
    """Call the experiment's factories, which stand relative to ``folder``, and return what they make.

    Raises
    ------
    InputError
        If a factory is missing, fails, or makes something else than asked.
    """
    model = call_factory(experiment.model.factory, folder)
    if not isinstance(model, nn.Module):
        raise InputError(
            f"expected a torch.nn.Module from {experiment.model.factory}, got {type(model).__name__}; return the model"
        )
    example = call_factory(experiment.model.example, folder)
    if not (isinstance(example, torch.Tensor | tuple | list)):
        raise InputError(
            f"expected a tensor or a tuple of tensors from {experiment.model.example}, got {type(example).__name__}; "
            "return example inputs, batch first"
        )
    metric: str | Callable[[Any, Any], torch.Tensor] = experiment.data.metric
    if isinstance(metric, str) and metric not in METRICS:
        metric = load_factory(metric, folder=folder)
    calibration = call_factory(experiment.data.calibration, folder, as_list=True)
    if not calibration:
        raise InputError(f"expected calibration batches from {experiment.data.calibration}, got none; yield some")
    evaluation = evaluation_of(call_factory(experiment.data.evaluation, folder, as_list=False), metric)
    return Inputs(model, example, calibration, evaluation)
