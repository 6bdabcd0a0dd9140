"""The profile of a run's device: from the file that the run was explored with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hwdse.hardware.load import load_profile, profile_paths
from hwdse.hardware.profile import HardwareProfile

__all__ = ["recorded_profile"]


def recorded_profile(resolved: Mapping[str, Any], device: str) -> HardwareProfile | None:
    """Return the profile of ``device`` that a run was explored with, by its record; ``None`` where it is not found.

    Where its file is gone, or the run does not name one, it is looked for by name.

    Raises
    ------
    ProfileError
        If the profile has faults.
    """
    files = resolved.get("profiles")
    recorded = files.get(device) if isinstance(files, dict) else None
    path = Path(recorded) if isinstance(recorded, str) else None
    if path is None or not os.path.isfile(path):  # which says no to what is no path at all
        path = profile_paths().get(device)
    return None if path is None else load_profile(path)
