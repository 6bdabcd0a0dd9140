"""Which workers a user asks for."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from hwdse.errors import InputError
from hwdse.progress import SILENT, Progress
from hwdse.workers.crew import Crew
from hwdse.workers.processes import Processes
from hwdse.workers.ray_actors import RayActors
from hwdse.workers.transport import Transport

__all__ = ["KINDS", "Workers", "engage"]

KINDS = ("here", "processes", "ray")
_LEAST_MIB = 64


@dataclass(frozen=True)
class Workers:
    """Where evaluations are computed.

    Attributes
    ----------
    kind
        ``here``, in this process; ``processes`` of this machine; ``ray``, actors of a Ray cluster.
    count
        How many; ``None`` for as many as there are processors here.
    address
        Of the Ray cluster; ``None`` starts one on this machine.
    memory_limit_mib
        Memory that each worker may take for itself beside what all of them share; ``None`` for no limit.

    Raises
    ------
    InputError
        If these do not go together.
    """

    kind: str = "here"
    count: int | None = None
    address: str | None = None
    memory_limit_mib: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"expected an executor of {', '.join(KINDS)}, got {self.kind!r}")
        if self.count is not None and self.count < 1:
            raise InputError(f"expected 1 worker or more, got {self.count}")
        if self.kind == "here" and (self.count not in (None, 1) or self.memory_limit_mib is not None):
            raise InputError(
                "expected an executor with workers for --workers or --memory-limit, got here; add processes"
            )
        if self.address is not None and self.kind != "ray":
            raise InputError(f"expected the executor ray for an address, got {self.kind}")
        if self.memory_limit_mib is not None and self.memory_limit_mib < _LEAST_MIB:
            raise InputError(f"expected a memory limit of {_LEAST_MIB} MiB or more, got {self.memory_limit_mib}")

    @property
    def number(self) -> int:
        """How many workers there are to be."""
        if self.kind == "here":
            return 1
        return self.count or os.cpu_count() or 1


def engage(workers: Workers, *, held: Iterable[type], progress: Progress = SILENT) -> Crew | None:
    """Return the crew that is asked for; ``None`` where this process does everything itself.

    Parameters
    ----------
    workers
        What is asked for.
    held, progress
        As in :class:`~hwdse.workers.crew.Crew`.

    Raises
    ------
    InputError
        If there is no Ray, or no cluster.
    """
    if workers.kind == "here":
        return None
    transport: Transport
    if workers.kind == "ray":
        transport = RayActors(
            address=workers.address, workers=workers.number, memory_limit_mib=workers.memory_limit_mib
        )
    else:
        transport = Processes(memory_limit_mib=workers.memory_limit_mib)
    return Crew(transport, workers.number, held=held, progress=progress)
