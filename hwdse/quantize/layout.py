"""How a stored weight and its matrix of columns and channels belong together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hwdse.capture.sites import Site

__all__ = ["Layout"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Layout:
    """How a stored weight and its matrix ``(groups, columns, channels)`` belong together.

    Attributes
    ----------
    shape
        Of the weight with the channels first.
    axis
        Where the channels are stored.
    groups
        Of the layer.
    """

    shape: tuple[int, ...]
    axis: int
    groups: int

    @classmethod
    def of(cls, site: Site, weight: torch.Tensor) -> Layout:
        """Return the layout of the weight that the layer at ``site`` reads."""
        return cls(tuple(weight.movedim(site.weight_axis, 0).shape), site.weight_axis, site.groups)

    @property
    def columns(self) -> int:
        """Values that an output is summed from."""
        return int(np.prod(self.shape[1:]))

    def matrix(self, weight: torch.Tensor) -> Array:
        """Return a stored weight as a matrix."""
        rows = weight.detach().movedim(self.axis, 0).reshape(self.groups, -1, self.columns)
        return np.ascontiguousarray(rows.double().numpy().transpose(0, 2, 1))

    def weight(self, matrix: Array) -> torch.Tensor:
        """Return a matrix as it is stored."""
        rows = torch.from_numpy(np.ascontiguousarray(matrix.transpose(0, 2, 1)))
        return rows.reshape(self.shape).movedim(0, self.axis).contiguous()

    def rows(self, scale: torch.Tensor) -> Array:
        """Return scales, channel after channel, as ``(groups, blocks, channels)``; one for all is repeated."""
        channels = self.shape[0]
        values = scale.double().numpy()
        table = np.broadcast_to(values, channels) if values.size == 1 else values
        return np.ascontiguousarray(table.reshape(self.groups, channels // self.groups, -1).transpose(0, 2, 1))

    def scales(self, rows: Array) -> torch.Tensor:
        """Return the inverse of :meth:`rows`."""
        return torch.from_numpy(np.ascontiguousarray(rows.transpose(0, 2, 1)).reshape(-1))
