"""A weight that was found from calibration data, with its bias."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hwdse.quantize.weights import QuantizedWeight

__all__ = ["Rebuilt"]


@dataclass(frozen=True)
class Rebuilt:
    """A weight that was found from calibration data.

    Attributes
    ----------
    weight
        Values and scales.
    bias
        The bias that goes with it; ``None`` if the layer keeps its own.
    missing
        Rows of data that were missing for a covariance of full rank.
    is_nearest
        True if nothing was found that is better than rounding to nearest.
    """

    weight: QuantizedWeight
    bias: torch.Tensor | None = None
    missing: int = 0
    is_nearest: bool = False
