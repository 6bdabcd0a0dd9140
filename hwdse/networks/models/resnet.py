"""Residual networks for images of ImageNet and CIFAR."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn
from torch.nn import functional

from hwdse.networks.models.parts import Entry, Residual, bottleneck, classifier, sequence, unit

__all__ = ["NETWORKS", "basic", "resnet", "resnet_cifar"]

WIDTHS = (64, 128, 256, 512)


class _Shrink(nn.Module):
    """A shortcut without parameters: every second pixel, with zeros for the new channels (option A)."""

    def __init__(self, added: int) -> None:
        super().__init__()
        self.added = added

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``(n, channels + added, height / 2, width / 2)``."""
        return functional.pad(x[..., ::2, ::2], (0, 0, 0, 0, self.added // 2, self.added - self.added // 2))


def basic(channels_in: int, channels_out: int, *, stride: int, short: nn.Module | None) -> Residual:
    """Return a block of two 3x3 convolutions."""
    body = sequence(
        first=unit(channels_in, channels_out, 3, stride=stride), second=unit(channels_out, channels_out, 3, act=None)
    )
    return Residual(body, short=short, act=nn.ReLU)


def _shallow(channels_in: int, width: int, *, stride: int) -> Residual:
    """Return the block of ResNet-18 and ResNet-34."""
    same = stride == 1 and channels_in == width
    short = None if same else unit(channels_in, width, stride=stride, act=None)
    return basic(channels_in, width, stride=stride, short=short)


def _deep(channels_in: int, width: int, *, stride: int, cardinality: int, base: int) -> Residual:
    """Return the block of the deeper ones; its 3x3 convolution has ``cardinality`` groups of channels."""
    inner = width * base // 64 * cardinality
    return bottleneck(channels_in, inner, 4 * width, stride=stride, groups=cardinality)


def resnet(
    block: Callable[..., nn.Module], counts: Sequence[int], *, expansion: int, late: bool = False
) -> nn.Sequential:
    """Return a residual network for images of ImageNet: He et al. 2016, table 1; Xie et al. 2017, table 1.

    The stride is in the 3x3 convolution of a deep block ("version 1.5"). Where it comes ``late``, a stage halves the
    image in its last block in place of the next stage's first, as TensorFlow-Slim's networks do.
    """
    channels, stages = 64, []
    for width, count in zip(WIDTHS, counts, strict=True):
        blocks = []
        for i in range(count):
            halves = (i == count - 1 and width != WIDTHS[-1]) if late else (i == 0 and width != WIDTHS[0])
            blocks.append(block(channels, width, stride=2 if halves else 1))
            channels = width * expansion
        stages.append(nn.Sequential(*blocks))
    return sequence(
        stem=unit(3, WIDTHS[0], 7, stride=2),
        pool=nn.MaxPool2d(3, 2, 1),
        stages=nn.Sequential(*stages),
        head=classifier(channels),
    )


def resnet_cifar(depth: int, *, classes: int) -> nn.Sequential:
    """Return a residual network for 32x32 images with shortcuts without parameters: He et al. 2016, section 4.2."""
    channels, stages = 16, []
    for width in (16, 32, 64):
        blocks = []
        for _ in range((depth - 2) // 6):
            grows = width != channels
            short = _Shrink(width - channels) if grows else None
            blocks.append(basic(channels, width, stride=2 if grows else 1, short=short))
            channels = width
        stages.append(nn.Sequential(*blocks))
    return sequence(stem=unit(3, 16, 3), stages=nn.Sequential(*stages), head=classifier(channels, classes))


def _bottlenecks(counts: Sequence[int], *, cardinality: int = 1, base: int = 64, late: bool = False) -> nn.Sequential:
    return resnet(partial(_deep, cardinality=cardinality, base=base), counts, expansion=4, late=late)


NETWORKS = {
    "resnet18": Entry(partial(resnet, _shallow, (2, 2, 2, 2), expansion=1)),
    "resnet34": Entry(partial(resnet, _shallow, (3, 4, 6, 3), expansion=1)),
    "resnet50": Entry(partial(_bottlenecks, (3, 4, 6, 3))),
    "resnet50_299": Entry(partial(_bottlenecks, (3, 4, 6, 3)), (3, 299, 299)),
    "resnet101": Entry(partial(_bottlenecks, (3, 4, 23, 3))),
    "resnet_v1_50": Entry(partial(_bottlenecks, (3, 4, 6, 3), late=True)),
    "resnext26_32x4d": Entry(partial(_bottlenecks, (2, 2, 2, 2), cardinality=32, base=4)),
    "resnext50_32x4d": Entry(partial(_bottlenecks, (3, 4, 6, 3), cardinality=32, base=4)),
    "resnet20_cifar": Entry(partial(resnet_cifar, 20, classes=10), (3, 32, 32)),
    "resnet32_cifar100": Entry(partial(resnet_cifar, 32, classes=100), (3, 32, 32)),
}
