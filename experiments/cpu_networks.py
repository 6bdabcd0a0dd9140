"""Networks of the usual shapes with random weights, for latency alone: what they compute means nothing.

Weights are drawn so that values keep their size through all layers, from a fixed seed.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from hwdse.factories import load_factory

__all__ = [
    "Encoder",
    "MobileNetV2",
    "ResNet18",
    "encoder",
    "image",
    "mobilenet_v2",
    "resnet18",
    "resnet20",
    "small_image",
    "tokens",
]

_ResNet20 = load_factory("models.py:ResNet20", folder=Path(__file__).parent)

SEED = 0
TOKENS, WIDTH = 128, 384


def _unit(
    channels_in: int, channels_out: int, kernel: int, *, stride: int = 1, groups: int = 1, act: nn.Module | None
) -> nn.Sequential:
    """Return a convolution with batch norm and perhaps an activation."""
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out), *([act] if act is not None else []))


class _Inverted(nn.Module):
    """Expand, filter each channel, project; adds its input where the shapes agree."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int, expand: int) -> None:
        super().__init__()
        inner = channels_in * expand
        wider = [_unit(channels_in, inner, 1, act=nn.ReLU6())] if expand != 1 else []
        self.body = nn.Sequential(
            *wider,
            _unit(inner, inner, 3, stride=stride, groups=inner, act=nn.ReLU6()),
            _unit(inner, channels_out, 1, act=None),
        )
        self.adds = stride == 1 and channels_in == channels_out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.body(x)
        return x + y if self.adds else y


class MobileNetV2(nn.Module):
    """MobileNetV2 of width 1 (Sandler et al. 2018, table 2)."""

    STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    """Expansion, channels, blocks and first stride of each stage."""

    def __init__(self) -> None:
        super().__init__()
        parts: list[nn.Module] = [_unit(3, 32, 3, stride=2, act=nn.ReLU6())]
        channels = 32
        for expand, outputs, blocks, first in self.STAGES:
            for block in range(blocks):
                parts.append(_Inverted(channels, outputs, stride=first if block == 0 else 1, expand=expand))
                channels = outputs
        parts.append(_unit(channels, 1280, 1, act=nn.ReLU6()))
        self.features = nn.Sequential(*parts)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(1280, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits ``(n, 1000)`` of images ``(n, 3, 224, 224)``."""
        logits: torch.Tensor = self.classifier(self.pool(self.features(x)).flatten(1))
        return logits


class _Basic(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected where the shape changes."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int) -> None:
        super().__init__()
        self.first = _unit(channels_in, channels_out, 3, stride=stride, act=nn.ReLU())
        self.second = _unit(channels_out, channels_out, 3, act=None)
        same = stride == 1 and channels_in == channels_out
        self.short = nn.Identity() if same else _unit(channels_in, channels_out, 1, stride=stride, act=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.second(self.first(x)) + self.short(x))


class ResNet18(nn.Module):
    """ResNet-18 for 224x224 images (He et al. 2016, table 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _unit(3, 64, 7, stride=2, act=nn.ReLU())
        self.pool = nn.MaxPool2d(3, 2, 1)
        blocks: list[nn.Module] = []
        channels = 64
        for outputs in (64, 128, 256, 512):
            blocks += [_Basic(channels, outputs, stride=1 if outputs == 64 else 2), _Basic(outputs, outputs, stride=1)]
            channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(512, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits ``(n, 1000)`` of images ``(n, 3, 224, 224)``."""
        logits: torch.Tensor = self.classifier(self.last(self.blocks(self.pool(self.stem(x)))).flatten(1))
        return logits


class _EncoderLayer(nn.Module):
    """Attention and a feed-forward part, each added to what it reads and normalised after that."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.n1, self.n2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = self.n1(x + self.o(mixed))
        normed: torch.Tensor = self.n2(x + self.down(functional.gelu(self.up(x))))
        return normed


class Encoder(nn.Module):
    """Six layers of width 384 with 12 heads, as in MiniLM (Wang et al. 2020), without the embedding."""

    def __init__(self, *, layers: int = 6, width: int = WIDTH, heads: int = 12) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(_EncoderLayer(width, heads, 4 * width) for _ in range(layers)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return features ``(n, tokens, width)`` of embedded tokens of the same shape."""
        features: torch.Tensor = self.layers(x)
        return features


def _drawn(model: nn.Module) -> nn.Module:
    """Return the model in evaluation mode with weights that keep the size of what goes through."""
    generator = torch.Generator().manual_seed(SEED)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            module.weight.data.normal_(0.0, math.sqrt(2.0 / fan_in), generator=generator)
            if module.bias is not None:
                module.bias.data.zero_()
    return model.eval()


def mobilenet_v2() -> nn.Module:
    """Return MobileNetV2."""
    return _drawn(MobileNetV2())


def resnet18() -> nn.Module:
    """Return ResNet-18."""
    return _drawn(ResNet18())


def encoder() -> nn.Module:
    """Return the encoder."""
    return _drawn(Encoder())


def image() -> torch.Tensor:
    """Return one image ``(1, 3, 224, 224)``."""
    return torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(SEED))


def tokens() -> torch.Tensor:
    """Return one sequence of embedded tokens ``(1, 128, 384)``."""
    return torch.randn(1, TOKENS, WIDTH, generator=torch.Generator().manual_seed(SEED))


def resnet20() -> nn.Module:
    """Return ResNet-20 for 32x32 images."""
    return _drawn(_ResNet20())


def small_image() -> torch.Tensor:
    """Return one image ``(1, 3, 32, 32)``."""
    return torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(SEED))
