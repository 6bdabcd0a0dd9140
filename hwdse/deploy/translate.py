"""The network in full precision as an ONNX graph with markers: where layers stand, where numbers may be rounded.

The exporter sees the program's steps (batch norm folded) with every layer replaced by a marker, so that whatever is no
layer is the framework's own translation, and what a configuration changes is filled in later, in milliseconds.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.export import Dim

from hwdse.capture.operators import PRODUCTS, base_name
from hwdse.capture.sites import Site
from hwdse.errors import InputError
from hwdse.quantize.program import Program
from hwdse.quantize.runnable import Step
from hwdse.reason import reason_of

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["MARKERS", "OPSET", "Translation", "needs_packages"]

MARKERS = "hwdse"
"""Domain of the operators ``Point`` (a tensor that may be rounded), ``Layer`` (its operands, and its bias if it has
one) and ``Weight`` (a layer's weight where something else reads it), each with the attribute ``name``."""

OPSET = 20
"""Before opset 21 no integer has fewer than 8 bits."""


@dataclass(frozen=True, eq=False)
class Translation:
    """An ONNX graph with markers, and the program that it was made from; one serves every configuration.

    Attributes
    ----------
    program
        The compiled network.
    model
        Its ONNX graph with markers, without the layers' weights.
    """

    program: Program
    model: ModelProto

    @classmethod
    def of(cls, program: Program) -> Translation:
        """Translate ``program``, with the dimensions left open that its capture left open.

        Raises
        ------
        InputError
            If a package is missing, or an operator has no counterpart in ONNX.
        """
        needs_packages()
        flow = program.captured.flow
        example = tuple(torch.zeros(flow.shapes[node], dtype=node.meta["val"].dtype) for node in flow.inputs)
        try:
            with _quiet():
                exported = torch.onnx.export(
                    _Replay(program).eval(),
                    example,
                    dynamo=True,
                    optimize=True,
                    verbose=False,
                    opset_version=OPSET,
                    dynamic_shapes=(tuple(_open(node) for node in flow.inputs),),
                    input_names=[node.name for node in flow.inputs],
                    output_names=_output_names(len(program.outputs)),
                )
            assert exported is not None
            return cls(program, _bare(exported.model_proto))
        except Exception as error:
            raise InputError(
                f"expected operators that the ONNX exporter knows, got {_last_line(error)}; leave that part of the "
                "network out of the capture"
            ) from error


def needs_packages() -> None:
    """Check that what writes ONNX is installed.

    Raises
    ------
    InputError
        If it is not.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"expected onnx and onnxscript, got {error}; pip install 'hwdse[onnx]'") from error


def _output_names(count: int) -> list[str]:
    return ["output"] if count == 1 else [f"output_{i}" for i in range(count)]


def _open(node: fx.Node) -> dict[int, Any]:
    """Return the dimensions of an input that were left open."""
    sizes = enumerate(node.meta["val"].shape)
    return {axis: Dim.DYNAMIC for axis, size in sizes if isinstance(size, torch.SymInt)}


def _last_line(error: BaseException) -> str:
    """Return what first went wrong, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return reason_of(error)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from logging and warning of its own internals; what goes wrong comes as an exception."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _bare(model: ModelProto) -> ModelProto:
    """Return ``model`` without what nobody runs: names of nodes, notes, shapes of what is computed.

    Values get numbers for names (``:7``), which no tensor or parameter can have.
    """
    ends = {value.name for value in (*model.graph.input, *model.graph.output)}
    names: dict[str, str] = {"": ""}
    for node in model.graph.node:
        node.ClearField("name")
        node.ClearField("doc_string")
        del node.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
        tensor.ClearField("doc_string")
        tensor.name = names.setdefault(tensor.name, f":{len(names)}")
    for node in model.graph.node:
        for values in (node.input, node.output):
            values[:] = [v if v in ends else names.setdefault(v, f":{len(names)}") for v in values]
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    return model


def _mark(kind: str, operands: list[torch.Tensor], name: str, like: torch.Tensor) -> torch.Tensor:
    """Return what the marker ``kind`` writes: a tensor like ``like``."""
    marked: torch.Tensor = torch.onnx.ops.symbolic(
        f"{MARKERS}::{kind}", operands, {"name": name}, dtype=like.dtype, shape=like.shape, version=1
    )
    return marked


@dataclass(frozen=True)
class _Point:
    """Stands where a quantizer would."""

    name: str
    is_unsigned = False

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return _mark("Point", [x], self.name, x)

    apply_ = __call__


@dataclass(frozen=True)
class _Layer:
    """Stands where a layer would: its function serves to learn the result's shape."""

    site: Site
    function: Callable[..., Any]

    def __call__(self, *arguments: Any, **keywords: Any) -> torch.Tensor:
        first, second, bias = PRODUCTS.get(base_name(self.site.node), (0, 1, 2))
        operands = [arguments[first]] if self.site.weight is not None else [arguments[first], arguments[second]]
        given = arguments[bias] if bias is not None and len(arguments) > bias else keywords.get("bias")
        operands += [given] if given is not None else []
        return _mark("Layer", operands, self.site.name, self.function(*arguments, **keywords))


class _Replay(nn.Module):
    """The steps of a program with markers in place of layers, weights and quantizers."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        sites = {_written_by(site): site for site in program.captured.sites.values()}
        self.program = replace(program, steps=[_marked(step, sites) for step in program.steps])

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the network's outputs, flat."""
        program = self.program
        values = list(program.constants)
        for name, position in program.weights.items():
            values[position] = _mark("Weight", [], name, values[position])
        for (position, _), tensor in zip(program.inputs, inputs, strict=True):
            values[position] = tensor
        points = {point: _Point(point) for point in program.points}
        program.quantize_inputs(values, points)
        program.advance(values, points)
        flat, _ = torch.utils._pytree.tree_flatten(program.result(values))
        return tuple(flat)


def _written_by(site: Site) -> str:
    """Return the name of the step that computes a layer: the folded batch norm's result, if there is one."""
    if site.batch_norm is None:
        return site.node.name
    return next(user.name for user in site.batch_norm.users if user.args[1] == 0)


def _marked(step: Step, sites: Mapping[str, Site]) -> Step:
    """Return ``step``, or the marker of the layer that it computes."""
    return replace(step, function=_Layer(sites[step.name], step.function)) if step.name in sites else step
