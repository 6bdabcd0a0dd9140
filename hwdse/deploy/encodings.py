"""Encodings of a configuration for the toolchains of vendors: scale, zero point and bits of every rounded tensor.

The file names tensors as the ONNX file does. A value is ``scale * (code - zero_point)``, codes from ``lowest`` to
``highest``; ``min`` and ``max`` are the values at these ends.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hwdse.errors import InputError
from hwdse.formats import FP32, Granularity, NumberFormat, Symmetry
from hwdse.graph import BitConfig, Layer
from hwdse.quantize.network import QuantizedNetwork
from hwdse.quantize.quantizer import UniformQuantizer

__all__ = ["VERSION", "encodings"]

VERSION = "1.0"


def encodings(network: QuantizedNetwork, config: BitConfig) -> dict[str, Any]:
    """Return the encodings of ``config``, as plain lists and numbers.

    ``activation_encodings`` has an entry for every tensor that is rounded, ``param_encodings`` one for every weight in
    an integer format. Per-channel and per-block weights have a list of scales, in the order of output channels and of
    the blocks within each.

    Raises
    ------
    InputError
        If a format is no integer (the tensor is named), a layer is unknown, or tied layers differ.
    """
    setting = network.configure(config)
    activations = {point: _activation(point, quantizer, network) for point, quantizer in setting.quantizers.items()}
    weights = {}
    for layer in network.captured.layers:
        number_format = config.precisions[layer.name].weights if layer.name in config.precisions else FP32
        if layer.weight is not None and number_format != FP32:
            weights[layer.weight] = _weight(layer, number_format, network)
    return {
        "version": VERSION,
        "scheme": network.scheme.key,
        "rounding": "nearest, ties to even",
        "activation_encodings": activations,
        "param_encodings": weights,
    }


def _activation(point: str, quantizer: object, network: QuantizedNetwork) -> dict[str, Any]:
    if not isinstance(quantizer, UniformQuantizer):
        raise InputError(
            f"expected integer formats, which have encodings, got another one for the tensor {point}; leave its layers "
            "in fp32"
        )
    low, high = quantizer.levels.lowest, quantizer.levels.highest
    assert low is not None
    assert high is not None
    return {
        "bitwidth": quantizer.levels.number_format.bits,
        "dtype": "int",
        "is_symmetric": network.scheme.activations is Symmetry.SYMMETRIC,
        "is_signed": low < 0,
        "granularity": str(Granularity.PER_TENSOR),
        "lowest": low,
        "highest": high,
        "scale": quantizer.scale,
        "zero_point": quantizer.zero_point,
        "min": quantizer.scale * (low - quantizer.zero_point),
        "max": quantizer.scale * (high - quantizer.zero_point),
    }


def _weight(layer: Layer, number_format: NumberFormat, network: QuantizedNetwork) -> dict[str, Any]:
    found = network.quantized_weight(layer, number_format)
    low, high = found.levels.lowest, found.levels.highest
    if low is None or high is None:
        raise InputError(
            f"expected integer formats, which have encodings, got {number_format} at {layer.name}; leave it in fp32"
        )
    scheme = network.scheme
    scale, zero = found.scale.numpy().astype(np.float64), found.zero_point.numpy().astype(np.int64)
    grids = {"scale": scale, "zero_point": zero, "min": scale * (low - zero), "max": scale * (high - zero)}
    per_tensor = scheme.weight_granularity is Granularity.PER_TENSOR
    return {
        "bitwidth": number_format.bits,
        "dtype": "int",
        "is_symmetric": scheme.weights is Symmetry.SYMMETRIC,
        "is_signed": True,
        "granularity": str(scheme.weight_granularity),
        **({"block_size": scheme.block_size} if scheme.block_size else {}),
        **({} if per_tensor else {"axis": network.weight_axis(layer.weight or "")}),
        "lowest": low,
        "highest": high,
        **{name: values.item() if per_tensor else values.tolist() for name, values in grids.items()},
    }
