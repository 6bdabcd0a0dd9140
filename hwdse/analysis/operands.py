"""The operands of a network's layers as distributions: weights in rows that share a scale, activations as seen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from hwdse.calibrate import Boxes, Distribution, Points
from hwdse.calibrate.codebook import taught
from hwdse.errors import InputError
from hwdse.formats import Levels, NumberFormat, Precision, Scheme
from hwdse.graph import Layer
from hwdse.quantize.network import QuantizedNetwork
from hwdse.quantize.weights import scale_rows

__all__ = ["Operand", "first_readers", "layer_operands", "operands_of"]


@dataclass(frozen=True)
class Operand:
    """A weight or an activation tensor that a layer reads.

    Attributes
    ----------
    name
        Parameter, or point of the program.
    kind
        ``weight`` or ``activation``.
    layer
        The first layer that reads it.
    tables
        Its values by rows that share a scale; weights in blocks may have two tables.
    """

    name: str
    kind: Literal["weight", "activation"]
    layer: str
    tables: tuple[Distribution, ...]

    @cached_property
    def count(self) -> float:
        """Number of values."""
        return float(sum(table.count.sum() for table in self.tables))

    @cached_property
    def mean_square(self) -> float:
        """Mean of the squared values."""
        return float(sum((table.count * table.mean_square).sum() for table in self.tables)) / self.count

    @cached_property
    def largest(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Largest magnitude of each row, ``(rows,)``."""
        return np.concatenate([table.largest for table in self.tables])

    @property
    def rows(self) -> int:
        """Number of scales."""
        return self.largest.size

    def levels(self, number_format: NumberFormat, scheme: Scheme) -> Levels:
        """Return the levels that ``number_format`` has for this operand, learned ones from its values.

        Raises
        ------
        InputError
            If the format cannot hold the operand.
        """
        if self.kind == "weight":
            return taught(Levels.of_weights(number_format, scheme), self.tables[0])
        (table,) = self.tables
        levels = Levels.of_activations(number_format, scheme, nonnegative=table.is_nonnegative)
        return taught(levels, table)


def operands_of(network: QuantizedNetwork) -> dict[str, Operand]:
    """Return every operand of ``network`` under its scheme by name, weights first.

    Raises
    ------
    InputError
        If a weight is empty or not finite (the layer is named).
    """
    readers = first_readers(network)
    found: dict[str, Operand] = {}
    for name, weight in network.program.folded.items():
        reader = readers[name]
        rows = scale_rows(weight.detach(), network.scheme, axis=network.weight_axis(name))
        try:
            found[name] = Operand(name, "weight", reader, tuple(map(Points, rows)))
        except InputError as error:
            raise InputError(f"{error} (layer {reader!r})") from error
    for point, stream in network.streams.items():
        found[point] = Operand(point, "activation", readers[point], (Boxes.of_stream(stream),))
    return found


def first_readers(network: QuantizedNetwork) -> dict[str, str]:
    """Return the first layer that reads each operand of ``network``, by the operand's name."""
    found = {point: point.removesuffix(".second") for point in network.streams}
    for layer in reversed(network.captured.layers):
        found[layer.input] = layer.name
        if layer.weight is not None:
            found[layer.weight] = layer.name
    return found


def layer_operands(layer: Layer, precision: Precision) -> tuple[tuple[str, NumberFormat], tuple[str, NumberFormat]]:
    """Return a layer's operands with their formats: the weights or the second activation, and the input."""
    second = layer.weight if layer.weight is not None else f"{layer.name}.second"
    return (second, precision.weights), (layer.input, precision.activations)
