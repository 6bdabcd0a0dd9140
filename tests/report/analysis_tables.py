"""A synthetic analysis folder: random tensors of known distributions, calibrated and quantized with plain numpy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hwdse.formats import parse

WEIGHT_FORMATS = ("int8", "int4", "nf4", "posit8_0", "fp8_e4m3", "apot4", "pot4", "ternary", "codebook4")
ACTIVATION_FORMATS = ("uint8", "uint4", "posit8_0", "fp8_e4m3", "codebook4")
CALIBRATORS = ("minmax", "ema", "percentile", "entropy", "mse", "l2.4", "aciq_gauss", "aciq_laplace")
BINS = 254
GAUSS = {1: 1.24, 2: 1.711, 3: 2.152, 4: 2.559, 5: 2.936, 6: 3.287, 7: 3.615, 8: 3.924}
LAPLACE = {1: 1.863, 2: 2.831, 3: 3.897, 4: 5.029, 5: 6.205, 6: 7.413, 7: 8.646, 8: 9.897}
SCHEME = "w-symmetric-per_channel-restricted.a-symmetric-unsigned"


def quantized(values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Return the nearest value of ``grid`` for each of ``values``."""
    return grid[np.searchsorted((grid[:-1] + grid[1:]) / 2, values)]


def sqnr_db(values: np.ndarray, grid: np.ndarray) -> float:
    noise = np.square(values - quantized(values, grid)).sum()
    return float(10 * np.log10(np.square(values).sum() / noise)) if noise else float("inf")


def lloyd(values: np.ndarray, count: int) -> np.ndarray:
    levels = np.quantile(values, (np.arange(count) + 0.5) / count)
    for _ in range(20):
        place = np.searchsorted((levels[:-1] + levels[1:]) / 2, values)
        sums, sizes = np.bincount(place, values, count), np.bincount(place, minlength=count)
        levels = np.where(sizes > 0, sums / np.maximum(sizes, 1), levels)
    return levels


def listed(name: str, *, weights: bool) -> tuple[np.ndarray, float]:
    """Return the values in use at scale 1 and the one at which the end of a range is placed."""
    values = parse(name).values  # noqa: PD011  (a number format's, not a table's)
    values = values[np.abs(values) <= values[-1]] if weights else values
    return values, 1.0 if name.startswith("posit") else float(values[-1])


def clip(calibrator: str, values: np.ndarray, grid: np.ndarray, anchor: float, bits: int) -> float:
    """Return the end of the range that a calibrator keeps."""
    sizes = np.abs(values)
    if calibrator in ("mse", "l2.4"):
        power = 2.0 if calibrator == "mse" else 2.4
        ends = sizes.max() * np.linspace(0.1, 1.0, 30)
        losses = [np.power(np.abs(values - quantized(values, grid * end / anchor)), power).sum() for end in ends]
        return float(ends[int(np.argmin(losses))])
    known = min(max(bits, 1), 8)
    ends_by_name = {
        "minmax": sizes.max(),
        "ema": 0.9 * sizes.max(),
        "percentile": np.quantile(sizes, 0.999),
        "entropy": np.quantile(sizes, 0.995),
        "aciq_gauss": GAUSS[known] * values.std(),
        "aciq_laplace": LAPLACE[known] * np.abs(values - values.mean()).mean(),
    }
    return float(ends_by_name[calibrator])


def bins(values: np.ndarray) -> pd.DataFrame:
    """Return the histogram of ``values``: bins that are not empty, and exact zeros in a row of their own."""
    counts, edges = np.histogram(values[values != 0], BINS)
    table = pd.DataFrame({"left": edges[:-1], "right": edges[1:], "count": counts}).query("count > 0")
    zeros = pd.DataFrame({"left": [0.0], "right": [0.0], "count": [int((values == 0).sum())]}).query("count > 0")
    return pd.concat([zeros, table])


def difficulty(
    values: np.ndarray, formats: Sequence[str], calibrators: Sequence[str], *, weights: bool
) -> pd.DataFrame:
    rows = []
    for name in formats:
        bits = parse(name).bits
        if parse(name).is_learned:
            levels = lloyd(values, 2**bits)
            rows.append({"format": name, "bits": bits, "calibrator": "lloyd", "low": levels[0], "high": levels[-1],
                         "scale": 1.0, "zero_point": 0, "levels": " ".join(map(repr, levels.tolist())),
                         "sqnr_db_predicted": sqnr_db(values, levels)})  # fmt: skip
            continue
        grid, anchor = listed(name, weights=weights)
        for calibrator in calibrators:
            end = clip(calibrator, values, grid, anchor, bits)
            rows.append({"format": name, "bits": bits, "calibrator": calibrator, "low": -end if grid[0] < 0 else 0.0,
                         "high": end, "scale": end / anchor, "zero_point": 0, "levels": "",
                         "sqnr_db_predicted": sqnr_db(values, grid * end / anchor)})  # fmt: skip
    return pd.DataFrame(rows)


def weight_values(rng: np.random.Generator, place: int, samples: int) -> np.ndarray:
    """Return weights as shares of their channel's maximum: Gauss, Laplace or Student in turn."""
    shape = (16, samples // 16)
    draws = (rng.normal(size=shape), rng.laplace(size=shape), rng.standard_t(5, shape))[place % 3]
    return (draws / np.abs(draws).max(axis=1, keepdims=True)).reshape(-1)


def activation_values(rng: np.random.Generator, place: int, samples: int) -> np.ndarray:
    """Return activations after a ReLU, of growing tails."""
    return np.maximum(rng.standard_t(4 + 40 / (1 + place), samples) - 0.3, 0.0) * 0.8**place


def layer_names(count: int) -> list[str]:
    inner = [f"layer{1 + i // 6}.{i % 6 // 2}.conv{1 + i % 2}" for i in range(count - 2)]
    return ["conv1", *inner, "linear"]


def correlation_table(rng: np.random.Generator, schemes: Sequence[str]) -> pd.DataFrame:
    scores = ("sqnr_db", "mse", "kurtosis", "clipped_share", "entropy_bits", "omega", "weight_range", "channel_spread")
    rows = []
    for scheme in schemes:
        for pool in ("all", "within"):
            for place, score in enumerate(scores):
                tau = np.clip(0.8 - 0.2 * place + rng.normal(0, 0.05) - 0.2 * (pool == "within"), -0.9, 0.9)
                rho, half = np.sin(np.pi / 2 * tau), rng.uniform(0.05, 0.2)
                rows.append({"score": score, "scheme": scheme, "pool": pool,
                             "kendall": tau, "kendall_low": max(tau - half, -1), "kendall_high": min(tau + half, 1),
                             "spearman": rho, "spearman_low": max(rho - half, -1),
                             "spearman_high": min(rho + half, 1), "pairs": 88, "groups": 22})  # fmt: skip
    return pd.DataFrame(rows)


def write_analysis(
    folder: Path,
    *,
    layers: int = 4,
    samples: int = 2048,
    weight_formats: Sequence[str] = WEIGHT_FORMATS,
    activation_formats: Sequence[str] = ACTIVATION_FORMATS,
    calibrators: Sequence[str] = CALIBRATORS,
    schemes: Sequence[str] = (SCHEME,),
    product: bool = False,
) -> Path:
    """Write the tables; with ``product`` the last but one layer multiplies two activations."""
    rng = np.random.default_rng(5)
    names = layer_names(layers)
    rows, histograms, scores = [], [], []

    def add(tensor: str, kind: str, layer: str, values: np.ndarray) -> None:
        unit = "share of channel maximum" if kind == "weight" else "value"
        histograms.append(bins(values).assign(tensor=tensor, kind=kind, layer=layer, unit=unit))
        formats = weight_formats if kind == "weight" else activation_formats
        table = difficulty(values, formats, calibrators, weights=kind == "weight")
        scores.extend(table.assign(scheme=scheme, tensor=tensor, kind=kind, layer=layer) for scheme in schemes)

    for place, name in enumerate(names):
        is_product = product and place == layers - 2
        rows.append({"layer": name, "group": name, "op_class": "matmul" if is_product else "conv",
                     "macs": 442368 << place % 5, "weight_count": 0 if is_product else samples, "bias_count": 16,
                     "input": f"relu_{place}", "output": f"relu_{place + 1}"})  # fmt: skip
        if is_product:
            add(f"{name}.second", "activation", name, activation_values(rng, 1, samples))
        else:
            add(f"{name}.weight", "weight", name, weight_values(rng, place, samples))
        add(f"relu_{place}", "activation", name, activation_values(rng, place, samples))
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / "layers.csv", index=False)
    columns = ["tensor", "kind", "layer", "left", "right", "count", "unit"]
    pd.concat(histograms)[columns].to_csv(folder / "histograms.csv", index=False)
    columns = ["scheme", "tensor", "kind", "layer", "format", "bits", "calibrator", "low", "high", "scale",
               "zero_point", "levels", "mse_predicted", "sqnr_db_predicted", "sqnr_db_closed_form"]  # fmt: skip
    pd.concat(scores).assign(mse_predicted=0.0, sqnr_db_closed_form="")[columns].to_csv(
        folder / "difficulty.csv", index=False
    )
    correlation_table(rng, schemes).to_csv(folder / "correlation.csv", index=False)
    return folder
