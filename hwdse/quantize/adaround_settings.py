"""How AdaRound learns; kept apart from what learns, which recipes need not load."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hwdse.errors import InputError

__all__ = ["AdaRoundSettings"]


@dataclass(frozen=True)
class AdaRoundSettings:
    """How rounding is learned.

    Attributes
    ----------
    iterations
        Steps per layer or block.
    batch
        Samples of a step.
    learning_rate
        Of Adam.
    regularisation
        Weight of the term that drives every ``h`` to 0 or 1, per weight. The error of the outputs beside it is summed
        over channels, averaged over everything else, and counted in mean squares of the outputs in full precision,
        which are about 1 behind a batch norm: what is found does not depend on their unit.
    beta
        Its exponent at first and at last; the way between is half a cosine.
    warm_up
        Share of the steps that go without it.
    by_block
        True to learn the weights of a block together, see :mod:`hwdse.quantize.blocks`.
    seed
        Of the order of the samples.

    Adam moves ``v`` by at most about its rate in a step, and from one end to the other it is 5. The published 10,000
    steps at 1e-3 can go 10 in all; 2,000 at 1e-2 go there and have as many again to settle, in a fifth of the time.

    Raises
    ------
    InputError
        If a number is out of range.
    """

    iterations: int = 2000
    batch: int = 32
    learning_rate: float = 1e-2
    regularisation: float = 0.01
    beta: tuple[float, float] = (20.0, 2.0)
    warm_up: float = 0.2
    by_block: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.batch < 1:
            raise InputError(
                f"expected at least one iteration and one sample per batch, got {self.iterations} and {self.batch}"
            )
        if not (self.learning_rate > 0.0 and self.regularisation >= 0.0 and 0.0 <= self.warm_up <= 1.0):
            raise InputError(
                "expected a positive learning rate, no negative regularisation and a warm-up in [0, 1], got "
                f"{self.learning_rate}, {self.regularisation} and {self.warm_up}"
            )
        if len(self.beta) != 2 or min(self.beta) <= 1.0:
            raise InputError(f"expected two exponents above 1, got {' and '.join(map(str, self.beta)) or 'none'}")

    def beta_at(self, iteration: int) -> float | None:
        """Return the exponent at an iteration; ``None`` during the warm-up."""
        start = self.warm_up * self.iterations
        if iteration < start:
            return None
        first, last = self.beta
        return last + (first - last) * (1.0 + math.cos(math.pi * (iteration - start) / (self.iterations - start))) / 2.0
