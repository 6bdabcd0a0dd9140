"""What each ATen operator means for a layer graph: MACs, another look at the same values, or free of MACs.

An operator that is in none of these tables stops the capture: nothing costs 0 because it was unknown.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch.export import default_decompositions

__all__ = [
    "BATCH_NORM",
    "CONVOLUTIONS",
    "LINEARS",
    "PRODUCTS",
    "base_name",
    "decompositions",
    "has_macs",
    "is_elementwise",
    "is_known",
    "is_view",
]

CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d"})
"""Operators ``(input, weight, bias, stride, padding, dilation, groups)``."""

LINEARS = frozenset({"linear"})
"""Operators ``(input, weight, bias)`` with the weight as (out, in)."""

PRODUCTS = {"matmul": (0, 1, None), "mm": (0, 1, None), "bmm": (0, 1, None), "addmm": (1, 2, 0)}
"""Matrix products: positions of the first operand, the second operand and the bias."""

BATCH_NORM = "_native_batch_norm_legit_no_training"

_VIEWS = frozenset(
    """
    view reshape _unsafe_view view_as transpose t permute flatten unflatten squeeze unsqueeze expand expand_as
    slice select narrow split split_with_sizes chunk unbind contiguous clone alias detach dropout movedim
    lift_fresh_copy repeat repeat_interleave pixel_shuffle pixel_unshuffle channel_shuffle roll flip rot90
    swapaxes diagonal unfold
    """.split()
)
"""Operators whose result holds only values of their first argument: stored once, quantized once."""

_ELEMENTWISE = frozenset(
    """
    softmax _softmax _safe_softmax log_softmax _log_softmax layer_norm group_norm rms_norm hardswish hardsigmoid mish
    selu celu elu softplus where
    """.split()
)
"""Operators that can be written over their operand though the framework does not call them pointwise."""

_ZERO_PADS = frozenset({"pad", "constant_pad_nd"})

_FREE_OF_MACS = frozenset(
    """
    mean sum prod amax amin max min argmax argmin var std cumsum cumprod norm linalg_vector_norm logsumexp any all
    cat stack softmax _softmax log_softmax _log_softmax layer_norm native_layer_norm group_norm native_group_norm
    instance_norm rms_norm batch_norm embedding max_pool1d max_pool2d max_pool3d max_pool2d_with_indices
    avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    _adaptive_avg_pool2d adaptive_max_pool2d upsample_nearest1d upsample_nearest2d upsample_bilinear2d
    upsample_bicubic2d interpolate index index_select gather scatter scatter_add topk sort triu tril masked_fill
    masked_select one_hot arange full full_like zeros zeros_like ones ones_like empty scalar_tensor sym_size
    sym_numel sym_constrain_range_for_size _assert_tensor_metadata _assert_scalar _to_copy to type_as copy
    select_scatter slice_scatter glu prelu reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d
    meshgrid bucketize hstack vstack std_mean var_mean fill eye outer im2col index_fill index_put index_copy
    """.split()
)

_PYTHON_OPERATORS = frozenset(
    f for f in vars(operator).values() if callable(f) and getattr(f, "__module__", "") == "_operator"
)


def base_name(node: fx.Node) -> str:
    """Return the operator's name without overload: ``conv2d`` for ``aten.conv2d.default``.

    An operator from elsewhere keeps its namespace: ``mylib::conv2d`` need not be a convolution.
    """
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target._schema.name).removeprefix("aten::")
    return getattr(target, "__name__", str(target))


def _is_zero_pad(node: fx.Node) -> bool:
    mode = node.args[2] if base_name(node) == "pad" and len(node.args) > 2 else "constant"
    value = node.args[-1] if isinstance(node.args[-1], int | float) else 0
    return base_name(node) in _ZERO_PADS and mode == "constant" and value == 0


def is_view(node: fx.Node) -> bool:
    """Return True if the result holds the values of the first argument (and zeros of a padding) and nothing else."""
    if node.op != "call_function":
        return False
    if node.target is operator.getitem:
        return isinstance(node.args[0], fx.Node) and is_view(node.args[0])
    return base_name(node) in _VIEWS or _is_zero_pad(node)


def has_macs(node: fx.Node) -> bool:
    """Return True for a convolution, linear or matrix product."""
    name = base_name(node)
    return node.op == "call_function" and (name in CONVOLUTIONS or name in LINEARS or name in PRODUCTS)


def is_elementwise(node: fx.Node) -> bool:
    """Return True if the result can be written over an operand of the same shape."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return False
    name = base_name(node)
    return torch.Tag.pointwise in node.target.tags or name in _ELEMENTWISE or name == BATCH_NORM


def is_known(node: fx.Node) -> bool:
    """Return True if the operator's cost is known: it has MACs that are counted, or none."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return node.op != "call_function" or node.target in _PYTHON_OPERATORS
    name = base_name(node)
    free = name in _FREE_OF_MACS or name in _ZERO_PADS
    return free or is_elementwise(node) or has_macs(node) or is_view(node)


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Scaled dot-product attention as two matrix products, so that both are layers."""
    del dropout_p  # captured in evaluation mode
    if enable_gqa:
        key = key.repeat_interleave(query.size(-3) // key.size(-3), -3)
        value = value.repeat_interleave(query.size(-3) // value.size(-3), -3)
    factor = 1.0 / math.sqrt(query.size(-1)) if scale is None else scale
    scores = torch.matmul(query, key.transpose(-2, -1)) * factor
    if is_causal:
        future = torch.ones(query.size(-2), key.size(-2), dtype=torch.bool, device=query.device).triu(1)
        scores = scores.masked_fill(future, -math.inf)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(attn_mask.logical_not(), -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    # A row that may attend to nothing is 0, not NaN.
    shares = scores.softmax(-1) if attn_mask is None else torch.ops.aten._safe_softmax(scores, -1)
    return torch.matmul(shares, value)


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Return the operators that are taken apart because layers hide in them."""
    aten, framework = torch.ops.aten, default_decompositions()
    own = {aten.scaled_dot_product_attention.default: _attention}
    return own | {op: framework[op] for op in (aten.einsum.default, aten.tensordot.default)}
