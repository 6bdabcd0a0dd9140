"""An experiment file: what to explore, on which devices, with which data and budget."""

from __future__ import annotations

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
from hwdse.files import parse_toml
from hwdse.formats import Precision
from hwdse.front import SHARES
from hwdse.hardware.faults import sentences
from hwdse.plugins import plugin_names
from hwdse.quantize.recipe import DEFAULT_RECIPE, OUTPUT, Recipe

__all__ = ["Experiment", "Inputs", "load_experiment"]

SCHEMA_VERSION = 1


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ModelSection(_Section):
    """The network: factories of the model and of its example inputs."""

    factory: str = Field(description="factory of the trained `torch.nn.Module`")
    example: str = Field(description="factory of example inputs, batch first: a tensor or a tuple of tensors")
    dynamic_dims: list[int] = Field(
        default=[0],
        description="dimensions of the inputs that may differ between calls: the batch, and 1 for a sequence's length",
    )


class DataSection(_Section):
    """Calibration batches, evaluation batches (batch, target), and how a sample is scored."""

    calibration: str = Field(description="factory of batches of inputs, without labels")
    evaluation: str = Field(description="factory of pairs (batch, target), other samples than for calibration")
    metric: str = Field(
        default="top1",
        description=f"how a sample is scored: {', '.join(f'`{name}`' for name in METRICS)}, or `file.py:function` from "
        "(outputs, targets) to a score per sample, larger is better",
    )

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, value: str) -> str:
        if value not in METRICS and ":" not in value:
            raise ValueError(f"expected {', '.join(METRICS)}, or file.py:function, got {value!r}")
        return value


class SpaceSection(_Section):
    """Candidate precisions, intersected with what each device supports, and layers that are not free."""

    precisions: list[str] = Field(
        min_length=1, description="candidates such as `W4A8`; each device takes those that it supports"
    )
    fixed: dict[str, str] = Field(default={}, description="layer or tied group to the precision that it must have")

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

    maximize: list[Literal["accuracy"]] = Field(
        default=["accuracy"], min_length=1, max_length=1, description="the measured quality, whatever its metric"
    )
    minimize: list[str] = Field(
        min_length=1,
        description="costs: `latency_ms`, `energy_mj`, `size_kib`, `activation_kib`, `memory_kib`, `bops_g`, or those "
        "of an installed cost model",
    )

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

    iterations: int = Field(default=2000, ge=1, description="steps of the optimiser per layer or block")
    batch: int = Field(default=32, ge=1, description="samples per step")
    by_block: bool = Field(default=False, description="learn the layers of a residual block together")


class QuantizeSection(_Section):
    """How ranges and weights are found."""

    weight_ranges: str = Field(
        default=DEFAULT_RECIPE.weight_ranges, description="calibrator of weights, such as `minmax` or `mse`"
    )
    activation_ranges: str = Field(
        default=DEFAULT_RECIPE.activation_ranges,
        description="calibrator of activations, or `output`: where the network's output suffers least",
    )
    weight_rounding: Literal["nearest", "gram", "adaround"] = Field(
        default="gram", description="how codes of weights are found; `gram` and `adaround` keep the layer's output"
    )
    bias_correction: Literal["none", "local", "global"] = Field(
        default="none", description="mean errors are taken out of biases layer by layer, or behind all others"
    )
    equalization: bool = Field(default=False, description="move ranges of channels between layers first")
    path: str = Field(default="int8", description="format of activations on the way to layers whose weights are found")
    adaround: AdaRoundSection = Field(default=AdaRoundSection(), description="how `adaround` learns")

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

    loss: Literal["kl", "jsd", "cosine", "fisher", "difficulty"] = Field(
        default="kl",
        description="sensitivity of every group and candidate: a divergence at the output, measured; `fisher`: "
        "predicted from a few backward passes; `difficulty`: from distributions, without running a quantized network",
    )


class BudgetSection(_Section):
    """How much may be measured."""

    evaluations: int = Field(default=100, ge=1, description="configurations, over all devices together")
    seconds: float | None = Field(default=None, gt=0, description="seconds from the start; absent: no limit")
    tolerance: float = Field(
        default=0.0, ge=0, lt=1, description="a device is done once no more than this share is to be gained; 0: never"
    )

    @field_validator("seconds", mode="before")
    @classmethod
    def _whole_seconds(cls, value: object) -> object:
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


class FleetSection(_Section):
    """How many configurations for all devices at once are measured after the budget is spent, one per level of harm."""

    evaluations: int = Field(default=0, ge=0, description="levels of harm, one configuration each; 0 for none")


class PickSection(_Section):
    """Which configuration is picked where nobody asks: the cheapest that loses at most ``max_drop`` quality."""

    max_drop: float = Field(default=0.01, ge=0, description="drop of quality against full precision; 0.01 is a point")


class Experiment(_Section):
    """A whole experiment file."""

    schema_version: Literal[1] = Field(description="version of this schema")
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="what tables and figures are titled; the run's folder"
    )
    seed: int = Field(default=0, ge=0, description="of every random choice")
    devices: list[str] = Field(
        min_length=1, description="profiles by name (`hwdse profiles list`), or TOML files relative to this one"
    )
    model: ModelSection = Field(description="the network")
    data: DataSection = Field(description="samples, and how they are scored")
    space: SpaceSection = Field(description="what may be chosen")
    objectives: ObjectivesSection = Field(description="what is traded")
    quantize: QuantizeSection = Field(default=QuantizeSection(), description="how quantized values are found")
    search: SearchSection = Field(default=SearchSection(), description="what predicts harm")
    budget: BudgetSection = Field(default=BudgetSection(), description="how much may be measured")
    fleet: FleetSection = Field(default=FleetSection(), description="one configuration for all devices")
    pick: PickSection = Field(default=PickSection(), description="which configuration is picked")

    @model_validator(mode="after")
    def _unique_devices(self) -> Experiment:
        if len(set(self.devices)) != len(self.devices):
            raise ValueError(f"expected each device once, got {', '.join(self.devices)}")
        return self

    @model_validator(mode="after")
    def _allows_less_than_everything(self) -> Experiment:
        drop = self.pick.max_drop
        if drop >= 1.0 and self.data.metric in SHARES:
            raise ValueError(
                f"pick.max_drop: expected a share below 1, where 0.01 is a point, got {drop:g}; did you mean "
                f"{drop / 100:g}?"
            )
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
        raw = parse_toml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"expected TOML in {path}, got a fault: {error}; correct it") from error
    version = raw.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise InputError(
            f"expected schema_version = {SCHEMA_VERSION} in {path}, got {version!r}; change the file to that"
        )
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
