"""Content addresses: what an evaluation depends on, as text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import fx

from hwdse.capture import Capture
from hwdse.capture.flow import flat_arguments
from hwdse.errors import InputError

__all__ = ["fingerprint", "fingerprint_of_batches", "fingerprint_of_network"]


def fingerprint(parts: Mapping[str, str]) -> str:
    """Return the address of what ``parts`` describe together.

    >>> fingerprint({"a": "1"}) == fingerprint({"a": "2"})
    False
    """
    digest = hashlib.sha256()
    for key in sorted(parts):
        digest.update(f"{key}={parts[key]}\n".encode())
    return digest.hexdigest()[:32]


def fingerprint_of_network(captured: Capture) -> str:
    """Return the address of a network: its operators with their arguments, constants and parameters."""
    digest = hashlib.sha256()
    nodes = list(captured.program.graph.nodes)
    place = {node: f"%{i}" for i, node in enumerate(nodes)}
    for node in nodes:
        target = str(node.target) if node.op == "call_function" else ""
        digest.update(f"{node.op} {target} {_places(node.args, place)} {_places(node.kwargs, place)}\n".encode())
    inputs = [torch.empty(0)] * len(captured.program.graph_signature.user_inputs)
    for tensor in flat_arguments(captured.program, inputs):
        _add(digest, tensor)
    return digest.hexdigest()[:32]


def _places(arguments: Any, place: Mapping[fx.Node, str]) -> Any:
    """Return an operator's arguments with nodes by place: their names say nothing about what is computed."""
    return fx.node.map_arg(arguments, place.__getitem__)


def fingerprint_of_batches(batches: Iterable[Any]) -> str:
    """Return the address of data: every value in order, and how the samples are divided into batches.

    Raises
    ------
    InputError
        If a batch holds something else than tensors, arrays, numbers, text, lists, tuples and mappings of them.
    """
    digest = hashlib.sha256()
    for item in batches:
        _add(digest, item)
    return digest.hexdigest()[:32]


def _add(digest: hashlib._Hash, item: object) -> None:
    """Add a value with its type and length, so that no two values are the same bytes."""
    if isinstance(item, torch.Tensor):
        array = item.detach().cpu().contiguous()
        digest.update(f"tensor {array.dtype}{tuple(array.shape)}".encode())
        digest.update(array.reshape(-1).view(torch.uint8).numpy().data if array.numel() else b"")
    elif isinstance(item, np.ndarray) and not item.dtype.hasobject:
        digest.update(f"array {item.dtype}{item.shape}".encode() + np.ascontiguousarray(item).tobytes())
    elif isinstance(item, list | tuple | np.ndarray):
        digest.update(f"list {len(item)} ".encode())
        for part in item:
            _add(digest, part)
    elif isinstance(item, Mapping):
        digest.update(f"mapping {len(item)} ".encode())
        for key, value in item.items():
            _add(digest, key)
            _add(digest, value)
    elif item is None or isinstance(item, bool | int | float | complex | str | bytes | np.generic):
        text = f"{type(item).__name__} {item!r}".encode()
        digest.update(f"{len(text)} ".encode() + text)
    else:
        raise InputError(
            f"expected batches of tensors, arrays, numbers, text, lists and mappings, got {type(item).__name__}; "
            "change what the data factory yields"
        )
