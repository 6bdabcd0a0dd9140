"""The run folder: what a run is about, and whether a resumed one is about the same.

``resolved.json`` is the first file that a run writes but for weights, so a folder either has it, or nothing of a run to
go on with; weights are good for any run about the same network and calibration data.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hwdse.errors import RunFolderError
from hwdse.evaluate.mounts import check_local
from hwdse.files import check_folder, is_left_over, lock, read_json, write_bytes, write_json
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
        If the folder holds a run and ``resume`` is False, holds something else, is on a network file system, or another
        process explores it.
    InputError
        If it cannot be written to.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        self.path = path
        self.is_resumed = (path / "resolved.json").is_file()
        if path.exists() and not path.is_dir():
            raise RunFolderError(f"expected a folder to write to, got the file {path}; name another one")
        if self.is_resumed and not resume:
            raise self._is_a_run()
        if (
            not self.is_resumed
            and path.is_dir()
            and not all(is_left_over(p) or p.name == WEIGHTS for p in path.iterdir())
        ):
            raise RunFolderError(f"expected an empty folder or a run, got other files in {path}; name another one")
        check_folder(path)
        check_local(path)
        if path.is_dir():
            with self._alone():
                pass

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

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from exploring into the folder while the context lasts; it is made if absent.

        The lock is the folder's own and ends with this process, however that ends. Who reads is not kept away.

        Raises
        ------
        RunFolderError
            If another process holds it, or has written a run since.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with self._alone():
            if not self.is_resumed and (self.path / "resolved.json").is_file():
                raise self._is_a_run()
            yield

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

    def _is_a_run(self) -> RunFolderError:
        return RunFolderError(f"expected an empty folder, got a run in {self.path}; add --resume or name another one")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the folder's lock."""
        folder = os.open(self.path, os.O_RDONLY)
        try:
            if not lock(folder):
                raise RunFolderError(
                    f"expected nobody else to explore into {self.path}, got another process that does; wait for it, "
                    "end it, or name another folder"
                )
            yield
        finally:
            os.close(folder)
