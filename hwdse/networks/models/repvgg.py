"""RepVGG as it is deployed: 3x3 convolutions one after the other."""

from __future__ import annotations

from functools import partial

from torch import nn

from hwdse.networks.models.parts import Entry, classifier, sequence, unit

__all__ = ["NETWORKS", "repvgg"]

STAGES = ((64, 2), (128, 4), (256, 14), (512, 1))
"""Channels and blocks of each stage after the first convolution."""


def repvgg(width: float, last: float) -> nn.Sequential:
    """Return RepVGG-A with ``width`` times the channels, in the last stage ``last`` times: Ding et al. 2021, table 2.

    Its three branches are merged into one convolution with a bias.
    """
    channels = min(64, int(64 * width))
    parts = [unit(3, channels, 3, stride=2, norm=False)]
    for base, count in STAGES:
        outputs = int(base * (last if base == STAGES[-1][0] else width))
        for i in range(count):
            parts.append(unit(channels, outputs, 3, stride=2 if i == 0 else 1, norm=False))
            channels = outputs
    return sequence(blocks=nn.Sequential(*parts), head=classifier(channels))


NETWORKS = {
    "repvgg_a1": Entry(partial(repvgg, 1.0, 2.5)),
    "repvgg_a2": Entry(partial(repvgg, 1.5, 2.75)),
}
