"""A profile held against published figures: as it is, and fitted anew with each network left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwdse.graph import LayerGraph
from hwdse.hardware import HardwareProfile, Kind
from hwdse.hardware.quantity import NonNegative, Positive
from hwdse.hardware.schema import Accuracy, Calibration
from hwdse.published.fit import COEFFICIENTS, Coefficient, chosen, coefficients_of, fit, leave_one_network_out
from hwdse.published.rows import PublishedRow
from hwdse.published.score import Score, score
from hwdse.published.terms import Terms, Unpriceable, terms_of

__all__ = ["Fitted", "Validation", "calibration_of", "fitted_profile", "hold_against", "with_claim"]

Vector = NDArray[np.float64]
FEWEST_NETWORKS = 3
"""Networks that errors on left-out ones are claimed from; with fewer, those of the fit itself are."""
FEW_ROWS = 10
UNFITTED = 2.0
"""Narrowest 90 % interval without networks left out and with few rows: what nine tenths of unfitted predictions are
within."""


@dataclass(frozen=True, eq=False)
class Validation:
    """Predictions of published figures.

    Attributes
    ----------
    profile
        The device.
    terms
        Rows and what their predictions are made of.
    unpriceable
        Rows that the profile does not predict.
    shipped_ms, shipped_mj
        Predictions of the profile as it is, ``(n,)``.
    left_out_ms, left_out_mj
        Each predicted by a fit that saw nothing of its network, ``(n,)``; ``None`` with fewer than 3 networks or
        nothing fitted.
    """

    profile: HardwareProfile
    terms: Terms
    unpriceable: tuple[Unpriceable, ...]
    shipped_ms: Vector
    shipped_mj: Vector
    left_out_ms: Vector | None
    left_out_mj: Vector | None

    @property
    def networks(self) -> int:
        """Number of networks."""
        return len(np.unique(self.terms.networks))

    @property
    def shipped(self) -> Score:
        """Errors of the profile as it is."""
        return score(self.shipped_ms, self.terms.latencies_ms)

    @property
    def left_out(self) -> Score | None:
        """Errors on networks left out."""
        return score(self.left_out_ms, self.terms.latencies_ms) if self.left_out_ms is not None else None

    @property
    def energy(self) -> Score | None:
        """Errors of the energies: on networks left out where there are any, else of the profile as it is."""
        known = np.isfinite(self.terms.energies_mj)
        predicted = self.left_out_mj if self.left_out_mj is not None else self.shipped_mj
        if not known.any() or not (predicted[known] > 0).all():
            return None
        return score(predicted[known], self.terms.energies_mj[known])

    @property
    def inside(self) -> float:
        """Share of the rows that lie in the profile's own 90 % interval of the latency; NaN if it states none.

        The interval is that around the left-out predictions, where there are any.
        """
        factor = self.profile.uncertainty("latency_ms_predicted")
        if factor is None:
            return float("nan")
        predicted = self.left_out_ms if self.left_out_ms is not None else self.shipped_ms
        return float((np.abs(np.log(predicted / self.terms.latencies_ms)) <= np.log(factor) + 1e-9).mean())

    @property
    def table(self) -> pd.DataFrame:
        """One row per published figure: predicted as it is and left out, NaN where there is none."""
        nothing = np.full(len(self.terms.rows), np.nan)
        rows = self.terms.rows
        return pd.DataFrame(
            {
                "profile": self.profile.name,
                "network": [row.network for row in rows],
                "precision": [row.label for row in rows],
                "latency_ms_published": self.terms.latencies_ms,
                "latency_ms_predicted": self.shipped_ms,
                "latency_ms_left_out_predicted": nothing if self.left_out_ms is None else self.left_out_ms,
                "energy_mj_published": self.terms.energies_mj,
                "energy_mj_predicted": np.where(np.isfinite(self.terms.energies_mj), self.shipped_mj, np.nan),
                "energy_mj_left_out_predicted": nothing
                if self.left_out_mj is None
                else np.where(np.isfinite(self.terms.energies_mj), self.left_out_mj, np.nan),
                "kind": [str(row.kind) for row in rows],
                "source": [row.source for row in rows],
            }
        )


@dataclass(frozen=True, eq=False)
class Fitted:
    """A profile with fitted coefficients, and how well it does.

    Attributes
    ----------
    profile
        With its new ``[calibration]`` and ``[accuracy]``.
    values
        Coefficients by name.
    validation
        Of the new profile.
    """

    profile: HardwareProfile
    values: Mapping[str, float]
    validation: Validation


def hold_against(
    profile: HardwareProfile,
    rows: Sequence[PublishedRow],
    graph_of: Callable[[str], LayerGraph],
    *,
    claim_rows: Sequence[PublishedRow] = (),
) -> Validation:
    """Return the predictions of ``profile`` for published rows.

    The fits with a network left out have the coefficients that the profile's calibration has and the rows know, found
    anew from the profile without its calibration; they see nothing of ``claim_rows``, which are predicted too.

    Raises
    ------
    InputError
        If no row is predicted.
    """
    terms, failed = terms_of(profile, [*rows, *claim_rows], graph_of)
    values = calibration_of(profile)
    fitted = np.array([row in rows for row in terms.rows])
    left_out = _left_out(terms, values, fitted)
    return Validation(profile, terms, failed, terms.latency_ms(values), terms.energy_mj(values), *left_out)


def _left_out(terms: Terms, names: Iterable[str], fitted: NDArray[np.bool_]) -> tuple[Vector | None, Vector | None]:
    """Return the predictions with each network left out, if there are networks and coefficients enough."""
    known = coefficients_of(terms)
    coefficients = [known[name] for name in names if name in known]
    if len(np.unique(terms.networks[fitted])) < FEWEST_NETWORKS or not coefficients:
        return None, None
    return leave_one_network_out(terms, coefficients, fitted=fitted)


def calibration_of(profile: HardwareProfile) -> dict[str, float]:
    """Return the coefficients in a profile's ``[calibration]`` that :func:`hwdse.published.fit.fit` finds, by name."""
    calibration = profile.spec.calibration
    if calibration is None:
        return {}
    found = {name: getattr(calibration, name) for name in (*COEFFICIENTS, "energy")}
    found |= dict(calibration.precisions)
    return {name: figure.value for name, figure in found.items() if figure is not None}


def fitted_profile(
    profile: HardwareProfile,
    rows: Sequence[PublishedRow],
    graph_of: Callable[[str], LayerGraph],
    *,
    names: Sequence[str] | None = None,
    claim_rows: Sequence[PublishedRow] = (),
) -> Fitted:
    """Return ``profile`` with at most five coefficients fitted to published rows, and its claim of accuracy.

    Parameters
    ----------
    profile
        The device; its calibration is replaced.
    rows
        Published figures to fit to.
    graph_of
        Gives the layers of a network by its name.
    names
        Coefficients; by default those of :func:`hwdse.published.fit.chosen`.
    claim_rows
        Further figures that are held against the fit, but not fitted to.

    Raises
    ------
    InputError
        If no row is predicted, or a coefficient is unknown.
    """
    terms, _ = terms_of(profile, rows, graph_of)
    coefficients = chosen(terms, names)
    values = fit(terms, coefficients)
    source = _commonest([row.source for row in terms.rows])
    calibrated = _with(profile, calibration=_calibration(values, coefficients, terms, source), source=source)
    validation = hold_against(calibrated, rows, graph_of, claim_rows=claim_rows)
    claimed = _with(calibrated, accuracy=_accuracy(validation, source), source=source)
    return Fitted(claimed, values, replace(validation, profile=claimed))


def with_claim(
    profile: HardwareProfile,
    rows: Sequence[PublishedRow],
    graph_of: Callable[[str], LayerGraph],
    *,
    basis: str = "unfitted",
) -> HardwareProfile:
    """Return ``profile`` with a claim of accuracy from published rows, which nothing is fitted to here.

    A few errors may be small by luck, so the interval is at least :data:`UNFITTED` with fewer than :data:`FEW_ROWS`.

    Raises
    ------
    InputError
        If no row is predicted.
    """
    validation = hold_against(profile, rows, graph_of)
    source = _commonest([row.source for row in validation.terms.rows])
    return _with(profile, accuracy=_accuracy(validation, source, basis=basis), source=source)


def _commonest(names: Sequence[str]) -> str:
    return max(dict.fromkeys(names), key=list(names).count)


def _with(profile: HardwareProfile, *, source: str, **sections: Calibration | Accuracy) -> HardwareProfile:
    """Return the profile with other sections."""
    sources = dict(profile.spec.sources)
    sources.setdefault(source, f"published figures of whole networks on {profile.title}")
    return HardwareProfile(profile.spec.model_copy(update={**sections, "sources": sources}), profile.table)


def _calibration(
    values: Mapping[str, float], coefficients: Sequence[Coefficient], terms: Terms, source: str
) -> Calibration:
    """Return the section with the fitted figures."""
    note = f"fitted to {len(terms.rows)} published latencies of {len(np.unique(terms.networks))} networks"

    def figure(value: float) -> Positive:
        return Positive(value=float(f"{value:.5g}"), kind=Kind.DERIVED, source=source, note=note)

    own = {c.name: figure(values[c.name]) for c in coefficients if c.name in COEFFICIENTS and not c.is_time}
    times = {c.name: NonNegative.model_validate(figure(values[c.name]).model_dump()) for c in coefficients if c.is_time}
    precisions = {c.name: figure(values[c.name]) for c in coefficients if c.name not in COEFFICIENTS}
    energy = {"energy": figure(values["energy"])} if "energy" in values else {}
    return Calibration.model_validate({**own, **times, **energy, "precisions": precisions})


def _accuracy(validation: Validation, source: str, *, basis: str = "fitted") -> Accuracy:
    """Return what the profile may claim: errors on networks left out, or those of ``basis`` where there are few."""
    left_out = validation.left_out
    found = left_out or validation.shipped
    least = UNFITTED if left_out is None and found.rows < FEW_ROWS else 1.0
    energy = validation.energy

    figures: dict[str, float] = {
        "latency_factor": max(least, round(found.factor + 5e-4, 3)),
        "networks": validation.networks,
        "rows": found.rows,
        "smallest_mmacs": float(f"{validation.terms.macs.min() * 1e-6:.4g}"),
        "largest_mmacs": float(f"{validation.terms.macs.max() * 1e-6:.4g}"),
        "latency_error_percent": round(100 * found.median_error, 2),
    }
    if np.isfinite(found.spearman):
        figures["latency_spearman"] = round(found.spearman, 3)
    if energy is not None:
        least_energy = UNFITTED if energy.rows < FEWEST_NETWORKS else least
        figures["energy_factor"] = max(least_energy, round(energy.factor + 5e-4, 3))
        figures["energy_error_percent"] = round(100 * energy.median_error, 2)
    if left_out is not None:
        basis = "leave_one_network_out"
    found_precisions = sorted({text for row in validation.terms.rows for text in row.precision.split()})
    stated = {key: {"value": value, "kind": Kind.DERIVED, "source": source} for key, value in figures.items()}
    return Accuracy.model_validate({"basis": basis, "precisions": found_precisions, **stated})
