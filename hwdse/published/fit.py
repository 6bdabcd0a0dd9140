"""At most five coefficients of a profile from published figures, and how far off they are on networks left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from hwdse.errors import InputError
from hwdse.published.terms import Terms

__all__ = ["COEFFICIENTS", "MOST", "Coefficient", "chosen", "coefficients_of", "fit", "leave_one_network_out"]

Vector = NDArray[np.float64]

MOST = 5
"""Coefficients of one fit, the energy's factor not counted."""
NOISE = 0.1
"""Standard deviation of the logarithm of a published latency around what even the right coefficients predict."""
SLACK = 1e-9
ADDED_SHARE = 0.05
"""Share of a typical latency that an overhead has before anything is known, where the profile states none."""


@dataclass(frozen=True)
class Coefficient:
    """A figure that a fit may change, with what is believed of it before: log-normal.

    Attributes
    ----------
    name
        Key of the profile's ``[calibration]``, or a precision.
    spread
        Standard deviation of its logarithm: 0.5 is a factor of 1.6 either way.
    is_time
        True for a time in microseconds; its centre is the profile's. Others are factors with their centre at 1.
    """

    name: str
    spread: float
    is_time: bool = False


COEFFICIENTS: Mapping[str, Coefficient] = {
    c.name: c
    for c in (
        Coefficient("compute", 2.0),
        Coefficient("us_per_inference", 1.5, is_time=True),
        Coefficient("us_per_layer", 1.5, is_time=True),
        Coefficient("traffic", 1.0),
        Coefficient("depthwise", 0.7),
        Coefficient("pointwise", 0.5),
        Coefficient("linear", 0.7),
    )
}
PRECISION_SPREAD = 0.7


def chosen(terms: Terms, names: Sequence[str] | None = None) -> tuple[Coefficient, ...]:
    """Return the coefficients to fit: those named, else the first that the rows can say something about.

    By default there is one less than one for every two networks, 1 to 5, in this order: the speed of all MACs, a factor
    for each of two precisions beside the commonest, the traffic, the overhead per layer, the speed of depthwise layers,
    the overhead per inference, the speed of pointwise layers.

    Raises
    ------
    InputError
        If a name is unknown, or there are more than five.
    """
    labels = [row.label for row in terms.rows if row.label != "mixed"]
    further = sorted(set(labels), key=lambda label: (-labels.count(label), label))[1:]
    known = coefficients_of(terms)
    if names is None:
        there = set(terms.classes)
        wanted = ["compute", *further[:2]]
        wanted += ["traffic"] if (terms.traffic_ms > 0).any() else []
        wanted += ["us_per_layer"]
        wanted += ["depthwise"] if "depthwise" in there else []
        wanted += ["us_per_inference", "pointwise"]
        names = wanted[: max(1, min(MOST, len(set(terms.networks)) // 2 - 1))]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"expected coefficients out of {', '.join(known)}, got {', '.join(unknown)}; correct the name")
    if len(names) > MOST or len(set(names)) < len(names) or not names:
        raise InputError(f"expected 1 to {MOST} coefficients, each once, got {', '.join(names)}; leave some out")
    return tuple(known[name] for name in names)


def coefficients_of(terms: Terms) -> dict[str, Coefficient]:
    """Return every coefficient that rows could be fitted with, by name: those of the calibration, and precisions."""
    precisions = sorted(map(str, set(terms.precisions)))
    return {**COEFFICIENTS, **{name: Coefficient(name, PRECISION_SPREAD) for name in precisions}}


def fit(terms: Terms, coefficients: Sequence[Coefficient]) -> dict[str, float]:
    """Return the coefficients that the published figures of ``terms`` make most likely, by name.

    Minimises the squared logarithmic errors of the latencies over :data:`NOISE` plus the squared distances of the
    coefficients' logarithms from their centres over their spreads (the largest posterior of log-normal errors and
    beliefs), so that few rows move a coefficient no further than they tell. Where energies are published and the
    profile has a power, ``energy`` is the geometric mean of published over predicted.
    """
    centres = np.log([_centre(terms, c) for c in coefficients])
    spreads = np.array([c.spread for c in coefficients])
    names = [c.name for c in coefficients]
    targets = np.log(terms.latencies_ms)

    def residuals(logs: Vector) -> Vector:
        predicted = terms.latency_ms(dict(zip(names, np.exp(logs), strict=True)))
        return np.concatenate([(np.log(predicted + SLACK) - targets) / NOISE, (logs - centres) / spreads])

    found = least_squares(residuals, centres, method="trf", x_scale="jac")
    values = {name: float(value) for name, value in zip(names, np.exp(found.x), strict=True)}
    return {**values, **_energy(terms, values)}


def _centre(terms: Terms, coefficient: Coefficient) -> float:
    """Return what a coefficient is before anything is known."""
    if not coefficient.is_time:
        return 1.0
    stated = float(getattr(terms, coefficient.name))
    if stated > 0:
        return stated
    typical = ADDED_SHARE * float(np.median(terms.latencies_ms)) * 1e3
    layers = np.add.reduceat(terms.overheads, terms.starts)
    return typical / max(1.0, float(np.median(layers))) if coefficient.name == "us_per_layer" else typical


def _energy(terms: Terms, values: Mapping[str, float]) -> dict[str, float]:
    """Return the factor of the energy, if it can be known."""
    known = np.isfinite(terms.energies_mj)
    predicted = terms.energy_mj(values)
    if not known.any() or not (predicted[known] > 0).all():
        return {}
    return {"energy": float(np.exp(np.mean(np.log(terms.energies_mj[known] / predicted[known]))))}


def leave_one_network_out(
    terms: Terms, coefficients: Sequence[Coefficient], *, fitted: NDArray[np.bool_] | None = None
) -> tuple[Vector, Vector]:
    """Return latencies and energies ``(n,)``, each predicted by a fit that saw no row of its network.

    Parameters
    ----------
    terms
        Rows and what their predictions are made of.
    coefficients
        Found anew for every network.
    fitted
        Mask ``(n,)`` of the rows that fits may see; all by default.

    Raises
    ------
    InputError
        If there are fewer than 2 networks.
    """
    networks = np.unique(terms.networks)
    if len(networks) < 2:
        raise InputError(f"expected rows of at least 2 networks to leave one out, got {len(networks)}; add rows")
    seen = np.ones(len(terms.rows), dtype=bool) if fitted is None else fitted
    latencies, energies = np.empty(len(terms.rows)), np.empty(len(terms.rows))
    for network in networks:
        out = terms.networks == network
        values = fit(terms.take(~out & seen), coefficients)
        left = terms.take(out)
        latencies[out], energies[out] = left.latency_ms(values), left.energy_mj(values)
    return latencies, energies
