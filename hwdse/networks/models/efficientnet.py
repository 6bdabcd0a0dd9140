"""EfficientNet, and EfficientNet-Lite for chips without squeeze and excitation."""

from __future__ import annotations

import math
from functools import partial

from torch import nn

from hwdse.networks.models.parts import Entry, Excite, classifier, divisible, inverted, sequence, unit

__all__ = ["NETWORKS", "efficientnet_b0", "efficientnet_lite"]

STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
"""Expansion, kernel, first stride, channels and blocks of each stage."""

STEM, LAST = 32, 1280


def efficientnet_b0() -> nn.Sequential:
    """Return EfficientNet-B0: Tan and Le 2019, table 1."""
    channels, blocks = STEM, []
    for expand, kernel, first, outputs, count in STAGES:
        for i in range(count):
            inner = expand * channels
            excite = Excite(inner, channels // 4, act=nn.SiLU, gate=nn.Sigmoid)
            stride = first if i == 0 else 1
            block = inverted(channels, inner, outputs, kernel=kernel, stride=stride, act=nn.SiLU, excite=excite)
            blocks.append(block)
            channels = outputs
    return _whole(blocks, channels, act=nn.SiLU)


def efficientnet_lite(width: float, depth: float) -> nn.Sequential:
    """Return EfficientNet-Lite with ``width`` times the channels and ``depth`` times the blocks.

    Stem, last convolution, and the number of blocks of the first and last stage are those of the smallest one.
    """
    channels, blocks = STEM, []
    for stage, (expand, kernel, first, outputs, count) in enumerate(STAGES):
        outputs = divisible(outputs * width)
        outer = stage in (0, len(STAGES) - 1)
        for i in range(count if outer else math.ceil(count * depth)):
            stride = first if i == 0 else 1
            blocks.append(inverted(channels, expand * channels, outputs, kernel=kernel, stride=stride))
            channels = outputs
    return _whole(blocks, channels, act=nn.ReLU6)


def _whole(blocks: list[nn.Module], channels: int, *, act: type[nn.Module]) -> nn.Sequential:
    """Return the network of ``blocks``, the last of which gives ``channels``."""
    return sequence(
        stem=unit(3, STEM, 3, stride=2, act=act),
        blocks=nn.Sequential(*blocks),
        mix=unit(channels, LAST, act=act),
        head=classifier(LAST),
    )


NETWORKS = {
    "efficientnet_b0": Entry(efficientnet_b0),
    "efficientnet_lite0": Entry(partial(efficientnet_lite, 1.0, 1.0)),
    "efficientnet_lite1": Entry(partial(efficientnet_lite, 1.0, 1.1), (3, 240, 240)),
    "efficientnet_lite2": Entry(partial(efficientnet_lite, 1.1, 1.2), (3, 260, 260)),
    "efficientnet_lite3": Entry(partial(efficientnet_lite, 1.2, 1.4), (3, 280, 280)),
    "efficientnet_lite4": Entry(partial(efficientnet_lite, 1.4, 1.8), (3, 300, 300)),
}
