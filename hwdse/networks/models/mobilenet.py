"""Networks of depthwise convolutions for phones: MobileNet versions 1, 2 and 3."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import nn

from hwdse.networks.models.parts import Activation, Entry, Excite, classifier, divisible, inverted, sequence, unit

__all__ = ["NETWORKS", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3"]

V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
"""Channels and stride of each pair of a depthwise and a pointwise convolution."""

V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, blocks and first stride of each stage."""

Block = tuple[int, int, int, bool, type[nn.Module], int]

V3_LARGE = (
    (3, 16, 16, False, nn.ReLU, 1),
    (3, 64, 24, False, nn.ReLU, 2),
    (3, 72, 24, False, nn.ReLU, 1),
    (5, 72, 40, True, nn.ReLU, 2),
    (5, 120, 40, True, nn.ReLU, 1),
    (5, 120, 40, True, nn.ReLU, 1),
    (3, 240, 80, False, nn.Hardswish, 2),
    (3, 200, 80, False, nn.Hardswish, 1),
    (3, 184, 80, False, nn.Hardswish, 1),
    (3, 184, 80, False, nn.Hardswish, 1),
    (3, 480, 112, True, nn.Hardswish, 1),
    (3, 672, 112, True, nn.Hardswish, 1),
    (5, 672, 160, True, nn.Hardswish, 2),
    (5, 960, 160, True, nn.Hardswish, 1),
    (5, 960, 160, True, nn.Hardswish, 1),
)
V3_SMALL = (
    (3, 16, 16, True, nn.ReLU, 2),
    (3, 72, 24, False, nn.ReLU, 2),
    (3, 88, 24, False, nn.ReLU, 1),
    (5, 96, 40, True, nn.Hardswish, 2),
    (5, 240, 40, True, nn.Hardswish, 1),
    (5, 240, 40, True, nn.Hardswish, 1),
    (5, 120, 48, True, nn.Hardswish, 1),
    (5, 144, 48, True, nn.Hardswish, 1),
    (5, 288, 96, True, nn.Hardswish, 2),
    (5, 576, 96, True, nn.Hardswish, 1),
    (5, 576, 96, True, nn.Hardswish, 1),
)
"""Kernel, expanded channels, channels, whether with squeeze and excitation, activation and stride of each block."""


def mobilenet_v1(width: float, *, classes: int = 1000, act: Activation = nn.ReLU6) -> nn.Sequential:
    """Return MobileNet with ``width`` times the channels: Howard et al. 2017, table 1."""
    channels = int(32 * width)
    stem, blocks = unit(3, channels, 3, stride=2, act=act), []
    for outputs, stride in V1:
        outputs = int(outputs * width)
        filter_each = unit(channels, channels, 3, stride=stride, groups=channels, act=act)
        blocks.append(sequence(filter=filter_each, mix=unit(channels, outputs, act=act)))
        channels = outputs
    return sequence(stem=stem, blocks=nn.Sequential(*blocks), head=classifier(channels, classes))


def mobilenet_v2(width: float) -> nn.Sequential:
    """Return MobileNetV2 with ``width`` times the channels: Sandler et al. 2018, table 2."""
    channels, last = divisible(32 * width), divisible(1280 * max(width, 1.0))
    stem, blocks = unit(3, channels, 3, stride=2, act=nn.ReLU6), []
    for expand, outputs, count, first in V2:
        outputs = divisible(outputs * width)
        for i in range(count):
            blocks.append(inverted(channels, expand * channels, outputs, stride=first if i == 0 else 1))
            channels = outputs
    mix = unit(channels, last, act=nn.ReLU6)
    return sequence(stem=stem, blocks=nn.Sequential(*blocks), mix=mix, head=classifier(last))


def mobilenet_v3(table: Sequence[Block], *, hidden: int) -> nn.Sequential:
    """Return MobileNetV3 with the blocks of ``table``: Howard et al. 2019, tables 1 and 2."""
    channels, inner, blocks = 16, 0, []
    for kernel, inner, outputs, excited, act, stride in table:
        excite = Excite(inner, divisible(inner / 4), act=nn.ReLU, gate=nn.Hardsigmoid) if excited else None
        blocks.append(inverted(channels, inner, outputs, kernel=kernel, stride=stride, act=act, excite=excite))
        channels = outputs
    return sequence(
        stem=unit(3, 16, 3, stride=2, act=nn.Hardswish),
        blocks=nn.Sequential(*blocks),
        mix=unit(channels, inner, act=nn.Hardswish),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        hidden=sequence(linear=nn.Linear(inner, hidden), act=nn.Hardswish()),
        classifier=nn.Linear(hidden, 1000),
    )


NETWORKS = {
    "mobilenet_v1_0.25": Entry(partial(mobilenet_v1, 0.25)),
    "mobilenet_v1_0.5": Entry(partial(mobilenet_v1, 0.5)),
    "mobilenet_v1": Entry(partial(mobilenet_v1, 1.0)),
    "mobilenet_v2_0.35_128": Entry(partial(mobilenet_v2, 0.35), (3, 128, 128)),
    "mobilenet_v2_0.35": Entry(partial(mobilenet_v2, 0.35)),
    "mobilenet_v2": Entry(partial(mobilenet_v2, 1.0)),
    "mobilenet_v2_1.4": Entry(partial(mobilenet_v2, 1.4)),
    "mobilenet_v3_large": Entry(partial(mobilenet_v3, V3_LARGE, hidden=1280)),
    "mobilenet_v3_small": Entry(partial(mobilenet_v3, V3_SMALL, hidden=1024)),
}
