"""Workers that are Ray actors, on one machine or many; what they share lies in Ray's object store, once per machine."""

from __future__ import annotations

import logging
import os
import socket
import sys
from dataclasses import dataclass, field
from typing import Any

from hwdse.errors import InputError
from hwdse.reason import reason_of
from hwdse.workers.messages import Answer, Hello, Load, Message, Setup
from hwdse.workers.transport import Gone, News

__all__ = ["RayActors"]

_MIB = 2**20
_KNOCK_S = 10.0


class _Actor:
    """A worker inside a Ray actor."""

    def __init__(self) -> None:
        from hwdse.workers.worker import Worker

        self._worker = Worker()

    def handle(self, message: Message, part: bytes | None = None) -> Answer | Hello | None:
        """Return what there is to say; ``part`` is the content of one that the message names."""
        return self._worker.handle(message if part is None else Load(bytes(part), message.fingerprint))  # type: ignore[union-attr]


@dataclass
class _Member:
    actor: Any
    pending: list[Any] = field(default_factory=list)


class RayActors:
    """Transport to actors of a Ray cluster.

    Parameters
    ----------
    address
        Of the cluster's head; ``None`` starts a cluster on this machine.
    workers
        How many there will be, for a cluster that is started here.
    memory_limit_mib
        Memory that each may take for itself; ``None`` for no limit.

    Raises
    ------
    InputError
        If Ray is not installed, or there is no cluster.
    """

    def __init__(self, *, address: str | None, workers: int, memory_limit_mib: int | None = None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError as error:
            raise InputError('expected Ray for --executor ray, got none; pip install "hwdse[ray]"') from error
        self._ray: Any = ray
        self._limit = memory_limit_mib
        # "local": one of its own, though another may be running here.
        own = {"address": "local", "num_cpus": workers, "include_dashboard": False}
        options: dict[str, Any] = {"address": address} if address else own
        try:
            _knock(address)
            ray.init(
                **options, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False,
                ignore_reinit_error=True, runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}},
            )  # fmt: skip
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(
                f"expected a Ray cluster at {address or 'this machine'}, got {reason_of(error)}; start one by ray "
                "start --head, with the same RAY_AUTH_MODE and RAY_AUTH_TOKEN as here"
            ) from error
        self._class = ray.remote(num_cpus=1, max_restarts=0)(_Actor)
        self._members: dict[int, _Member] = {}
        self._started = 0

    def start(self) -> int:
        """Ask the cluster for an actor; it says hello once there is a processor for it."""
        self._started += 1
        options = {} if self._limit is None else {"memory": self._limit * _MIB}
        self._members[self._started] = _Member(self._class.options(**options).remote())
        self.send(self._started, Setup(tuple(sys.path), self._limit))
        return self._started

    def publish(self, part: bytes) -> Any:
        """Put a part into the object store and return its reference."""
        return [self._ray.put(part)]

    def send(self, worker: int, message: Message) -> None:
        """Send a message; what the actor answers comes with :meth:`wait`."""
        member = self._members.get(worker)
        if member is None:
            return
        if isinstance(message, Load):
            content = message.part[0]
            reference = member.actor.handle.remote(Load(None, message.fingerprint), content)
        else:
            reference = member.actor.handle.remote(message)
        member.pending.append(reference)

    def wait(self, timeout_s: float) -> list[News]:
        """Return what is new, after at most ``timeout_s`` seconds."""
        asked = {member.pending[0]: worker for worker, member in self._members.items() if member.pending}
        if not asked:
            return []
        ready, _ = self._ray.wait(list(asked), num_returns=1, timeout=timeout_s)
        news = []
        for reference in ready:
            worker = asked[reference]
            self._members[worker].pending.pop(0)
            try:
                answer = self._ray.get(reference)
            except (self._ray.exceptions.RayError, ConnectionError) as error:
                self.stop(worker)
                news.append(News(worker, Gone(reason_of(error).partition(":")[0])))
            else:
                news += [News(worker, answer)] if answer is not None else []
        return news

    def stop(self, worker: int) -> None:
        """Kill an actor."""
        member = self._members.pop(worker, None)
        if member is not None:
            self._ray.kill(member.actor)

    def close(self) -> None:
        """Kill all actors and leave the cluster."""
        for worker in list(self._members):
            self.stop(worker)
        self._ray.shutdown()


def _knock(address: str | None) -> None:
    """Check that somebody listens at ``host:port``; Ray itself would try for minutes, and end the process."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.removeprefix("ray://"), int(port)), timeout=_KNOCK_S).close()
