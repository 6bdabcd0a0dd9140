"""The embedded example: a small residual network on scikit-learn's digits, trained in seconds, the same every time."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn
from torch.nn import functional

from hwdse.errors import InputError

__all__ = ["digits", "digits_calibration", "digits_evaluation", "digits_example"]

_CALIBRATION = 256
_EVALUATION = 597
_EPOCHS = 12


class _Block(nn.Module):
    """Two convolutions around a shortcut."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        stride = 1 if channels == out_channels else 2
        self.conv1 = nn.Conv2d(channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(channels, out_channels, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class DigitsNet(nn.Module):
    """A residual network for 8x8 grey images: stem, two blocks of 16 and 32 channels, linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.blocks = nn.Sequential(_Block(16, 16), _Block(16, 32), _Block(32, 32))
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits ``(n, 10)`` of images ``(n, 1, 8, 8)``."""
        y = self.blocks(functional.relu(self.bn(self.stem(x))))
        logits: torch.Tensor = self.head(y.mean((2, 3)))
        return logits


@cache
def _data() -> tuple[torch.Tensor, torch.Tensor]:
    """Return all images ``(1797, 1, 8, 8)`` scaled to [0, 1], and labels, in a fixed random order."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise InputError(
            "expected scikit-learn for the digits example, got none; pip install hwdse[examples]"
        ) from error
    bunch = load_digits()
    order = torch.randperm(len(bunch.target), generator=torch.Generator().manual_seed(0))
    images = torch.from_numpy(bunch.images).float()[:, None] / 16.0
    return images[order], torch.from_numpy(bunch.target).long()[order]


def digits(seed: int = 0) -> nn.Module:
    """Return the trained network; the same weights for the same seed.

    Training uses neither the evaluation images nor any global random state, and one thread: with more of them sums
    are added up in another order, and the weights would depend on the machine.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _trained(seed)
    finally:
        torch.set_num_threads(threads)


def _trained(seed: int) -> nn.Module:
    """Return the network after a few epochs of stochastic gradient descent."""
    images, labels = _data()
    images, labels = images[:-_EVALUATION], labels[:-_EVALUATION]
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed accelerators too
        model = DigitsNet()
    steps = _EPOCHS * (len(images) // 64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.2, total_steps=steps)
    model.train()
    for _ in range(_EPOCHS):
        order = torch.randperm(len(images), generator=generator)
        for batch in order.split(64)[: len(images) // 64]:
            loss = functional.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def digits_example() -> torch.Tensor:
    """Return example inputs for the capture."""
    return torch.zeros(2, 1, 8, 8)


def digits_calibration() -> list[torch.Tensor]:
    """Return calibration batches, from the training images."""
    return list(_data()[0][:_CALIBRATION].split(64))


def digits_evaluation() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return evaluation batches (images, labels), held out from training and calibration."""
    images, labels = _data()
    return list(zip(images[-_EVALUATION:].split(128), labels[-_EVALUATION:].split(128), strict=True))
