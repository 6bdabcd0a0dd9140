"""A worker: takes in what is shared, does what it is asked, and ends when nobody is left to ask.

As a program, ``python -m hwdse.workers.worker N``, it speaks over the socket with file descriptor ``N``.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from hwdse.errors import HwdseError, WorkerError
from hwdse.reason import reason_of
from hwdse.workers.messages import Answer, Do, Hello, Load, Message, Setup, receive, send, versions
from hwdse.workers.packing import Unpacker, fingerprint_of_part

__all__ = ["Worker", "main"]

_MIB = 2**20
_NO_MEMORY = ("can't allocate memory", "out of memory")


class Worker:
    """Does what messages ask for, with one thread."""

    def __init__(self) -> None:
        self._unpacker = Unpacker()
        torch.set_num_threads(1)

    def handle(self, message: Message) -> Answer | Hello | None:
        """Return what there is to say to ``message``; a part that was taken in needs no answer."""
        if isinstance(message, Setup):
            sys.path[:] = message.path
            limit_memory(message.memory_limit_mib)
            return Hello(versions(), os.getpid(), platform.node())
        if isinstance(message, Load):
            return self._load(message)
        return self._do(message)

    def _load(self, message: Load) -> Answer | None:
        part = Path(message.part) if isinstance(message.part, str) else bytes(message.part)
        try:
            content = part.read_bytes() if isinstance(part, Path) else part
            if fingerprint_of_part(content) != message.fingerprint:
                raise WorkerError("expected the network and the data of this run, got others")
            self._unpacker.load(part)
        except (HwdseError, OSError, MemoryError) as error:
            return Answer(None, fault=_sentence(error))
        return None

    def _do(self, message: Do) -> Answer:
        try:
            function, arguments = self._unpacker.unpack(message.payload)
            return Answer(message.task, value=function(*arguments))
        except Exception as error:  # whatever goes wrong, whoever asked is told
            is_refused = isinstance(error, HwdseError) and not _is_of_memory(error)
            return Answer(message.task, fault=str(error) if is_refused else _sentence(error), is_refused=is_refused)


def limit_memory(limit_mib: int | None) -> None:
    """Have the operating system refuse this process more memory of its own than ``limit_mib`` on top of what it has.

    What is mapped from files that others map too does not count.
    """
    if limit_mib is None:
        return
    taken = _own_mib()
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = int((taken + limit_mib) * _MIB)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _own_mib() -> float:
    """Return the memory that this process has for itself, in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) / 1024.0
    return 0.0


def _sentence(error: BaseException) -> str:
    """Return what went wrong in a sentence."""
    text = reason_of(error)
    if _is_of_memory(error):
        return f"expected the work to fit into the worker's memory, got {text}; raise the memory limit"
    return text


def _is_of_memory(error: BaseException) -> bool:
    """Return True if memory was refused; the framework says so in words alone."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY)


def _end_with(parent: int) -> None:
    """End this process soon after its parent has ended, whatever it is doing."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def main() -> None:
    """Serve the process at the other end of the socket."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    connection: Connection[Any, Any] = Connection(int(sys.argv[1]))
    worker = Worker()
    try:
        while True:
            answer = worker.handle(receive(connection))
            if answer is not None:
                send(connection, answer)
    except (EOFError, ConnectionError, KeyboardInterrupt):
        return


if __name__ == "__main__":
    main()
