"""What `hwdse analyze` finds out about a network: tensors, difficulties, and what each score is worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwdse.analysis.correlation import correlation_table
from hwdse.analysis.difficulty import Prediction, Predictor, bits_needed, family_name, width_family
from hwdse.analysis.operands import Operand, first_readers
from hwdse.analysis.scores import distribution_scores
from hwdse.analysis.sensitivity import Sensitivity, measure_sensitivity
from hwdse.analysis.statistics import Statistics, statistics_of, statistics_of_weight
from hwdse.calibrate import GROUP, Points
from hwdse.formats import FP32, Granularity, NumberFormat, Precision
from hwdse.plugins import plugin_names
from hwdse.progress import Progress
from hwdse.quantize.batch import samples_in
from hwdse.quantize.network import QuantizedNetwork

__all__ = [
    "bits_needed_table",
    "channel_statistics_table",
    "difficulty_table",
    "histograms_table",
    "operand_formats",
    "sampled_sensitivity",
    "score_correlations",
    "statistics_table",
]

Floats = NDArray[np.float64]

BINS = 256
_SENSITIVITY_SAMPLES = 256
TARGETS_DB = (20.0, 30.0, 40.0)
VALUE, SHARE = "value", "share of channel maximum"


def _features(network: QuantizedNetwork, *, channels: bool) -> Iterator[tuple[str, str, str, Statistics]]:
    """Yield name, kind, first reader and features of every operand, weights first; tensors or their channels."""
    readers = first_readers(network)
    for name, weight in network.program.folded.items():
        found = statistics_of_weight(weight, network.weight_axis(name))
        yield name, "weight", readers[name], found[channels]
    for name, stream in network.streams.items():
        if not channels:
            yield name, "activation", readers[name], statistics_of(stream.tensor, stream.moments)
        elif stream.channels is not None and stream.channel_moments is not None:
            yield name, "activation", readers[name], statistics_of(stream.channels, stream.channel_moments)


def statistics_table(network: QuantizedNetwork) -> pd.DataFrame:
    """Return one row per weight and per activation tensor that a layer reads, a column per feature."""
    rows: list[dict[str, Any]] = []
    for name, kind, layer, features in _features(network, channels=False):
        values = {feature: column[0] for feature, column in asdict(features).items()}
        rows.append({"tensor": name, "kind": kind, "layer": layer, **values})
    return pd.DataFrame(rows)


def channel_statistics_table(network: QuantizedNetwork) -> pd.DataFrame:
    """Return one row per output channel of a weight and per channel of an activation tensor, a column per feature."""
    tables = []
    for name, kind, layer, features in _features(network, channels=True):
        table = pd.DataFrame(asdict(features))
        table.insert(0, "channel", np.arange(len(table)))
        for column, value in (("layer", layer), ("kind", kind), ("tensor", name)):
            table.insert(0, column, value)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def histograms_table(network: QuantizedNetwork, operands: Mapping[str, Operand]) -> pd.DataFrame:
    """Return where the values of every operand lie: at most 256 bins each, and exact zeros in a bin without a width.

    Weights with more than one scale are in units of the largest magnitude of what shares a scale.
    """
    tables = []
    for name, operand in operands.items():
        if operand.kind == "weight":
            left, right, counts, zeros = _weight_histogram(operand)
        else:
            histogram = network.streams[name].tensor.coarse(BINS)
            edges, counts = histogram.edges[0], histogram.counts[0].astype(np.float64)
            left, right, zeros = edges[:-1], edges[1:], float(histogram.zeros[0])
        kept = counts > 0
        table = pd.DataFrame({"left": left[kept], "right": right[kept], "count": counts[kept]})
        if zeros:
            table.loc[len(table)] = [0.0, 0.0, zeros]
        table.insert(0, "layer", operand.layer)
        table.insert(0, "kind", operand.kind)
        table.insert(0, "tensor", name)
        table["unit"] = _unit(operand)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _unit(operand: Operand) -> str:
    return SHARE if operand.rows > 1 else VALUE


def _weight_histogram(operand: Operand) -> tuple[Floats, Floats, Floats, float]:
    """Return left and right edges, counts and exact zeros of a weight."""
    values = np.concatenate([_in_units(table, units) for table, units in _with_units(operand)])
    counts, edges = np.histogram(values[values != 0.0], bins=BINS)
    return edges[:-1], edges[1:], counts.astype(np.float64), float((values == 0.0).sum())


def _with_units(operand: Operand) -> Iterator[tuple[Points, Floats]]:
    """Yield the tables of a weight, each with what one unit of each row's values is, ``(rows,)``."""
    for table in operand.tables:
        assert isinstance(table, Points)
        yield table, _units(table.largest, operand)


def _in_units(table: Points, units: Floats) -> Floats:
    shares: Floats = table.values.double().numpy() / units[:, None]  # noqa: PD011 (a tensor, not a table)
    return shares.ravel()


def _units(largest: Floats, operand: Operand) -> Floats:
    return np.where(largest > 0.0, largest, 1.0) if _unit(operand) == SHARE else np.ones_like(largest)


def operand_formats(network: QuantizedNetwork, candidates: Sequence[Precision]) -> dict[str, tuple[NumberFormat, ...]]:
    """Return the formats that some candidate gives to each operand, by the operand's name."""
    weights = tuple(dict.fromkeys(c.weights for c in candidates if c.weights != FP32))
    activations = tuple(dict.fromkeys(c.activations for c in candidates if c.activations != FP32))
    found = dict.fromkeys(network.program.folded, weights)
    for point in network.streams:
        found[point] = weights if point.endswith(".second") else activations
    return found


def difficulty_table(
    predictor: Predictor,
    formats: Mapping[str, Sequence[NumberFormat]],
    *,
    units: Mapping[str, Operand] | None = None,
    methods: Sequence[str] | None = None,
    on_operand: Callable[[], None] | None = None,
) -> pd.DataFrame:
    """Return one row per (operand, format, calibrator): the grid, and what it is predicted to do.

    Ends of the grid and scale are means over what shares a scale, in the unit of :func:`histograms_table`.

    Parameters
    ----------
    predictor
        Operands under one scheme.
    formats
        Formats by operand.
    units
        Operands whose histograms are shown, if they are not those of ``predictor``: another scheme's.
    methods
        Names of calibrators; all that are installed by default.
    on_operand
        Called after each operand.
    """
    rows = []
    for name, chosen in formats.items():
        operand = predictor.operands[name]
        shown = (units or predictor.operands)[name]
        for number_format in chosen:
            for method in methods or plugin_names(GROUP):
                prediction = predictor.predict(name, number_format, method)
                grid = _mean_grid(prediction, _units(shown.largest, shown))
                rows.append(
                    {
                        "scheme": predictor.scheme.key,
                        "tensor": name,
                        "kind": operand.kind,
                        "layer": operand.layer,
                        "format": prediction.levels.number_format.name,
                        "bits": number_format.bits,
                        "calibrator": method,
                        **grid,
                        "levels": _learned(prediction, grid["scale"]),
                        "mse_predicted": prediction.mean_square_error,
                        "sqnr_db_predicted": prediction.sqnr_db,
                        "sqnr_db_closed_form": prediction.sqnr_db_closed_form,
                    }
                )
        if on_operand is not None:
            on_operand()
    return pd.DataFrame(rows)


def _mean_grid(prediction: Prediction, units: Floats) -> dict[str, float]:
    """Return both ends of the grid, scale and zero point, the means over the rows."""
    low, high = prediction.low, prediction.high
    if prediction.levels.lowest is not None and prediction.levels.highest is not None:
        codes = prediction.levels.lowest, prediction.levels.highest
        low, high = ((code - prediction.zero_point) * prediction.scale for code in codes)
    if units.size not in {1, prediction.scale.size} and prediction.scale.size > 1:
        units = np.array([units.mean()])  # another scheme's rows
    means = {"low": low / units, "high": high / units, "scale": prediction.scale / units}
    means["zero_point"] = prediction.zero_point
    return {name: float(np.mean(values)) for name, values in means.items()}


def _learned(prediction: Prediction, scale: float) -> str:
    """Return the levels of a learned format with their scale, separated by spaces; nothing for the others."""
    return " ".join(f"{value * scale:.6g}" for value in prediction.levels.learned)


def bits_needed_table(
    predictor: Predictor, formats: Mapping[str, Sequence[NumberFormat]], *, method: str = "mse"
) -> pd.DataFrame:
    """Return one row per (operand, family): the bits that it needs for an SQNR of 20, 30 and 40 dB.

    A family is known by one of its members among ``formats``; infinite where no width is enough.
    """
    rows = []
    for name, chosen in formats.items():
        operand = predictor.operands[name]
        for family, member in {family_name(f): f for f in chosen if len(width_family(f)) > 1}.items():
            needed = {
                f"bits_for_{target:g}_db_predicted": bits_needed(predictor, name, member, method, sqnr_db=target)
                for target in TARGETS_DB
            }
            rows.append(
                {
                    "scheme": predictor.scheme.key,
                    "tensor": name,
                    "kind": operand.kind,
                    "layer": operand.layer,
                    "family": family,
                    "calibrator": method,
                    **needed,
                }
            )
    return pd.DataFrame(rows)


def score_correlations(
    network: QuantizedNetwork, predictor: Predictor, sensitivity: Sensitivity, *, seed: int
) -> pd.DataFrame:
    """Return how well every score ranks groups and candidates by the KL divergence that they were measured to cause.

    The other measured sensitivities stand among the scores: they cost as much as the KL divergence itself.
    """
    by_channel = predictor.scheme.weight_granularity is not Granularity.PER_TENSOR
    statistics = {
        name: features
        for channels in (False, by_channel)
        for name, kind, _, features in _features(network, channels=channels)
        if kind == "weight" or not channels
    }
    scores = distribution_scores(network, predictor, statistics, candidates=sensitivity.candidates)
    scores |= {"sqnr_db (measured)": -sensitivity.scores["sqnr_db"]}
    table = correlation_table(
        scores, sensitivity.scores["kl"], candidates=sensitivity.candidates, rng=np.random.default_rng(seed)
    )
    table.insert(1, "scheme", predictor.scheme.key)
    return table


def sampled_sensitivity(
    network: QuantizedNetwork,
    batches: Sequence[Any],
    candidates: tuple[Precision, ...],
    *,
    progress: Progress,
) -> Sensitivity:
    """Return divergence and SQNR at the output on the first 256 calibration samples, in whole batches."""
    sample = _first_samples(batches, _SENSITIVITY_SAMPLES)
    progress.start("sensitivity", len(sample))
    return measure_sensitivity(network, sample, candidates=candidates, on_batch=progress.advance)


def _first_samples(batches: Sequence[Any], samples: int) -> list[Any]:
    """Return the first batches that together hold at least ``samples`` samples, or all."""
    taken, count = [], 0
    for batch in batches:
        if count >= samples:
            break
        taken.append(batch)
        count += samples_in(batch)
    return taken
