"""A package as if it were installed, by the folder that ``pip`` would write."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

__all__ = ["install"]


def install(folder: Path, name: str, points: Mapping[str, Mapping[str, str]]) -> None:
    """Register the package ``name`` of ``folder``, which is on the path, with its entry points by group."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"[{group}]\n" + "\n".join(f"{k} = {v}" for k, v in names.items()) for group, names in points.items()]
    (info / "entry_points.txt").write_text("\n".join([*lines, ""]))
    importlib.invalidate_caches()
