"""Places of layers: which operand is the weight, which way it is read, what is counted with it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from hwdse.capture import capture
from hwdse.errors import CaptureError

Written = Callable[..., nn.Module]


@pytest.mark.parametrize(
    ("function", "stored", "axis"),
    [
        (lambda self, x: functional.linear(x, self.w), (3, 4), 0),
        (lambda self, x: functional.linear(x, self.w.t()), (4, 3), 1),
        (lambda self, x: functional.linear(x, self.w.t().t()), (3, 4), 0),
        (lambda self, x: x @ self.w, (4, 3), 1),
        (lambda self, x: x @ self.w.T, (3, 4), 0),
        (lambda self, x: x @ self.w.mT, (3, 4), 0),
        (lambda self, x: x @ self.w.transpose(-1, 0), (3, 4), 0),
        (lambda self, x: x @ self.w.transpose(0, 0), (4, 3), 1),
        (lambda self, x: x @ self.w.permute(1, 0), (3, 4), 0),
        (lambda self, x: x @ self.w.permute(0, 1), (4, 3), 1),
        (lambda self, x: x @ self.w.permute(-1, -2), (3, 4), 0),
        (lambda self, x: torch.addmm(self.b, x, self.w), (4, 3), 1),
        (lambda self, x: torch.einsum("bi,oi->bo", x, self.w), (3, 4), 2),  # its copy (1, 4, 3)
    ],
)
def test_the_axis_of_the_output_channels(
    written: Written, function: Callable[..., torch.Tensor], stored: tuple[int, ...], axis: int
) -> None:
    model = written(function, w=torch.randn(stored), b=torch.randn(3))
    captured = capture(model, torch.randn(2, 4))
    (layer,) = captured.layers
    assert (layer.weight_shape, layer.output_channels, layer.macs) == ((3, 4), 3, 12)
    assert captured.sites[layer.name].weight_axis == axis


def test_convolution_weights_in_another_order_are_put_in_order_once(written: Written) -> None:
    model = written(lambda self, x: functional.conv2d(x, self.w.permute(3, 2, 0, 1)), w=torch.randn(3, 5, 2, 7))
    captured = capture(model, torch.randn(2, 2, 8, 8))
    (layer,) = captured.layers
    assert (layer.weight_shape, layer.kernel, layer.macs) == ((7, 2, 3, 5), (3, 5), 7 * 6 * 4 * 30)
    assert captured.parameter_count == 210


def test_a_computed_weight_counts_once(written: Written) -> None:
    def standardised(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(x, self.w - self.w.mean((1, 2, 3), keepdim=True), self.b * 2)

    captured = capture(written(standardised, w=torch.randn(4, 3, 3, 3), b=torch.randn(4)), torch.randn(2, 3, 5, 5))
    assert (captured.parameter_count, captured.other_parameters) == (108 + 4, 0)


def test_a_residual_is_no_bias(written: Written) -> None:
    captured = capture(written(lambda self, x: torch.addmm(x, x, self.w), w=torch.randn(4, 4)), torch.randn(2, 4))
    assert (captured.layers[0].bias_count, captured.parameter_count) == (0, 16)


def test_a_norm_is_folded_only_where_nothing_else_reads_the_weights(written: Written) -> None:
    def regularised(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return self.norm(functional.conv2d(x, self.w)) + self.w.sum()

    captured = capture(written(regularised, w=torch.randn(4, 3, 3, 3), norm=nn.BatchNorm2d(4)), torch.randn(2, 3, 5, 5))
    assert captured.sites["w"].batch_norm is None
    assert (captured.layers[0].bias_count, captured.other_parameters) == (0, 8)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda self, x: self.w @ x.unsqueeze(2), "weights as the second operand, got them first"),
        (lambda self, x: x.unsqueeze(1).unsqueeze(1) @ self.cube, r"two dimensions in 'matmul', got shape \(2, 4, 4\)"),
        (lambda self, x: self.line(x) @ self.vector, r"two dimensions in 'matmul', got shape \(4,\)"),
        (
            lambda self, x: functional.conv1d(x.unsqueeze(2).mT, self.line(x[:1]).view(4, 1, 1)),
            "expected convolution weights that are parameters",
        ),
        (lambda self, x: self.line(x) @ x.t(), "treat every sample alike, got 'matmul'"),
        (lambda self, x: self.line(x).t() @ x, "treat every sample alike, got 'matmul'"),
    ],
)
def test_what_cannot_be_counted_is_refused(
    written: Written, function: Callable[..., torch.Tensor], sentence: str
) -> None:
    model = written(
        function, w=torch.randn(4, 4), cube=torch.randn(2, 4, 4), vector=torch.randn(4), line=nn.Linear(4, 4)
    )
    with pytest.raises(
        CaptureError, match=rf"{sentence}.* at .*conftest\.py:\d+; |{sentence}.* at .*test_sites\.py:\d+; "
    ):
        capture(model, torch.randn(2, 4))


def test_weights_must_not_depend_on_the_inputs_length(written: Written) -> None:
    def summed(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        past = torch.ones(x.shape[1], x.shape[1]).triu()
        return self.line(x).transpose(1, 2) @ past

    model = written(summed, line=nn.Linear(4, 4))
    with pytest.raises(CaptureError, match=r"same for every input, got 'triu', which depends on the inputs' sizes"):
        capture(model, torch.randn(2, 5, 4), dynamic_dims=(0, 1))
    assert capture(model, torch.randn(2, 5, 4)).macs == 5 * 16 + 4 * 25  # of one length it is a matrix
