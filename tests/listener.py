"""A progress that remembers what it was told."""

from __future__ import annotations


class Listener:
    """Keeps stages with their totals, counts steps, and keeps warnings."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int | None]] = []
        self.steps = 0
        self.sentences: list[str] = []

    def start(self, stage: str, total: int | None) -> None:
        self.stages.append((stage, total))

    def advance(self) -> None:
        self.steps += 1

    def warn(self, sentence: str) -> None:
        self.sentences.append(sentence)
