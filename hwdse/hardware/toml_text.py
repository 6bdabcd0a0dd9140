"""Keys and figures as TOML text, in the form that profiles are written in by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["keys_text"]


def keys_text(values: Mapping[str, object]) -> str:
    r"""Return keys with their values as lines of TOML; a mapping becomes an inline table.

    >>> keys_text({"holds": ["weights"], "us": {"value": 0.5, "kind": "measured"}})
    'holds = ["weights"]\nus = { value = 0.5, kind = "measured" }\n'
    """
    return "".join(f"{_key(key)} = {_value(value)}\n" for key, value in values.items())


def _key(key: str) -> str:
    """Return a key of TOML, in quotation marks where it needs them."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)


def _value(value: Any) -> str:
    """Return a value as TOML; texts of JSON are texts of TOML."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(part)}" for key, part in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
