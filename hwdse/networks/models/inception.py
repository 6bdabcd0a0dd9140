"""Networks whose blocks send one input several ways: Inception versions 1, 3 and 4."""

from __future__ import annotations

from functools import partial

from torch import nn

from hwdse.networks.models.parts import Branches, Entry, classifier, sequence, unit

__all__ = ["NETWORKS", "inception_v1", "inception_v3", "inception_v4"]

V1 = (
    (64, 96, 128, 16, 32, 32),
    (128, 128, 192, 32, 96, 64),
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
    (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
)
"""Channels of each block: 1x1; 3x3 and what comes before it; 5x5 and what comes before it; after the pooling."""

POOLED = (2, 7)
"""Blocks that a pooling stands before."""

ROW, COLUMN = (1, 7), (7, 1)
SHORT_ROW, SHORT_COLUMN = (1, 3), (3, 1)

Step = tuple[int, int | tuple[int, int]]
"""Channels and kernel of a convolution."""


def _chain(channels: int, *steps: Step, ends: nn.Module | None = None) -> nn.Sequential:
    """Return convolutions one after the other, and perhaps a last part."""
    units = []
    for outputs, kernel in steps:
        units.append(unit(channels, outputs, kernel))
        channels = outputs
    return nn.Sequential(*units, *([ends] if ends is not None else []))


def _pooled(channels: int, outputs: int) -> nn.Sequential:
    """Return an average over 3x3 pixels and a 1x1 convolution."""
    return nn.Sequential(nn.AvgPool2d(3, 1, 1), unit(channels, outputs))


def _halving(channels_in: int, channels_out: int) -> nn.Sequential:
    """Return a 3x3 convolution with stride 2 and no padding."""
    return unit(channels_in, channels_out, 3, stride=2, padded=False)


def _split(channels: int, outputs: int) -> Branches:
    """Return a row and a column side by side."""
    return Branches(unit(channels, outputs, SHORT_ROW), unit(channels, outputs, SHORT_COLUMN))


def inception_v1(*, kernel: int, norm: bool, last_pool: int) -> nn.Sequential:
    """Return GoogLeNet without its two extra classifiers: Szegedy et al. 2015, table 1.

    It has no local response normalisation. ``kernel`` is the side of the paper's 5x5 convolutions, ``last_pool`` that
    of the last maximum.
    """
    conv = partial(unit, norm=norm)
    channels = 192
    blocks: list[nn.Module] = []
    for i, (one, before_3, three, before_5, five, pooled) in enumerate(V1):
        if i in POOLED:
            blocks.append(nn.MaxPool2d(last_pool if i == POOLED[-1] else 3, 2, ceil_mode=True))
        block = Branches(
            conv(channels, one),
            nn.Sequential(conv(channels, before_3), conv(before_3, three, 3)),
            nn.Sequential(conv(channels, before_5), conv(before_5, five, kernel)),
            nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(channels, pooled)),
        )
        blocks.append(block)
        channels = one + three + five + pooled
    stem = nn.Sequential(
        conv(3, 64, 7, stride=2),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        conv(64, 64),
        conv(64, 192, 3),
        nn.MaxPool2d(3, 2, ceil_mode=True),
    )
    return sequence(stem=stem, blocks=nn.Sequential(*blocks), head=classifier(channels))


def inception_v3() -> nn.Sequential:
    """Return Inception-v3 without its extra classifier: Szegedy et al. 2016, table 1 and figures 5 to 7 and 10."""

    def square(channels: int, pooled: int) -> Branches:
        return Branches(
            unit(channels, 64),
            _chain(channels, (48, 1), (64, 5)),
            _chain(channels, (64, 1), (96, 3), (96, 3)),
            _pooled(channels, pooled),
        )

    def long(inner: int) -> Branches:
        return Branches(
            unit(768, 192),
            _chain(768, (inner, 1), (inner, ROW), (192, COLUMN)),
            _chain(768, (inner, 1), (inner, COLUMN), (inner, ROW), (inner, COLUMN), (192, ROW)),
            _pooled(768, 192),
        )

    def wide(channels: int) -> Branches:
        return Branches(
            unit(channels, 320),
            _chain(channels, (384, 1), ends=_split(384, 384)),
            _chain(channels, (448, 1), (384, 3), ends=_split(384, 384)),
            _pooled(channels, 192),
        )

    stem = nn.Sequential(
        _halving(3, 32),
        unit(32, 32, 3, padded=False),
        unit(32, 64, 3),
        nn.MaxPool2d(3, 2),
        unit(64, 80),
        unit(80, 192, 3, padded=False),
        nn.MaxPool2d(3, 2),
    )
    blocks = nn.Sequential(
        *(square(channels, pooled) for channels, pooled in ((192, 32), (256, 64), (288, 64))),
        Branches(_halving(288, 384), _chain(288, (64, 1), (96, 3), ends=_halving(96, 96)), nn.MaxPool2d(3, 2)),
        *(long(inner) for inner in (128, 160, 160, 192)),
        Branches(
            _chain(768, (192, 1), ends=_halving(192, 320)),
            _chain(768, (192, 1), (192, ROW), (192, COLUMN), ends=_halving(192, 192)),
            nn.MaxPool2d(3, 2),
        ),
        *(wide(channels) for channels in (1280, 2048)),
    )
    return sequence(stem=stem, blocks=blocks, head=classifier(2048))


def inception_v4() -> nn.Sequential:
    """Return Inception-v4: Szegedy et al. 2017, figures 3 to 9."""

    def square() -> Branches:
        return Branches(
            _pooled(384, 96),
            unit(384, 96),
            _chain(384, (64, 1), (96, 3)),
            _chain(384, (64, 1), (96, 3), (96, 3)),
        )

    def long() -> Branches:
        return Branches(
            _pooled(1024, 128),
            unit(1024, 384),
            _chain(1024, (192, 1), (224, ROW), (256, COLUMN)),
            _chain(1024, (192, 1), (192, ROW), (224, COLUMN), (224, ROW), (256, COLUMN)),
        )

    def wide() -> Branches:
        return Branches(
            _pooled(1536, 256),
            unit(1536, 256),
            _chain(1536, (384, 1), ends=_split(384, 256)),
            _chain(1536, (384, 1), (448, SHORT_ROW), (512, SHORT_COLUMN), ends=_split(512, 256)),
        )

    def unpadded(channels: int, *steps: Step) -> nn.Sequential:
        """Return a chain that ends in a 3x3 convolution from 64 to 96 channels without padding."""
        return _chain(channels, *steps, ends=unit(64, 96, 3, padded=False))

    stem = nn.Sequential(
        _halving(3, 32),
        unit(32, 32, 3, padded=False),
        unit(32, 64, 3),
        Branches(nn.MaxPool2d(3, 2), _halving(64, 96)),
        Branches(unpadded(160, (64, 1)), unpadded(160, (64, 1), (64, COLUMN), (64, ROW))),
        Branches(_halving(192, 192), nn.MaxPool2d(3, 2)),
    )
    blocks = nn.Sequential(
        *(square() for _ in range(4)),
        Branches(nn.MaxPool2d(3, 2), _halving(384, 384), _chain(384, (192, 1), (224, 3), ends=_halving(224, 256))),
        *(long() for _ in range(7)),
        Branches(
            nn.MaxPool2d(3, 2),
            _chain(1024, (192, 1), ends=_halving(192, 192)),
            _chain(1024, (256, 1), (256, ROW), (320, COLUMN), ends=_halving(320, 320)),
        ),
        *(wide() for _ in range(3)),
    )
    return sequence(stem=stem, blocks=blocks, head=classifier(1536))


NETWORKS = {
    "googlenet": Entry(partial(inception_v1, kernel=3, norm=True, last_pool=2)),
    "inception_v1": Entry(partial(inception_v1, kernel=5, norm=False, last_pool=3)),
    "inception_v3": Entry(inception_v3, (3, 299, 299)),
    "inception_v4": Entry(inception_v4, (3, 299, 299)),
}
