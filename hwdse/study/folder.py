"""The run folder: what a run is about, and whether a resumed one is about the same.

``resolved.json`` is the first file that a run writes but for weights, so a folder either has it, or nothing of a run to
go on with; weights are good for any run about the same network and calibration data.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hwdse.errors import RunFolderError
from hwdse.files import is_left_over, read_json, write_bytes, write_json
from hwdse.study.weights import WEIGHTS

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
    """A folder that one exploration writes to; nothing is written before :meth:`open`.

    Parameters
    ----------
    path
        The folder; created if absent.
    resume
        True to go on with what is there; otherwise the folder must be empty, but for weights, or absent.

    Raises
    ------
    RunFolderError
        If the folder holds a run and ``resume`` is False, holds something else, or cannot be written to.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        self.path = path
        self.is_resumed = (path / "resolved.json").is_file()
        if path.exists() and not path.is_dir():
            raise RunFolderError(f"expected a folder to write to, got the file {path}; name another one")
        if self.is_resumed and not resume:
            raise RunFolderError(f"expected an empty folder, got a run in {path}; add --resume or name another one")
        if (
            not self.is_resumed
            and path.is_dir()
            and not all(is_left_over(p) or p.name == WEIGHTS for p in path.iterdir())
        ):
            raise RunFolderError(f"expected an empty folder or a run, got other files in {path}; name another one")
        there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
            raise RunFolderError(f"expected a folder to write to, got {path}, and {there} is none; name another one")

    @property
    def pool_path(self) -> Path:
        """The database of finished evaluations."""
        return self.path / "evaluations.db"

    def check(self, identity: Mapping[str, Any]) -> None:
        """Check that a resumed run is about the same experiment.

        Raises
        ------
        RunFolderError
            If the folder's run is about something else; what differs is named.
        """
        if not self.is_resumed:
            return
        there = read_json(self.path / "resolved.json").get("identity")
        if not isinstance(there, dict):
            raise RunFolderError(
                f"expected the identity of a run in {self.path / 'resolved.json'}, got none; restore the file, or name "
                "another folder"
            )
        differing = sorted(key for key in {*identity, *there} if identity.get(key) != there.get(key))
        if differing:
            raise RunFolderError(
                f"expected the run in {self.path} to be about the same experiment, got another "
                f"{', '.join(differing)}; name another folder"
            )

    def open(self, identity: Mapping[str, Any], resolved: Mapping[str, Any], experiment: Path | None) -> None:
        """Write what a new run is about; what a resumed run says of itself holds until there is something new."""
        if not self.is_resumed:
            self.resolve(identity, resolved)
        write_json(self.path / "environment.json", environment())
        if experiment is not None:
            write_bytes(self.path / "experiment.toml", experiment.read_bytes())

    def resolve(self, identity: Mapping[str, Any], resolved: Mapping[str, Any]) -> None:
        """Write what the run is about and how it stands."""
        write_json(self.path / "resolved.json", {**resolved, "identity": dict(identity)})
