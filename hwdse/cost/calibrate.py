"""Factors of a latency's terms from a few measured runs of whole networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from hwdse.cost.terms import LatencyTerms
from hwdse.errors import InputError
from hwdse.hardware import HardwareProfile
from hwdse.hardware.quantity import Kind, NonNegative
from hwdse.hardware.schema import Calibration

__all__ = ["LatencyFit", "calibrate", "calibrated"]

FEWEST = 4
"""Runs without which factors of layers, conversions and nodes are no fit."""
SAME = 1e-2
"""Relative difference below which all runs have the same latency of layers."""
NOISE = 0.02
"""Relative error that remains in a run: of its timing, and of a sum of single measurements with the best factors."""
SPREADS = {"float_layers": 0.1, "integer_layers": 0.1, "conversions": 0.5, "nodes": 0.5}
"""How far factors lie from 1 (standard deviations): layers are timed as they run in a network, what is between them is
timed alone, which its neighbours change more."""
CONSTANT_SPREAD = 0.02
"""The same for the time per inference, as a share of the fastest run."""


@dataclass(frozen=True)
class LatencyFit:
    """What multiplies the terms of a latency.

    Attributes
    ----------
    float_layers, integer_layers, conversions, nodes
        Factors of at least 0; 1 for a term that the runs say nothing about.
    us_per_inference
        Microseconds that no term explains.
    error_before, error_after
        Mean absolute relative error over the runs without and with the factors; they were fitted to these runs.
    runs
        Number of runs.
    """

    float_layers: float
    integer_layers: float
    conversions: float
    nodes: float
    us_per_inference: float
    error_before: float
    error_after: float
    runs: int

    def predict_ms(self, terms: LatencyTerms) -> float:
        """Return the latency with the factors."""
        return (
            self.float_layers * terms.float_layers_ms
            + self.integer_layers * terms.integer_layers_ms
            + self.conversions * terms.conversions_ms
            + self.nodes * terms.nodes_ms
            + terms.beside_ms
            + self.us_per_inference * 1e-3
        )

    @property
    def values(self) -> dict[str, float]:
        """Figures by the keys of a profile's ``[calibration]``."""
        return {key: getattr(self, key) for key in (*SPREADS, "us_per_inference")}

    @property
    def words(self) -> str:
        """How well it fits."""
        return f"mean error of {self.runs} runs {self.error_before:.1%} before, {self.error_after:.1%} after, in sample"


def calibrate(terms: Sequence[LatencyTerms], measured_ms: Sequence[float], *, noise: float = NOISE) -> LatencyFit:
    """Return the factors of at least 0 that bring the terms of runs closest to their measured latencies.

    The most likely factors where relative errors of runs are normal with deviation ``noise``, factors are normal around
    1 (:data:`SPREADS`), and the time per inference is around 0: ridge regression towards factors that change nothing,
    by non-negative least squares (Lawson and Hanson 1995). A few runs then move a factor as far as they speak of it,
    and one that they do not speak of stays at 1.

    Parameters
    ----------
    terms
        Of each run's configuration, before calibration.
    measured_ms
        Latency of each run.
    noise
        Relative error of a run, above 0; the smaller, the closer the factors follow the runs.

    Raises
    ------
    InputError
        If there are fewer than four runs, not one latency per run, a latency that is not above 0, or all runs have the
        same layers' latency.
    """
    measured = np.asarray(measured_ms, dtype=np.float64)
    if len(terms) < FEWEST or measured.shape != (len(terms),):
        raise InputError(
            f"expected {FEWEST} runs or more with a latency each, got {len(terms)} with {measured.size} latencies; "
            "run more configurations"
        )
    if not (np.isfinite(measured).all() and (measured > 0).all()):
        raise InputError(f"expected latencies above 0 ms, got {measured.tolist()}; measure these runs again")
    if np.ptp([t.layers_ms for t in terms]) <= SAME * max(t.layers_ms for t in terms):
        raise InputError(
            "expected runs of configurations with different latencies, got the same for all; add the uniform ones"
        )
    rows = [(t.float_layers_ms, t.integer_layers_ms, t.conversions_ms, t.nodes_ms, 1.0) for t in terms]
    columns = np.array(rows) / measured[:, None]
    shares = 1.0 - np.array([t.beside_ms for t in terms]) / measured
    prior = np.array([1.0, 1.0, 1.0, 1.0, 0.0])
    spreads = np.array([*SPREADS.values(), CONSTANT_SPREAD * measured.min()])
    design = np.concatenate([columns / noise, np.diag(1 / spreads)])
    factors = nnls(design, np.concatenate([shares / noise, prior / spreads]))[0]
    before, after = (float(np.abs(columns @ f - shares).mean()) for f in (prior, factors))
    floats, integers, conversions, nodes, constant = map(float, factors)
    return LatencyFit(floats, integers, conversions, nodes, constant * 1e3, before, after, len(terms))


def calibrated(profile: HardwareProfile, fit: LatencyFit, *, source: str, citation: str) -> HardwareProfile:
    """Return the profile with the fit as its ``[calibration]``.

    Parameters
    ----------
    profile
        Whose terms were fitted.
    fit
        The factors.
    source, citation
        Key and text for the profile's ``[sources]``.
    """
    figures = {
        key: NonNegative(value=round(value, 6), kind=Kind.DERIVED, source=source, note=fit.words)
        for key, value in fit.values.items()
    }
    sources = {**profile.spec.sources, source: citation}
    spec = profile.spec.model_copy(update={"calibration": Calibration.model_validate(figures), "sources": sources})
    return HardwareProfile(spec, profile.table)
