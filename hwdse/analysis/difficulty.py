"""Difficulty: what quantization will cost, computed from distributions alone.

No quantized network is run. The error of a format is the integral of the squared distance to its nearest level over a
tensor's distribution, which serves any format and any calibrator; where a closed form exists it stands beside it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hwdse.analysis.operands import Operand, layer_operands, operands_of
from hwdse.calibrate import calibrator
from hwdse.errors import InputError
from hwdse.formats import FP32, SMALLEST_SCALE, Levels, NumberFormat, Precision, Scheme, parse
from hwdse.graph import Layer
from hwdse.quantize.network import QuantizedNetwork

__all__ = ["Prediction", "Predictor", "bits_needed", "by_group", "family_name", "measure_difficulty", "width_family"]

Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """What rounding one operand to one format will do.

    Attributes
    ----------
    levels
        Levels at scale 1.
    low, high, scale, zero_point
        Range and grid of each row, ``(rows,)``.
    errors
        Expected sum of squared errors of each row, ``(rows,)``.
    mean_square_error
        Over all values.
    sqnr_db
        ``10 log10(E[x^2] / E[(x - q(x))^2])``; infinite where nothing is lost.
    sqnr_db_closed_form
        The same if rounding errors were even over each step and nothing clipped ([Widrow2008]_, equation 1.3); NaN
        where that does not apply.
    """

    levels: Levels
    low: Rows
    high: Rows
    scale: Rows
    zero_point: Rows
    errors: Rows
    mean_square_error: float
    sqnr_db: float
    sqnr_db_closed_form: float


@dataclass
class Predictor:
    """Predictions for the operands of one network under one scheme; each is made once.

    Attributes
    ----------
    operands
        Operands by name.
    scheme
        How the device represents numbers.
    """

    operands: Mapping[str, Operand]
    scheme: Scheme
    _levels: dict[tuple[str, NumberFormat], Levels] = field(default_factory=dict, init=False, repr=False)
    _known: dict[tuple[str, NumberFormat, str], Prediction] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, network: QuantizedNetwork) -> Predictor:
        """Return the predictor of a calibrated network."""
        return cls(operands_of(network), network.scheme)

    def predict(self, name: str, number_format: NumberFormat, method: str) -> Prediction:
        """Return what ``number_format`` with the range of calibrator ``method`` does to the operand ``name``.

        Raises
        ------
        InputError
            If the calibrator is unknown, or the format cannot hold the operand (the layer is named).
        """
        key = (name, number_format, method)
        if key not in self._known:
            operand = self.operands[name]
            try:
                self._known[key] = self._predict(operand, number_format, method)
            except InputError as error:
                raise InputError(f"{error} (layer {operand.layer!r}, tensor {name!r})") from error
        return self._known[key]

    def _predict(self, operand: Operand, number_format: NumberFormat, method: str) -> Prediction:
        key = (operand.name, number_format)
        if key not in self._levels:
            self._levels[key] = operand.levels(number_format, self.scheme)
        levels, calibrate = self._levels[key], calibrator(method)
        ranges = [calibrate(table, levels) for table in operand.tables]
        grids = [levels.grid(low, high) for low, high in ranges]
        errors = [table.error(levels, *grid) for table, grid in zip(operand.tables, grids, strict=True)]
        error = float(sum(e.sum() for e in errors)) / operand.count
        return Prediction(
            levels=levels,
            low=np.concatenate([low for low, _ in ranges]),
            high=np.concatenate([high for _, high in ranges]),
            scale=np.concatenate([scale for scale, _ in grids]),
            zero_point=np.concatenate([zero_point for _, zero_point in grids]),
            errors=np.concatenate(errors),
            mean_square_error=error,
            sqnr_db=_decibel(operand.mean_square, error),
            sqnr_db_closed_form=_closed_form(operand, levels, method, [scale for scale, _ in grids]),
        )

    def noise_ratio(self, layer: Layer, precision: Precision, *, weights: str, activations: str) -> float:
        """Return the noise of a layer's output over its signal, as far as the distributions tell.

        Rounding errors of either operand are taken as independent of each other and of the values, and values as
        uncorrelated; then the output's noise is ``sum_k E[dw_k^2] E[x_k^2] + w_k^2 E[dx_k^2] + E[dw_k^2] E[dx_k^2]``
        over the summed index, its signal ``sum_k w_k^2 E[x_k^2]``, and with errors spread evenly over the channels the
        ratio of the two is ``r_w + r_x + r_w r_x`` with each operand's own ratio.

        Parameters
        ----------
        layer
            A layer of the network.
        precision
            Formats of its operands.
        weights, activations
            Names of the calibrators.
        """
        product = 1.0
        for name, number_format in layer_operands(layer, precision):
            if number_format != FP32:
                method = weights if self.operands[name].kind == "weight" else activations
                product *= 1.0 + 10.0 ** (-self.predict(name, number_format, method).sqnr_db / 10.0)
        return product - 1.0


def _decibel(signal: float, noise: float) -> float:
    """Return a ratio in dB; infinite without noise, so that a tensor of zeros is easy."""
    if noise <= SMALLEST_SCALE**2:
        return math.inf
    return 10.0 * (math.log10(signal) - math.log10(noise)) if signal > 0.0 else -math.inf


def _closed_form(operand: Operand, levels: Levels, method: str, scales: Sequence[Rows]) -> float:
    """Return the SQNR of a uniform grid that clips nothing: each row's noise is its step squared over 12."""
    if not levels.is_uniform or method != "minmax":
        return math.nan
    noise = sum(
        float((table.count * scale**2).sum()) / 12.0 for table, scale in zip(operand.tables, scales, strict=True)
    )
    return _decibel(operand.mean_square, noise / operand.count)


def measure_difficulty(
    network: QuantizedNetwork, candidates: Sequence[Precision], *, predictor: Predictor | None = None
) -> NDArray[np.float64]:
    """Return the difficulty of every (group, candidate), ``(groups, candidates)``.

    The sum over a group's layers of their output's noise-to-signal ratio, :meth:`Predictor.noise_ratio`, with the
    ranges of the network's recipe. Computed from distributions; nothing is run.

    Parameters
    ----------
    network
        A calibrated network.
    candidates
        Precisions.
    predictor
        The network's own, to take up what it already knows.

    Raises
    ------
    InputError
        If a format cannot hold an operand (the layer is named).
    """
    known = predictor or Predictor.of(network)
    methods = {"weights": network.recipe.weight_ranges, "activations": network.recipe.activation_calibrator}
    return by_group(network, candidates, lambda layer, candidate: known.noise_ratio(layer, candidate, **methods), sum)


def by_group(
    network: QuantizedNetwork,
    candidates: Sequence[Precision],
    score: Callable[[Layer, Precision], float],
    join: Callable[[list[float]], float],
) -> NDArray[np.float64]:
    """Return the scores of all groups ``(groups, candidates)``, from those of their layers."""
    captured = network.captured
    return np.array(
        [
            [
                join([score(captured.layers[captured.layer_index[name]], candidate) for name in group.layers])
                for candidate in candidates
            ]
            for group in captured.groups
        ]
    )


def family_name(number_format: NumberFormat) -> str:
    """Return the name of a format without its width.

    >>> family_name(parse("posit8_0")), family_name(parse("int4"))
    ('posit*_0', 'int*')
    """
    return re.sub(r"^([a-z]+)\d+", r"\1*", number_format.name)


def width_family(number_format: NumberFormat) -> tuple[NumberFormat, ...]:
    """Return the formats of the same family and shape at every width, narrowest first; itself alone if it has none.

    >>> [f.name for f in width_family(parse("nf4"))]
    ['nf2', 'nf3', 'nf4', 'nf5', 'nf6', 'nf7', 'nf8']
    """
    family = family_name(number_format)
    if "*" not in family or not number_format.has_scale:
        return (number_format,)
    found = []
    for bits in range(1, 17):
        try:
            found.append(parse(family.replace("*", str(bits))))
        except InputError:  # the family does not have this width
            continue
    return tuple(found)


def bits_needed(predictor: Predictor, name: str, number_format: NumberFormat, method: str, *, sqnr_db: float) -> float:
    """Return the bits that the family of ``number_format`` needs for ``sqnr_db`` on the operand ``name``.

    Between two widths the bits are interpolated by their predicted SQNR; infinite if no width is enough, and the
    narrowest width if that is.

    Raises
    ------
    InputError
        If the calibrator is unknown, or the format itself cannot hold the operand.
    """
    lower: tuple[float, float] | None = None
    for candidate in width_family(number_format):
        try:
            reached = predictor.predict(name, candidate, method).sqnr_db
        except InputError:  # too narrow to hold the operand under this scheme
            if candidate == number_format:
                raise
            continue
        if reached >= sqnr_db:
            if lower is None or not math.isfinite(reached):
                return float(candidate.bits)
            bits, before = lower
            return bits + (candidate.bits - bits) * (sqnr_db - before) / (reached - before)
        lower = (float(candidate.bits), reached)
    return math.inf
