"""ResNet-20 with its images for the benchmarks: the trained one where the data are, otherwise random values."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from hwdse.errors import InputError
from hwdse.factories import load_factory

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
SAMPLES = 1452


def resnet20() -> tuple[nn.Module, torch.Tensor, str]:
    """Return the network, 1,452 images, and what they are.

    Speed does not depend on the values; without the data under ``$HWDSE_DATA`` both are random.
    """
    try:
        model = load_factory("models.py:resnet20", folder=EXPERIMENTS)()
        batches = load_factory("data.py:cifar10_evaluation", folder=EXPERIMENTS)()
        return model, torch.cat([images for images, _ in batches]), "trained"
    except InputError:
        torch.manual_seed(0)
        model = load_factory("models.py:ResNet20", folder=EXPERIMENTS)().eval()
        return model, torch.randn(SAMPLES, 3, 32, 32), "random weights"
