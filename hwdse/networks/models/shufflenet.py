"""ShuffleNetV2: half of the channels pass, the other half is filtered, then both are mixed up."""

from __future__ import annotations

import torch
from torch import nn

from hwdse.networks.models.parts import Branches, Entry, classifier, sequence, unit

__all__ = ["NETWORKS", "shufflenet_v2"]

STAGES = ((116, 4), (232, 8), (464, 4))
"""Channels and blocks of each stage."""


def _filter(channels_in: int, channels_out: int, *, stride: int) -> nn.Sequential:
    """Return a pointwise, a depthwise and a pointwise convolution."""
    return sequence(
        mix=unit(channels_in, channels_out),
        filter=unit(channels_out, channels_out, 3, stride=stride, groups=channels_out, act=None),
        project=unit(channels_out, channels_out),
    )


class _Half(nn.Module):
    """Filters the second half of the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = _filter(channels // 2, channels // 2, stride=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the shape of ``x``."""
        first, second = x.chunk(2, dim=1)
        return torch.cat([first, self.body(second)], dim=1)


def _shrink(channels_in: int, channels_out: int) -> Branches:
    """Return the first block of a stage, which filters all channels twice and halves the image."""
    half = channels_out // 2
    short = sequence(
        filter=unit(channels_in, channels_in, 3, stride=2, groups=channels_in, act=None), mix=unit(channels_in, half)
    )
    return Branches(short, _filter(channels_in, half, stride=2))


def shufflenet_v2() -> nn.Sequential:
    """Return ShuffleNetV2 of width 1: Ma et al. 2018, table 5."""
    channels, blocks = 24, []
    for width, count in STAGES:
        for i in range(count):
            block = _shrink(channels, width) if i == 0 else _Half(width)
            blocks.append(sequence(block=block, shuffle=nn.ChannelShuffle(2)))
        channels = width
    return sequence(
        stem=unit(3, 24, 3, stride=2),
        pool=nn.MaxPool2d(3, 2, 1),
        blocks=nn.Sequential(*blocks),
        mix=unit(channels, 1024),
        head=classifier(1024),
    )


NETWORKS = {"shufflenet_v2": Entry(shufflenet_v2)}
