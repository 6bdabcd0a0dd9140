"""Errors that a user can cause, each with the exit code that the command line gives it."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "CaptureError",
    "HwdseError",
    "InputError",
    "PoolError",
    "ProfileError",
    "RunFolderError",
    "WorkerError",
]


class HwdseError(Exception):
    """An error whose message is one sentence for the user: expected, got, what to do."""

    exit_code = 2


class InputError(HwdseError):
    """A value, file or option that cannot be used as given."""


class CaptureError(InputError):
    """A model that cannot be turned into a layer graph."""


class RunFolderError(InputError):
    """A run folder that is missing, incomplete, or belongs to another experiment."""


class PoolError(InputError):
    """A shared pool of evaluations that cannot be reached or used; the run folder has kept what was measured."""


class WorkerError(HwdseError):
    """Work that no worker could finish."""


class ProfileError(InputError):
    """A hardware profile with faults; all of them are listed.

    Parameters
    ----------
    source
        File or name that was read.
    faults
        One sentence per fault, each starting with its path in the file.
    """

    def __init__(self, source: str, faults: Sequence[str]) -> None:
        self.source = source
        self.faults = tuple(faults)
        count = len(self.faults)
        noun = "fault" if count == 1 else "faults"
        lines = "".join(f"\n  {fault}" for fault in self.faults)
        super().__init__(f"hardware profile {source} has {count} {noun}:{lines}")
