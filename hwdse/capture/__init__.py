"""Capture: any ``nn.Module`` to a layer graph, by ``torch.export`` with a dynamic batch.

The export gives one graph of ATen operators for every kind of model; layers, readers of tensors, shapes and live sets
all come from it, and the executable program that comes with it is what :mod:`hwdse.quantize` runs.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import fx, nn
from torch.export import Dim, ExportedProgram

from hwdse.capture.flow import Flow, Site
from hwdse.capture.liveness import Storage
from hwdse.capture.operators import base_name, decompositions, is_known
from hwdse.errors import CaptureError
from hwdse.graph import Layer, LayerGraph, tie

__all__ = ["Capture", "capture"]


@dataclass(frozen=True)
class Capture(LayerGraph):
    """A layer graph with the exported program it was read from.

    Attributes
    ----------
    flow
        The functional ATen program, in evaluation mode, holding the model's own parameters, and what flows in it.
    sites
        For each layer, where it stands in the program.
    """

    flow: Flow = field(kw_only=True, repr=False, compare=False)
    sites: dict[str, Site] = field(kw_only=True, repr=False, compare=False)

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
    inputs = _inputs(example_inputs)
    program = _export(model, inputs, dynamic_dims)
    flow = Flow.of(program, inputs)
    for node in flow.nodes:
        if not is_known(node):
            raise CaptureError(
                f"expected operators whose cost is known, got {node.target} as {node.name!r}{_where(node)}; "
                "replace it in the model, or leave it out by capturing the part before it"
            )
    sites = flow.sites()
    if not sites:
        raise CaptureError(
            f"expected a model with at least one convolution, linear or matrix product, got none in "
            f"{type(model).__name__}; there is nothing to quantize"
        )
    storage = Storage.of(flow, sites)
    layers = tuple(_layer(site, flow, storage) for site in sites.values())
    return Capture(
        layers=layers,
        tensors=storage.tensors(),
        groups=tie(layers),
        edges=flow.edges(sites),
        live_sets=storage.live_sets(),
        other_parameters=flow.other_parameters(sites),
        flow=flow,
        sites=sites,
    )


def _inputs(example_inputs: Any) -> tuple[torch.Tensor, ...]:
    """Return the example as a tuple of tensors whose batch is at least 2 (export specialises 0 and 1)."""
    inputs = (example_inputs,) if isinstance(example_inputs, torch.Tensor) else tuple(example_inputs)
    if not inputs or not all(isinstance(x, torch.Tensor) and x.ndim > 0 and x.numel() > 0 for x in inputs):
        raise CaptureError("expected example inputs as a tensor or a tuple of tensors, batch first, none of them empty")
    return tuple(torch.cat([x, x]) if x.shape[0] == 1 else x for x in inputs)


def _export(model: nn.Module, inputs: tuple[torch.Tensor, ...], dynamic_dims: Sequence[int]) -> ExportedProgram:
    dynamic = tuple({d: Dim.DYNAMIC for d in dynamic_dims if d < x.ndim} for x in inputs)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # The exporter warns of its own internals; what goes wrong with the model comes as an exception.
            warnings.simplefilter("ignore")
            exported = torch.export.export(model, inputs, dynamic_shapes=dynamic)
            program: ExportedProgram = exported.run_decompositions(decompositions())
            return program
    except Exception as error:
        raise CaptureError(_export_failure(model, error)) from error
    finally:
        for module, training in modes:
            module.training = training


def _export_failure(model: nn.Module, error: Exception) -> str:
    """Return one sentence: what the exporter could not do, the user's source line, and what to do."""
    text = str(error)
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    places = re.findall(r'File "([^"]+)", line (\d+)', text)
    own = [place for place in places if "/torch/" not in place[0]]
    where = f" at {own[-1][0]}:{own[-1][1]}" if own else ""
    return (
        f"expected a model that torch.export can trace with a dynamic batch, got {type(error).__name__} from "
        f"{type(model).__name__}{where}: {first.rstrip('.')}; avoid data-dependent control flow and "
        "sizes that fix the batch"
    )


def _where(node: fx.Node) -> str:
    """Return the source line that the exporter recorded for ``node``."""
    lines = [line.strip() for line in (node.stack_trace or "").splitlines() if line.strip()]
    return f" at {' '.join(lines[-2:])}" if lines else ""


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
        macs=flow.macs(site),
        weight=site.weight,
        weight_shape=site.weight_shape,
        bias_count=site.weight_shape[0] if weighted and has_bias else 0,
        kernel=site.weight_shape[2:],
        stride=site.stride,
        groups=site.groups,
        second_input=None if weighted else flow.root(second).name,
        second_shape=() if weighted else flow.shape(second),
    )


class _CallableModule(ModuleType):
    """The module, callable: ``hwdse.capture`` is the function whether or not the module was imported first."""

    def __call__(self, model: nn.Module, example_inputs: Any, *, dynamic_dims: Sequence[int] = (0,)) -> Capture:
        return capture(model, example_inputs, dynamic_dims=dynamic_dims)


sys.modules[__name__].__class__ = _CallableModule
