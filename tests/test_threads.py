"""Threads of numerical libraries inside and after a block."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from hwdse.threads import single_threaded, small_algebra


def of_blas() -> set[int]:
    """Return the numbers of threads that numpy's and scipy's libraries use."""
    scipy.linalg.cho_factor(np.eye(2))  # both are loaded
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with threadpool_limits(2):
        yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_small_algebra_has_one_thread_and_torch_keeps_its_own():
    assert of_blas() == {2}
    for _ in range(2):
        with small_algebra():
            assert of_blas() == {1}
            assert torch.get_num_threads() == 2
        assert of_blas() == {2}


@pytest.mark.usefixtures("two_threads")
def test_a_single_thread_is_all_that_any_operation_has():
    with single_threaded():
        assert (of_blas(), torch.get_num_threads()) == ({1}, 1)
    assert (of_blas(), torch.get_num_threads()) == ({2}, 2)
