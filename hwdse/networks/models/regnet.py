"""RegNetX: bottlenecks of equal width inside and out, with grouped convolutions."""

from __future__ import annotations

from functools import partial

from torch import nn

from hwdse.networks.models.parts import Entry, bottleneck, classifier, sequence, unit

__all__ = ["NETWORKS", "regnet"]


def regnet(counts: tuple[int, ...], widths: tuple[int, ...], *, group: int) -> nn.Sequential:
    """Return a RegNetX with ``group`` channels per group: Radosavovic et al. 2020, figure 15."""
    channels, stages = 32, []
    for count, width in zip(counts, widths, strict=True):
        blocks = []
        for i in range(count):
            blocks.append(bottleneck(channels, width, width, stride=2 if i == 0 else 1, groups=width // group))
            channels = width
        stages.append(nn.Sequential(*blocks))
    return sequence(stem=unit(3, 32, 3, stride=2), stages=nn.Sequential(*stages), head=classifier(channels))


NETWORKS = {
    "regnet_x_800mf": Entry(partial(regnet, (1, 3, 7, 5), (64, 128, 288, 672), group=16)),
    "regnet_x_1_6gf": Entry(partial(regnet, (2, 4, 10, 2), (72, 168, 408, 912), group=24)),
    "regnet_x_3_2gf": Entry(partial(regnet, (2, 6, 15, 2), (96, 192, 432, 1008), group=48)),
}
