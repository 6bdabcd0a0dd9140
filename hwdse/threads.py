"""How many threads compute one operation: operations of several threads would wait for each other, spinning."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from threadpoolctl import ThreadpoolController, threadpool_limits

__all__ = ["single_threaded", "small_algebra"]


@contextmanager
def single_threaded() -> Iterator[None]:
    """Have every operation computed by the thread that asks for it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def small_algebra() -> Iterator[None]:
    """Have numpy's and scipy's algebra computed by one thread: small matrices take several threads longer.

    A second thread also keeps a core busy, waiting, for some time after each operation.
    """
    with _libraries().limit(limits=1, user_api="blas"):
        yield


@cache
def _libraries() -> ThreadpoolController:
    """Return what is loaded: finding it takes as long as choosing a configuration does."""
    return ThreadpoolController()
