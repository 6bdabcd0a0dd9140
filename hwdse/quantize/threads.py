"""Threads of numerical libraries, while several pieces of work go side by side."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

__all__ = ["single_threaded"]


@contextmanager
def single_threaded() -> Iterator[None]:
    """Have every operation computed by the thread that asks for it: operations of several threads would wait for each
    other, spinning.
    """  # noqa: D205
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)
