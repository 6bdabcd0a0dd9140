"""The run folder: what a run is about, and whether a resumed one is about the same."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hwdse.errors import RunFolderError
from hwdse.files import read_json, write_json
from hwdse.study.measure import Identity

__all__ = ["RunFolder", "environment"]

_PACKAGES = ("hwdse", "torch", "numpy", "scipy", "pandas", "pymoo", "sqlalchemy")


def environment() -> dict[str, Any]:
    """Return versions and machine, for the record."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "packages": {name: version(name) for name in _PACKAGES},
    }


class RunFolder:
    """A folder that one exploration writes to.

    Parameters
    ----------
    path
        The folder; created if absent.
    resume
        True to go on with what is there; otherwise the folder must be empty or absent.

    Raises
    ------
    RunFolderError
        If the folder holds a run and ``resume`` is False, or something else.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        self.path = path
        if path.exists() and not path.is_dir():
            raise RunFolderError(f"expected a folder to write to, got the file {path}; name another one")
        started = (path / "resolved.json").is_file()
        if started and not resume:
            raise RunFolderError(f"expected an empty folder, got a run in {path}; add --resume or name another one")
        if path.is_dir() and not started and any(path.iterdir()) and not self._only_pool():
            raise RunFolderError(f"expected an empty folder or a run, got other files in {path}; name another one")
        self.is_resumed = started

    def _only_pool(self) -> bool:
        """Return True if a run was killed before it wrote anything but its experiment and pool."""
        names = {entry.name for entry in self.path.iterdir()}
        return all(n.startswith(("evaluations.db", ".")) or n == "experiment.toml" for n in names)

    @property
    def pool_path(self) -> Path:
        """The database of finished evaluations."""
        return self.path / "evaluations.db"

    def open(self, identity: Mapping[str, Any], resolved: Mapping[str, Any], experiment: Path | None) -> None:
        """Write what the run is about, or check that a resumed run is about the same.

        Raises
        ------
        RunFolderError
            If the folder's run is about something else; what differs is named.
        """
        if self.is_resumed:
            there = self._identity()
            differing = sorted(key for key in {*identity, *there} if identity.get(key) != there.get(key))
            if differing:
                raise RunFolderError(
                    f"expected the run in {self.path} to be about the same experiment, got another "
                    f"{', '.join(differing)}; name another folder"
                )
        self.path.mkdir(parents=True, exist_ok=True)
        if experiment is not None:
            shutil.copyfile(experiment, self.path / ".experiment.tmp")
            (self.path / ".experiment.tmp").replace(self.path / "experiment.toml")
        write_json(self.path / "environment.json", environment())
        self.resolve(identity, resolved)

    def resolve(self, identity: Mapping[str, Any], resolved: Mapping[str, Any]) -> None:
        """Write what the run is about and how it stands."""
        write_json(self.path / "resolved.json", {**resolved, "identity": dict(identity)})

    def holds(self, identity: Identity) -> bool:
        """Return True if the run that is there is about the same network, data and recipe."""
        there = self._identity()
        return all(there.get(key) == value for key, value in vars(identity).items())

    def _identity(self) -> dict[str, Any]:
        identity = read_json(self.path / "resolved.json").get("identity")
        return identity if isinstance(identity, dict) else {}
