"""How fast a device runs each pair of formats: rates, closed forms of cycles, and how rates change with widths."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import AfterValidator, Field, Strict, model_validator

from hwdse.errors import InputError
from hwdse.formats import Precision, parse
from hwdse.graph import Layer
from hwdse.hardware.cycles import CYCLE_MODELS
from hwdse.hardware.faults import closest
from hwdse.hardware.quantity import Count, Fraction, Kind, NonNegative, Positive, Section, Text

__all__ = [
    "OP_CLASSES",
    "ActivationName",
    "CycleModel",
    "Efficiency",
    "FormatName",
    "OpClass",
    "Rate",
    "Scaling",
]

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


def _known_cycles(name: str) -> str:
    """Return ``name`` if it is a closed form of cycles."""
    if name not in CYCLE_MODELS:
        raise ValueError(f"expected a closed form of cycles, got {name!r}; {closest(name, list(CYCLE_MODELS))}")
    return name


class CycleModel(Section):
    """A published closed form that gives the cycles of a layer from its shape, padding included."""

    model: Annotated[str, AfterValidator(_known_cycles)] = Field(
        description="name of the closed form: " + ", ".join(f"`{name}`" for name in CYCLE_MODELS)
    )
    source: Text = Field(description="key of `[sources]`")
    note: Text | None = Field(default=None, description="what it leaves out, in words")


class Scaling(Section):
    """How a rate changes with the widths of its operands, so that one entry stands for many pairs.

    The entry's own pair is the reference ``(w, a)``. At another pair ``(v, b)`` the rate is multiplied and the energy
    per MAC divided by ``w / v`` (``weight_serial``: the bits of a weight one after another), by ``w a / (v b)``
    (``serial``: the bits of both), or by ``p(w) p(a) / (p(v) p(b))`` (``fusion``: units of 2 x 2 bits that combine;
    ``p`` rounds a width up to a power of two of at least 2 [Sharma2018]_). ``cycles``: a closed form knows the widths.
    """

    rule: Literal["weight_serial", "serial", "fusion", "cycles"] = Field(
        description="what the rate is proportional to: `weight_serial`, `serial` or `fusion`; `cycles` beside a closed "
        "form, which knows the widths"
    )
    weights: Annotated[tuple[FormatName, ...], Strict(False), Field(min_length=1)] = Field(
        description="weight formats that the entry stands for"
    )
    activations: Annotated[tuple[ActivationName, ...], Strict(False), Field(min_length=1)] = Field(
        description="activation formats that the entry stands for"
    )
    source: Text = Field(description="key of `[sources]`")

    def speed(self, pair: Precision, reference: Precision) -> float:
        """Return how many times as fast as the reference pair another one is.

        >>> rule = Scaling(rule="fusion", weights=("int4",), activations=("int8",), source="x")
        >>> rule.speed(Precision.parse("W3A8"), Precision.parse("W8A8"))
        2.0
        """
        return self._work(reference) / self._work(pair)

    def _work(self, pair: Precision) -> float:
        weight, activation = pair.weights.bits, pair.activations.bits
        if self.rule == "cycles":
            return 1.0
        if self.rule == "weight_serial":
            return float(weight)
        if self.rule == "fusion":
            weight, activation = (max(2, 1 << (bits - 1).bit_length()) for bits in (weight, activation))
        return float(weight * activation)


class Rate(Section):
    """How fast one pair of formats runs. A pair without a rate is not supported, and never promoted silently."""

    LATER: ClassVar[frozenset[str]] = frozenset({"cycles", "scaling", "kernels", "max_channels", "unit"})

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
    cycles: CycleModel | None = Field(default=None, description="closed form of the cycles, in place of a rate")
    scaling: Scaling | None = Field(default=None, description="other pairs that this entry stands for")
    kernels: (
        Annotated[tuple[Annotated[str, Field(pattern=r"^\d+(x\d+)*$")], ...], Strict(False), Field(min_length=1)] | None
    ) = Field(
        default=None, description="kernels of convolutions that this rate is for, such as `3x3`; absent: all others"
    )
    max_channels: Count | None = Field(
        default=None, description="most input or output channels of a layer; wider ones are not supported"
    )
    unit: Text | None = Field(
        default=None,
        description="unit that runs it where that is not the main one, such as the host's processor; see `[handover]`",
    )

    @property
    def words(self) -> str:
        """What it is the speed of."""
        only = [*(self.op_classes or ()), *(self.kernels or ())]
        return ", ".join([str(self.precision), *([" ".join(only)] if only else [])])

    @property
    def precision(self) -> Precision:
        """The pair of formats."""
        return Precision(parse(self.weights), parse(self.activations))

    @property
    def stored(self) -> Precision:
        """The pair of formats that is stored and run: the container, where there is one."""
        container = parse(self.container) if self.container is not None else None
        return Precision(container, container) if container is not None else self.precision

    def runs(self, layer: Layer) -> bool:
        """Return whether the kernel and the channels of ``layer`` are among those that this rate is for."""
        widest = max(layer.input_channels, layer.output_channels)
        if self.max_channels is not None and widest > self.max_channels.value:
            return False
        return self.kernels is None or "x".join(map(str, layer.kernel)) in self.kernels

    @property
    def pairs(self) -> tuple[Rate, ...]:
        """One rate per pair of formats that this entry stands for: itself where it has no scaling."""
        if self.scaling is None:
            return (self,)
        return tuple(
            self._scaled(self.scaling, *names) for names in product(self.scaling.weights, self.scaling.activations)
        )

    def _scaled(self, scaling: Scaling, weights: str, activations: str) -> Rate:
        """Return the rate of another pair."""
        speed = scaling.speed(Precision(parse(weights), parse(activations)), self.precision)
        changed = {
            key: _times(quantity, factor, scaling.source)
            for key, factor in (("macs_per_cycle", speed), ("gmac_per_s", speed), ("pj_per_mac", 1.0 / speed))
            if (quantity := getattr(self, key)) is not None
            and (weights, activations) != (self.weights, self.activations)
        }
        return self.model_copy(update={"weights": weights, "activations": activations, "scaling": None} | changed)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        given = [key for key in ("macs_per_cycle", "gmac_per_s", "cycles") if getattr(self, key) is not None]
        if len(given) != 1:
            words = " and ".join(given) if given else "none"
            raise ValueError(f"expected one of macs_per_cycle, gmac_per_s and cycles, got {words}")
        if self.scaling is not None and (self.cycles is None) == (self.scaling.rule == "cycles"):
            needed = "another rule beside a rate" if self.cycles is None else "the rule 'cycles' beside a closed form"
            raise ValueError(f"expected {needed}, got {self.scaling.rule!r}")
        if self.scaling is not None and self.container is not None:
            raise ValueError("expected a rate of one pair beside container, got scaling; write a rate for each pair")
        if self.container is not None:
            widths = (parse(self.weights).bits, parse(self.activations).bits)
            if parse(self.container).bits < max(widths) or parse(self.container).bits == min(widths):
                raise ValueError(f"expected a container wider than {self.precision}, got {self.container!r}")
        return self


def _times(quantity: Positive | NonNegative, factor: float, source: str) -> Positive | NonNegative:
    """Return a figure times a factor, which makes it a modelled one."""
    ends: Mapping[str, float | None] = {"value": quantity.value, "low": quantity.low, "high": quantity.high}
    scaled = {key: value * factor for key, value in ends.items() if value is not None}
    return quantity.model_copy(update={**scaled, "kind": Kind.MODELLED, "source": source})


class Efficiency(Section):
    """Achieved share of the rates for each class of operators; absent: the rates are achieved ones."""

    conv: Fraction | None = Field(default=None, description="convolutions with a kernel above 1x1")
    pointwise: Fraction | None = Field(default=None, description="1x1 convolutions")
    depthwise: Fraction | None = Field(default=None, description="convolutions with one input channel per group")
    grouped: Fraction | None = Field(default=None, description="other convolutions with groups")
    linear: Fraction | None = Field(default=None, description="linear layers")
    matmul: Fraction | None = Field(default=None, description="products of two activations")
