"""The weight of a layer from the Gram matrix of what it reads: every bit-width is solved without the data."""

from __future__ import annotations

import numpy as np
import torch

from hwdse.formats import Granularity
from hwdse.quantize.bias import mean_error
from hwdse.quantize.moments import SecondMoments
from hwdse.quantize.rebuilt import Rebuilt
from hwdse.quantize.reconstruct import Damped, Grid, damping_of, output_error, reconstruct
from hwdse.quantize.runnable import channels_last
from hwdse.quantize.walk import LayerView
from hwdse.quantize.weights import QuantizedWeight

__all__ = ["gram"]


def gram(view: LayerView, damping: float | None = None) -> Rebuilt:
    """Return the weight with the least error of the layer's output, channel by channel where it beats nearest.

    The layer's bias keeps the mean output; without one, the mean counts as error. So does that of the weights
    themselves, times ``damping`` of the mean variance of what they are multiplied by: by default as much as one half of
    the samples needs to say most about the other.

    Raises
    ------
    InputError
        If there is no sample, or a value is not finite.
    """
    halves = view.halves(SecondMoments)
    layout, nearest, bias = view.layout, view.nearest, view.bias
    full = layout.matrix(view.full)
    if damping is None:
        apart = [half.covariances(centred=bias is not None) for half in halves if half.count]
        damping = damping_of(apart, full)
    moments, other = halves
    moments.merge(other)
    covariance, cross = moments.covariances(centred=bias is not None)
    damped = Damped.of(covariance, cross, full, damping)
    per_tensor = view.scheme.weight_granularity is Granularity.PER_TENSOR
    grid = Grid(
        nearest.levels,
        layout.rows(nearest.scale),
        layout.rows(nearest.zero_point),
        view.scheme.block_size or layout.columns,
        is_shared=per_tensor,
    )
    codes, fitted = reconstruct(damped, grid)
    values = (codes.astype(np.float32) * fitted.spread(layout.columns)[0].astype(np.float32)).astype(np.float64)
    rounded = layout.matrix(nearest.values)
    gain = output_error(rounded, covariance, cross) - output_error(values, covariance, cross)
    better = np.full_like(gain, gain.sum()) > 0.0 if per_tensor else gain > 0.0
    values = np.where(better[:, None], values, rounded)
    scale = layout.scales(np.where(better[:, None], fitted.scale, grid.scale))
    weight = QuantizedWeight(
        channels_last(layout.weight(values).to(nearest.values.dtype)),
        scale[:1] if per_tensor else scale,
        nearest.zero_point,
        nearest.levels,
    )
    if bias is not None:
        bias = (bias.double() + torch.from_numpy(mean_error(moments, values))).to(bias.dtype)
    return Rebuilt(weight, bias, missing=moments.missing, is_nearest=not better.any())
