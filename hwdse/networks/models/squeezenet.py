"""SqueezeNet: few channels before every 3x3 convolution."""

from __future__ import annotations

from functools import partial

from torch import nn

from hwdse.networks.models.parts import Branches, Entry, sequence, unit

__all__ = ["NETWORKS", "squeezenet"]

BLOCKS = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
"""Channels before the expansion, and of each half of it."""

POOLED = (0, 2, 4)
"""Blocks that a pooling stands before."""


def squeezenet() -> nn.Sequential:
    """Return SqueezeNet 1.1: Iandola et al. 2016, table 1, with a smaller stem and earlier poolings."""
    conv = partial(unit, norm=False)
    channels, parts = 64, [conv(3, 64, 3, stride=2, padded=False)]
    for i, (squeezed, half) in enumerate(BLOCKS):
        if i in POOLED:
            parts.append(sequence(pool=nn.MaxPool2d(3, 2, ceil_mode=True)))
        expand = Branches(conv(squeezed, half), conv(squeezed, half, 3))
        parts.append(sequence(squeeze=conv(channels, squeezed), expand=expand))
        channels = 2 * half
    return sequence(
        features=nn.Sequential(*parts),
        classifier=conv(channels, 1000),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
    )


NETWORKS = {"squeezenet1_1": Entry(squeezenet)}
