"""Sensitivity of every (group, candidate) of ResNet-20 against the naive loop of whole forwards."""

from __future__ import annotations

from typing import Any

import torch
from networks import resnet20
from timing import interleaved_seconds, row

from hwdse.analysis.sensitivity import kl, measure_sensitivity
from hwdse.capture import capture
from hwdse.formats import Precision, Scheme
from hwdse.quantize.network import QuantizedNetwork, Setting, observe
from hwdse.quantize.program import Program

SAMPLES, BATCH, REPEATS = 128, 64, 3


def run() -> list[dict[str, Any]]:
    """Return the rows of this benchmark; the naive loop runs on the same fast executor."""
    model, images, kind = resnet20()
    captured = capture(model, images[:2])
    program = Program.of(captured)
    batches = images[:SAMPLES].split(BATCH)
    network = QuantizedNetwork(program, scheme=Scheme(), streams=observe(program, batches))
    candidates = [Precision.parse(text) for text in ("W2A8", "W4A4", "W4A8", "W8A8")]

    def naive() -> torch.Tensor:
        total = torch.zeros(len(captured.groups), len(candidates))
        for batch in batches:
            reference = network.forward(batch, Setting())
            for g, group in enumerate(captured.groups):
                for c, candidate in enumerate(candidates):
                    setting = network.setting(dict.fromkeys(group.layers, candidate))
                    total[g, c] += kl(reference, network.forward(batch, setting)).sum()
        return total

    def reused() -> object:
        return measure_sensitivity(network, batches, candidates=candidates, methods=("kl",))

    reused()  # quantizes the weights, which both need
    seconds = interleaved_seconds({"naive": naive, "reused": reused}, repeats=REPEATS)
    name = f"sensitivities with the prefix reused / naive loop, ResNet-20 ({kind}), {len(candidates)} candidates"
    return [row(name, seconds["reused"] / seconds["naive"], unit="x", target=0.6)]
