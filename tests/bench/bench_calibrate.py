"""All calibrators and difficulty scores of ResNet-20 for twelve precisions against a forward pass over 4,000 images, as
many as its data set keeps for calibration.
"""

from __future__ import annotations

from typing import Any

from networks import resnet20
from timing import interleaved_seconds, row

from hwdse.analysis.difficulty import Predictor, measure_difficulty
from hwdse.calibrate import GROUP
from hwdse.capture import capture
from hwdse.formats import Precision, Scheme
from hwdse.plugins import plugin_names
from hwdse.quantize.network import QuantizedNetwork, Setting
from hwdse.quantize.observe import observe
from hwdse.quantize.program import Program
from hwdse.quantize.recipe import Recipe
from hwdse.study.analysis import operand_formats

SAMPLES, OBSERVED, BATCH, REPEATS = 4000, 512, 100, 3
PRECISIONS = (
    *("W8A8", "W6A8", "W4A8", "W3A8", "W2A8", "W4A4"),
    *("Wnf4A8", "Wapot4A8", "Wposit4_0A8", "Wfp4_e2m1A8", "Wcodebook4A8", "Wfp8_e4m3Afp8_e4m3"),
)


def run() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    model, images, kind = resnet20()
    captured = capture(model, images[:2])
    program = Program.of(captured)
    # The distributions hold as many numbers however many images were seen.
    streams = observe(program, images[:OBSERVED].split(BATCH))
    batches = images.repeat(SAMPLES // len(images) + 1, 1, 1, 1)[:SAMPLES].split(BATCH)
    network = QuantizedNetwork(program, scheme=Scheme(), streams=streams, recipe=Recipe(weight_ranges="mse"))
    candidates = [Precision.parse(text) for text in PRECISIONS]
    formats = operand_formats(network, candidates)

    def forward() -> None:
        for batch in batches:
            network.forward(batch, Setting())

    def predictions() -> None:
        predictor = Predictor.of(network)
        for name, chosen in formats.items():
            for number_format in chosen:
                for method in plugin_names(GROUP):
                    predictor.predict(name, number_format, method)
        measure_difficulty(network, candidates, predictor=predictor)

    forward()
    predictions()
    seconds = interleaved_seconds({"forward": forward, "predictions": predictions}, repeats=REPEATS)
    name = (
        f"{len(plugin_names(GROUP))} calibrators and difficulty at {len(candidates)} precisions / a forward pass of "
        f"{SAMPLES} images, ResNet-20 ({kind})"
    )
    return [row(name, seconds["predictions"] / seconds["forward"], unit="x", target=3.0)]


if __name__ == "__main__":
    print(run())  # noqa: T201 (a benchmark prints)
