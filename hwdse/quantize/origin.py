"""What a configuration was found for."""

from __future__ import annotations

from dataclasses import dataclass

from hwdse.hardware import HardwareProfile
from hwdse.quantize.network import QuantizedNetwork

__all__ = ["Origin"]


@dataclass(frozen=True, eq=False)
class Origin:
    """What a configuration was found for: enough to write it out.

    Attributes
    ----------
    network
        The calibrated network, under the device's scheme.
    profile
        The device.
    """

    network: QuantizedNetwork
    profile: HardwareProfile
