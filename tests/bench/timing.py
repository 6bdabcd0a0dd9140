"""Timing of things that are compared: interleaved in one run, so that both see the same machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

__all__ = ["interleaved_seconds", "row"]


def interleaved_seconds(functions: Mapping[str, Callable[[], object]], *, repeats: int) -> dict[str, float]:
    """Return the shortest time of each function in seconds; they take turns."""
    best = dict.fromkeys(functions, float("inf"))
    for _ in range(repeats):
        for name, function in functions.items():
            start = perf_counter()
            function()
            best[name] = min(best[name], perf_counter() - start)
    return best


def row(name: str, value: float, *, unit: str, target: float) -> dict[str, Any]:
    """Return a row whose value should be at most ``target``."""
    return {"name": name, "value": value, "unit": unit, "target": target, "holds": bool(value <= target)}
