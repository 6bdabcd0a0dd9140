"""Whole networks in mixed precision on this processor: configurations to time, and the calibration that they give."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hwdse.capture import Capture
from hwdse.cost.calibrate import FEWEST, LatencyFit, calibrate
from hwdse.cost.terms import latency_terms
from hwdse.deploy.audit import audit
from hwdse.deploy.onnx import explicit_model
from hwdse.deploy.translate import Translation
from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.graph import LayerGraph
from hwdse.hardware import HardwareProfile
from hwdse.hardware.measure.session import bound_call, open_session
from hwdse.hardware.measure.timing import Call, Harness
from hwdse.parts import parts
from hwdse.progress import Progress
from hwdse.quantize.network import QuantizedNetwork

__all__ = ["AT_ONCE", "Network", "configurations", "fit_whole", "options_of"]

AT_ONCE = 4
"""Sessions that are timed in turns."""

Genes = NDArray[np.int64]


def options_of(graph: LayerGraph, profile: HardwareProfile, precisions: Sequence[Precision]) -> list[Genes]:
    """Return, for each tied group, the indices of the precisions that the device runs all its layers at."""
    found = []
    for group in graph.groups:
        layers = [graph.layers[graph.layer_index[name]] for name in group.layers]
        runs = [all(profile.supports(layer, precision) for layer in layers) for precision in precisions]
        found.append(np.flatnonzero(runs))
    return found


def configurations(options: Sequence[Genes], count: int, rng: np.random.Generator) -> Genes:
    """Return ``count`` different random configurations ``(count, groups)`` and before them the uniform ones.

    A third are independent, a third runs of equal precision, a third one block in a network of another precision. A
    group that cannot have what is drawn takes its first option.

    Raises
    ------
    InputError
        If there are not as many.
    """
    groups, kinds = len(options), max(int(own.max()) for own in options) + 1

    def possible(row: Iterable[int]) -> tuple[int, ...]:
        return tuple(int(g if g in own else own[0]) for g, own in zip(row, options, strict=True))

    def independent() -> Genes:
        return rng.integers(0, kinds, size=groups)

    def runs() -> Genes:
        starts = rng.random(groups) < rng.uniform(1.5, 8.0) / groups
        return rng.integers(0, kinds, size=groups + 1)[np.cumsum(starts)]

    def block() -> Genes:
        outside, inside = rng.choice(kinds, size=2, replace=False)
        first, last = np.sort(rng.integers(0, groups + 1, size=2))
        row = np.full(groups, outside)
        row[first:last] = inside
        return row

    drawn: dict[tuple[int, ...], None] = dict.fromkeys(possible([kind] * groups) for kind in range(kinds))
    most = prod(map(len, options)) - len(drawn)
    if count > most:
        raise InputError(f"expected at most {most} configurations beside the uniform ones, got {count}; ask for fewer")
    wanted, makers = len(drawn) + count, cycle((independent, runs, block))
    while len(drawn) < wanted:
        drawn[possible(next(makers)().tolist())] = None
    return np.array(list(drawn))


@dataclass
class Network:
    """A captured network that can be timed in any configuration.

    Attributes
    ----------
    graph
        The network.
    example
        Its input: a tensor or a tuple of tensors.
    profile
        What the exporter needs to know of the device: its scheme.
    """

    graph: Capture
    example: Any
    profile: HardwareProfile

    @cached_property
    def quantized(self) -> QuantizedNetwork:
        """The network with the ranges that the example gives it."""
        return QuantizedNetwork.calibrated(self.graph, [self.example], scheme=self.profile.scheme)

    @cached_property
    def translation(self) -> Translation:
        """The network in ONNX, before a configuration is filled in."""
        return Translation.of(self.quantized.program)

    def call(self, precisions: Sequence[Precision], *, threads: int) -> Call:
        """Return one inference of a configuration, precisions by group, with its inputs and outputs bound.

        Raises
        ------
        InputError
            If the runtime computes a layer in something else than its precision.
        """
        config = self.graph.config(precisions)
        model = explicit_model(self.translation, self.quantized, config).SerializeToString()
        for layer in audit(model, config.precisions, threads=threads):
            if not layer.is_as_requested:
                raise InputError(
                    f"expected {layer.layer} in {layer.requested}, got {layer.operator} in {layer.executed}"
                )
        session = open_session(model, threads=threads)
        tensors = (self.example,) if isinstance(self.example, torch.Tensor) else tuple(self.example)
        inputs = {given.name: tensor.numpy() for given, tensor in zip(session.get_inputs(), tensors, strict=True)}
        return bound_call(session, inputs)[0]


def fit_whole(
    network: Network,
    precisions: Sequence[Precision],
    count: int,
    *,
    threads: int,
    harness: Harness,
    progress: Progress,
) -> LatencyFit:
    """Time ``count`` configurations of a network whole, and return the calibration that they give its profile.

    Parameters
    ----------
    network
        With the profile to calibrate.
    precisions
        The uniform configurations are those of the first two; the others are drawn from all.
    count
        Number of configurations, at least four.
    threads
        Threads within one operator; the caller keeps the process on that many cores.
    harness, progress
        What times them, and who watches.

    Raises
    ------
    InputError
        If fewer than two precisions run, there are not as many configurations, or the runtime does not run one as
        asked.
    """
    if count < FEWEST:
        raise InputError(f"expected at least {FEWEST} whole networks to calibrate with, got {count}; 6 is good")
    profile, graph = network.profile, network.graph
    options = options_of(graph, profile, precisions)
    if not all(map(len, options)) or max(map(len, options)) == 1:
        raise InputError(
            f"expected two precisions or more that {profile.name} runs some layers of this network at and one for each "
            "layer, got fewer; name them with --precision, fp32 among them"
        )
    uniform = len(configurations(options, 0, np.random.default_rng(0)))
    drawn = configurations(options, max(0, count - min(uniform, 2)), np.random.default_rng(0))
    genes = np.concatenate([drawn[:2], drawn[uniform:]])[:count]
    chosen = [[precisions[gene] for gene in row] for row in genes]
    progress.start("whole networks", len(chosen))
    measured_ms: list[float] = []
    for some in parts(chosen, AT_ONCE):
        calls = []
        for own in some:
            calls.append(network.call(own, threads=threads))
            progress.advance()
        measured_ms += [timing.minimum_us * 1e-3 for timing in harness.time(calls)]
    return calibrate([latency_terms(graph, profile, graph.config(own)) for own in chosen], measured_ms)
