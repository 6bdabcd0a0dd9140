"""No operator costs nothing because it was unknown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn
from torch.nn import functional

from hwdse.capture import capture
from hwdse.errors import CaptureError


@pytest.fixture
def foreign() -> Iterator[None]:
    """Install operators that are called like known ones and hide a matrix product."""
    library = torch.library.Library("hidden", "DEF")
    for name in ("mean", "linear", "relu"):
        library.define(f"{name}(Tensor x, Tensor w) -> Tensor")
        library.impl(name, lambda x, w: x @ w.t(), "CompositeExplicitAutograd")
        library.impl(name, lambda x, w: x.new_empty(x.shape[0], w.shape[0]), "Meta")
    yield
    library._destroy()


REFUSED = {
    "aten.lstm.input": lambda self, x: self.lstm(x.unsqueeze(1))[0],
    "aten.gru.input": lambda self, x: self.gru(x.unsqueeze(1))[0],
    "aten.fft_rfft.default": lambda self, x: torch.fft.rfft(self.line(x)).abs(),
    "aten.conv_transpose1d.default": lambda self, x: functional.conv_transpose1d(
        x.unsqueeze(2), self.line.weight[..., None]
    ),
    "aten.cdist.default": lambda self, x: torch.cdist(self.line(x).unsqueeze(1), x.unsqueeze(1)),
    "aten.baddbmm.default": lambda self, x: torch.baddbmm(
        x[:, None], self.line(x)[:, None], x[:, :, None] * x[:, None]
    ),
    "aten.bilinear.default": lambda self, x: functional.bilinear(x, x, self.cube),
    "aten.grid_sampler.default": lambda self, x: functional.grid_sample(
        self.line(x).view(-1, 1, 2, 2), x.view(-1, 1, 2, 2), align_corners=False
    ),
    "aten.rand_like.default": lambda self, x: self.line(x) + torch.rand_like(x),
    "aten.rand.default": lambda self, x: self.line(x) + torch.rand(4),
    "cond": lambda self, x: torch.cond(x.sum() > 0, lambda y: y.sin(), lambda y: y.cos(), (self.line(x),)),
}


@pytest.mark.parametrize("operator", REFUSED)
def test_an_operator_of_unknown_cost_is_named_with_its_line(written: Callable[..., nn.Module], operator: str) -> None:
    model = written(
        REFUSED[operator],
        line=nn.Linear(4, 4),
        lstm=nn.LSTM(4, 4, batch_first=True),
        gru=nn.GRU(4, 4, batch_first=True),
        cube=torch.randn(3, 4, 4),
    )
    expected = f"expected operators whose cost is known, got {re.escape(operator)} as '.*' at .*:\\d+; replace it"
    with pytest.raises(CaptureError, match=expected):
        capture(model, torch.randn(2, 4))


@pytest.mark.usefixtures("foreign")
@pytest.mark.parametrize("name", ["mean", "linear", "relu"])
def test_an_operator_from_elsewhere_is_not_taken_for_its_namesake(written: Callable[..., nn.Module], name: str) -> None:
    model = written(
        lambda self, x: getattr(torch.ops.hidden, name)(self.line(x), self.line.weight), line=nn.Linear(4, 4)
    )
    with pytest.raises(CaptureError, match=rf"got hidden\.{name}\.default as '{name}"):
        capture(model, torch.randn(2, 4))


def test_what_is_computed_once_may_be_anything(written: Callable[..., nn.Module]) -> None:
    model = written(
        lambda self, x: x @ torch.fft.fft(self.square).real + torch.linalg.inv(self.square)[0], square=torch.eye(4)
    )
    captured = capture(model, torch.randn(2, 4))
    assert (captured.macs, captured.parameter_count) == (16, 16 + 16)


@pytest.mark.parametrize(
    "function",
    [
        lambda y: torch.where(y > 0, y, 0),
        lambda y: torch.hstack([y, y]),
        lambda y: torch.std_mean(y, 1)[0],
        lambda y: y.topk(2)[0],
        lambda y: y.cumsum(1),
        lambda y: functional.glu(y),
        lambda y: functional.normalize(y, dim=-1),
        lambda y: functional.unfold(y[:, None, None, :], (1, 2)),
        lambda y: torch.outer(y[:, 0], torch.arange(3.0)),
        lambda y: y.masked_fill(y < 0, 0),
        lambda y: functional.gelu(y, approximate="tanh"),
        lambda y: functional.layer_norm(y, (4,)),
    ],
)
def test_movers_and_pointwise_operators_are_free(
    written: Callable[..., nn.Module], function: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    assert capture(written(lambda self, x: function(self.line(x)), line=nn.Linear(4, 4)), torch.randn(2, 4)).macs == 16


def test_a_row_that_may_attend_to_nothing_is_zero(written: Callable[..., nn.Module]) -> None:
    allowed = torch.tensor([[True, False], [False, False]])
    model = written(
        lambda self, x: functional.scaled_dot_product_attention(self.line(x), x, x, attn_mask=allowed),
        line=nn.Linear(4, 4),
    )
    x = torch.randn(2, 2, 4)
    captured = capture(model, x)
    traced = captured.program.module()(x)
    assert torch.equal(traced[:, 1], torch.zeros(2, 4))
    torch.testing.assert_close(traced, model(x))
    assert captured.macs == 2 * 16 + 2 * 2 * 2 * 4


@pytest.mark.parametrize(
    ("equation", "shape", "macs"),
    [("bi,oi->bo", (3, 4), 12), ("bi,io->bo", (4, 5), 20), ("bi,hoi->bho", (2, 3, 4), 24)],
)
def test_an_einsum_with_weights_is_a_linear(
    written: Callable[..., nn.Module], equation: str, shape: tuple[int, ...], macs: int
) -> None:
    model = written(lambda self, x: torch.einsum(equation, x, self.weights), weights=torch.randn(shape))
    captured = capture(model, torch.randn(2, 4))
    assert [(layer.op, layer.macs, layer.weight_count) for layer in captured.layers] == [("linear", macs, macs)]
    assert captured.parameter_count == macs


def test_a_tensordot_is_a_linear(written: Callable[..., nn.Module]) -> None:
    model = written(lambda self, x: torch.tensordot(x, self.weights, dims=([1], [1])), weights=torch.randn(3, 4))
    layer = capture(model, torch.randn(2, 4)).layers[0]
    assert (layer.op, layer.macs, layer.weight_shape) == ("linear", 12, (3, 4))
