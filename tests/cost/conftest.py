"""The four MLPerf Tiny networks and ResNet-18 and -50, written from their published architecture tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import pytest

from hwdse.graph import Layer, LayerGraph, LiveSet, Tensor, tie
from tests import profiles
from tests.profiles import figure


@dataclass
class Chain:
    """Layers that read one another in a line, or a named earlier output."""

    shape: tuple[int, ...]
    layers: list[Layer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tensor = "input"
        self.shapes = {"input": self.shape}

    def conv(
        self, outputs: int, kernel: int | tuple[int, int], *, stride: int = 1, groups: int = 1, after: str = ""
    ) -> str:
        source = after or self.tensor
        c, h, w = self.shapes[source]
        k = (kernel, kernel) if isinstance(kernel, int) else kernel
        shape = (outputs, -(-h // stride), -(-w // stride))
        weights = (outputs, c // groups, *k)
        name = f"conv{len(self.layers)}"
        return self._add(
            Layer(
                name, "conv", source, f"{name}_out", (c, h, w), shape, prod(weights) * prod(shape[1:]),
                f"{name}.weight", weights, outputs, k, (stride, stride), groups,
            )
        )  # fmt: skip

    def linear(self, outputs: int, *, inputs: int = 0) -> str:
        n = inputs or prod(self.shapes[self.tensor])
        name = f"linear{len(self.layers)}"
        weights = (outputs, n)
        return self._add(
            Layer(
                name,
                "linear",
                self.tensor,
                f"{name}_out",
                (n,),
                (outputs,),
                n * outputs,
                f"{name}.weight",
                weights,
                outputs,
            )
        )

    def _add(self, layer: Layer) -> str:
        self.layers.append(layer)
        self.shapes[layer.output] = layer.output_shape
        self.tensor = layer.output
        return layer.output

    def graph(self) -> LayerGraph:
        readers: dict[str, str] = {}
        for layer in self.layers:
            readers.setdefault(layer.input, layer.name)
        tensors = tuple(Tensor(name, shape, readers.get(name)) for name, shape in self.shapes.items())
        live = tuple(LiveSet(layer.name, (layer.input, layer.output)) for layer in self.layers)
        writers = {layer.output: i for i, layer in enumerate(self.layers)}
        edges = tuple((writers[layer.input], i) for i, layer in enumerate(self.layers) if layer.input in writers)
        return LayerGraph(tuple(self.layers), tensors, tie(self.layers), edges, live)


def resnet8() -> LayerGraph:
    net = Chain((3, 32, 32))
    net.conv(16, 3)
    net.conv(16, 3)
    block = net.conv(16, 3)
    for channels in (32, 64):
        net.conv(channels, 3, stride=2, after=block)
        main = net.conv(channels, 3)
        net.conv(channels, 1, stride=2, after=block)
        block = main
    net.tensor = block
    net.linear(10, inputs=64)
    return net.graph()


def ds_cnn() -> LayerGraph:
    net = Chain((1, 49, 10))
    net.conv(64, (10, 4), stride=2)
    for _ in range(4):
        net.conv(64, 3, groups=64)
        net.conv(64, 1)
    net.linear(12, inputs=64)
    return net.graph()


def mobilenet_v1_025() -> LayerGraph:
    net = Chain((3, 96, 96))
    net.conv(8, 3, stride=2)
    channels = 8
    for outputs, stride in [(16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2), (256, 1)]:
        net.conv(channels, 3, stride=stride, groups=channels)
        net.conv(outputs, 1)
        channels = outputs
    net.linear(2, inputs=256)
    return net.graph()


def autoencoder() -> LayerGraph:
    net = Chain((640,))
    for outputs in (128, 128, 128, 128, 8, 128, 128, 128, 128, 640):
        net.linear(outputs)
    return net.graph()


def resnet18() -> LayerGraph:
    net = Chain((3, 224, 224))
    net.conv(64, 7, stride=2)
    net.shapes["pooled"] = (64, 56, 56)
    block = "pooled"
    for stage, channels in enumerate((64, 128, 256, 512)):
        for repeat in range(2):
            stride = 2 if stage and not repeat else 1
            net.conv(channels, 3, stride=stride, after=block)
            main = net.conv(channels, 3)
            if stride == 2:
                net.conv(channels, 1, stride=2, after=block)
            block = main
    net.tensor = block
    net.linear(1000, inputs=512)
    return net.graph()


def resnet50() -> LayerGraph:
    net = Chain((3, 224, 224))
    net.conv(64, 7, stride=2)
    net.shapes["pooled"] = (64, 56, 56)
    block = "pooled"
    for stage, (channels, repeats) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for repeat in range(repeats):
            stride = 2 if stage and not repeat else 1
            net.conv(channels, 1, after=block)
            net.conv(channels, 3, stride=stride)
            main = net.conv(4 * channels, 1)
            if not repeat:
                net.conv(4 * channels, 1, stride=stride, after=block)
            block = main
    net.tensor = block
    net.linear(1000, inputs=2048)
    return net.graph()


@pytest.fixture(scope="session")
def mlperf_tiny() -> dict[str, LayerGraph]:
    return {"resnet8": resnet8(), "ds_cnn": ds_cnn(), "mobilenet": mobilenet_v1_025(), "autoencoder": autoencoder()}


@pytest.fixture(scope="session")
def resnets() -> dict[str, LayerGraph]:
    return {"resnet18": resnet18(), "resnet50": resnet50()}


@pytest.fixture
def chain() -> Callable[[Sequence[int]], Chain]:
    return lambda shape: Chain(tuple(shape))


@pytest.fixture
def processor() -> dict[str, Any]:
    """Return a profile of a processor's runtime in which every sort of time is a digit of its own."""
    return profiles.processor(
        scheme={
            "weights": "symmetric",
            "activations": "affine",
            "weight_granularity": "per_channel",
            "full_range": False,
            "unsigned_activations": True,
        },
        rates=[
            {"weights": "fp32", "activations": "fp32", "gmac_per_s": figure(50)},
            {"weights": "int8", "activations": "int8", "gmac_per_s": figure(200)},
            {"weights": "int4", "activations": "int8", "gmac_per_s": figure(200), "container": "int8"},
        ],
        conversions=[
            {"from": "fp32", "to": "int8", "us": figure(10)},
            {"from": "int8", "to": "fp32", "us": figure(1000)},
        ],
        nodes=[
            {"operator": "add", "activations": "fp32", "us": figure(0.1)},
            {"operator": "add", "activations": "int8", "us": figure(0.01)},
            {"operator": "relu", "activations": "fp32", "us": figure(0.001)},
            {"operator": "global_avg_pool", "activations": "fp32", "us": figure(0.0001)},
        ],
    )
