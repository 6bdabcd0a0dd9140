"""A configuration leaves the house: written as ONNX, run, and held against what was simulated and predicted."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn

from hwdse.capture import Capture
from hwdse.deploy.deployment import Deployment
from hwdse.deploy.onnx import write_onnx
from hwdse.errors import InputError
from hwdse.evaluate.fingerprint import fingerprint_of_network
from hwdse.graph import BitConfig
from hwdse.hardware import HardwareProfile, load_profile
from hwdse.quantize.network import QuantizedNetwork
from hwdse.quantize.origin import Origin
from hwdse.quantize.recipe import Recipe
from hwdse.study.prepare import check_same_network

__all__ = ["Deployment", "export"]


def export(
    model: nn.Module,
    graph: Capture,
    config: BitConfig,
    path: str | Path,
    *,
    calibration: Iterable[Any] | None = None,
    device: str | HardwareProfile | None = None,
    recipe: Recipe | None = None,
) -> Path:
    """Write ``config`` as an ONNX file with explicit quantization, whole or not at all, and return its path.

    A configuration that a study's front picked knows its calibrated network and its device. One that was made by hand
    needs them.

    Parameters
    ----------
    model, graph
        The trained network and its capture.
    config
        Precision of every layer.
    path
        File to write.
    calibration
        Batches of inputs that ranges are found on, in place of those of the study.
    device
        Profile or its name, in place of the study's.
    recipe
        How ranges are found, in place of the study's.

    Raises
    ------
    InputError
        If network, device or ranges are not known or do not belong together, the device or the file format cannot hold
        a precision, an operator cannot be exported, a package is missing, or the file cannot be written.
    """
    if not isinstance(config, BitConfig):
        raise InputError(f"expected a configuration to export, got {type(config).__name__}: {config}")
    check_same_network(model, graph)
    origin = config.origin if isinstance(config.origin, Origin) else None
    profile = load_profile(device) if isinstance(device, str) else device
    if profile is None and origin is not None:
        profile = origin.profile
    if profile is None or (calibration is None and origin is None):
        raise InputError(
            "expected a configuration that a front picked, which knows its device and calibrated network, got one made "
            "by hand; give device and calibration"
        )
    if calibration is None:
        assert origin is not None
        network = origin.network
        same = network.captured is graph or fingerprint_of_network(network.captured) == fingerprint_of_network(graph)
        if not same or network.scheme != profile.scheme or recipe not in (None, network.recipe):
            raise InputError(
                "expected the network, device and recipe that the configuration was found for, got others; give "
                "calibration to find ranges for them"
            )
    else:
        own = recipe or (origin.network.recipe if origin else Recipe())
        network = QuantizedNetwork.calibrated(graph, calibration, scheme=profile.scheme, recipe=own)
    return write_onnx(Path(path), Deployment.of(network, profile, config).model)
