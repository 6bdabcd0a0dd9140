"""A configuration of one network for one device, ready to be written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hwdse.cost import cost_table
from hwdse.cost.model import DEFAULT_METRICS
from hwdse.deploy.encodings import encodings
from hwdse.deploy.holds import CONTAINER_BITS
from hwdse.deploy.onnx import explicit_model, stored_bytes
from hwdse.deploy.translate import Translation
from hwdse.errors import InputError
from hwdse.evaluate.fingerprint import fingerprint_of_network
from hwdse.graph import BitConfig, Layer, LayerGraph
from hwdse.hardware import HardwareProfile
from hwdse.quantize.network import QuantizedNetwork
from hwdse.space import DesignSpace

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["Deployment", "predicted_metrics"]

KIB = 1024
_PACKED_BITS = (2, 4, CONTAINER_BITS)
_RUNTIME = "onnxruntime"


@dataclass(frozen=True, eq=False)
class Deployment:
    """A configuration as an ONNX model, with what is predicted of it.

    Attributes
    ----------
    network, profile, config
        The calibrated network, the device, and the precision of every layer.
    model
        The ONNX model.
    predicted
        Metrics by column, from the cost models: ``latency_ms_predicted``, ``size_kib`` ...
    """

    network: QuantizedNetwork
    profile: HardwareProfile
    config: BitConfig
    model: ModelProto
    predicted: dict[str, float]

    @classmethod
    def of(cls, network: QuantizedNetwork, profile: HardwareProfile, config: BitConfig) -> Deployment:
        """Make the model of ``config``.

        Raises
        ------
        InputError
            If the device does not support a precision, or an ONNX graph cannot hold it; or a package is missing.
        """
        graph = network.captured
        missing = [name for name in graph.layer_index if name not in config.precisions]
        if missing:
            raise InputError(f"expected a precision for every layer of the network, got none for {missing[0]}")
        network.check(config.precisions)
        predicted = predicted_metrics(graph, profile, config)
        model = explicit_model(
            Translation.of(network.program.with_constants(network.configure(config).biases)),
            network,
            config,
            stored_bits={layer.name: _stored_bits(layer, profile, config) for layer in graph.layers},
            properties=_properties(network, profile, config, predicted),
        )
        return cls(network, profile, config, model, predicted)

    @property
    def content(self) -> bytes:
        """The ONNX file."""
        content: bytes = self.model.SerializeToString()
        return content

    @property
    def encodings(self) -> dict[str, Any]:
        """Scales and zero points, for the toolchains of vendors."""
        return encodings(self.network, self.config)

    @property
    def stored_kib(self) -> float:
        """Size of all numbers in the file in KiB; the rest of it are operators and names."""
        return stored_bytes(self.model) / KIB

    @property
    def runs_as_deployed(self) -> bool:
        """True if the device's figures hold for ONNX Runtime, which is what runs the file here."""
        return _RUNTIME in self.profile.spec.software_stack.lower().replace(" ", "")


def predicted_metrics(graph: LayerGraph, profile: HardwareProfile, config: BitConfig) -> dict[str, float]:
    """Return what the cost models predict of ``config``, by column.

    Raises
    ------
    InputError
        If the device does not support a precision (the layer is named).
    """
    for layer in graph.layers:
        precision = config.precisions[layer.name]
        if not profile.supports(layer, precision):
            offered = ", ".join(str(p) for p in profile.precisions if profile.supports(layer, p))
            raise InputError(
                f"expected a precision that {profile.name} supports for {layer.name} ({offered or 'none'}), got "
                f"{precision}; choose another one"
            )
    candidates = tuple(dict.fromkeys(config.precisions.values()))
    metrics = [name for name in DEFAULT_METRICS if name != "energy_mj" or profile.has_energy]
    space = DesignSpace.from_costs(graph, cost_table(graph, profile, candidates, metrics=metrics), fixed={})
    genes = [candidates.index(config.precisions[group.layers[0]]) for group in graph.groups]
    (values,) = space.evaluate(np.array([genes], dtype=np.uint8))
    return dict(zip(space.columns, map(float, values), strict=True))


def _stored_bits(layer: Layer, profile: HardwareProfile, config: BitConfig) -> int:
    """Return the bits of a packed integer that holds the format in which the device stores a layer's weights."""
    bits = profile.stored(layer, config.precisions[layer.name]).weights.bits
    return next((packed for packed in _PACKED_BITS if packed >= bits), CONTAINER_BITS)


def _properties(
    network: QuantizedNetwork, profile: HardwareProfile, config: BitConfig, predicted: dict[str, float]
) -> dict[str, str]:
    """Return what is kept with the model."""
    precisions = {name: str(precision) for name, precision in config.precisions.items()}
    return {
        "configuration": _compact(precisions),
        "network": fingerprint_of_network(network.captured),
        "scheme": network.scheme.key,
        "recipe": network.recipe.key,
        "device": profile.name,
        "predicted": _compact(predicted),
    }


def _compact(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))
