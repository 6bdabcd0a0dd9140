"""PyTorch's oneDNN kernels with weights packed beforehand: fp32 and bf16."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.hardware.measure.runtime import Kernel
from hwdse.hardware.measure.subject import LayerShape, Subject

if TYPE_CHECKING:
    import torch

__all__ = ["RUNTIME", "Torch"]

PRECISIONS = {Precision.parse("fp32"): "float32", Precision.parse("Wbf16Abf16"): "bfloat16"}


class Torch:
    """PyTorch on the processor; convolutions read and write channels last, a ReLU is part of them."""

    name = "torch"
    scheme: Mapping[str, object] = {
        "weights": "symmetric",
        "activations": "affine",
        "weight_granularity": "per_channel",
        "full_range": False,
        "unsigned_activations": True,
    }

    def version(self) -> str:
        """Return the version of the installed package."""
        try:
            import torch
        except ImportError as error:
            raise InputError(f"expected PyTorch, got {error}; install it with pip install torch") from error
        if not torch.backends.mkldnn.is_available():
            raise InputError(f"expected PyTorch with oneDNN, got {torch.__version__} without; use onnxruntime")
        return str(torch.__version__)

    def offers(self, shape: LayerShape, precision: Precision, *, block_size: int) -> Subject | None:  # noqa: ARG002
        """Return the pattern of a linear layer, or of a convolution of images with equal padding at both sides."""
        is_image = shape.key.op == "conv" and len(shape.key.kernel) == 2 and shape.pads[0] == shape.pads[1]
        if precision not in PRECISIONS or not (is_image or shape.key.op == "linear"):
            return None
        return Subject(f"{shape.key.op}+bias" + ("+relu" if shape.relu else ""), shape, precision)

    def boundaries(self) -> Sequence[Subject]:
        """Return none: the layout at the ends is the one between layers."""
        return ()

    def nodes(self) -> Sequence[Subject]:
        """Return none."""
        return ()

    def null(self, *, threads: int) -> Kernel:
        """Return a product of two numbers, which passes through the same dispatcher."""
        return self.build(Subject("linear+bias", LayerShape.linear((1, 1)), Precision.parse("fp32")), threads=threads)

    def build(self, subject: Subject, *, threads: int) -> Kernel:
        """Return a call of the kernel with its weights packed."""
        import torch

        torch.set_num_threads(threads)
        assert isinstance(subject.shape, LayerShape)
        kind = getattr(torch, PRECISIONS[subject.precision])
        generator = torch.Generator().manual_seed(0)

        def numbers(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator).to(kind)

        make = _conv if subject.shape.key.op == "conv" else _linear
        run, executed = make(subject.shape, numbers)

        def call() -> None:
            with torch.inference_mode():
                run()

        form = subject.precision.activations.name
        return Kernel(call, executed, form, form)


def _conv(shape: LayerShape, numbers: Callable[..., torch.Tensor]) -> tuple[Callable[[], Any], str]:
    """Return a convolution with its input and weight in the layouts that oneDNN prefers."""
    import torch

    key = shape.key
    geometry = (list(shape.pads[0]), list(key.stride), [1, 1], key.groups)
    x = numbers(1, key.input_channels, *shape.input_size).to(memory_format=torch.channels_last)
    weight = numbers(key.output_channels, key.input_channels // key.groups, *key.kernel)
    packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *geometry, list(x.shape))
    bias = numbers(key.output_channels)
    attribute = "relu" if shape.relu else "none"
    run = torch.ops.mkldnn._convolution_pointwise
    return lambda: run(x, packed, bias, *geometry, attribute, [], ""), "mkldnn::_convolution_pointwise"


def _linear(shape: LayerShape, numbers: Callable[..., torch.Tensor]) -> tuple[Callable[[], Any], str]:
    """Return a linear layer with its weight packed for its number of rows."""
    import torch

    key = shape.key
    rows = int(np.prod(key.output_size, dtype=np.int64))
    x, bias = numbers(rows, key.input_channels), numbers(key.output_channels)
    weight = numbers(key.output_channels, key.input_channels)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return lambda: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], ""), "mkldnn::_linear_pointwise"


RUNTIME = Torch()
