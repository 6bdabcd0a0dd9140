"""Memory while the network runs: activations that are alive together, alone or with the stored network. Counted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hwdse.cost.model import MetricCosts
from hwdse.cost.size import MODEL as SIZE
from hwdse.cost.table import Metric, Reduction, SumOverSets
from hwdse.cost.traffic import packed_bytes
from hwdse.errors import InputError
from hwdse.formats import FP32, Precision
from hwdse.graph import Layer, LayerGraph, Tensor
from hwdse.hardware import HardwareProfile

__all__ = ["ACTIVATIONS", "TOTAL", "ActivationModel", "TotalMemoryModel", "live_sums", "prune", "tensor_bytes"]

KIB = 1024


def tensor_bytes(tensor: Tensor, owner: Layer | None, stored: Precision | None) -> int:
    """Return the bytes of an activation tensor per sample.

    Parameters
    ----------
    tensor
        What is stored.
    owner
        Layer whose format it has; ``None`` for an output of the network, which stays in fp32.
    stored
        Formats of the owner's choice; the second operand of a product has the weight format.

    >>> tensor_bytes(Tensor("x", (3, 5), None), None, None)
    60
    """
    if owner is None or stored is None:
        return packed_bytes(tensor.elements, FP32)
    second = tensor.name == owner.second_input and tensor.name != owner.input
    return packed_bytes(tensor.elements, stored.weights if second else stored.activations)


def live_sums(graph: LayerGraph, profile: HardwareProfile, candidates: Sequence[Precision]) -> SumOverSets:
    """Return the KiB alive at each operator, for one batch, by the choices of the tensors' owners.

    Raises
    ------
    InputError
        If the graph lists no live sets.
    """
    if not graph.live_sets:
        raise InputError(
            "expected a graph with the tensors alive at each operator, got none; capture the network "
            "or leave activation_kib and memory_kib out"
        )
    shape = (len(graph.layers), len(candidates))
    rows = {tensor.name: _tensor_row(tensor, graph, profile, candidates) for tensor in graph.tensors}
    terms = np.zeros((len(graph.live_sets), *shape))
    constant = np.zeros(len(graph.live_sets))
    for s, live in enumerate(graph.live_sets):
        for name in dict.fromkeys(live.tensors):
            index, row = rows[name]
            if index is None:
                constant[s] += row[0]
            else:
                terms[s, index] += row
    return SumOverSets(terms, constant)


def prune(sums: SumOverSets) -> SumOverSets:
    """Return the sums without those that another one matches or exceeds whatever is chosen.

    One sum bounds another if ``constant difference + sum over layers of the largest difference`` is at most 0, so the
    maximum over sets does not change for any choice.
    """
    order = np.argsort(-(sums.terms.max(axis=2, initial=0.0).sum(axis=1) + sums.constant), kind="stable")
    kept: list[int] = []
    for s in order:
        gain = (sums.terms[s] - sums.terms[kept]).max(axis=2, initial=-np.inf).sum(axis=1)
        if not np.any(gain + sums.constant[s] - sums.constant[kept] <= 0.0):
            kept.append(int(s))
    kept.sort()
    return SumOverSets(sums.terms[kept], sums.constant[kept])


def _tensor_row(
    tensor: Tensor, graph: LayerGraph, profile: HardwareProfile, candidates: Sequence[Precision]
) -> tuple[int | None, NDArray[np.float64]]:
    """Return the owner's index and the tensor's KiB at each candidate; without an owner, one constant."""
    scale = profile.batch / KIB  # a batch is alive at once
    if tensor.owner is None:
        return None, np.array([tensor_bytes(tensor, None, None) * scale])
    index = graph.layer_index[tensor.owner]
    owner = graph.layers[index]
    supported = [profile.supports(owner, candidate) for candidate in candidates]
    sizes = [tensor_bytes(tensor, owner, profile.stored(owner, candidate)) for candidate in candidates]
    return index, np.where(supported, sizes, 0) * scale


class ActivationModel:
    """Peak activation memory in KiB of one inference of one batch: the largest sum over live sets."""

    metric = Metric("activation_kib", Reduction.MAX, "peak activation memory of one batch (KiB)")

    def costs(self, graph: LayerGraph, profile: HardwareProfile, candidates: Sequence[Precision]) -> MetricCosts:
        """Return the sums over live sets that can be the largest."""
        peaks = prune(live_sums(graph, profile, candidates))
        return MetricCosts(np.zeros((len(graph.layers), len(candidates))), peaks=peaks)


class TotalMemoryModel:
    """Size and peak activation memory together in KiB: what a memory that holds both must offer."""

    metric = Metric("memory_kib", Reduction.MAX, "weights and peak activation memory of one batch (KiB)")

    def costs(self, graph: LayerGraph, profile: HardwareProfile, candidates: Sequence[Precision]) -> MetricCosts:
        """Return the sums over live sets, each with the whole network's size."""
        peaks = prune(live_sums(graph, profile, candidates))
        size = SIZE.costs(graph, profile, candidates)
        both = SumOverSets(peaks.terms + size.values, peaks.constant + size.constant)
        return MetricCosts(np.zeros_like(size.values), peaks=both)


ACTIVATIONS = ActivationModel()
TOTAL = TotalMemoryModel()
