"""What a runtime really executes for every layer, read from its optimized graph and held against the request."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hwdse.deploy.holds import BLOCKED_BITS
from hwdse.deploy.translate import needs_packages
from hwdse.formats import FP32, Precision
from hwdse.hardware.measure.session import DISABLED_OPTIMIZERS, open_optimized

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

__all__ = ["Executed", "audit"]

FLOAT = frozenset({"Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"})
INTEGER = frozenset(
    {"QLinearConv", "ConvInteger", "QGemm", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat"}
    | {"DynamicQuantizeMatMul"}
)
BLOCKED = frozenset({"MatMulNBits"})

NOTHING = "no operator of its own"

_ADDED = re.compile(r"(_token_\d+|_nchwc|/Matmul(Transpose|Scale)Fusion/?|/MatMulAddFusion/?|_transpose)$")


@dataclass(frozen=True)
class Executed:
    """What runs for one layer.

    Attributes
    ----------
    layer
        Its name.
    requested
        Its precision.
    operator
        Operator of the optimized graph.
    executed
        What that computes in: ``fp32``, ``int8``, or ``int4 blocks``.
    """

    layer: str
    requested: Precision
    operator: str
    executed: str

    @property
    def is_as_requested(self) -> bool:
        """True if the operator computes in what was asked for; integers of fewer bits run in an int8 container."""
        return self.executed == _expected(self.requested)


def audit(
    model: bytes | Path,
    requested: Mapping[str, Precision],
    *,
    threads: int = 1,
    disabled: Sequence[str] = DISABLED_OPTIMIZERS,
) -> list[Executed]:
    """Return what ONNX Runtime executes for every layer in ``requested``.

    A layer's operator is found by its name, which optimization keeps or extends, otherwise by the layer whose result
    the value that it writes is computed from.

    Parameters
    ----------
    model
        ONNX file or its content, from :func:`hwdse.deploy.onnx.explicit_model`.
    requested
        Precision of every layer.
    threads, disabled
        As in :func:`hwdse.hardware.measure.session.open_session`.

    Raises
    ------
    InputError
        If a package is missing, or the model does not load.
    """
    needs_packages()
    import onnx

    _, optimized = open_optimized(model, threads=threads, disabled=disabled)
    original = onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(model)
    found = _operators(original, optimized, set(requested))
    return [_executed(name, precision, found.get(name)) for name, precision in requested.items()]


def _expected(precision: Precision) -> str:
    if precision.weights == precision.activations == FP32:
        return "fp32"
    return "int8" if precision.activations != FP32 else _blocks(precision.weights.bits)


def _blocks(bits: int) -> str:
    return f"int{bits} blocks"


def _executed(layer: str, requested: Precision, node: NodeProto | None) -> Executed:
    if node is None:
        return Executed(layer, requested, NOTHING, "unknown")
    if node.op_type in BLOCKED:
        bits = next((a.i for a in node.attribute if a.name == "bits"), BLOCKED_BITS[1])
        return Executed(layer, requested, node.op_type, _blocks(bits))
    return Executed(layer, requested, node.op_type, "int8" if node.op_type in INTEGER else "fp32")


def _operators(original: ModelProto, optimized: ModelProto, layers: set[str]) -> dict[str, NodeProto]:
    """Return the optimized graph's operator of each layer."""
    multiplying = [node for node in optimized.graph.node if node.op_type in FLOAT | INTEGER | BLOCKED]
    found: dict[str, NodeProto] = {}
    nameless = []
    for node in multiplying:
        name = next((name for name in _names(node.name) if name in layers), None)
        if name is not None:
            found[name] = node
        else:
            nameless.append(node)
    makers = {output: node for node in original.graph.node for output in node.output}
    # One that took in an addition may write what two layers are summed to: it is that which is not found elsewhere.
    for wanted in (1, 2):
        for node in list(nameless):
            sources = [name for name in _sources(node, makers, layers) if name not in found]
            if sources and len(sources) <= wanted:
                found[sources[0]] = node
                nameless.remove(node)
    return found


def _names(text: str) -> list[str]:
    """Return ``text`` and what is left of it without the runtime's additions, one after the other.

    >>> _names("fused head/MatMulAddFusion")
    ['fused head/MatMulAddFusion', 'head/MatMulAddFusion', 'head']
    """
    found = [text]
    if text.startswith("fused "):
        found.append(text.removeprefix("fused "))
    while (shorter := _ADDED.sub("", found[-1])) != found[-1]:
        found.append(shorter)
    return found


def _sources(node: NodeProto, makers: Mapping[str, NodeProto], layers: set[str]) -> list[str]:
    """Return the layers that an operator's result is computed from in the original graph, not through other layers.

    An operator that took in others has the name of the value that the last of them writes.
    """
    pending = [name for text in (node.name, *node.output) for name in _names(text) if name in makers][:1]
    found: list[str] = []
    while pending:
        maker = makers.get(pending.pop(0))
        if maker is None:
            continue
        if maker.name in layers:
            found.append(maker.name)
        elif maker.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            pending += maker.input
    return found
