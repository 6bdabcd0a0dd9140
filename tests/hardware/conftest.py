"""A complete valid profile as the mapping that TOML gives."""

from __future__ import annotations

from typing import Any

import pytest

from tests.profiles import figure


def complete() -> dict[str, Any]:
    return {
        "schema_version": 1,
        "name": "board",
        "title": "Board at 100 MHz",
        "kind": "mcu",
        "software_stack": "test kernels",
        "note": "for tests",
        "batch": 2,
        "clock_mhz": figure(100),
        "sources": {"Lab2024": "measured in the lab, 2024"},
        "scheme": {
            "weights": "symmetric",
            "activations": "affine",
            "weight_granularity": "per_tensor",
            "full_range": True,
            "unsigned_activations": False,
        },
        "rates": [
            {"weights": "int8", "activations": "int8", "macs_per_cycle": figure(2.0)},
            {"weights": "int4", "activations": "int8", "macs_per_cycle": figure(2.0), "container": "int8"},
            {"weights": "int8", "activations": "int8", "op_classes": ["linear"], "gmac_per_s": figure(0.1)},
            {
                "weights": "int4",
                "activations": "int4",
                "op_classes": ["conv", "linear"],
                "macs_per_cycle": figure(4.0),
                "efficiency": figure(0.25),
            },
        ],
        "efficiency": {"conv": figure(0.5), "linear": figure(1.0)},
        "tile": {"input_channels": figure(4), "output_width": figure(8)},
        "memories": [
            {
                "name": "SRAM",
                "holds": ["activations"],
                "capacity_kib": figure(64),
                "bandwidth_gb_per_s": figure(0.4),
                "reserved_kib": figure(8),
            },
            {"name": "flash", "holds": ["weights"], "capacity_kib": figure(256)},
        ],
        "overhead": {"us_per_layer": figure(5), "us_per_inference": figure(100)},
        "power": {"active_mw": figure(20)},
        "switch": {"us": figure(1), "us_per_melement": figure(1000)},
    }


@pytest.fixture
def raw() -> dict[str, Any]:
    return complete()


@pytest.fixture
def runtime() -> dict[str, Any]:
    """Return a profile with times for what lies between layers."""
    profile = complete()
    del profile["switch"]
    profile["conversions"] = [
        {"from": "fp32", "to": "int8", "us": figure(2), "us_per_melement": figure(100)},
        {"from": "int8", "to": "fp32", "us": figure(3)},
        {"from": "fp32", "to": "int8", "op_classes": ["linear"], "us": figure(1)},
    ]
    profile["nodes"] = [
        {"operator": "add", "activations": "fp32", "us": figure(4), "us_per_melement": figure(50)},
        {"operator": "add", "activations": "int8", "us_per_melement": figure(20)},
    ]
    profile["calibration"] = {"float_layers": figure(1.25), "us_per_inference": figure(60)}
    return profile
