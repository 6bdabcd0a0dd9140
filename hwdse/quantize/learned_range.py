"""An activation quantizer that is trained with the weights."""

from __future__ import annotations

from dataclasses import replace

import torch

from hwdse.quantize.learned_step import balanced, learned_step
from hwdse.quantize.quantizer import CastQuantizer, CodebookQuantizer, Quantizer, UniformQuantizer

__all__ = ["MANNERS", "LearnedRange"]

MANNERS = ("learned", "ema", "kept")
"""What becomes of activation ranges: a step that learns, moving averages of the extremes, or what they were."""


class LearnedRange:
    """Stands where a quantizer would, rounds as one, and hands gradients through.

    Parameters
    ----------
    start
        The quantizer to begin with; a cast to a shorter floating-point type has nothing to learn.
    manner
        One of :data:`MANNERS`. A zero point stays where it is while a step learns; moving averages of the extremes
        ([Jacob2018]_, section 3.1) give both.
    decay
        What is kept of an average at each batch.

    Attributes
    ----------
    growth
        Logarithm of the step's ratio to that at the start, ``()``.
    extremes
        Moving averages of the smallest and the largest value, ``(2,)`` float64.
    """

    def __init__(self, start: Quantizer, *, manner: str, decay: float) -> None:
        assert isinstance(start, UniformQuantizer | CodebookQuantizer | CastQuantizer)
        self.quantizer: UniformQuantizer | CodebookQuantizer | CastQuantizer = start
        self._manner, self._decay = manner, decay
        self._scale = torch.tensor(1.0 if isinstance(start, CastQuantizer) else start.scale)
        has_step = not isinstance(start, CastQuantizer) and start.levels.number_format.has_scale
        self.growth = torch.zeros((), requires_grad=manner == "learned" and has_step)
        self.extremes = torch.tensor(self._ends, dtype=torch.float64) * self._scale.double()

    @property
    def is_unsigned(self) -> bool:
        """True if every negative value becomes 0."""
        return self.quantizer.is_unsigned

    @property
    def _ends(self) -> tuple[float, float]:
        """Outermost levels in units of the step, counted from the zero point."""
        if isinstance(self.quantizer, CastQuantizer):
            largest = torch.finfo(self.quantizer.dtype).max
            return -largest, largest
        if isinstance(self.quantizer, UniformQuantizer):
            return self.quantizer.bounds
        return float(self.quantizer.levels.values[0]), float(self.quantizer.levels.values[-1])

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` rounded."""
        if self._manner == "ema":
            self._look(x.detach())
        step = self._scale
        if self.growth.requires_grad:
            values = max(x.numel() // max(x.shape[0], 1), 1)
            step = balanced(step * self.growth.exp(), values=values, highest=max(map(abs, self._ends)))
            self._take(step)
        return learned_step(x, step, self.quantizer(x.detach()), ends=self._ends)

    apply_ = __call__  # a training step needs what it would write over

    def _take(self, step: torch.Tensor) -> None:
        """Give the quantizer another step."""
        assert not isinstance(self.quantizer, CastQuantizer)
        self.quantizer = replace(self.quantizer, scale=float(step.detach()))

    def _look(self, x: torch.Tensor) -> None:
        """Move the averages of the extremes, and the grid with them."""
        if isinstance(self.quantizer, CastQuantizer) or x.numel() == 0:
            return
        self.extremes.mul_(self._decay).add_(torch.stack(torch.aminmax(x)).double(), alpha=1.0 - self._decay)
        self._regrid()

    def _regrid(self) -> None:
        """Put the grid where the averages of the extremes say."""
        assert not isinstance(self.quantizer, CastQuantizer)
        scale, zero_point = map(float, self.quantizer.levels.grid(*self.extremes.numpy()))
        if isinstance(self.quantizer, UniformQuantizer):
            self.quantizer = replace(self.quantizer, zero_point=int(zero_point))
        self._scale = torch.tensor(scale)
        self._take(self._scale)

    def state(self) -> dict[str, torch.Tensor]:
        """Return a copy of all that changes."""
        return {"growth": self.growth.detach().clone(), "extremes": self.extremes.clone()}

    @torch.no_grad()
    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Take over what :meth:`state` returned."""
        self.growth.copy_(state["growth"])
        moved = not torch.equal(self.extremes, state["extremes"])
        self.extremes.copy_(state["extremes"])
        if moved:
            self._regrid()
        elif self.growth.requires_grad:
            self._take(self._scale * self.growth.exp())
