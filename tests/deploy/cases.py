"""Calibrated networks, translated once, and a processor's profile."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import nn

from hwdse.calibrate import Stream
from hwdse.capture import capture
from hwdse.deploy.onnx import explicit_model
from hwdse.deploy.translate import Translation
from hwdse.formats import Granularity, Precision, Scheme, Symmetry
from hwdse.graph import BitConfig, LayerGraph
from hwdse.quantize.network import QuantizedNetwork
from hwdse.quantize.observe import observe
from hwdse.quantize.program import Program
from hwdse.quantize.recipe import Recipe
from tests import networks

CPU = Scheme(activations=Symmetry.AFFINE, quantized_outputs=True)
BLOCKS = Scheme(weight_granularity=Granularity.PER_BLOCK, block_size=32)
MINMAX = Recipe(activation_ranges="minmax")

PROFILE = """
schema_version = 1
name = "desk"
title = "Desk"
kind = "cpu"
software_stack = "onnxruntime 1.0"
note = "for tests"
batch = 1

[sources]
Lab2024 = "measured in the lab, 2024"

[scheme]
weights = "symmetric"
activations = "affine"
weight_granularity = "per_channel"
full_range = false
unsigned_activations = true
quantized_outputs = true
"""

RATE = """
[[rates]]
weights = "{}"
activations = "{}"
gmac_per_s = {{ value = 10, kind = "measured", source = "Lab2024" }}
"""


def profile_text(*rates: str, contained: Sequence[str] = ()) -> str:
    """Return a processor's profile with rates such as ``int8 int8``; those in ``contained`` run in int8."""
    texts = [RATE.format(*rate.split()) for rate in rates]
    texts += [RATE.format(*rate.split()) + 'container = "int8"\n' for rate in contained]
    return PROFILE + "".join(texts)


class MobileNet(nn.Module):
    """A stem and three inverted residuals with ReLU6, as in MobileNetV2 (Sandler et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = self._unit(3, 16, 3, stride=2)
        self.grow = nn.ModuleList(self._unit(16, 32, 1) for _ in range(3))
        self.depth = nn.ModuleList(self._unit(32, 32, 3, groups=32) for _ in range(3))
        self.shrink = nn.ModuleList(
            nn.Sequential(nn.Conv2d(32, 16, 1, bias=False), nn.BatchNorm2d(16)) for _ in range(3)
        )
        self.head = nn.Linear(16, 10)

    @staticmethod
    def _unit(channels: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
        conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU6())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for grow, depth, shrink in zip(self.grow, self.depth, self.shrink, strict=True):
            x = x + shrink(depth(grow(x)))
        return self.head(x.mean((2, 3)))


class Encoder(nn.Module):
    """One encoder block of width 48: no multiple of a block, and weights that are read in rows of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(48), nn.LayerNorm(48)
        self.query, self.key, self.value, self.out = (nn.Linear(48, 48) for _ in range(4))
        self.grow, self.shrink = nn.Linear(48, 96), nn.Linear(96, 48, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(x)
        q, k, v = (p(y).unflatten(-1, (4, 12)).transpose(1, 2) for p in (self.query, self.key, self.value))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.out(mixed)
        return x + self.shrink(nn.functional.gelu(self.grow(self.norm2(x))))


OWN: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "mobile": (MobileNet, (3, 16, 16)),
    "wide": (Encoder, (7, 48)),
}


def inputs(name: str, count: int, seed: int) -> Any:
    """Return ``count`` random samples of a network."""
    if name in OWN:
        return torch.randn(count, *OWN[name][1], generator=torch.Generator().manual_seed(seed))
    tensors = networks.CASES[name].inputs(count, seed=seed)
    return tensors if len(tensors) > 1 else tensors[0]


@cache
def made(name: str) -> tuple[Program, dict[str, Stream], Translation]:
    """Return a network's program, what its tensors hold, and its translation."""
    if name in OWN:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model = OWN[name][0]().eval()
            for norm in model.modules():
                if isinstance(norm, nn.BatchNorm2d):
                    norm.running_var.uniform_(0.02, 0.2)
        captured = capture(model, inputs(name, 2, 0))
    else:
        captured = networks.captured(name)
    program = Program.of(captured, written=True)
    streams = observe(program, [inputs(name, 16, seed) for seed in (1, 2)])
    return program, streams, Translation.of(program)


def network_of(name: str, scheme: Scheme = CPU) -> QuantizedNetwork:
    program, streams, _ = made(name)
    return QuantizedNetwork(program, scheme=scheme, streams=streams, recipe=MINMAX)


def uniform(graph: LayerGraph, text: str) -> BitConfig:
    return BitConfig({layer.name: Precision.parse(text) for layer in graph.layers})


def cycled(graph: LayerGraph, *texts: str) -> BitConfig:
    """Return a configuration that gives the groups ``texts`` in turn."""
    return graph.config([Precision.parse(texts[g % len(texts)]) for g in range(len(graph.groups))])


def content(name: str, network: QuantizedNetwork, config: BitConfig, **more: Any) -> bytes:
    """Return the ONNX file of a configuration."""
    return explicit_model(made(name)[2], network, config, **more).SerializeToString()
