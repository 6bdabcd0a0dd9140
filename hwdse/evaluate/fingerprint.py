"""Content addresses: what an evaluation depends on, as text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from hwdse.capture import Capture
from hwdse.capture.flow import flat_arguments

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
    """Return the address of a network: its operators, constants and parameters."""
    digest = hashlib.sha256(" ".join(captured.operators).encode())
    inputs = [torch.empty(0)] * len(captured.program.graph_signature.user_inputs)
    for tensor in flat_arguments(captured.program, inputs):
        _add(digest, tensor)
    return digest.hexdigest()[:32]


def fingerprint_of_batches(batches: Iterable[Any]) -> str:
    """Return the address of data: every value in order; how it is divided into batches does matter to nobody else."""
    digest = hashlib.sha256()
    for item in batches:
        _add(digest, item)
    return digest.hexdigest()[:32]


def _add(digest: hashlib._Hash, item: object) -> None:
    if isinstance(item, torch.Tensor):
        array = item.detach().cpu().contiguous()
        digest.update(f"{array.dtype}{tuple(array.shape)}".encode())
        digest.update(array.reshape(-1).view(torch.uint8).numpy().data if array.numel() else b"")
    elif isinstance(item, np.ndarray):
        digest.update(f"{item.dtype}{item.shape}".encode() + np.ascontiguousarray(item).tobytes())
    elif isinstance(item, list | tuple):
        for part in item:
            _add(digest, part)
    else:
        digest.update(repr(item).encode())
