"""Hardware-aware design-space exploration of mixed-precision quantization.

The names below are loaded on first use, so that reading profiles or run folders does not load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwdse.capture import Capture, capture
    from hwdse.deploy import export
    from hwdse.evaluate import Evaluation, evaluation_of, top1_on
    from hwdse.formats import Precision
    from hwdse.front import Front
    from hwdse.graph import BitConfig, LayerGraph
    from hwdse.hardware import HardwareProfile, list_profiles, load_profile
    from hwdse.infeasible import Infeasible
    from hwdse.quantize.recipe import Recipe, recipe_named
    from hwdse.study import Budget, Study, explore
    from hwdse.workers import Workers

_HOMES = {
    "BitConfig": "hwdse.graph",
    "Budget": "hwdse.study",
    "Capture": "hwdse.capture",
    "Evaluation": "hwdse.evaluate",
    "Front": "hwdse.front",
    "HardwareProfile": "hwdse.hardware",
    "Infeasible": "hwdse.infeasible",
    "LayerGraph": "hwdse.graph",
    "Precision": "hwdse.formats",
    "Recipe": "hwdse.quantize.recipe",
    "Study": "hwdse.study",
    "Workers": "hwdse.workers",
    "capture": "hwdse.capture",
    "evaluation_of": "hwdse.evaluate",
    "explore": "hwdse.study",
    "export": "hwdse.deploy",
    "list_profiles": "hwdse.hardware",
    "load_profile": "hwdse.hardware",
    "recipe_named": "hwdse.quantize.recipe",
    "top1_on": "hwdse.evaluate",
}

__all__ = [
    "BitConfig",
    "Budget",
    "Capture",
    "Evaluation",
    "Front",
    "HardwareProfile",
    "Infeasible",
    "LayerGraph",
    "Precision",
    "Recipe",
    "Study",
    "Workers",
    "capture",
    "evaluation_of",
    "explore",
    "export",
    "list_profiles",
    "load_profile",
    "recipe_named",
    "top1_on",
]


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hwdse' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
