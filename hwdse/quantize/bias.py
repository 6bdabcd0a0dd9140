"""Bias correction: rounded weights shift the mean of what a layer writes, and its bias can shift it back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from hwdse.quantize.moments import Means
from hwdse.quantize.rebuilt import Rebuilt
from hwdse.quantize.walk import LayerView

__all__ = ["corrected", "mean_error", "spread"]

Array = NDArray[np.float64]


def corrected(rebuilt: Rebuilt, view: LayerView, correction: str) -> Rebuilt:
    """Return a weight with the bias that keeps the mean output, if its layer has a bias [Nagel2019]_.

    ``local``: of the full-precision weights on the inputs as the layers before round them, ``E[(W - Q(W)) x]``.
    ``global``: of the full-precision network: the errors that reach the layer are made up for, too.

    Raises
    ------
    InputError
        If there is no sample, or a value is not finite.
    """
    bias = view.bias
    if bias is None or correction == "none":
        return rebuilt
    means, layout = view.gather(Means), view.layout
    if correction == "local":
        means.target_mean = _mean_output(means, layout.matrix(view.full))
    shift = torch.from_numpy(mean_error(means, layout.matrix(rebuilt.weight.values)))
    return replace(rebuilt, bias=(bias.double() + shift).to(bias.dtype))


def mean_error(means: Means, values: Array) -> Array:
    """Return what is missing in the mean output with weights ``(groups, columns, channels)``, ``(outputs,)``."""
    error: Array = (means.target_mean - _mean_output(means, values)).reshape(-1)
    return error


def _mean_output(means: Means, values: Array) -> Array:
    output: Array = (values * means.mean[:, :, None]).sum(1)
    return output


def spread(outputs: torch.Tensor) -> float:
    """Return how far outputs ``(..., values)`` differ from row to row: the mean standard deviation of their values."""
    rows = outputs.detach().reshape(-1, outputs.shape[-1]).double()
    return float(rows.std(0, correction=0).mean())
