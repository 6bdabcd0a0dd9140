"""A number of a hardware profile: its value, what kind of figure it is, where it comes from, how far to trust it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    Strict,
    model_serializer,
    model_validator,
)

__all__ = ["Correlation", "Count", "Factor", "Fraction", "Kind", "NonNegative", "Positive", "Quantity", "Section"]

Finite = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]


class Kind(StrEnum):
    """How a figure came about, from the most to the least trustworthy."""

    MEASURED = "measured"
    DERIVED = "derived"
    DATASHEET = "datasheet"
    MODELLED = "modelled"
    ESTIMATE = "estimate"


class Section(BaseModel):
    """A table of a profile: keys it does not know are faults, values are never coerced, and nothing changes later.

    Attributes
    ----------
    LATER
        Keys that came after the first profiles. Where they have their default they are not written, so that the text
        of a profile without them, and every address made from it, stays what it was.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    LATER: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        unset = {name for name in self.LATER if getattr(self, name) == fields[name].default}
        return {fields[name].alias or name: value for name, value in handler(self).items() if name not in unset}


class Quantity(Section):
    """One number with its provenance.

    >>> Quantity(value=2.5, kind=Kind.MODELLED, source="Ottavi2020").value
    2.5
    """

    value: Finite = Field(description="the figure, in the unit that the key ends in")
    kind: Annotated[Kind, Strict(False)] = Field(
        description="`measured` on the device; `derived` from measurements by arithmetic; `datasheet`: the vendor's "
        "figure; `modelled`: a simulation or published model; `estimate`: a judgement, with `low` and `high`"
    )
    source: Text = Field(description="key of `[sources]`")
    low: Finite | None = Field(default=None, description="lower end of the plausible interval")
    high: Finite | None = Field(default=None, description="upper end of the plausible interval")
    note: Text | None = Field(default=None, description="how the figure was obtained, in words")

    @model_validator(mode="after")
    def _interval(self) -> Self:
        low = self.value if self.low is None else self.low
        high = self.value if self.high is None else self.high
        if not low <= self.value <= high:
            raise ValueError(f"expected low <= value <= high, got {low:g}, {self.value:g}, {high:g}")
        if self.kind is Kind.ESTIMATE and (self.low is None or self.high is None):
            raise ValueError("expected an estimate to give its interval, got no low or no high; add both")
        return self


class Positive(Quantity):
    """A number above zero."""

    value: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(description="a number above 0")


class NonNegative(Quantity):
    """A number of at least zero."""

    value: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(description="a number of at least 0")


class Fraction(Quantity):
    """A number above zero and of at most one."""

    value: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = Field(description="above 0, at most 1")


class Count(Quantity):
    """A whole number of at least one."""

    value: Annotated[int, Field(ge=1)] = Field(description="a whole number of at least 1")


class Factor(Quantity):
    """A number of at least one."""

    value: Annotated[float, Field(ge=1, allow_inf_nan=False)] = Field(description="a number of at least 1")


class Correlation(Quantity):
    """A correlation."""

    value: Annotated[float, Field(ge=-1, le=1)] = Field(description="a number from -1 to 1")
