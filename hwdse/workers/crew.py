"""Hands work to workers, and sees to it that every piece is done once, whatever becomes of a worker."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hwdse.errors import InputError, WorkerError
from hwdse.progress import SILENT, Progress
from hwdse.workers.messages import Answer, Do, Hello, Load, versions
from hwdse.workers.packing import Packer, fingerprint_of_part
from hwdse.workers.transport import Gone, News, Transport

__all__ = ["Crew"]

_ATTEMPTS = 3
"""How often a piece of work may end its worker, or fail, before it is given up."""

_REFUSALS = 2
_PATIENCE, _LEAST_PATIENCE_S = 20.0, 60.0
"""A worker hangs that takes so many times as long as the longest piece of work so far, and at least so long."""

_START_S = 180.0
_LOOK_S = 0.5


@dataclass
class _Member:
    """A worker as the crew sees it."""

    name: str
    started: float
    is_there: bool = False
    parts: int = 0
    task: int | None = None
    since: float = 0.0


@dataclass
class _Task:
    """A piece of work that is not done."""

    payload: bytes
    about: str
    faults: list[str] = field(default_factory=list)
    refusals: int = 0
    tried: set[int] = field(default_factory=set)


class Crew:
    """Workers, and what they are to do.

    Parameters
    ----------
    transport
        How workers are started and reached.
    count
        How many there are to be; those that end are replaced.
    held
        Types whose values are sent once, as in :class:`~hwdse.workers.packing.Packer`.
    progress
        Who is told what became of workers.
    least_patience_s
        A worker is never taken to hang before so many seconds.
    clock
        Seconds.
    """

    def __init__(
        self,
        transport: Transport,
        count: int,
        *,
        held: Iterable[type] = (),
        progress: Progress = SILENT,
        least_patience_s: float = _LEAST_PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.count = count
        self._transport, self._progress, self._clock = transport, progress, clock
        self._packer = Packer(held)
        self._parts: list[Load] = []
        self._members: dict[int, _Member] = {}
        self._tasks: dict[int, _Task] = {}
        self._waiting: deque[int] = deque()
        self._done: deque[tuple[int, Any]] = deque()
        self._given = 0
        self._failed_starts = 0
        self._least_patience_s = least_patience_s
        self._longest_s = 0.0

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def expect(self, seconds: float) -> None:
        """Say how long a piece of work may well take, before any was done."""
        self._longest_s = max(self._longest_s, seconds)

    def submit(self, function: Callable[..., Any], *arguments: object, about: str) -> int:
        """Have ``function`` called with ``arguments`` by some worker, and return the number of that piece of work.

        Parameters
        ----------
        function, arguments
            What is called; values of held types are sent once.
        about
            What it is, for messages.
        """
        payload = self._packer.pack((function, arguments))
        part = self._packer.part()
        if part is not None:
            self._parts.append(Load(self._transport.publish(part), fingerprint_of_part(part)))
        self._given += 1
        self._tasks[self._given] = _Task(payload, about)
        self._waiting.append(self._given)
        self.look(0.0)
        return self._given

    def next(self) -> tuple[int, Any]:
        """Return the number and the result of a piece of work that is done; wait for one.

        Raises
        ------
        InputError
            If the function says that it cannot use what it was given.
        WorkerError
            If no worker can do a piece of work, or there are no workers.
        """
        assert self._tasks or self._done, "nothing is to be done"
        while not self._done:
            self.look()
        return self._done.popleft()

    def map(self, function: Callable[..., Any], items: Iterable[Sequence[object]], *, about: str) -> Iterator[Any]:
        """Yield what ``function`` gives for the arguments in each of ``items``, in their order.

        Raises
        ------
        InputError, WorkerError
            As :meth:`next`.
        """
        assert not self._tasks, "other work is under way"
        found: dict[int, Any] = {}
        for number in [self.submit(function, *arguments, about=about) for arguments in items]:
            while number not in found:
                done, value = self.next()
                found[done] = value
            yield found.pop(number)

    def is_begun(self, number: int) -> bool:
        """Return True if a worker has begun, or finished, a piece of work."""
        return number not in self._waiting

    def withdraw(self, numbers: Iterable[int]) -> list[int]:
        """Give up those of the pieces of work that no worker has begun, and return their numbers."""
        given_up = [number for number in numbers if number in self._waiting]
        for number in given_up:
            self._waiting.remove(number)
            del self._tasks[number]
        return given_up

    def close(self) -> None:
        """End all workers."""
        self._transport.close()
        self._members.clear()

    def look(self, timeout_s: float = _LOOK_S) -> None:
        """Start who is missing, hand out what waits, and take in what is new."""
        while len(self._members) < self.count:
            worker = self._transport.start()
            self._members[worker] = _Member(f"worker {worker}", self._clock())
        self._hand_out()
        for news in self._transport.wait(timeout_s):
            self._take(news)
        self._end_what_hangs()
        self._hand_out()

    def _hand_out(self) -> None:
        free = [w for w, member in self._members.items() if member.is_there and member.task is None]
        for worker in free:
            number = self._fitting(worker)
            if number is None:
                continue
            self._waiting.remove(number)
            member = self._members[worker]
            for load in self._parts[member.parts :]:
                self._transport.send(worker, load)
            member.parts, member.task, member.since = len(self._parts), number, self._clock()
            self._transport.send(worker, Do(number, self._tasks[number].payload))

    def _fitting(self, worker: int) -> int | None:
        """Return what ``worker`` does next: what waits longest and it has not failed at, if there are others."""
        others = len(self._members) > 1
        return next((n for n in self._waiting if not (others and worker in self._tasks[n].tried)), None)

    def _take(self, news: News) -> None:
        if news.worker not in self._members:
            return
        member = self._members[news.worker]
        if isinstance(news.what, Hello):
            self._greet(news.worker, news.what)
        elif isinstance(news.what, Gone):
            self._lose(news.worker, news.what.reason)
        elif news.what.task is None:
            self._lose(news.worker, f"refused what is shared ({news.what.fault})")
        elif news.what.task == member.task:
            self._finish(news.worker, news.what)

    def _greet(self, worker: int, hello: Hello) -> None:
        """Check that a worker computes as this process does."""
        member = self._members[worker]
        member.name = f"worker {worker} (process {hello.process} on {hello.host})"
        ours = versions()
        differing = [name for name in ours if hello.versions.get(name) != ours[name]]
        if differing:
            theirs, wanted = (", ".join(f"{n} {of.get(n)}" for n in differing) for of in (hello.versions, ours))
            self._lose(worker, f"has {theirs} where {wanted} is needed")
        else:
            member.is_there = True
            self._failed_starts = 0

    def _finish(self, worker: int, answer: Answer) -> None:
        member = self._members[worker]
        number, member.task = answer.task, None
        assert number is not None
        if not answer.fault:
            self._longest_s = max(self._longest_s, self._clock() - member.since)
            del self._tasks[number]
            self._done.append((number, answer.value))
            return
        task = self._tasks[number]
        task.refusals += answer.is_refused
        if task.refusals >= _REFUSALS or (answer.is_refused and self.count == 1):
            raise InputError(answer.fault)
        self._put_back(worker, number, answer.fault)
        if not answer.is_refused:
            self._lose(worker, "is replaced")  # what else is wrong with it nobody knows

    def _put_back(self, worker: int, number: int, fault: str) -> None:
        """Have a piece of work done by somebody else."""
        task = self._tasks[number]
        task.tried.add(worker)
        task.faults.append(fault)
        if len(task.faults) >= _ATTEMPTS:
            raise WorkerError(
                f"expected a worker to finish {task.about}, got {_ATTEMPTS} failures ({'; '.join(task.faults)})"
            )
        self._waiting.appendleft(number)
        name = self._members[worker].name
        self._progress.warn(f"{name}: {fault}; {task.about} is done again elsewhere")

    def _lose(self, worker: int, reason: str) -> None:
        """Forget a worker; what it was doing is done again."""
        member = self._members[worker]
        self._transport.stop(worker)
        if member.task is not None:
            self._put_back(worker, member.task, reason)
        del self._members[worker]
        if member.is_there:
            return
        self._progress.warn(f"{member.name}: {reason}; it is not used")
        self._failed_starts += 1
        if self._failed_starts > 2 * self.count:
            raise WorkerError(f"expected workers to start, got {self._failed_starts} that did not; the last {reason}")

    def _end_what_hangs(self) -> None:
        now = self._clock()
        patience = max(self._least_patience_s, _PATIENCE * self._longest_s)
        for worker, member in list(self._members.items()):
            if member.task is not None and now - member.since > patience:
                self._lose(worker, f"gave no answer for {patience:.0f} s")
        there = any(member.is_there for member in self._members.values())
        if self._members and not there and now - min(m.started for m in self._members.values()) > _START_S:
            raise WorkerError(f"expected a worker within {_START_S:.0f} s, got none; are there free processors?")
