"""All weights of a network in one format, layer after layer, each from the second moments of what it reads.

A layer reads what the layers before it write with their rounded weights, and is to write what it writes in full
precision: it makes up for the errors that reach it, as far as its own weights can [Nagel2020]_.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hwdse.capture.sites import Site
from hwdse.errors import InputError
from hwdse.formats import Granularity, Scheme
from hwdse.quantize.moments import SecondMoments, add_layer
from hwdse.quantize.program import Environment, Program, Quantizers, channels_last, layer_output
from hwdse.quantize.reconstruct import Damped, Grid, output_error, reconstruct
from hwdse.quantize.weights import QuantizedWeight

__all__ = ["Rebuilt", "rebuild", "rebuildable"]

Array = NDArray[np.float64]

_KEPT_BYTES = 2**30
"""Memory for the values of batches that wait between two layers; those beyond start again from their inputs."""


@dataclass(frozen=True)
class Rebuilt:
    """A reconstructed weight.

    Attributes
    ----------
    weight
        Values and scales.
    bias
        The bias that goes with it: the mean output stays what it is in full precision. ``None`` without a bias.
    missing
        Rows of data that were missing for a covariance of full rank.
    """

    weight: QuantizedWeight
    bias: torch.Tensor | None
    missing: int


def rebuildable(program: Program) -> dict[str, Site]:
    """Return the one layer that reads each weight, by the weight's name.

    A weight that something else reads too, be it another layer or an embedding, has no layer to be fitted to. Neither
    has one of a product that is multiplied by a factor.
    """
    found = {}
    for site in program.captured.sites.values():
        node = site.operands[1]
        while len(node.users) == 1 and node is not site.weight_node:
            node = node.all_input_nodes[0]
        is_scaled = not {"alpha", "beta"}.isdisjoint(site.node.kwargs)
        if site.weight is not None and node is site.weight_node and len(node.users) == 1 and not is_scaled:
            found[site.weight] = site
    return found


def rebuild(
    program: Program,
    batches: Iterable[Any],
    *,
    scheme: Scheme,
    nearest: Callable[[str], QuantizedWeight],
    quantizers: Quantizers,
    on_layer: Callable[[], None] | None = None,
) -> dict[str, Rebuilt]:
    """Return all weights that one layer alone reads, by name; the others take part rounded to nearest.

    No channel has a larger output error on the calibration data than its weights rounded to nearest.

    Parameters
    ----------
    program, batches
        Network and calibration data.
    scheme
        Who shares a scale.
    nearest
        Gives the weight of a name, rounded to nearest.
    quantizers
        What rounds activations on the way.
    on_layer
        Called after each layer.

    Raises
    ------
    InputError
        If there is no batch, or a value is not finite (the layer is named).
    """
    sites = rebuildable(program)
    changed = {program.weights[name]: nearest(name).values for name in program.weights if name not in sites}
    walks = [_Walk(program, batch, quantizers, changed) for batch in batches]
    if not walks:
        raise InputError("expected at least one batch of calibration data, got none; check the calibration factory")
    by_step = {layer_output(site).name: (name, site) for name, site in sites.items()}
    found = {}
    for i, step in enumerate(program.steps):
        if step.name not in by_step:
            continue
        name, site = by_step[step.name]
        found[name] = _rebuilt(program, site, _moments(program, site, i, walks), nearest(name), scheme)
        own = {program.weights[name]: found[name].weight.values}
        if (bias := found[name].bias) is not None:
            own[program.biases[site.name]] = bias
        changed |= own
        for walk in walks:
            walk.put(own, site)
        if on_layer is not None:
            on_layer()
    return found


class _Walk:
    """One batch on its way through the network, in full precision and rounded.

    Parameters
    ----------
    program, batch, quantizers
        What is run, on what, and what rounds activations.
    changed
        Weights and biases found so far, by position.
    """

    def __init__(
        self, program: Program, batch: Any, quantizers: Quantizers, changed: Mapping[int, torch.Tensor]
    ) -> None:
        self.program, self.batch, self.quantizers, self.changed = program, batch, quantizers, changed
        self.place = {node: i for i, node in enumerate(program.captured.flow.nodes)}
        self.full: Environment = []
        self.rounded: Environment = []
        self.done = (0, 0)

    def look(self, site: Site, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what the layer of step ``i`` reads rounded, and what it writes in full precision."""
        if not self.full:
            self.full, self.rounded = self.program.start(self.batch, {}), self.program.start(self.batch, self.changed)
            self.program.quantize_inputs(self.rounded, self.quantizers)
        self.program.advance(self.full, {}, first=self.done[0], last=i + 1)
        self.program.advance(self.rounded, self.quantizers, first=self.done[1], last=i)
        self.done = i + 1, i
        return self.rounded[self.place[site.operands[0]]], self.full[self.program.steps[i].output]

    def put(self, own: Mapping[int, torch.Tensor], site: Site) -> None:
        """Go on with the values ``own`` of the layer at ``site``."""
        if not self.full:
            return
        for position, value in own.items():
            self.rounded[position] = value
        behind, node = [], site.operands[1]
        while node is not site.weight_node:
            behind.append(self.place[node])
            node = node.all_input_nodes[0]
        # Transpositions of the weight were computed from the one before.
        for j, step in enumerate(self.program.steps[: self.done[1]]):
            if step.output in behind:
                self.program.advance(self.rounded, {}, first=j, last=j + 1)

    @property
    def held_bytes(self) -> int:
        """Memory that its values take."""
        constants = {id(value) for value in (*self.program.constants, *self.changed.values())}
        held = {id(v): v for v in (*self.full, *self.rounded) if isinstance(v, torch.Tensor) and id(v) not in constants}
        return sum(value.numel() * value.element_size() for value in held.values())

    def forget(self) -> None:
        """Let go of all values; the next look starts from the inputs."""
        self.full, self.rounded, self.done = [], [], (0, 0)


def _moments(program: Program, site: Site, i: int, walks: Iterable[_Walk]) -> SecondMoments:
    """Return the moments of the layer of step ``i``, in bounded memory."""
    shape = site.weight_shape
    moments = SecondMoments(site.groups, int(np.prod(shape[1:])), shape[0] // site.groups)
    position = program.biases.get(site.name)
    held = 0
    with torch.inference_mode():
        for walk in walks:
            x, t = walk.look(site, i)
            if position is not None:
                bias = program.constants[position]
                t = t - (bias.reshape(-1, *[1] * len(site.stride)) if site.is_convolution else bias)
            add_layer(moments, site, x, t)
            held += walk.held_bytes
            if held > _KEPT_BYTES:
                walk.forget()
    if moments.count == 0:
        raise InputError("expected calibration batches with samples, got none; check the calibration factory")
    return moments


def _rebuilt(program: Program, site: Site, moments: SecondMoments, nearest: QuantizedWeight, scheme: Scheme) -> Rebuilt:
    """Return the weight of the layer at ``site``, channel by channel where it is better than ``nearest``."""
    assert site.weight is not None
    full = program.folded[site.weight]
    layout = _Layout(tuple(full.movedim(site.weight_axis, 0).shape), site.weight_axis, site.groups)
    position = program.biases.get(site.name)
    covariance, cross = moments.covariances(centred=position is not None)
    damped = Damped.of(covariance, cross, layout.matrix(full))
    per_tensor = scheme.weight_granularity is Granularity.PER_TENSOR
    grid = Grid(
        nearest.levels,
        layout.rows(nearest.scale),
        layout.rows(nearest.zero_point),
        scheme.block_size or layout.columns,
        is_shared=per_tensor,
    )
    codes, fitted = reconstruct(damped, grid)
    values = (codes.astype(np.float32) * fitted.spread(layout.columns)[0].astype(np.float32)).astype(np.float64)
    rounded = layout.matrix(nearest.values)
    gain = output_error(rounded, covariance, cross) - output_error(values, covariance, cross)
    better = np.full_like(gain, gain.sum()) > 0.0 if per_tensor else gain > 0.0
    values = np.where(better[:, None], values, rounded)
    scale = layout.scales(np.where(better[:, None], fitted.scale, grid.scale))
    weight = QuantizedWeight(
        channels_last(layout.weight(values).to(nearest.values.dtype)),
        scale[:1] if per_tensor else scale,
        nearest.zero_point,
        nearest.levels,
    )
    bias = None
    if position is not None:
        shift = moments.target_mean - (values * moments.mean[:, :, None]).sum(1)
        own: torch.Tensor = program.constants[position]
        bias = (own.double() + torch.from_numpy(shift.reshape(-1))).to(own.dtype)
    return Rebuilt(weight, bias, moments.missing)


@dataclass(frozen=True)
class _Layout:
    """How a stored weight and its matrix ``(groups, columns, channels)`` belong together.

    Attributes
    ----------
    shape
        Of the weight with the channels first.
    axis
        Where the channels are stored.
    groups
        Of the layer.
    """

    shape: tuple[int, ...]
    axis: int
    groups: int

    @property
    def columns(self) -> int:
        return int(np.prod(self.shape[1:]))

    def matrix(self, weight: torch.Tensor) -> Array:
        """Return a stored weight as a matrix."""
        rows = weight.detach().movedim(self.axis, 0).reshape(self.groups, -1, self.columns)
        return np.ascontiguousarray(rows.double().numpy().transpose(0, 2, 1))

    def weight(self, matrix: Array) -> torch.Tensor:
        """Return a matrix as it is stored."""
        rows = torch.from_numpy(np.ascontiguousarray(matrix.transpose(0, 2, 1)))
        return rows.reshape(self.shape).movedim(0, self.axis).contiguous()

    def rows(self, scale: torch.Tensor) -> Array:
        """Return scales, channel after channel, as ``(groups, blocks, channels)``; one for all is repeated."""
        channels = self.shape[0]
        values = scale.double().numpy()
        table = np.broadcast_to(values, channels) if values.size == 1 else values
        return np.ascontiguousarray(table.reshape(self.groups, channels // self.groups, -1).transpose(0, 2, 1))

    def scales(self, rows: Array) -> torch.Tensor:
        """Return the inverse of :meth:`rows`."""
        return torch.from_numpy(np.ascontiguousarray(rows.transpose(0, 2, 1)).reshape(-1))
