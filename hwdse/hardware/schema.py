"""The sections of a hardware profile's TOML file; every key has its unit in its name and its meaning beside it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import AfterValidator, Field, Strict, model_validator

from hwdse.errors import InputError
from hwdse.formats import Granularity, Precision, Scheme, Symmetry, parse
from hwdse.hardware.quantity import Count, Fraction, NonNegative, Positive, Section, Text

__all__ = [
    "OP_CLASSES",
    "SCHEMA_VERSION",
    "Calibration",
    "Conversion",
    "Efficiency",
    "Memory",
    "NodeTime",
    "OpClass",
    "Overhead",
    "Power",
    "ProfileFile",
    "Rate",
    "SchemeSection",
    "Switch",
    "Tile",
]

SCHEMA_VERSION = 1
OpClass = Literal["conv", "pointwise", "depthwise", "grouped", "linear", "matmul"]
OP_CLASSES: tuple[OpClass, ...] = get_args(OpClass)


def _known_format(name: str) -> str:
    """Return ``name`` if it is a number format."""
    try:
        return parse(name).name
    except InputError as error:
        raise ValueError(str(error)) from None


def _signless(name: str) -> str:
    """Return ``name`` if it leaves the sign to the scheme."""
    if not parse(name).is_signed:
        raise ValueError(f"expected the signed name (the scheme decides the sign), got {name!r}; write {name[1:]!r}")
    return name


FormatName = Annotated[str, AfterValidator(_known_format)]
ActivationName = Annotated[str, AfterValidator(_known_format), AfterValidator(_signless)]


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


class Rate(Section):
    """How fast one pair of formats runs. A pair without a rate is not supported, and never promoted silently."""

    weights: FormatName = Field(description="weight format, such as `int4`")
    activations: ActivationName = Field(description="activation format, such as `int8`; the sign is the scheme's")
    op_classes: Annotated[tuple[OpClass, ...], Strict(False), Field(min_length=1)] | None = Field(
        default=None,
        description="classes that this rate is for; absent: those without a rate of their own (with `[efficiency]`, "
        "only those named there)",
    )
    macs_per_cycle: Positive | None = Field(default=None, description="MACs per clock cycle; this or `gmac_per_s`")
    gmac_per_s: Positive | None = Field(default=None, description="1e9 MACs per second; this or `macs_per_cycle`")
    efficiency: Fraction | None = Field(
        default=None, description="achieved share of this rate; takes the place of `[efficiency]`"
    )
    pj_per_mac: NonNegative | None = Field(
        default=None, description="energy of one MAC in pJ, for all rates or none; see `[power]`"
    )
    container: FormatName | None = Field(
        default=None,
        description="wider format that weights and activations are stored and run in: the rate is then emulated",
    )

    @property
    def precision(self) -> Precision:
        """The pair of formats."""
        return Precision(parse(self.weights), parse(self.activations))

    @property
    def stored(self) -> Precision:
        """The pair of formats that is stored and run: the container, where there is one."""
        container = parse(self.container) if self.container is not None else None
        return Precision(container, container) if container is not None else self.precision

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.macs_per_cycle is None) == (self.gmac_per_s is None):
            given = "neither" if self.macs_per_cycle is None else "both"
            raise ValueError(f"expected either macs_per_cycle or gmac_per_s, got {given}")
        if self.container is not None:
            widths = (parse(self.weights).bits, parse(self.activations).bits)
            if parse(self.container).bits < max(widths) or parse(self.container).bits == min(widths):
                raise ValueError(f"expected a container wider than {self.precision}, got {self.container!r}")
        return self


class Efficiency(Section):
    """Achieved share of the rates for each class of operators; absent: the rates are achieved ones."""

    conv: Fraction | None = Field(default=None, description="convolutions with a kernel above 1x1")
    pointwise: Fraction | None = Field(default=None, description="1x1 convolutions")
    depthwise: Fraction | None = Field(default=None, description="convolutions with one input channel per group")
    grouped: Fraction | None = Field(default=None, description="other convolutions with groups")
    linear: Fraction | None = Field(default=None, description="linear layers")
    matmul: Fraction | None = Field(default=None, description="products of two activations")


class Tile(Section):
    """Sizes that the hardware rounds a layer up to; the padding costs time like real MACs."""

    input_channels: Count | None = Field(
        default=None, description="input channels per group; of a depthwise layer, all channels"
    )
    output_channels: Count | None = Field(default=None, description="output channels per group; not for depthwise")
    output_height: Count | None = Field(default=None, description="rows of a convolution's output")
    output_width: Count | None = Field(default=None, description="columns of a convolution's output")


class Memory(Section):
    """A memory level: every level stores all of what it holds, and its bandwidth bounds the layers that move it."""

    name: Text = Field(description="name of the level")
    capacity_kib: Positive = Field(description="capacity in KiB (1024 bytes)")
    holds: Annotated[tuple[Literal["weights", "activations"], ...], Strict(False)] = Field(
        description="what is stored whole: `weights`, `activations`, both (their sum must fit) or none (a cache)"
    )
    bandwidth_gb_per_s: Positive | None = Field(default=None, description="1e9 bytes per second; absent: no bound")
    pj_per_byte: NonNegative | None = Field(default=None, description="energy of one byte moved in pJ")
    reserved_kib: NonNegative | None = Field(default=None, description="KiB taken by code and runtime")

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.reserved_kib is not None and self.reserved_kib.value >= self.capacity_kib.value:
            reserved, capacity = self.reserved_kib.value, self.capacity_kib.value
            raise ValueError(f"expected reserved_kib below capacity_kib ({capacity:g}), got {reserved:g}")
        if not self.holds and (self.bandwidth_gb_per_s is not None or self.pj_per_byte is not None):
            raise ValueError("expected holds to name what moves here, got [] with bandwidth_gb_per_s or pj_per_byte")
        return self

    @property
    def usable_kib(self) -> float:
        """Capacity without what is reserved, in KiB."""
        return self.capacity_kib.value - (self.reserved_kib.value if self.reserved_kib is not None else 0.0)


class Overhead(Section):
    """Time that no MAC explains."""

    us_per_layer: NonNegative | None = Field(default=None, description="microseconds added to every layer")
    us_per_inference: NonNegative | None = Field(default=None, description="microseconds added once per inference")


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


class Calibration(Section):
    """Factors that bring the sums of single measurements to the times of whole networks; absent ones are 1."""

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


class ProfileFile(Section):
    """A hardware profile as written in its TOML file."""

    LATER: ClassVar[frozenset[str]] = frozenset({"conversions", "nodes", "calibration"})

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
    clock_mhz: Positive | None = Field(default=None, description="clock in MHz; needed by `macs_per_cycle`")
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
