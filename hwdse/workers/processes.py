"""Workers that are processes of this machine, one socket each; what they share lies in files that all of them map."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hwdse.workers.messages import Message, Setup, receive, send
from hwdse.workers.transport import Gone, News

__all__ = ["Processes"]

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass(frozen=True)
class _Member:
    process: subprocess.Popen[bytes]
    connection: Connection[Any, Any]


class Processes:
    """Transport to processes of this machine.

    Each is started as a program of its own, so neither a notebook nor a script needs a guard around its main part.

    Parameters
    ----------
    memory_limit_mib
        Memory that each may take for itself; ``None`` for no limit.
    """

    def __init__(self, *, memory_limit_mib: int | None = None) -> None:
        self._limit = memory_limit_mib
        self._folder = TemporaryDirectory(prefix="hwdse-", ignore_cleanup_errors=True)
        self._members: dict[int, _Member] = {}
        self._started, self._parts = 0, 0

    def start(self) -> int:
        """Start a process and return its number."""
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "hwdse.workers.worker", str(theirs.fileno())]
        environment = {**os.environ, **_ONE_THREAD, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with theirs:
            process = subprocess.Popen(  # noqa: S603 (this interpreter with a module of this package)
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment
            )
        self._started += 1
        self._members[self._started] = _Member(process, Connection(ours.detach()))
        self.send(self._started, Setup(tuple(sys.path), self._limit))
        return self._started

    def publish(self, part: bytes) -> str:
        """Write a part to a file and return its path."""
        self._parts += 1
        path = Path(self._folder.name) / f"part{self._parts}.pt"
        path.write_bytes(part)
        return str(path)

    def send(self, worker: int, message: Message) -> None:
        """Send a message; one that does not arrive is news when the worker's end is."""
        member = self._members.get(worker)
        if member is not None:
            try:
                send(member.connection, message)
            except OSError:
                member.process.kill()  # and its end is news

    def wait(self, timeout_s: float) -> list[News]:
        """Return what is new, after at most ``timeout_s`` seconds."""
        speaking = {member.connection: worker for worker, member in self._members.items()}
        news = []
        for connection in wait(list(speaking), timeout=timeout_s):
            assert isinstance(connection, Connection)
            worker = speaking[connection]
            try:
                news.append(News(worker, receive(connection)))
            except (EOFError, OSError):
                news.append(News(worker, Gone(self._end(worker))))
        return news

    def stop(self, worker: int) -> None:
        """Kill a process."""
        if worker in self._members:
            self._end(worker)

    def close(self) -> None:
        """Kill all processes and remove what they shared."""
        for worker in list(self._members):
            self._end(worker)
        self._folder.cleanup()

    def process(self, worker: int) -> int:
        """Return the operating system's number of a worker's process."""
        return self._members[worker].process.pid

    def _end(self, worker: int) -> str:
        """Kill a process if it is still there, and return how it ended."""
        member = self._members.pop(worker)
        member.connection.close()
        if member.process.poll() is None:
            try:
                member.process.wait(timeout=0.2)  # one that closed its socket is about to end by itself
            except subprocess.TimeoutExpired:
                member.process.kill()
        status = member.process.wait()
        return f"ended by {signal.Signals(-status).name}" if status < 0 else f"ended with exit code {status}"
