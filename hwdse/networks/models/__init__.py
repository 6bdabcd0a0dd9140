"""The reference networks as modules with random weights: what they compute means nothing, what it costs does."""

from __future__ import annotations

import math

import torch
from torch import nn

from hwdse.errors import InputError
from hwdse.hardware.faults import closest
from hwdse.networks.models import (
    efficientnet,
    inception,
    mobilenet,
    regnet,
    repvgg,
    resnet,
    shufflenet,
    squeezenet,
    tiny,
    vit,
)
from hwdse.networks.models.parts import Entry

__all__ = ["NETWORKS", "Entry", "build"]

NETWORKS: dict[str, Entry] = {
    **efficientnet.NETWORKS,
    **inception.NETWORKS,
    **mobilenet.NETWORKS,
    **regnet.NETWORKS,
    **repvgg.NETWORKS,
    **resnet.NETWORKS,
    **shufflenet.NETWORKS,
    **squeezenet.NETWORKS,
    **tiny.NETWORKS,
    **vit.NETWORKS,
}

SEED = 0


def build(name: str) -> tuple[nn.Module, torch.Tensor]:
    """Return the network ``name`` in evaluation mode and an example of its input with a batch of 1.

    Weights are drawn from a fixed seed, so that values keep their size through a network without trained norms; biases
    are 0.

    Raises
    ------
    InputError
        If there is no such network.
    """
    if name not in NETWORKS:
        raise InputError(f"expected a reference network, got {name!r}; {closest(name, sorted(NETWORKS))}")
    entry = NETWORKS[name]
    generator = torch.Generator().manual_seed(SEED)
    model = entry.builder()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            deviation = math.sqrt(2.0 / module.weight[0].numel())
            nn.init.normal_(module.weight, 0.0, deviation, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model.eval(), torch.randn(1, *entry.shape, generator=generator)
