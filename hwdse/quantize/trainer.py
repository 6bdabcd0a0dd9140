"""Training of one configuration, step by step, with looks at what is held back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import torch

from hwdse.errors import InputError
from hwdse.progress import Progress
from hwdse.quantize.distil import LOSSES, distance
from hwdse.quantize.samples import Piece, Samples
from hwdse.quantize.student import Learning, Student, first_tensor

__all__ = ["Check", "Settings", "Trainer"]

CHECKS_PER_PASS = 4


@dataclass(frozen=True)
class Settings:
    """How a configuration is tuned.

    Attributes
    ----------
    learning
        What learns, and how fast.
    loss, temperature
        See :func:`hwdse.quantize.distil.distance`.
    passes
        Times that the data are gone through at most.
    batch
        Samples per step.
    warm_up
        Steps in which the rates rise to what they are.
    held_share
        Share of the samples that are held back.
    seed
        Of the split and of the order of samples.

    Raises
    ------
    InputError
        If a value is outside of its range.
    """

    learning: Learning = field(default_factory=Learning)
    loss: str = "kl"
    temperature: float = 4.0
    passes: int = 20
    batch: int = 64
    warm_up: int = 50
    held_share: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise InputError(f"expected a loss of {', '.join(LOSSES)}, got {self.loss!r}")
        for name in ("passes", "batch", "warm_up"):
            if getattr(self, name) < 1:
                raise InputError(f"expected {name.replace('_', '-')} of at least 1, got {getattr(self, name)}")
        if not 0.0 < self.temperature < math.inf:
            raise InputError(f"expected a temperature above 0, got {self.temperature}")
        if not 0.0 < self.held_share < 1.0:
            raise InputError(f"expected a share between 0 and 1 of held-back samples, got {self.held_share}")

    def record(self) -> dict[str, Any]:
        """Return everything as plain numbers and text."""
        return asdict(self)


@dataclass(frozen=True)
class Check:
    """A look at the held-back samples.

    Attributes
    ----------
    step
        Steps done before.
    loss
        Mean distance of the held-back samples' answers, as the configuration is deployed.
    """

    step: int
    loss: float


class Trainer:
    """The state of a training.

    Parameters
    ----------
    student
        What is trained.
    kept, held
        Samples to train on, and those that say which state is best.
    settings, seconds
        How, and how long at most.
    clock
        Seconds.

    Attributes
    ----------
    step, planned, total
        Steps done, steps of all passes, and those that time is likely to allow.
    checks
        Looks at the held-back samples so far.
    best
        The state with the least loss there; ``None`` while that is the start.

    Raises
    ------
    InputError
        If nothing learns.
    """

    def __init__(
        self,
        student: Student,
        kept: Samples,
        held: Samples,
        settings: Settings,
        seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self.student, self.kept, self.held, self.settings = student, kept, held, settings
        self.seconds, self.clock = seconds, clock
        self.before, self.began = 0.0, clock()
        self.step = 0
        self.per_pass = -(-len(kept) // settings.batch)
        self.planned = self.total = settings.passes * self.per_pass
        self.checks: list[Check] = []
        self.best: dict[str, Any] | None = None
        groups = student.groups()
        if not groups:
            raise InputError("expected a configuration with quantized layers to tune, got none; choose another one")
        self.rates = [float(group["lr"]) for group in groups]
        self.optimizer = torch.optim.Adam(groups)

    @property
    def spent(self) -> float:
        """Seconds of all sittings."""
        return self.before + self.clock() - self.began

    def state(self) -> dict[str, Any]:
        """Return everything that going on needs."""
        return {
            "student": self.student.state(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "checks": [[check.step, check.loss] for check in self.checks],
            "step": self.step,
            "total": self.total,
            "seconds": self.spent,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        self.student.load(state["student"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best = state["best"]
        self.checks = [Check(int(step), float(loss)) for step, loss in state["checks"]]
        self.step, self.total, self.before = int(state["step"]), int(state["total"]), float(state["seconds"])

    def run(self, progress: Progress, save: Callable[[], Any]) -> str:
        """Train until passes or time are over, or the loss is no number; take the best state, and return why it ended.

        Raises
        ------
        InputError
            If the loss is no number at the start.
        """
        every = max(1, self.per_pass // CHECKS_PER_PASS)
        if not self.checks:
            self.checks.append(Check(0, self._held_loss()))
        if not math.isfinite(self.checks[0].loss):
            raise InputError("expected finite answers of the configuration to start from, got none; choose another one")
        ended, first = "", True
        progress.start("first steps", min(every, self.total - self.step))
        while not ended and self.step < self.total:
            if not math.isfinite(self._train()):
                ended = f"the loss was not finite after {self.step} steps"
                break
            progress.advance()
            if self.step % every == 0 or self.step >= self.total or self.spent >= self.seconds:
                ended = self._look()
                save()
                if first:
                    progress.start("fine-tune", max(self.total - self.step, 0))
                first = False
        if self.best is not None:
            self.student.load(self.best)
        within = self.total == self.planned
        return ended or ("all passes are done" if within else "the time is over")

    def _train(self) -> float:
        """Do one step and return its loss."""
        factor = min(1.0, (self.step + 1) / self.settings.warm_up)
        factor *= 0.5 * (1.0 + math.cos(math.pi * self.step / self.total))
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        pieces = self._pieces()
        count, loss = sum(map(len, pieces)), 0.0
        self.optimizer.zero_grad()
        for piece in pieces:
            part = self._distance(self.student(piece.inputs), piece.answers) * (len(piece) / count)
            part.backward()
            loss += float(part.detach())
        self.step += 1
        if math.isfinite(loss):
            self.optimizer.step()
            self.student.settle()
        return loss

    def _pieces(self) -> list[Piece]:
        """Return the samples of the next step: the order of a pass depends on its number alone."""
        turn, place = divmod(self.step, self.per_pass)
        if place == 0 or not hasattr(self, "_order"):
            order = self.kept.shuffled(self.settings.batch, seed=self.settings.seed * 1_000_003 + turn + 1)
            self._order = islice(order, place, None)
        return next(self._order)

    def _look(self) -> str:
        """Look at the held-back samples and plan the rest; return why it cannot go on, if so."""
        loss = self._held_loss()
        if not math.isfinite(loss):
            return f"the loss was not finite after {self.step} steps"
        if loss < min(check.loss for check in self.checks):
            self.best = self.student.state()
        self.checks.append(Check(self.step, loss))
        fits = int((self.seconds - self.spent) / (self.spent / self.step))
        self.total = min(self.planned, self.step + max(fits, 0))  # more again, if the machine got faster
        return ""

    def _held_loss(self) -> float:
        """Return the loss of the held-back samples, as the configuration is deployed."""
        network = self.student.network.fitted(self.student.fitted())
        setting = network.configure(self.student.config)
        total = 0.0
        for pieces in self.held.whole(self.settings.batch):
            for piece in pieces:
                with torch.inference_mode():
                    found = first_tensor(network.forward(piece.inputs, setting))
                    total += float(self._distance(found, piece.answers)) * len(piece)
        return total / sum(map(len, self.held.pieces))

    def _distance(self, found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return distance(found, wanted, loss=self.settings.loss, temperature=self.settings.temperature)
