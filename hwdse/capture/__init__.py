"""Capture: any ``nn.Module`` to a layer graph, by ``torch.export`` with a dynamic batch.

The export gives one graph of ATen operators for every kind of model; layers, readers of tensors, shapes and live sets
all come from it, and the executable program that comes with it is what :mod:`hwdse.quantize` runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from hwdse.capture.flow import Flow, where
from hwdse.capture.liveness import Storage
from hwdse.capture.nodes import find_nodes
from hwdse.capture.operators import base_name, is_known
from hwdse.capture.sites import Site, edges, find_sites, macs, other_parameters
from hwdse.capture.trace import batch_of, trace
from hwdse.errors import CaptureError
from hwdse.graph import Layer, LayerGraph, tie

__all__ = ["Capture", "capture"]


@dataclass(frozen=True)
class Source:
    """What a network was captured from.

    Attributes
    ----------
    model
        The module.
    inputs
        Example inputs, two samples at least.
    dynamic_dims
        Dimensions of the inputs that may differ between calls.
    """

    model: nn.Module
    inputs: tuple[torch.Tensor, ...]
    dynamic_dims: tuple[int, ...]


@dataclass(frozen=True, repr=False)
class Capture(LayerGraph):
    """A layer graph with the exported program it was read from.

    Attributes
    ----------
    flow
        The functional ATen program, in evaluation mode, holding the model's own parameters, and what flows in it.
    sites
        For each layer, where it stands in the program.
    source
        What it was captured from. In another process the program is captured again.
    """

    flow: Flow = field(kw_only=True, repr=False, compare=False)
    sites: dict[str, Site] = field(kw_only=True, repr=False, compare=False)
    source: Source = field(kw_only=True, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.source,)

    @property
    def program(self) -> ExportedProgram:
        """The exported program."""
        return self.flow.program

    @property
    def operators(self) -> tuple[str, ...]:
        """Names of the program's operators in order, as part of a fingerprint."""
        return tuple(base_name(node) for node in self.flow.nodes if node.op == "call_function")


def capture(model: nn.Module, example_inputs: Any, *, dynamic_dims: Sequence[int] = (0,)) -> Capture:
    """Return the layer graph of ``model``, with counts per sample.

    Parameters
    ----------
    model
        Captured in evaluation mode; its mode is restored and nothing else of it is touched.
    example_inputs
        A tensor or a tuple of tensors, batch first.
    dynamic_dims
        Dimensions of the inputs that may differ between calls: the batch, and for instance 1 for a sequence length.
        Counts are for the example's length.

    Raises
    ------
    CaptureError
        If the model cannot be exported, or holds an operator whose cost is not known.
    """
    inputs = batch_of(example_inputs)
    program = trace(model, inputs, dynamic_dims=dynamic_dims)
    flow = Flow.of(program, inputs)
    for node in flow.nodes:
        if not is_known(node) and node not in flow.fixed:
            raise CaptureError(
                f"expected operators whose cost is known, got {node.target} as {node.name!r}{where(node.stack_trace)}; "
                "replace it in the model, or leave it out by capturing the part before it"
            )
    sites = find_sites(flow)
    if not sites:
        raise CaptureError(
            f"expected a model with at least one convolution, linear or matrix product, got none in "
            f"{type(model).__name__}; there is nothing to quantize"
        )
    storage = Storage.of(flow, sites)
    layers = tuple(_layer(site, flow, storage) for site in sites.values())
    nodes, values = find_nodes(flow, sites)
    return Capture(
        layers=layers,
        tensors=storage.tensors(),
        groups=tie(layers),
        edges=edges(flow, sites),
        live_sets=storage.live_sets(),
        other_parameters=other_parameters(flow, sites),
        nodes=nodes,
        values=values,
        flow=flow,
        sites=sites,
        source=Source(model, inputs, tuple(dynamic_dims)),
    )


def _again(source: Source) -> Capture:
    """Return what :func:`capture` makes of a source."""
    return capture(source.model, source.inputs, dynamic_dims=source.dynamic_dims)


def _layer(site: Site, flow: Flow, storage: Storage) -> Layer:
    """Return the layer at ``site``."""
    first, second = site.operands
    weighted = site.weight is not None
    has_bias = site.bias is not None or site.batch_norm is not None
    return Layer(
        name=site.name,
        op="conv" if site.is_convolution else "linear" if weighted else "matmul",
        input=flow.root(first).name,
        output=storage.name_of(site.node),
        input_shape=flow.shape(first),
        output_shape=flow.shape(site.node),
        macs=macs(flow, site),
        weight=site.weight,
        weight_shape=site.weight_shape,
        bias_count=site.weight_shape[0] if weighted and has_bias else 0,
        kernel=site.weight_shape[2:],
        stride=site.stride,
        groups=site.groups,
        second_input=None if weighted else flow.root(second).name,
        second_shape=() if weighted else flow.shape(second),
        bias=None if site.bias is None else flow.parameters.get(site.bias.name, site.bias.name),
    )


class _CallableModule(ModuleType):
    """The module, callable: ``hwdse.capture`` is the function whether or not the module was imported first."""

    def __call__(self, model: nn.Module, example_inputs: Any, *, dynamic_dims: Sequence[int] = (0,)) -> Capture:
        return capture(model, example_inputs, dynamic_dims=dynamic_dims)


sys.modules[__name__].__class__ = _CallableModule
