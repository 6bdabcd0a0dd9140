"""A model as a functional program of ATen operators, with a dynamic batch."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram, ShapesCollection
from torch.export.graph_signature import OutputKind

from hwdse.capture.flow import where
from hwdse.capture.operators import decompositions
from hwdse.errors import CaptureError

__all__ = ["batch_of", "trace"]


def batch_of(example_inputs: Any) -> tuple[torch.Tensor, ...]:
    """Return the example as a tuple of tensors whose batch is at least 2 (export specialises 0 and 1)."""
    inputs = (example_inputs,) if isinstance(example_inputs, torch.Tensor) else tuple(example_inputs)
    if not inputs or not all(isinstance(x, torch.Tensor) and x.ndim > 0 and x.numel() > 0 for x in inputs):
        raise CaptureError("expected example inputs as a tensor or a tuple of tensors, batch first, none of them empty")
    return tuple(torch.cat([x, x]) if x.shape[0] == 1 else x for x in inputs)


def trace(model: nn.Module, inputs: tuple[torch.Tensor, ...], *, dynamic_dims: Sequence[int]) -> ExportedProgram:
    """Return the functional program of ``model`` in evaluation mode, its outputs and nothing that they do not need.

    Raises
    ------
    CaptureError
        If the exporter fails, or the model keeps a state that a call changes.
    """
    # Shapes by tensor, not by argument: a forward that takes *args has no argument per tensor.
    dynamic = ShapesCollection()
    for x in inputs:
        dynamic[x] = {d: Dim.DYNAMIC for d in dynamic_dims if d < x.ndim}
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # The exporter warns of its own internals; what goes wrong with the model comes as an exception.
            warnings.simplefilter("ignore")
            exported = torch.export.export(model, inputs, dynamic_shapes=dynamic.dynamic_shapes(model, inputs))
            program: ExportedProgram = exported.run_decompositions(decompositions())
    except Exception as error:
        raise CaptureError(_export_failure(model, error)) from error
    finally:
        for module, training in modes:
            module.training = training
    _keep_outputs(model, program)
    return program


def _keep_outputs(model: nn.Module, program: ExportedProgram) -> None:
    """Take the exporter's checks out of ``program``, and the inputs that ``model`` writes over.

    A caller's tensor stays as it is here; what the model computes from what it wrote there is the same.
    """
    specs = program.graph_signature.output_specs
    state = [str(spec.target) for spec in specs if spec.kind is OutputKind.BUFFER_MUTATION]
    if state:
        raise CaptureError(
            f"expected a model that computes the same at every call, got {type(model).__name__}, which changes its "
            f"buffer {state[0]!r} in evaluation mode; capture it without that state"
        )
    output = program.graph.output_node()
    kept = [v for v, spec in zip(output.args[0], specs, strict=True) if spec.kind is OutputKind.USER_OUTPUT]
    output.args = (tuple(kept),)
    for node in reversed(list(program.graph.nodes)):
        if node.op == "call_function" and not node.users:
            program.graph.erase_node(node)


def _export_failure(model: nn.Module, error: Exception) -> str:
    """Return one sentence: what the exporter could not do, the user's source line, and what to do."""
    text = str(error)
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    recurrent = [name for name, module in model.named_modules() if isinstance(module, nn.RNNBase)]
    advice = "avoid data-dependent control flow and sizes that fix the batch"
    if recurrent:
        advice = f"replace the recurrent layer {recurrent[0]!r}: recurrent layers have no cost here"
    return (
        f"expected a model that torch.export can trace with a dynamic batch, got {type(error).__name__} from "
        f"{type(model).__name__}{where(text)}: {first.rstrip('.')}; {advice}"
    )
