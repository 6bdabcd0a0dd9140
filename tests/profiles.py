"""The profile of a processor that tests share, as the mapping that TOML gives."""

from __future__ import annotations

from typing import Any

from hwdse.hardware.measure.onnxruntime import INTEGER_SCHEME


def figure(value: float, **more: object) -> dict[str, Any]:
    return {"value": value, "kind": "measured", "source": "Lab2024", **more}


def processor(**sections: object) -> dict[str, Any]:
    """Return a profile with ``sections`` such as ``rates`` in it, or instead of those that are there."""
    return {
        "schema_version": 1,
        "name": "processor",
        "title": "Processor",
        "kind": "cpu",
        "software_stack": "onnxruntime",
        "note": "for tests",
        "batch": 1,
        "sources": {"Lab2024": "measured in the lab, 2024"},
        "scheme": dict(INTEGER_SCHEME),
        **sections,
    }
