"""A module made from a function, for networks of one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn


class Written(nn.Module):
    """Runs ``function(self, *inputs)``; keywords become its parts: modules, and tensors as parameters."""

    def __init__(self, function: Callable[..., Any], **parts: nn.Module | torch.Tensor) -> None:
        super().__init__()
        self.function = function
        for name, value in parts.items():
            setattr(self, name, nn.Parameter(value) if isinstance(value, torch.Tensor) else value)

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(self, *inputs)


@pytest.fixture
def written() -> type[Written]:
    """Return the class of modules made from a function."""
    return Written
