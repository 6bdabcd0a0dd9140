"""A weight that is trained while it is rounded: the values behind the codes, step sizes, and learned levels."""

from __future__ import annotations

import numpy as np
import torch

from hwdse.calibrate import Points
from hwdse.calibrate.codebook import sign_split_quantiles
from hwdse.calibrate.distribution import nearest, places_of
from hwdse.formats import Granularity, Scheme
from hwdse.quantize.learned_step import balanced, learned_step
from hwdse.quantize.runnable import channels_last
from hwdse.quantize.weights import QuantizedWeight, scale_rows

__all__ = ["LatentWeight", "row_numbers", "with_quantiles"]


class LatentWeight:
    """A weight in training.

    Everything that learns is a ratio to what it was at the start: values count in steps, steps in powers of e. So
    one learning rate suits every layer and every channel.

    Parameters
    ----------
    start
        The weight to begin with.
    full
        The weight in full precision, shaped alike.
    axis, scheme
        Output channels, and who shares a step.
    reach
        Where within the cell of its code a value begins: 0 on the level itself, 1 where the value in full precision
        stands, or at the border of the cell if it stands outside.

    Attributes
    ----------
    values
        ``(shape of the weight)``, in steps, counted from the zero point. They grow with their step, whose gradient
        is then that of the rounded weight; if they stayed behind, a weight on the grid would give it none.
    growth
        Logarithm of every step's ratio to that at the start, ``(rows,)``; it stays 0 in a format without a scale.
    levels
        What values are rounded to; those of a learned format move.
    """

    def __init__(self, start: QuantizedWeight, full: torch.Tensor, *, axis: int, scheme: Scheme, reach: float) -> None:
        self.start, self.levels = start, start.levels
        self._rows = channels_last(row_numbers(full.shape, axis, scheme))
        self._scale = start.scale.float()
        self._zero = start.zero_point.float()[self._rows]
        self._dtype = full.dtype
        self.values = self._begin(full.float(), reach).requires_grad_()
        self.growth = torch.zeros_like(self._scale, requires_grad=start.levels.number_format.has_scale)
        self._mass = self._moment = torch.zeros(0, dtype=torch.float64)
        if self._learns_levels:
            self._mass, self._moment = self._sums()

    def _begin(self, full: torch.Tensor, reach: float) -> torch.Tensor:
        """Return each value in the cell of its code; that of an outermost code does not lie beyond the level."""
        grid = torch.tensor(self.levels.values, dtype=torch.float32)
        unit = self._scale[self._rows]
        level = nearest((self.start.values.float() * unit.reciprocal()).contiguous(), self.levels, self._zero)
        half = torch.cat([grid.new_zeros(1), grid.diff() / 2, grid.new_zeros(1)])
        place = torch.searchsorted((grid[1:] + grid[:-1]) / 2, level + self._zero.contiguous())
        away = full / unit - level
        return level + torch.maximum(torch.minimum(away, reach * half[place + 1]), -reach * half[place])

    @property
    def steps(self) -> torch.Tensor:
        """Step sizes, ``(rows,)``."""
        return self._scale * self.growth.exp()

    @property
    def _ends(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Outermost levels of every value, counted from the zero point."""
        low, high = float(self.levels.values[0]), float(self.levels.values[-1])
        return low - self._zero, high - self._zero

    def rounded(self) -> torch.Tensor:
        """Return the weight as it is deployed, with gradients for values and steps."""
        shared, highest = max(self.values.numel() // self._scale.numel(), 1), float(np.abs(self.levels.values).max())
        step = balanced(self.steps, values=shared, highest=highest)[self._rows]
        levels = nearest(self.values.detach().contiguous(), self.levels, self._zero) * step.detach()
        return learned_step(self.values * step, step, levels, ends=self._ends).to(self._dtype)

    @torch.no_grad()
    def settle(self, decay: float) -> None:
        """Bring values that left the grid back to its ends, where they still learn, and levels to their weights.

        Levels are learned formats' alone: each is the moving average of the values nearest to it; a level at zero stays
        ([Jia2025]_, as reconstructed from its description).
        """
        self.values.clamp_(*self._ends)
        if not self._learns_levels:
            return
        mass, moment = self._sums()
        self._mass.mul_(decay).add_(mass, alpha=1.0 - decay)
        self._moment.mul_(decay).add_(moment, alpha=1.0 - decay)
        before = self.levels.values
        seen = self._mass.numpy() > 0.0
        means = np.where(seen, self._moment.numpy() / np.where(seen, self._mass.numpy(), 1.0), before)
        self.levels = self.levels.taught(np.maximum.accumulate(np.where(before == 0.0, 0.0, means)))

    @property
    def _learns_levels(self) -> bool:
        return self.levels.number_format.is_learned

    def _sums(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mass and sum of the values nearest to each level; a row weighs as much as its squared errors do."""
        step, values = self.steps.detach(), self.values.detach().contiguous()
        weight = ((step / step.max()) ** 2)[self._rows].contiguous().reshape(-1).double()
        place, count = places_of(values, self.levels).reshape(-1).long(), self.levels.values.size
        mass, moment = torch.zeros(2, count, dtype=torch.float64)
        return mass.index_add_(0, place, weight), moment.index_add_(0, place, weight * values.reshape(-1))

    @torch.no_grad()
    def quantized(self) -> QuantizedWeight:
        """Return the weight as it stands."""
        return QuantizedWeight(
            channels_last(self.rounded().clone()), self.steps.double(), self.start.zero_point, self.levels
        )

    def state(self) -> dict[str, torch.Tensor]:
        """Return a copy of all that changes."""
        learned = torch.tensor(self.levels.learned, dtype=torch.float64)
        found = {"values": self.values, "growth": self.growth, "learned": learned}
        return {n: t.detach().clone() for n, t in {**found, "mass": self._mass, "moment": self._moment}.items()}

    @torch.no_grad()
    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Take over what :meth:`state` returned."""
        self.values.copy_(state["values"])
        self.growth.copy_(state["growth"])
        self._mass, self._moment = state["mass"].clone(), state["moment"].clone()
        if self._learns_levels:
            self.levels = self.levels.taught(state["learned"].numpy())


def row_numbers(shape: torch.Size, axis: int, scheme: Scheme) -> torch.Tensor:
    """Return the number of the row, of those that share a scale, which each value of a weight belongs to.

    >>> row_numbers(torch.Size([2, 3]), 0, Scheme(weight_granularity=Granularity.PER_BLOCK, block_size=2)).tolist()
    [[0, 0, 1], [2, 2, 3]]
    """
    moved = torch.empty(shape, device="meta").movedim(axis, 0).shape
    channels, columns = moved[0], int(np.prod(moved[1:]))
    if scheme.weight_granularity is Granularity.PER_TENSOR:
        return torch.zeros(shape, dtype=torch.int64)
    length = scheme.block_size if scheme.weight_granularity is Granularity.PER_BLOCK else max(columns, 1)
    blocks = -(-columns // length)
    rows = torch.arange(channels)[:, None] * blocks + torch.arange(columns) // length
    return rows.reshape(moved).movedim(0, axis).contiguous()


def with_quantiles(start: QuantizedWeight, full: torch.Tensor, *, axis: int, scheme: Scheme) -> QuantizedWeight:
    """Return ``start`` with a codebook of quantiles of the negative and of the positive weights, if it has a learned
    one: the start of adaptive distribution-aware quantization ([Jia2025]_, as reconstructed from its description).

    All rows share the levels, in units of the step.
    """  # noqa: D205
    if not start.levels.number_format.is_learned:
        return start
    atoms = Points(scale_rows(full, scheme, axis=axis)[0]).atoms()
    levels = start.levels.taught(sign_split_quantiles(*atoms, 2**start.levels.number_format.bits))
    step = start.scale.float()[row_numbers(full.shape, axis, scheme)]
    values = channels_last(nearest(full.float() * step.reciprocal(), levels) * step)
    return QuantizedWeight(values.to(full.dtype), start.scale, start.zero_point, levels)
