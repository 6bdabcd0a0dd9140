"""What a crew and its workers say to each other."""

from __future__ import annotations

import pickle
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from typing import Any

__all__ = ["Answer", "Do", "Hello", "Load", "Message", "Setup", "receive", "send", "versions"]

_PACKAGES = ("hwdse", "torch", "numpy")


def versions() -> dict[str, str]:
    """Return what must be the same everywhere for two workers to give the same numbers."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


@dataclass(frozen=True)
class Setup:
    """The first message to a worker.

    Attributes
    ----------
    path
        Where modules are found.
    memory_limit_mib
        Memory that the worker may take for itself; ``None`` for no limit.
    """

    path: tuple[str, ...]
    memory_limit_mib: int | None


@dataclass(frozen=True)
class Load:
    """A part of what is shared, by its file's path or as bytes, with the fingerprint of its content."""

    part: Any
    fingerprint: str


@dataclass(frozen=True)
class Do:
    """Something to do: a function with its arguments, packed."""

    task: int
    payload: bytes


@dataclass(frozen=True)
class Hello:
    """A worker is there.

    Attributes
    ----------
    versions
        From :func:`versions`.
    process
        Its number on its machine.
    host
        Name of its machine.
    """

    versions: Mapping[str, str]
    process: int
    host: str


@dataclass(frozen=True)
class Answer:
    """What came of something.

    Attributes
    ----------
    task
        Which; ``None`` for a part that could not be taken in.
    value
        What the function returned.
    fault
        One sentence, if it failed.
    is_refused
        True if the function itself says that it was given something unusable.
    """

    task: int | None
    value: Any = None
    fault: str = ""
    is_refused: bool = False


Message = Setup | Load | Do


def send(connection: Connection[Any, Any], message: Message | Answer | Hello) -> None:
    """Send a message whole: tensors in it are not shared with this process, which may end at any time."""
    connection.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))


def receive(connection: Connection[Any, Any]) -> Any:
    """Return the next message."""
    return pickle.loads(connection.recv_bytes())  # noqa: S301 (from a process that belongs to this one)
