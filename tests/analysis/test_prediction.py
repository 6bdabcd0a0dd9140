"""Predicted SQNR of real networks' tensors against rounding them, every format with every calibrator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hwdse.analysis.difficulty import Prediction, Predictor
from hwdse.calibrate import GROUP, Stream
from hwdse.capture import capture
from hwdse.errors import InputError
from hwdse.factories import load_factory
from hwdse.formats import Scheme, parse
from hwdse.plugins import plugin_names
from hwdse.quantize.network import QuantizedNetwork, Setting
from hwdse.quantize.program import Program
from hwdse.quantize.weights import scale_rows

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
NETWORKS = {
    "resnet20": ("cifar10", [0]),
    "dscnn": ("kws", [0]),
    "stories260k": ("stories260k", [0, 1]),
}
FORMATS = (
    *("int2", "int3", "int4", "int6", "int8", "int16", "nf4", "apot4", "pot4", "posit4_0", "posit8_0", "posit8_1"),
    *("fp4_e2m1", "fp6_e2m3", "fp6_e3m2", "fp8_e4m3", "fp8_e5m2", "bf16", "fp16", "ternary", "binary"),
    *("codebook4", "quantile4"),
)
LOSSLESS_DB = 80.0  # beyond, float32 itself makes the difference


class Keep:
    """Stands where a quantizer would and keeps what passes."""

    is_unsigned = False

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x.clone())
        return x

    apply_ = __call__


def rounded_sqnr_db(rows: NDArray[np.float64], prediction: Prediction) -> float:
    """Return the SQNR of rounding ``(rows, n)`` to the nearest value of the predicted grid, found by its midpoints."""
    values = prediction.levels.values
    noise = 0.0
    for x, scale, zero_point in zip(rows, prediction.scale, prediction.zero_point, strict=True):
        grid = (values - zero_point) * scale
        noise += float(((grid[np.searchsorted((grid[1:] + grid[:-1]) / 2, x)] - x) ** 2).sum())
    return 10.0 * float(np.log10((rows**2).sum() / noise)) if noise else float("inf")


@pytest.fixture(scope="module", params=NETWORKS)
def calibrated(request: pytest.FixtureRequest) -> tuple[QuantizedNetwork, dict[str, NDArray[np.float64]]]:
    """Return a network that has seen one batch, and what its layers read."""
    data, dynamic_dims = NETWORKS[request.param]
    try:
        model, example = (
            load_factory(f"models.py:{request.param}{what}", folder=EXPERIMENTS)() for what in ("", "_example")
        )
        batch = load_factory(f"data.py:{data}_calibration", folder=EXPERIMENTS)()[0]
    except InputError as error:
        pytest.skip(str(error))
    program = Program.of(capture(model, example, dynamic_dims=dynamic_dims))
    keepers = {point: Keep() for point in program.points}
    QuantizedNetwork(program, scheme=Scheme(), streams={}).forward(batch, Setting(quantizers=keepers))
    streams = {point: Stream() for point in program.points}
    for point, keeper in keepers.items():
        streams[point].add(keeper.seen[0])
    seen = {point: keeper.seen[0].double().reshape(1, -1).numpy() for point, keeper in keepers.items()}
    return QuantizedNetwork(program, scheme=Scheme(), streams=streams), seen


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "tolerance_db"), [("weight", 0.3), ("activation", 0.5)])
def test_tensors_lose_what_was_predicted(calibrated, kind: str, tolerance_db: float) -> None:
    network, seen = calibrated
    predictor = Predictor.of(network)
    for name, weight in network.program.folded.items():
        (rows,) = scale_rows(weight.detach().double(), network.scheme, axis=network.weight_axis(name))
        seen[name] = rows.numpy()
    missed, count = [], 0
    for name, operand in predictor.operands.items():
        for text in FORMATS if operand.kind == kind else ():
            for method in plugin_names(GROUP):
                prediction = predictor.predict(name, parse(text), method)
                measured = rounded_sqnr_db(seen[name], prediction)
                count += 1
                if min(prediction.sqnr_db, measured) < LOSSLESS_DB:
                    missed += [(name, text, method)] * (abs(prediction.sqnr_db - measured) > tolerance_db)
    assert count > 1000
    assert len(missed) <= 0.05 * count, missed[:20]
