"""Energy of one inference of one batch: per MAC, per byte moved, and power for the time it takes."""

from __future__ import annotations

from collections.abc import Sequence

from hwdse.cost.latency import beside_layers_ms, layer_latency_ms
from hwdse.cost.model import MetricCosts, per_layer
from hwdse.cost.table import Metric, Reduction
from hwdse.cost.traffic import level_bytes
from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.graph import Layer, LayerGraph
from hwdse.hardware import HardwareProfile, Rate

__all__ = ["MODEL", "EnergyModel", "layer_energy_mj", "mac_energy_mj", "power_energy_mj", "traffic_energy_mj"]

MJ_PER_PJ = 1e-9
MJ_PER_MW_MS = 1e-3


def mac_energy_mj(layer: Layer, rate: Rate, profile: HardwareProfile) -> float:
    """Return the energy of a layer's MACs, of one batch: MACs x energy per MAC; padding is not counted."""
    return layer.macs * profile.batch * profile.pj_per_mac(rate) * MJ_PER_PJ


def traffic_energy_mj(layer: Layer, rate: Rate, profile: HardwareProfile) -> float:
    """Return the energy of a layer's traffic: bytes x energy per byte, summed over memory levels."""
    return MJ_PER_PJ * sum(
        level_bytes(layer, rate.stored, memory, batch=profile.batch) * memory.pj_per_byte.value
        for memory in profile.memories
        if memory.pj_per_byte is not None
    )


def power_energy_mj(time_ms: float, profile: HardwareProfile) -> float:
    """Return the energy that the device's active or static power takes in ``time_ms``, calibrated."""
    return profile.power_mw * profile.energy_factor * time_ms * MJ_PER_MW_MS


def layer_energy_mj(layer: Layer, precision: Precision, profile: HardwareProfile) -> float:
    """Return the energy of a layer: ``sum(MACs x e(w, a)) + sum(bytes x e_level) + P x t``, calibrated.

    Microcontrollers have only the last term, their active power ([MLPerfTiny12]_: within 7 % over four networks).

    Raises
    ------
    InputError
        If the device does not run the layer at this precision.
    """
    time_ms = layer_latency_ms(layer, precision, profile)
    rate = profile.rate(layer, precision)
    assert rate is not None  # else there is no latency either
    dynamic = mac_energy_mj(layer, rate, profile) + traffic_energy_mj(layer, rate, profile)
    return dynamic * profile.energy_factor + power_energy_mj(time_ms, profile)


class EnergyModel:
    """Energy in mJ of one inference of one batch."""

    metric = Metric("energy_mj_predicted", Reduction.SUM, "energy per inference of one batch (mJ, predicted)")

    def costs(self, graph: LayerGraph, profile: HardwareProfile, candidates: Sequence[Precision]) -> MetricCosts:
        """Return the energies, and those of all time beside the layers.

        Raises
        ------
        InputError
            If the profile says nothing about energy.
        """
        if not profile.has_energy:
            raise InputError(
                f"expected a profile with [power] or pj_per_mac, got {profile.name} without; "
                "add one to it or leave energy_mj out"
            )
        values = per_layer(graph, profile, candidates, cost=lambda layer, p: layer_energy_mj(layer, p, profile))
        beside = beside_layers_ms(graph, profile, candidates)
        return MetricCosts(
            values + power_energy_mj(1.0, profile) * beside.values,
            constant=power_energy_mj(beside.constant, profile),
            switches=beside.switches * power_energy_mj(1.0, profile) if beside.switches is not None else None,
            pairs=beside.pairs,
        )


MODEL = EnergyModel()
