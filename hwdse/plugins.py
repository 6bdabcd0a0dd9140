"""Finding built-in and foreign parts by entry point; both go the same way."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from typing import Any

from hwdse.errors import InputError

__all__ = ["load_plugin", "plugin_names"]


def plugin_names(group: str) -> tuple[str, ...]:
    """Return the names that are installed under the entry-point ``group``, sorted."""
    return tuple(sorted({point.name for point in entry_points(group=group)}))


@cache
def load_plugin(group: str, name: str) -> Any:
    """Return the object that is installed as ``name`` under the entry-point ``group``.

    Raises
    ------
    InputError
        If there is none.
    """
    for point in entry_points(group=group, name=name):
        return point.load()
    kind = group.rpartition(".")[2].replace("_", " ")
    known = ", ".join(plugin_names(group)) or "none"
    raise InputError(f"expected one of the installed {kind} ({known}), got {name!r}")
