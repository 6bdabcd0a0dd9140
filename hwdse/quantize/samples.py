"""Samples to train on with what the network answers in full precision, some of them held back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hwdse.errors import InputError
from hwdse.parts import parts
from hwdse.quantize.batch import tensors_of
from hwdse.quantize.network import QuantizedNetwork, Setting
from hwdse.quantize.student import first_tensor

__all__ = ["Piece", "Samples"]


@dataclass(frozen=True)
class Piece:
    """Samples of one shape that go through the network together.

    Attributes
    ----------
    inputs
        One tensor per input of the network, samples first.
    answers
        The first output in full precision.
    """

    inputs: tuple[torch.Tensor, ...]
    answers: torch.Tensor

    def __len__(self) -> int:
        return len(self.inputs[0])


class Samples:
    """A list of samples; a whole batch counts as one where the network takes batches of one size alone.

    Parameters
    ----------
    pieces
        One per sample.
    can_join
        True if samples of one shape may go through the network together.
    """

    def __init__(self, pieces: Sequence[Piece], *, can_join: bool) -> None:
        self.pieces, self.can_join = list(pieces), can_join

    def __len__(self) -> int:
        return len(self.pieces)

    @classmethod
    def of(
        cls, network: QuantizedNetwork, batches: Iterable[Any], *, on_batch: Callable[[], None] | None = None
    ) -> Samples:
        """Return the samples of ``batches`` with what ``network`` answers in full precision; all stay in memory.

        Raises
        ------
        InputError
            If an answer is not finite, or there are no samples.
        """
        given = [node.meta["val"] for node in network.captured.flow.inputs]
        can_join = all(x.ndim > 0 and not isinstance(x.shape[0], int) for x in given)
        pieces: list[Piece] = []
        for batch in batches:
            inputs = tensors_of(batch)
            # A copy, since what inference gives cannot be trained with.
            whole = Piece(inputs, first_tensor(network.forward(inputs, Setting())).clone())
            if not bool(torch.isfinite(whole.answers).all()):
                raise InputError("expected finite outputs in full precision, got NaN or infinity; check the data")
            splits = can_join and len(whole.answers) == len(whole)
            pieces += _rows(whole) if splits else [whole]
            can_join = can_join and splits
            if on_batch is not None:
                on_batch()
        if not pieces:
            raise InputError("expected batches with samples to train on, got none; check the data factory")
        return cls(pieces, can_join=can_join)

    def split(self, share: float, *, seed: int) -> tuple[Samples, Samples]:
        """Return the samples without a ``share`` of them, drawn at random, and that share: one at least.

        Raises
        ------
        InputError
            If there are fewer than two.
        """
        count = max(1, round(share * len(self)))
        if len(self) <= count:
            raise InputError(
                f"expected samples to train on and others to hold back, got {len(self)} in all; give more data"
            )
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed)).tolist()
        kept, held = sorted(order[count:]), sorted(order[:count])
        return tuple(Samples([self.pieces[i] for i in part], can_join=self.can_join) for part in (kept, held))  # type: ignore[return-value]

    def shuffled(self, size: int, *, seed: int) -> Iterator[list[Piece]]:
        """Yield all samples in a random order, ``size`` at a time: joined where they have one shape."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed)).tolist()
        for some in parts(order, size):
            yield self._joined([self.pieces[i] for i in some])

    def whole(self, size: int) -> Iterator[list[Piece]]:
        """Yield all samples in order, ``size`` at a time."""
        for some in parts(self.pieces, size):
            yield self._joined(some)

    def _joined(self, pieces: Sequence[Piece]) -> list[Piece]:
        if not self.can_join:
            return list(pieces)
        same: dict[tuple[torch.Size, ...], list[Piece]] = {}
        for piece in pieces:
            same.setdefault(tuple(x.shape for x in (*piece.inputs, piece.answers)), []).append(piece)
        return [
            Piece(
                tuple(torch.cat(tensors) for tensors in zip(*(p.inputs for p in group), strict=True)),
                torch.cat([p.answers for p in group]),
            )
            for group in same.values()
        ]


def _rows(piece: Piece) -> list[Piece]:
    """Return the samples of a batch, which share its memory."""
    return [Piece(tuple(x[i : i + 1] for x in piece.inputs), piece.answers[i : i + 1]) for i in range(len(piece))]
