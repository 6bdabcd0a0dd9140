"""The yardstick of sensitivities: a whole quantized forward pass over all samples for every (group, candidate)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from networks import EXPERIMENTS, resnet20

from hwdse.analysis.sensitivity import first_tensor, kl
from hwdse.capture import capture
from hwdse.errors import InputError
from hwdse.factories import load_factory
from hwdse.formats import Precision, Scheme
from hwdse.quantize.network import QuantizedNetwork, Setting
from hwdse.quantize.observe import observe
from hwdse.quantize.program import Program

CANDIDATES = tuple(map(Precision.parse, ("W2A8", "W4A4", "W4A8", "W8A8")))

Scores = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Case:
    """A calibrated network with its calibration batches; ranks mean nothing where it is not trained."""

    name: str
    network: QuantizedNetwork
    batches: list[torch.Tensor]
    is_trained: bool

    def naive(self) -> Scores:
        """Return the KL divergence at the output, ``(groups, candidates)``, the slow way on the same fast executor."""
        groups = self.network.captured.groups
        total = np.zeros((len(groups), len(CANDIDATES)))
        for batch in self.batches:
            reference = first_tensor(self.network.forward(batch, Setting()))
            for g, group in enumerate(groups):
                for c, candidate in enumerate(CANDIDATES):
                    setting = self.network.setting(dict.fromkeys(group.layers, candidate))
                    total[g, c] += float(kl(reference, first_tensor(self.network.forward(batch, setting))).sum())
        return total / sum(len(batch) for batch in self.batches)


def cases() -> Iterator[Case]:
    """Yield ResNet-20, and the DS-CNN where its weights and data are."""
    model, images, kind = resnet20()
    is_trained = kind == "trained"
    if is_trained:
        batches = load_factory("data.py:cifar10_calibration", folder=EXPERIMENTS)()[:4]
    else:
        batches = list(images[:256].split(64))
    yield Case("ResNet-20", _network(model, batches), batches, is_trained)
    try:
        model = load_factory("models.py:dscnn", folder=EXPERIMENTS)()
        batches = load_factory("data.py:kws_calibration", folder=EXPERIMENTS)()
    except InputError:
        return
    yield Case("DS-CNN", _network(model, batches), batches, is_trained=True)


def _network(model: torch.nn.Module, batches: list[torch.Tensor]) -> QuantizedNetwork:
    program = Program.of(capture(model, batches[0][:2]))
    return QuantizedNetwork(program, scheme=Scheme(), streams=observe(program, batches))
