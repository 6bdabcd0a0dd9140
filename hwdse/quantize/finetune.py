"""Fine-tuning of one configuration: the network answers as in full precision, as far as its numbers allow.

Weights learn straight through their rounding, steps by their own gradient [Esser2020]_, all with Adam [Kingma2015]_
under a rate that warms up and falls as a cosine. What is held back of the data says which state is kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwdse.errors import InputError
from hwdse.graph import BitConfig
from hwdse.progress import SILENT, Progress
from hwdse.quantize.checkpoint import read_checkpoint, write_checkpoint
from hwdse.quantize.fitted import Fitted
from hwdse.quantize.network import QuantizedNetwork
from hwdse.quantize.samples import Samples
from hwdse.quantize.student import Student
from hwdse.quantize.trainer import Check, Settings, Trainer

__all__ = ["Check", "Settings", "Tuned", "finetune"]


@dataclass(frozen=True)
class Tuned:
    """What fine-tuning found.

    Attributes
    ----------
    fitted
        The state with the least loss on the held-back samples; ``None`` if none was better than the start.
    checks
        Looks at the held-back samples; the first is the start.
    seconds
        How long it took, over all sittings.
    samples, held
        Numbers of samples that were trained on and held back.
    ended
        Why it ended, in words.
    """

    fitted: Fitted | None
    checks: tuple[Check, ...]
    seconds: float
    samples: int
    held: int
    ended: str

    @property
    def best(self) -> Check:
        """The look with the least loss, the earliest of equal ones."""
        return min(self.checks, key=lambda check: check.loss)


def finetune(
    network: QuantizedNetwork,
    config: BitConfig,
    batches: Iterable[Any],
    settings: Settings,
    *,
    seconds: float = 600.0,
    checkpoint: Path | None = None,
    resume: bool = False,
    about: Mapping[str, str] | None = None,
    progress: Progress = SILENT,
    clock: Callable[[], float] = time.perf_counter,
) -> Tuned:
    """Train weights, steps and biases of ``config`` so that the network answers as in full precision.

    Parameters
    ----------
    network, config
        The calibrated network, and its configuration to start from.
    batches
        Inputs, as calibration has them.
    settings
        How.
    seconds
        Time at most, over all sittings; the rates fall to zero within it.
    checkpoint
        File for everything that going on needs, written at every look at the held-back samples.
    resume
        Go on from there: the result is that of one sitting, bit for bit, if time did not end it.
    about
        What the checkpoint belongs to, besides the settings, such as fingerprints of network and data.
    progress
        Who watches.
    clock
        Seconds; given so that tests can turn it.

    Raises
    ------
    InputError
        If there are too few samples, nothing learns, the network cannot be trained, or the time is no time.
    RunFolderError
        If the checkpoint is missing, damaged or of something else.
    """
    if not 0.0 < seconds < math.inf:
        raise InputError(f"expected a number of seconds above 0, got {seconds}; correct --seconds")
    progress.start("full precision", None)
    samples = Samples.of(network, batches, on_batch=progress.advance)
    kept, held = samples.split(settings.held_share, seed=settings.seed)
    trainer = Trainer(Student(network, config, settings.learning), kept, held, settings, seconds, clock)
    whole = {name: repr(value) for name, value in settings.record().items()} | dict(about or {})
    if resume and checkpoint is not None:
        trainer.load(read_checkpoint(checkpoint, whole))
    ended = trainer.run(
        progress, lambda: None if checkpoint is None else write_checkpoint(checkpoint, trainer.state(), whole)
    )
    fitted = None if trainer.best is None else trainer.student.fitted()
    return Tuned(fitted, tuple(trainer.checks), trainer.spent, len(kept), len(held), ended)
