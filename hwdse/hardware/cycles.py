"""Published closed forms of accelerators: cycles of one layer and one sample from its shape and precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import prod

from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.graph import Layer

__all__ = ["CYCLE_MODELS", "diana_analog", "diana_digital", "gap8", "ne16"]

Cycles = Callable[[Layer, Precision], float]

NE16_INPUTS, NE16_OUTPUTS, NE16_SIDE = 16, 32, 3
NE16_FIFO, NE16_UPDATE, NE16_STREAMOUT = 6, 2, 13
NE16_LOAD = {3: NE16_FIFO + 25, 1: 10 + 9}
"""Cycles to load 5 x 5 or 3 x 3 pixels of 16 input channels; 256 bits of memory per cycle fetch one pixel."""

DIANA_ROWS, DIANA_COLUMNS, DIANA_LEAST_INPUTS = 1152, 512, 64
DIANA_MVM_CYCLES = 70e-9 * 260e6
"""Cycles at 260 MHz of the 70 ns that one product of the analogue array takes."""


def gap8(layer: Layer, precision: Precision) -> float:
    """Return the cycles of GAP8's eight cores with PULP-NN's int8 kernels ([PLiNIO]_).

    Convolution: ``ceil(Wo / 2) ceil(Ho / 8) (2 k^2 Ci + ceil(Co / 4) (15 + 14 ceil(k^2 Ci / 4)))``; depthwise: ``4
    ceil(C / 4) Ho Wo k^2``; linear, of each row: ``ceil(Ci / 2) ceil(Co / 4)``. Groups run one after another.
    """
    del precision  # int8 alone
    height, width = _outputs(layer)
    taps = prod(layer.kernel)
    if layer.op_class == "depthwise":
        return 4.0 * _ceil(layer.output_channels, 4) * height * width * taps
    inputs, outputs = _channels(layer)
    if layer.op != "conv":
        return float(height * _ceil(inputs, 2) * _ceil(outputs, 4))
    product = _ceil(outputs, 4) * (15 + 14 * _ceil(taps * inputs, 4))
    return float(layer.groups * _ceil(width, 2) * _ceil(height, 8) * (2 * taps * inputs + product))


def ne16(layer: Layer, precision: Precision) -> float:
    """Return the cycles of the NE16 accelerator at 8-bit activations ([PLiNIO]_, after DORY [Burrello2021]_).

    A pass computes 3 x 3 pixels of 32 output channels. For every 16 input channels it loads pixels, and runs the
    weights' bits one after another at 3 x 3 (``6 + 32 w`` cycles), all at once at 1 x 1 (``6 + 32``); then it
    normalises and streams out. A depthwise pass has 16 channels. Larger kernels are sums of 3 x 3 and 1 x 1 passes.

    Raises
    ------
    InputError
        If a depthwise layer has another kernel than 3 x 3, which the accelerator does not run.
    """
    height, width = _outputs(layer)
    spatial = _ceil(height, NE16_SIDE) * _ceil(width, NE16_SIDE)
    bits = precision.weights.bits
    if layer.op_class == "depthwise":
        if layer.kernel != (3, 3):
            got = "x".join(map(str, layer.kernel))
            raise InputError(
                f"expected 3x3 depthwise layers for NE16, got {got} at {layer.name}; name kernels in the profile's rate"
            )
        return float(spatial * _in_parts(layer.output_channels, NE16_INPUTS, lambda k: _ne16_depthwise(k, bits)))
    inputs, outputs = _channels(layer)
    rows, columns = (*layer.kernel, 1, 1)[:2]
    passes = {3: (rows // 3) * (columns // 3)}
    passes[1] = rows * columns - 9 * passes[3]
    tiles = _ceil(inputs, NE16_INPUTS)
    cycles = sum(
        count * _in_parts(outputs, NE16_OUTPUTS, partial(_ne16_dense, side, input_tiles=tiles, bits=bits))
        for side, count in passes.items()
    )
    return float(layer.groups * spatial * cycles)


def _ne16_dense(side: int, outputs: int, *, input_tiles: int, bits: int) -> int:
    """Return the cycles of one pass of ``outputs`` channels over all input channels."""
    product = NE16_FIFO + (outputs * bits if side > 1 else outputs)
    return input_tiles * (NE16_LOAD[side] + NE16_FIFO + product + NE16_UPDATE) + _ne16_finish(outputs)


def _ne16_depthwise(channels: int, bits: int) -> int:
    """Return the cycles of one depthwise pass."""
    return NE16_LOAD[3] + (NE16_FIFO + channels) + (NE16_FIFO + channels * bits) + NE16_UPDATE + _ne16_finish(channels)


def _ne16_finish(channels: int) -> int:
    """Return the cycles to normalise (32-bit scales, four multipliers) and to stream out."""
    return 9 + channels + NE16_STREAMOUT


def diana_digital(layer: Layer, precision: Precision) -> float:
    """Return the cycles of DIANA's 16 x 16 digital array at int8 ([PLiNIO]_, [Houshmand2023]_).

    ``ceil(Co / groups / 16) Ci ceil(Wo / 16) Ho k^2 + Ho Wo (Ci + Co) / 8``: the second term loads and stores.
    """
    del precision  # int8 alone
    height, width = _outputs(layer)
    inputs, outputs = layer.input_channels, layer.output_channels
    product = _ceil(outputs // layer.groups, 16) * inputs * _ceil(width, 16) * height * prod(layer.kernel)
    return product + height * width * (inputs + outputs) / 8


def diana_analog(layer: Layer, precision: Precision) -> float:
    """Return the cycles at 260 MHz of DIANA's analogue in-memory array, ternary weights ([PLiNIO]_, [Houshmand2023]_).

    ``8 Ci k^2 + ceil(Co / 512) ceil(Ci / 128) Ho Wo / u x 70 ns``: writing the weights, then one product per ``u``
    output pixels. ``u`` is the largest of 1, 2, 4, 8 with ``u Co <= 512`` and ``(u + k - 1) max(64, Ci) k <= 1152``.
    """
    del precision  # ternary weights alone
    height, width = _outputs(layer)
    inputs, outputs = layer.input_channels, layer.output_channels
    rows, columns = (*layer.kernel, 1, 1)[:2]
    unrolled = max(
        u
        for u in (1, 2, 4, 8)
        if u == 1
        or (u * outputs <= DIANA_COLUMNS and (u + columns - 1) * max(DIANA_LEAST_INPUTS, inputs) * rows <= DIANA_ROWS)
    )
    products = _ceil(outputs, DIANA_COLUMNS) * _ceil(inputs, 128) * height * width / unrolled
    return 8 * inputs * rows * columns + products * DIANA_MVM_CYCLES


CYCLE_MODELS: Mapping[str, Cycles] = {
    "diana_analog": diana_analog,
    "diana_digital": diana_digital,
    "gap8": gap8,
    "ne16": ne16,
}


def _ceil(count: int, size: int) -> int:
    """Return how many tiles of ``size`` hold ``count``."""
    return -(-count // size)


def _in_parts(channels: int, size: int, cost: Callable[[int], int]) -> int:
    """Return the sum of ``cost`` over full tiles of channels and a smaller last one."""
    full, rest = divmod(channels, size)
    return full * cost(size) + (cost(rest) if rest else 0)


def _outputs(layer: Layer) -> tuple[int, int]:
    """Return the output's height and width; a linear layer has its rows as height, a 1-d convolution one row."""
    if layer.op != "conv":
        return prod(layer.output_shape[:-1]), 1
    spatial = layer.output_shape[1:]
    return (1, spatial[0]) if len(spatial) == 1 else (prod(spatial[:-1]), spatial[-1])


def _channels(layer: Layer) -> tuple[int, int]:
    """Return the input and output channels of one group; a product of activations has those of its second operand."""
    outputs = layer.output_channels if layer.weight is not None else layer.output_shape[-1]
    return layer.input_channels // layer.groups, outputs // layer.groups
