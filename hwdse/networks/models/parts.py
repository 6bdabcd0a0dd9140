"""What the networks are put together from."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

__all__ = [
    "Branches",
    "Entry",
    "Excite",
    "Residual",
    "bottleneck",
    "classifier",
    "divisible",
    "inverted",
    "sequence",
    "unit",
]

Activation = type[nn.Module] | None


@dataclass(frozen=True)
class Entry:
    """A network: what builds it, and the shape of its input without the batch."""

    builder: Callable[[], nn.Module]
    shape: tuple[int, ...] = (3, 224, 224)


class Residual(nn.Module):
    """What ``body`` makes of the input, added to the input or to what ``short`` makes of it, then ``act``."""

    def __init__(self, body: nn.Module, *, short: nn.Module | None = None, act: Activation = None) -> None:
        super().__init__()
        self.body = body
        self.short = nn.Identity() if short is None else short
        self.act = nn.Identity() if act is None else act()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the sum, of the shape that ``body`` gives."""
        y: torch.Tensor = self.act(self.body(x) + self.short(x))
        return y


class Branches(nn.Module):
    """Several ways for one input, their channels one after the other in the output."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``(n, sum of channels, height, width)``."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class Excite(nn.Module):
    """Squeeze and excitation: each channel times a number between 0 and 1 that all channels' means decide."""

    def __init__(
        self, channels: int, inner: int, *, act: Callable[[], nn.Module], gate: Callable[[], nn.Module]
    ) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, inner, 1), act())
        self.excite = nn.Sequential(nn.Conv2d(inner, channels, 1), gate())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the shape of ``x``."""
        scaled: torch.Tensor = x * self.excite(self.squeeze(x))
        return scaled


def divisible(channels: float, *, by: int = 8) -> int:
    """Return the multiple of ``by`` nearest to ``channels``, at least ``by`` and never less than 90 % of it.

    >>> divisible(11.2), divisible(33.6), divisible(22.4)
    (16, 32, 24)
    """
    nearest = max(by, int(channels + by / 2) // by * by)
    return nearest + by if nearest < 0.9 * channels else nearest


def sequence(**parts: nn.Module | None) -> nn.Sequential:
    """Return the parts one after the other under their names; parts that are ``None`` are left out."""
    return nn.Sequential(OrderedDict((name, part) for name, part in parts.items() if part is not None))


def unit(
    channels_in: int,
    channels_out: int,
    kernel: int | tuple[int, int] = 1,
    *,
    stride: int = 1,
    groups: int = 1,
    padded: bool = True,
    norm: bool = True,
    act: Activation = nn.ReLU,
) -> nn.Sequential:
    """Return a convolution with batch norm and perhaps an activation; with a bias in place of the norm if not ``norm``.

    Padded, an image of ``n`` pixels gives ``ceil(n / stride)`` with odd kernels, as many as "same" padding gives.
    """
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (sides[0] // 2, sides[1] // 2) if padded else 0
    return sequence(
        conv=nn.Conv2d(channels_in, channels_out, sides, stride, padding, groups=groups, bias=not norm),
        norm=nn.BatchNorm2d(channels_out) if norm else None,
        act=None if act is None else act(),
    )


def bottleneck(channels_in: int, inner: int, channels_out: int, *, stride: int, groups: int = 1) -> Residual:
    """Return a block of 1x1, 3x3 and 1x1 convolutions whose 3x3 has the stride.

    Its shortcut is a projection where the channels change; where only the size does, it skips pixels.
    """
    short: nn.Module | None = nn.MaxPool2d(1, stride) if stride > 1 else None
    if channels_in != channels_out:
        short = unit(channels_in, channels_out, stride=stride, act=None)
    body = sequence(
        reduce=unit(channels_in, inner),
        filter=unit(inner, inner, 3, stride=stride, groups=groups),
        expand=unit(inner, channels_out, act=None),
    )
    return Residual(body, short=short, act=nn.ReLU)


def inverted(
    channels_in: int,
    inner: int,
    channels_out: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    act: Activation = nn.ReLU6,
    excite: nn.Module | None = None,
) -> nn.Module:
    """Return a block that expands, filters each channel and projects; it adds its input where the shapes agree."""
    body = sequence(
        expand=unit(channels_in, inner, act=act) if inner != channels_in else None,
        filter=unit(inner, inner, kernel, stride=stride, groups=inner, act=act),
        excite=excite,
        project=unit(inner, channels_out, act=None),
    )
    return Residual(body) if stride == 1 and channels_in == channels_out else body


def classifier(channels: int, classes: int = 1000) -> nn.Sequential:
    """Return the mean over all positions of an image and a linear layer."""
    return sequence(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), linear=nn.Linear(channels, classes))
