"""How long work reports that it goes on."""

from __future__ import annotations

from typing import Protocol

__all__ = ["SILENT", "Noted", "Progress", "Remembered"]


class Progress(Protocol):
    """Somebody who watches."""

    def start(self, stage: str, total: int | None) -> None:
        """Say that ``stage`` begins and has ``total`` steps (``None`` if nobody knows)."""

    def advance(self) -> None:
        """Say that a step of the stage is done."""

    def warn(self, sentence: str) -> None:
        """Say something that the user should know."""


class _Silent:
    def start(self, stage: str, total: int | None) -> None:
        pass

    def advance(self) -> None:
        pass

    def warn(self, sentence: str) -> None:
        pass


class Remembered(_Silent):
    """Keeps what the user should know, for somebody else to say."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def warn(self, sentence: str) -> None:
        """Keep a sentence."""
        self.sentences.append(sentence)


class Noted:
    """Somebody who watches for another one, tells every sentence once, and keeps it.

    Parameters
    ----------
    watcher
        Who is told.
    about
        What follows the name of every stage.

    Attributes
    ----------
    sentences
        What the user was told, in order.
    """

    def __init__(self, watcher: Progress, about: str = "") -> None:
        self._watcher, self._about = watcher, about
        self.sentences: list[str] = []

    def start(self, stage: str, total: int | None) -> None:
        """Say that ``stage`` begins."""
        self._watcher.start(stage + self._about, total)

    def advance(self) -> None:
        """Say that a step is done."""
        self._watcher.advance()

    def warn(self, sentence: str) -> None:
        """Say something that the user should know, unless it was said."""
        if sentence not in self.sentences:
            self.sentences.append(sentence)
            self._watcher.warn(sentence)


SILENT = _Silent()
"""Nobody watches."""
