"""Scores of every (group, candidate) that need no quantized network: what difficulty is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hwdse.analysis.difficulty import Predictor, by_group
from hwdse.analysis.operands import layer_operands
from hwdse.analysis.statistics import Statistics
from hwdse.formats import FP32, Precision
from hwdse.graph import Layer
from hwdse.quantize.network import QuantizedNetwork

__all__ = ["FEATURES", "distribution_scores"]

FEATURES = ("crest", "kurtosis", "q999_over_rms", "outlier_ratio", "std")
"""Features that may say how hard a tensor is; a format has no influence on them."""

Scores = NDArray[np.float64]


def distribution_scores(
    network: QuantizedNetwork,
    predictor: Predictor,
    statistics: Mapping[str, Statistics],
    *,
    candidates: Sequence[Precision],
) -> dict[str, Scores]:
    """Return scores by name, ``(groups, candidates)`` each; more means more harm.

    Parameters
    ----------
    network
        Calibrated network; ranges are those of its recipe.
    predictor
        Predictions for its operands.
    statistics
        Features of each operand by name: one row per channel for weights whose channels have scales of their own, one
        row for other tensors. The mean over the rows counts.
    candidates
        Precisions in column order.

    A group's score is the sum over its layers, the largest for features. Scores are:

    ``difficulty``
        Noise-to-signal ratio of the layer's output from both operands.
    ``weight_noise_ratio``, ``activation_noise_ratio``
        Each operand's own part of it.
    ``closed_form_noise_ratio``
        The same by the closed form for min-max ranges; NaN for a format that has none.
    ``weight_error``
        Sum of the squared errors of the weights, not relative to anything.
    ``difficulty_by_macs``
        Difficulty times the layer's share of the MACs.
    ``bits``
        Minus the bits of weights and activations: the same for every layer.
    ``weight_count``, ``macs``
        Minus the size of the layer: small layers have little redundancy.
    ``weight_crest`` and so on
        Features of the weights and of the input.
    """
    recipe = network.recipe
    macs = sum(layer.macs for layer in network.captured.layers)

    def noise(layer: Layer, candidate: Precision) -> float:
        return predictor.noise_ratio(
            layer, candidate, weights=recipe.weight_ranges, activations=recipe.activation_calibrator
        )

    def closed_form(layer: Layer, candidate: Precision) -> float:
        total = 0.0
        for name, number_format in layer_operands(layer, candidate):
            if number_format != FP32:
                total += 10.0 ** (-predictor.predict(name, number_format, "minmax").sqnr_db_closed_form / 10.0)
        return total

    def weight_error(layer: Layer, candidate: Precision) -> float:
        if layer.weight is None or candidate.weights == FP32:
            return 0.0
        return float(predictor.predict(layer.weight, candidate.weights, recipe.weight_ranges).errors.sum())

    def only(which: int) -> Callable[[Layer, Precision], float]:
        def part(layer: Layer, candidate: Precision) -> float:
            alone = Precision(candidate.weights, FP32) if which == 0 else Precision(FP32, candidate.activations)
            return noise(layer, alone)

        return part

    summed: dict[str, Callable[[Layer, Precision], float]] = {
        "difficulty": noise,
        "weight_noise_ratio": only(0),
        "activation_noise_ratio": only(1),
        "closed_form_noise_ratio": closed_form,
        "weight_error": weight_error,
        "difficulty_by_macs": lambda layer, candidate: noise(layer, candidate) * layer.macs / macs,
        "weight_count": lambda layer, _: -float(layer.weight_count),
        "macs": lambda layer, _: -float(layer.macs),
    }
    found = {name: by_group(network, candidates, score, sum) for name, score in summed.items()}
    bits = [-float(c.weights.bits + c.activations.bits) for c in candidates]
    found["bits"] = np.tile(bits, (len(network.captured.groups), 1))
    for place, role in enumerate(("weight", "activation")):
        for feature in FEATURES:
            found[f"{role}_{feature}"] = by_group(network, candidates, _feature(statistics, place, feature), max)
    return found


def _feature(statistics: Mapping[str, Statistics], place: int, feature: str) -> Callable[[Layer, Precision], float]:
    def score(layer: Layer, candidate: Precision) -> float:
        name, _ = layer_operands(layer, candidate)[place]
        return float(np.mean(getattr(statistics[name], feature)))

    return score
