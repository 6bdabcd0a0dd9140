"""How a crew reaches its workers; whether they are near or far is the transport's business alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from hwdse.workers.messages import Answer, Hello, Message

__all__ = ["Gone", "News", "Transport"]


@dataclass(frozen=True)
class Gone:
    """A worker that is no longer there, and why."""

    reason: str


@dataclass(frozen=True)
class News:
    """What is new about a worker."""

    worker: int
    what: Hello | Answer | Gone


class Transport(Protocol):
    """Starts workers, sends them messages and brings their answers, each worker's in order."""

    def start(self) -> int:
        """Start a worker and return its number; it says :class:`~hwdse.workers.messages.Hello` when it is there."""

    def publish(self, part: bytes) -> Any:
        """Put a part where every worker can get it, and return what a message names it by."""

    def send(self, worker: int, message: Message) -> None:
        """Send a message to a worker; one that is gone is news, not an error."""

    def wait(self, timeout_s: float) -> list[News]:
        """Return what is new, after at most ``timeout_s`` seconds; an empty list if nothing is."""

    def stop(self, worker: int) -> None:
        """End a worker at once; nothing more is heard of it."""

    def close(self) -> None:
        """End everything."""
