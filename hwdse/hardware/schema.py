"""The sections of a hardware profile's TOML file; every key has its unit in its name and its meaning beside it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, Strict, model_validator

from hwdse.errors import InputError
from hwdse.formats import Granularity, Precision, Scheme, Symmetry
from hwdse.hardware.quantity import Correlation, Count, Factor, NonNegative, Positive, Section, Text
from hwdse.hardware.rate import ActivationName, Efficiency, OpClass, Rate

__all__ = [
    "SCHEMA_VERSION",
    "Accuracy",
    "Calibration",
    "Conversion",
    "Handover",
    "Memory",
    "NodeTime",
    "Overhead",
    "Power",
    "ProfileFile",
    "SchemeSection",
    "Switch",
    "Tile",
]

SCHEMA_VERSION = 1


class SchemeSection(Section):
    """How the device represents numbers; devices with equal schemes share every accuracy evaluation."""

    LATER: ClassVar[frozenset[str]] = frozenset({"quantized_outputs"})

    weights: Annotated[Symmetry, Strict(False)] = Field(description="`symmetric` or `affine` weight grids")
    activations: Annotated[Symmetry, Strict(False)] = Field(description="`symmetric` or `affine` activation grids")
    weight_granularity: Annotated[Granularity, Strict(False)] = Field(
        description="scales `per_channel`, `per_tensor` or `per_block`"
    )
    block_size: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="weights per scale where scales are `per_block`, counted within an output channel"
    )
    full_range: bool = Field(description="weights use the lowest code (-128 for int8) too")
    unsigned_activations: bool = Field(description="tensors that are never negative are stored unsigned")
    quantized_outputs: bool = Field(
        default=False, description="convolutions of integers write integers, also where nobody rounds what they write"
    )

    def scheme(self) -> Scheme:
        """Return the scheme."""
        return Scheme(
            weights=self.weights,
            activations=self.activations,
            weight_granularity=self.weight_granularity,
            full_range=self.full_range,
            unsigned_activations=self.unsigned_activations,
            block_size=self.block_size or 0,
            quantized_outputs=self.quantized_outputs,
        )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        try:
            self.scheme()
        except InputError as error:
            raise ValueError(str(error)) from None
        return self


class Tile(Section):
    """Sizes that the hardware rounds a layer up to; the padding costs time like real MACs."""

    input_channels: Count | None = Field(
        default=None, description="input channels per group; of a depthwise layer, all channels"
    )
    output_channels: Count | None = Field(default=None, description="output channels per group; not for depthwise")
    output_height: Count | None = Field(default=None, description="rows of a convolution's output")
    output_width: Count | None = Field(default=None, description="columns of a convolution's output")


class Memory(Section):
    """A memory level: it stores all of what it holds, and its bandwidth bounds the layers that move what it holds."""

    LATER: ClassVar[frozenset[str]] = frozenset({"moves", "spill_gb_per_s"})

    name: Text = Field(description="name of the level")
    capacity_kib: Positive = Field(description="capacity in KiB (1024 bytes)")
    holds: Annotated[tuple[Literal["weights", "activations"], ...], Strict(False)] = Field(
        description="what is stored whole: `weights`, `activations`, both (their sum must fit) or none (a cache)"
    )
    moves: Annotated[tuple[Literal["weights", "activations"], ...], Strict(False)] = Field(
        default=(), description="what passes through it without being stored whole: bandwidth and energy count it too"
    )
    bandwidth_gb_per_s: Positive | None = Field(default=None, description="1e9 bytes per second; absent: no bound")
    spill_gb_per_s: Positive | None = Field(
        default=None,
        description="1e9 bytes per second at which weights beyond the capacity stream in at every inference; the "
        "capacity is then no limit",
    )
    pj_per_byte: NonNegative | None = Field(default=None, description="energy of one byte moved in pJ")
    reserved_kib: NonNegative | None = Field(default=None, description="KiB taken by code and runtime")

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.reserved_kib is not None and self.reserved_kib.value >= self.capacity_kib.value:
            reserved, capacity = self.reserved_kib.value, self.capacity_kib.value
            raise ValueError(f"expected reserved_kib below capacity_kib ({capacity:g}), got {reserved:g}")
        if not self.traffic and (self.bandwidth_gb_per_s is not None or self.pj_per_byte is not None):
            raise ValueError(
                "expected holds or moves to name what moves here, got [] with bandwidth_gb_per_s or pj_per_byte"
            )
        if self.spill_gb_per_s is not None and set(self.holds) != {"weights"}:
            raise ValueError(f"expected a level that holds weights alone to spill, got {list(self.holds)}")
        return self

    @property
    def traffic(self) -> frozenset[str]:
        """What its bandwidth and energy count: all it holds, and what passes through it."""
        return frozenset((*self.holds, *self.moves))

    @property
    def usable_kib(self) -> float:
        """Capacity without what is reserved, in KiB."""
        return self.capacity_kib.value - (self.reserved_kib.value if self.reserved_kib is not None else 0.0)


class Overhead(Section):
    """Time that no MAC explains."""

    LATER: ClassVar[frozenset[str]] = frozenset({"counts_nodes"})

    us_per_layer: NonNegative | None = Field(default=None, description="microseconds added to every layer")
    us_per_inference: NonNegative | None = Field(default=None, description="microseconds added once per inference")
    counts_nodes: bool = Field(
        default=False, description="`us_per_layer` is also added for every operator without MACs that no layer takes in"
    )


class Power(Section):
    """Power while the network runs: the whole of it, or what the energies per MAC and byte leave out."""

    active_mw: Positive | None = Field(default=None, description="whole power in mW: energy is power x time, no more")
    static_mw: NonNegative | None = Field(
        default=None, description="power in mW beside `pj_per_mac` and `pj_per_byte`; this or `active_mw`"
    )
    pj_per_mac: NonNegative | None = Field(default=None, description="energy of one MAC in pJ at rates that state none")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.active_mw is None) == (self.static_mw is None):
            given = "neither" if self.active_mw is None else "both"
            raise ValueError(f"expected either active_mw or static_mw, got {given}")
        return self


class Switch(Section):
    """Cost of a tensor whose producer and consumer use different activation formats."""

    us: NonNegative | None = Field(default=None, description="microseconds per switch")
    us_per_melement: NonNegative | None = Field(default=None, description="microseconds per 1e6 elements of the tensor")

    def time_us(self, elements: int) -> float:
        """Return the microseconds that a tensor of ``elements`` values takes."""
        return _time_us(self.us, self.us_per_melement, elements)


class Conversion(Section):
    """Time to turn a tensor from one activation format into another, between whatever writes and whatever reads it."""

    from_: ActivationName = Field(alias="from", description="activation format that the tensor is written in")
    to: ActivationName = Field(description="activation format that it is read in")
    op_classes: Annotated[tuple[OpClass, ...], Strict(False), Field(min_length=1)] | None = Field(
        default=None,
        description="classes of the layer whose integer format it is (the one that reads it, else the one that wrote "
        "it); absent: those without an entry of their own",
    )
    us: NonNegative | None = Field(default=None, description="microseconds per tensor")
    us_per_melement: NonNegative | None = Field(default=None, description="microseconds per 1e6 elements of the tensor")

    @model_validator(mode="after")
    def _changes(self) -> Self:
        if self.from_ == self.to:
            raise ValueError(f"expected two formats, got {self.to!r} twice")
        return self

    @property
    def words(self) -> str:
        """What it is the time of."""
        classes = f", {' '.join(self.op_classes)}" if self.op_classes is not None else ""
        return f"{self.from_} to {self.to}{classes}"

    def time_us(self, elements: int) -> float:
        """Return the microseconds that a tensor of ``elements`` values takes."""
        return _time_us(self.us, self.us_per_melement, elements)


class NodeTime(Section):
    """Time of an operator without MACs, which runs in the formats listed for it, else in fp32."""

    operator: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_.:]*$")] = Field(
        description="`add`, `relu`, `clip`, `max_pool`, `avg_pool`, `global_avg_pool`, `gelu`, `softmax`, "
        "`layer_norm`, `transpose`, `pad`, `slice` or any other operator that a network's graph names"
    )
    activations: ActivationName = Field(
        description="activation format that it runs in; in an integer one it also rounds its result and takes in a "
        "`relu` or `clip` that follows"
    )
    us: NonNegative | None = Field(default=None, description="microseconds per operator")
    us_per_melement: NonNegative | None = Field(
        default=None, description="microseconds per 1e6 elements of the largest tensor that it reads or writes"
    )

    @property
    def words(self) -> str:
        """What it is the time of."""
        return f"{self.operator} in {self.activations}"

    def time_us(self, elements: int) -> float:
        """Return the microseconds that it takes where its largest tensor has ``elements`` values."""
        return _time_us(self.us, self.us_per_melement, elements)


def _time_us(fixed: NonNegative | None, slope: NonNegative | None, elements: int) -> float:
    """Return a time that is linear in the elements, in microseconds."""
    return (fixed.value if fixed is not None else 0.0) + (slope.value * elements * 1e-6 if slope is not None else 0.0)


def _known_precision(text: str) -> str:
    """Return ``text`` if it is a precision."""
    try:
        return str(Precision.parse(text))
    except InputError as error:
        raise ValueError(str(error)) from None


class Handover(Section):
    """Cost of a tensor that one unit writes and another one reads."""

    us: NonNegative | None = Field(default=None, description="microseconds per tensor")
    us_per_melement: NonNegative | None = Field(default=None, description="microseconds per 1e6 elements of the tensor")

    def time_us(self, elements: int) -> float:
        """Return the microseconds that a tensor of ``elements`` values takes."""
        return _time_us(self.us, self.us_per_melement, elements)


class Calibration(Section):
    """Factors on times and energies that runs of whole networks gave; absent ones are 1."""

    LATER: ClassVar[frozenset[str]] = frozenset(
        {"compute", "pointwise", "depthwise", "linear", "traffic", "us_per_layer", "energy", "precisions"}
    )

    float_layers: NonNegative | None = Field(
        default=None, description="factor of the latencies of layers in which no operand is an integer"
    )
    integer_layers: NonNegative | None = Field(
        default=None, description="factor of the latencies of layers with integer weights, activations or both"
    )
    conversions: NonNegative | None = Field(default=None, description="factor of the times in `[[conversions]]`")
    nodes: NonNegative | None = Field(default=None, description="factor of the times in `[[nodes]]`")
    us_per_inference: NonNegative | None = Field(
        default=None, description="microseconds per inference that no term explains; takes the place of `[overhead]`'s"
    )
    compute: Positive | None = Field(
        default=None, description="factor of the time of MACs, where no table has the layer"
    )
    pointwise: Positive | None = Field(default=None, description="further factor of it for 1x1 convolutions")
    depthwise: Positive | None = Field(
        default=None, description="further factor of it for depthwise and grouped convolutions"
    )
    linear: Positive | None = Field(default=None, description="further factor of it for linear layers and matmuls")
    precisions: Annotated[dict[Annotated[str, AfterValidator(_known_precision)], Positive], Strict(False)] = Field(
        default={}, description="further factor of the latencies of layers at a precision, such as `W8A16`"
    )
    traffic: Positive | None = Field(default=None, description="factor of the time of memory traffic")
    us_per_layer: NonNegative | None = Field(
        default=None, description="microseconds added to every layer; takes the place of `[overhead]`'s"
    )
    energy: Positive | None = Field(default=None, description="factor of the energy")


class Accuracy(Section):
    """How far the predictions for whole networks may be off, and what says so."""

    LATER: ClassVar[frozenset[str]] = frozenset({"precisions"})

    basis: Literal["leave_one_network_out", "fitted", "unfitted", "analogy"] = Field(
        description="`leave_one_network_out`: published figures of networks that the fit did not see; `fitted`: "
        "published figures that the fit saw; `unfitted`: published figures, too few to fit to; `analogy`: no figures, "
        "the errors of devices like it"
    )
    latency_factor: Factor = Field(
        description="90 % of latencies lie between the predicted one divided by this and multiplied by it"
    )
    energy_factor: Factor | None = Field(default=None, description="the same of energies")
    networks: Count | None = Field(default=None, description="networks that it was found from")
    rows: Count | None = Field(default=None, description="published latencies that it was found from")
    precisions: Annotated[tuple[str, ...], Strict(False)] = Field(
        default=(), description="precisions that these figures are of; the interval is wider for others"
    )
    smallest_mmacs: Positive | None = Field(default=None, description="1e6 MACs of the smallest of the networks")
    largest_mmacs: Positive | None = Field(default=None, description="1e6 MACs of the largest of the networks")
    latency_error_percent: NonNegative | None = Field(
        default=None, description="median absolute error of the latencies in percent"
    )
    latency_spearman: Correlation | None = Field(
        default=None, description="rank correlation of predicted and published latencies"
    )
    energy_error_percent: NonNegative | None = Field(
        default=None, description="median absolute error of the energies in percent"
    )


class ProfileFile(Section):
    """A hardware profile as written in its TOML file."""

    LATER: ClassVar[frozenset[str]] = frozenset(
        {"conversions", "nodes", "calibration", "handover", "accuracy", "max_layers"}
    )

    schema_version: Literal[1] = Field(description="version of this schema")
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")] = Field(
        description="the file's name without `.toml`"
    )
    title: Text = Field(description="name for people, with the clock")
    kind: Literal["gpu", "npu", "mcu", "cpu", "fpga", "accelerator"] = Field(description="sort of device")
    software_stack: Text = Field(description="compiler or runtime that the figures hold for")
    note: Text = Field(description="what the figures cover, how well they predict, and what they leave out")
    batch: Annotated[int, Field(ge=1)] = Field(
        description="inputs per inference: latency, energy and activation memory are those of one whole batch"
    )
    table: Annotated[str, Field(pattern=r"^[^/\\]+\.csv$")] | None = Field(
        default=None, description="CSV file beside this one with latencies per layer shape"
    )
    clock_mhz: Positive | None = Field(
        default=None, description="clock in MHz; needed by `macs_per_cycle` and `cycles`"
    )
    sources: Annotated[dict[str, Text], Field(min_length=1)] = Field(
        description="citation of each source key; every key must be used"
    )
    scheme: SchemeSection = Field(description="how numbers are represented")
    rates: Annotated[tuple[Rate, ...], Strict(False), Field(min_length=1)] = Field(description="speed of each pair")
    efficiency: Efficiency | None = Field(default=None, description="achieved share of the rates per class")
    tile: Tile | None = Field(default=None, description="sizes that layers are padded to")
    memories: Annotated[tuple[Memory, ...], Strict(False)] = Field(default=(), description="memory levels")
    overhead: Overhead | None = Field(default=None, description="time per layer and per inference")
    power: Power | None = Field(default=None, description="power while running")
    switch: Switch | None = Field(default=None, description="cost of a change of activation format")
    conversions: Annotated[tuple[Conversion, ...], Strict(False)] = Field(
        default=(), description="times of format changes, by direction; in place of `[switch]`"
    )
    nodes: Annotated[tuple[NodeTime, ...], Strict(False)] = Field(
        default=(), description="times of operators without MACs"
    )
    calibration: Calibration | None = Field(default=None, description="factors found from runs of whole networks")
    handover: Handover | None = Field(default=None, description="cost of a tensor that passes from unit to unit")
    max_layers: Count | None = Field(default=None, description="most layers of a network")
    accuracy: Accuracy | None = Field(default=None, description="how far predictions for whole networks may be off")
