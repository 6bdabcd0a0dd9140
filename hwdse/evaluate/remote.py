"""Evaluations by workers: whole ones side by side, or one divided by its batches where workers have nothing to do."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils import _pytree as pytree

from hwdse.capture import Capture
from hwdse.evaluate.evaluator import Scores
from hwdse.evaluate.executor import Enough, Request
from hwdse.evaluate.metrics import Evaluation
from hwdse.evaluate.scoring import batch_and_targets, batch_scores
from hwdse.quantize.batch import samples_in
from hwdse.quantize.network import Setting
from hwdse.quantize.quantizer import CastQuantizer, CodebookQuantizer, UniformQuantizer
from hwdse.quantize.runnable import Runnable
from hwdse.workers import Crew

__all__ = ["HELD", "Remote", "pieces_for", "score_batches", "shared_mib"]

_PIECES = 4
"""Pieces of work for every worker among all that is under way: those left over at the end are so much smaller."""

HELD = (Runnable, Capture, Evaluation, UniformQuantizer, CodebookQuantizer, CastQuantizer, np.ndarray)
"""What workers are sent once: networks, data, quantizers, reference scores, and all tensors."""

Parts = list[NDArray[np.float32]]


@dataclass
class _Job:
    """A request whose batches are being scored: the number of each piece of work, in the order of the batches."""

    request: Request
    pieces: list[int]
    found: dict[int, tuple[Parts, float]] = field(default_factory=dict)


class Remote:
    """Evaluates by a crew.

    Parameters
    ----------
    crew
        The workers, to whom :data:`HELD` is sent once.
    evaluation
        Samples and metric.
    """

    def __init__(self, crew: Crew, evaluation: Evaluation) -> None:
        self._crew = crew
        batches = list(evaluation.batches)
        self._evaluation = Evaluation(batches, evaluation.metric)
        self._count = len(batches)
        self._waiting: deque[tuple[int, Request]] = deque()
        self._jobs: dict[int, _Job] = {}
        self._job_of: dict[int, int] = {}
        self._begun = 0

    @property
    def workers(self) -> int:
        """How many evaluations go on at once."""
        return self._crew.count

    def expect(self, seconds: float) -> None:
        """Say how long an evaluation takes."""
        self._crew.expect(seconds)

    def begin(self, request: Request) -> int:
        """Keep a request until results are asked for: only then is known whether workers are left over."""
        self._begun += 1
        self._waiting.append((self._begun, request))
        return self._begun

    def next_result(self) -> tuple[int, Scores]:
        """Return the number and the scores of an evaluation that is done; wait for one."""
        self._hand_out()
        while True:
            piece, result = self._crew.next()
            number = self._job_of.pop(piece, None)
            if number is None:
                continue  # of an evaluation that ended before all of its batches were scored
            job = self._jobs[number]
            job.found[piece] = result
            scores = _scores(job)
            if scores is not None:
                self._forget(number)
                return number, scores

    def withdraw(self) -> list[int]:
        """Give up what no worker has begun, and return its numbers."""
        numbers = [number for number, _ in self._waiting]
        self._waiting.clear()
        for number, job in list(self._jobs.items()):
            if not job.found and not any(map(self._crew.is_begun, job.pieces)):
                self._forget(number)
                numbers.append(number)
        return numbers

    def _forget(self, number: int) -> None:
        """Have nothing more done for a request, and wait for none of it."""
        pieces = self._jobs.pop(number).pieces
        for piece in pieces:
            self._job_of.pop(piece, None)
        self._crew.withdraw(pieces)

    def _hand_out(self) -> None:
        """Give the crew what waits, divided so that the last piece of work is small against all that is under way."""
        at_once = len(self._jobs) + len(self._waiting)
        while self._waiting:
            number, request = self._waiting.popleft()
            shares = pieces_for(self.workers, self._count, at_once=at_once)
            self._jobs[number] = _Job(request, self._pieces(request, shares))
            self._job_of |= dict.fromkeys(self._jobs[number].pieces, number)

    def _pieces(self, request: Request, shares: int) -> list[int]:
        """Have the batches of a request scored, in so many shares."""
        network = request.network
        setting = Setting() if request.config is None else network.configure(request.config)
        about = "full precision" if request.config is None else f"the evaluation of {_short(request.config.bits)}"
        ends = np.linspace(0, self._count, shares + 1).round().astype(int).tolist()
        return [
            self._crew.submit(
                score_batches,
                network.program.runnable,
                self._evaluation,
                (setting.constants, dict(setting.quantizers)),
                (first, last),
                request.is_enough if first == 0 else None,
                about=about,
            )
            for first, last in pairwise(ends)
        ]


def pieces_for(workers: int, batches: int, *, at_once: int) -> int:
    """Return into how many pieces an evaluation of ``batches`` is divided while so many are under way ``at_once``.

    >>> [pieces_for(1, 40, at_once=2), pieces_for(2, 40, at_once=4), pieces_for(64, 40, at_once=8)]
    [1, 2, 32]
    """
    return 1 if workers == 1 else min(batches, -(-_PIECES * workers // at_once))


def shared_mib(network: Runnable, evaluation: Evaluation, copies: int) -> float:
    """Return the memory that all workers of one machine share, in MiB, once ``copies`` of all weights were sent."""
    leaves = pytree.tree_leaves([list(item) for item in evaluation.batches])
    data = sum(leaf.nbytes for leaf in leaves if isinstance(leaf, torch.Tensor))
    weights = sum(value.nbytes for value in network.constants if isinstance(value, torch.Tensor))
    return (data + weights * (1 + copies)) / 2**20


def _short(bits: str) -> str:
    """Return a configuration's bits, the middle left out where they are many."""
    texts = bits.split()
    return bits if len(texts) <= 6 else f"{' '.join(texts[:3])} ... {' '.join(texts[-2:])} ({len(texts)} layers)"


def score_batches(
    network: Runnable,
    evaluation: Evaluation,
    setting: tuple[dict[int, torch.Tensor], dict[str, Any]],
    span: tuple[int, int],
    is_enough: Enough | None,
) -> tuple[Parts, float]:
    """Return the scores of each batch from ``span[0]`` to before ``span[1]``, and the seconds that they took.

    Parameters
    ----------
    network, evaluation
        What runs, and samples with their metric.
    setting
        Constants by position and quantizers by point.
    span
        Batches.
    is_enough
        As in :class:`~hwdse.evaluate.executor.Request`, for spans from the first batch on.
    """
    started = time.perf_counter()
    parts: Parts = []
    for item in list(evaluation.batches)[slice(*span)]:
        batch, targets = batch_and_targets(item)
        outputs = network.forward(batch, *setting)
        reference = network.forward(batch, {}, {}) if evaluation.metric.needs_reference else None
        parts.append(batch_scores(evaluation.metric, outputs, targets, reference, samples=samples_in(batch)))
        if is_enough is not None and is_enough(np.concatenate(parts)):
            break
    return parts, time.perf_counter() - started


def _scores(job: _Job) -> Scores | None:
    """Return the scores of a request in the order of its batches, as many as it would have had in one piece.

    ``None`` as long as that takes pieces that are not done.
    """
    parts: Parts = []
    is_enough = job.request.is_enough
    seconds = sum(taken for _, taken in job.found.values())
    for piece in job.pieces:
        if piece not in job.found:
            return None
        for part in job.found[piece][0]:
            parts.append(part)
            if is_enough is not None and is_enough(np.concatenate(parts)):
                return Scores(np.concatenate(parts), seconds)
    return Scores(np.concatenate(parts), seconds)
