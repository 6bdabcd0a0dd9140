"""Batches as data factories yield them, checked against what a captured network takes."""

from __future__ import annotations

from typing import Any

import torch

from hwdse.capture import Capture
from hwdse.errors import InputError

__all__ = ["check_batch"]


def check_batch(captured: Capture, batch: Any, purpose: str) -> int:
    """Return the number of samples of ``batch``: a tensor, or one tensor per input of the network, batch first.

    Parameters
    ----------
    captured
        The network.
    batch
        What a data factory yielded, without the target.
    purpose
        Whose batch it is, for the sentence: ``calibration`` or ``evaluation``.

    Raises
    ------
    InputError
        If it is something else, or a tensor's shape or type is not the one that the network was captured with.
    """
    tensors = [batch] if isinstance(batch, torch.Tensor) else batch
    inputs = [node.meta["val"] for node in captured.flow.inputs]
    wanted = ", ".join(map(_words, inputs))
    if not isinstance(tensors, list | tuple) or not all(isinstance(x, torch.Tensor) for x in tensors):
        raise InputError(
            f"expected {purpose} batches of {len(inputs)} input tensor(s) ({wanted}), got {_kinds(batch)}; change the "
            f"{purpose} factory"
        )
    if len(tensors) != len(inputs) or not all(map(_is_like, tensors, inputs)):
        raise InputError(
            f"expected {purpose} batches of {len(inputs)} input tensor(s) ({wanted}), got {len(tensors)} "
            f"({', '.join(map(_words, tensors))}); change the {purpose} factory, or the example"
        )
    return int(tensors[0].shape[0])


def _is_like(given: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Return True if ``given`` has the type and the fixed dimensions of ``wanted``; integers may be of any width."""
    whole = not (given.is_floating_point() or given.is_complex() or given.dtype is torch.bool)
    same_type = given.dtype == wanted.dtype or (whole and wanted.dtype in {torch.int32, torch.int64})
    fixed = all(not isinstance(w, int) or g == w for g, w in zip(given.shape, wanted.shape, strict=False))
    return same_type and given.ndim == wanted.ndim and fixed


def _words(x: torch.Tensor) -> str:
    """Return type and shape, n for a dimension that may differ."""
    sizes = ", ".join(str(d) if isinstance(d, int) else "n" for d in x.shape)
    return f"{str(x.dtype).removeprefix('torch.')} of shape ({sizes})"


def _kinds(batch: Any) -> str:
    """Return what a batch is that does not consist of tensors."""
    if isinstance(batch, list | tuple):
        return f"a {type(batch).__name__} of {', '.join(type(x).__name__ for x in batch[:3]) or 'nothing'}"
    return type(batch).__name__
