"""Number formats, precisions and schemes: what a number may be, and how a device maps tensors onto it.

A number format is a *value*: its name, its bits and the values it may take. A family is one entry of :data:`FAMILIES`,
a function from a name to a format; adding a family adds an entry and touches nothing else.
"""

from __future__ import annotations

from hwdse.formats.families import FAMILIES, Family, parse
from hwdse.formats.levels import SMALLEST_SCALE, Levels
from hwdse.formats.number_format import FP32, Kind, NumberFormat
from hwdse.formats.precision import Precision
from hwdse.formats.scheme import Granularity, Scheme, Symmetry

__all__ = [
    "FAMILIES",
    "FP32",
    "SMALLEST_SCALE",
    "Family",
    "Granularity",
    "Kind",
    "Levels",
    "NumberFormat",
    "Precision",
    "Scheme",
    "Symmetry",
    "parse",
]
