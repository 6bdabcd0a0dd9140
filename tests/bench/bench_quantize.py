"""One quantized evaluation of ResNet-20 against a plain eager fp32 forward of the original module."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from networks import resnet20
from timing import interleaved_seconds, row

from hwdse.capture import capture
from hwdse.formats import Precision, Scheme
from hwdse.quantize.network import QuantizedNetwork
from hwdse.quantize.observe import observe
from hwdse.quantize.program import Program

BATCHES = (16, 32, 64, 128, 256)
REPEATS = 9


def run() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    model, images, kind = resnet20()
    captured = capture(model, images[:2])
    program = Program.of(captured)
    network = QuantizedNetwork(program, scheme=Scheme(), streams=observe(program, images[:256].split(64)))
    mixed = [Precision.parse(text) for text in ("W8A8", "W4A8", "W4A4")]
    precisions = {layer.name: mixed[i % 3] for i, layer in enumerate(captured.layers)}

    def quantized(batch: int) -> None:
        setting = network.setting(precisions)
        for part in images.split(batch):
            network.forward(part, setting)

    def eager(batch: int) -> None:
        with torch.inference_mode():
            for part in images.split(batch):
                model(part)

    functions: dict[str, Callable[[], object]] = {}
    for batch in BATCHES:
        functions[f"quantized {batch}"] = partial(quantized, batch)
        functions[f"eager {batch}"] = partial(eager, batch)
    seconds = interleaved_seconds(functions, repeats=REPEATS)
    best = {side: min(seconds[f"{side} {batch}"] for batch in BATCHES) for side in ("quantized", "eager")}
    name = f"quantized candidate / eager fp32, ResNet-20 ({kind}), {len(images)} images"
    return [
        row(f"{name}, batch 128", seconds["quantized 128"] / seconds["eager 128"], unit="x", target=0.95),
        row(f"{name}, each at its best batch", best["quantized"] / best["eager"], unit="x", target=1.0),
    ]
