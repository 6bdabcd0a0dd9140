"""Watches over readers: what they write, start, import and unpickle, how long they take, and how much memory."""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["Guard", "Hang"]

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
STARTING = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.startfile")
FORBIDDEN = frozenset({*STARTING, "pickle.find_class", "socket.connect", "socket.bind", "ctypes.dlopen"})
MOVING = frozenset(
    {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown"}
)
STUCK_SECONDS = 120
"""What hangs so long in C, where no signal is heard, ends the process with a stack."""


class Hang(BaseException):
    """A reader took too long; no reader may catch it."""


class Guard:
    """Judges what happens while it is armed.

    Parameters
    ----------
    folder
        The one folder that may be written to.
    seconds
        Processor time at most; of time on the wall, ten times as much.
    """

    def __init__(self, folder: Path, *, seconds: float = 2.0) -> None:
        self.folder = str(folder.resolve())
        self.seconds = seconds
        self.faults: list[str] = []
        self._armed = False
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._armed:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITING and not isinstance(path, int):
                self._judge(event, path)
        elif event in MOVING:
            for path in arguments[:2]:
                if isinstance(path, str | bytes | os.PathLike):
                    self._judge(event, path)
        elif event in FORBIDDEN:
            self._blame(f"{event} {arguments!r:.200}")
        elif event == "exec":
            name = getattr(arguments[0], "co_filename", "")
            if str(name).startswith(self.folder):
                self._blame(f"code of {name}")

    def _judge(self, event: str, path: Any) -> None:
        place = os.path.realpath(os.fsdecode(path))
        if place != self.folder and not place.startswith(self.folder + os.sep) and place != os.devnull:
            self._blame(f"{event} {place}")

    def _blame(self, fault: str) -> None:
        self.faults.append(fault)
        raise PermissionError(f"the guard forbids {fault}")

    @contextmanager
    def armed(self, seconds: float | None = None) -> Iterator[None]:
        """Watch over the block; raise :class:`Hang` where it takes longer than ``seconds``."""
        limit = seconds or self.seconds

        def stop(signum: int, frame: object) -> None:
            del frame
            raise Hang(f"more than {limit} s of {'processor time' if signum == signal.SIGPROF else 'waiting'}")

        before = {number: signal.signal(number, stop) for number in (signal.SIGPROF, signal.SIGALRM)}
        signal.setitimer(signal.ITIMER_PROF, limit)
        signal.setitimer(signal.ITIMER_REAL, 10 * limit)
        faulthandler.dump_traceback_later(STUCK_SECONDS, exit=True)
        began, self._armed = time.process_time(), True
        try:
            yield
        finally:
            self._armed = False
            faulthandler.cancel_dump_traceback_later()  # or it would end the process during something else
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)
        if (took := time.process_time() - began) > limit:
            raise Hang(f"{took:.1f} s of processor time")


def limit_memory(more_bytes: int) -> None:
    """Let this process take ``more_bytes`` of address space beyond what it has."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
