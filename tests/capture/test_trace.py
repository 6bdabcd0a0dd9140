"""What the exporter is asked for, and the sentences where it cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from hwdse.capture import capture
from hwdse.capture.trace import batch_of
from hwdse.errors import CaptureError


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(4, 4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.line(x) * self.calls


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return self.line(x)
        return x


class Watched(nn.Module):
    """A layer whose result nobody reads, and checks of shape and type."""

    def __init__(self) -> None:
        super().__init__()
        self.line, self.unused = nn.Linear(4, 4), nn.Linear(4, 9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.unused(x)
        torch._check(x.shape[1] == 4)
        return self.line(x.to(torch.float32)).float().relu()


def test_one_sample_is_doubled_and_more_are_kept() -> None:
    one, three = torch.randn(1, 4), torch.randn(3, 4)
    assert torch.equal(batch_of(one)[0], torch.cat([one, one]))
    assert batch_of([three])[0] is three


def test_data_dependent_control_flow_is_refused_at_the_users_line() -> None:
    with pytest.raises(CaptureError, match=r"Branching at .*test_trace\.py:35: .*avoid data-dependent control flow"):
        capture(Branching(), torch.randn(2, 4))


def test_a_fixed_batch_is_refused() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.line(x).reshape(2, 4)

    with pytest.raises(CaptureError, match=r"with a dynamic batch, got .* from Fixed.*sizes that fix the batch"):
        capture(Fixed(), torch.randn(2, 4))


def test_an_error_of_the_model_itself_is_told() -> None:
    with pytest.raises(CaptureError, match=r"got .*Error from Linear.*(mat1 and mat2|size|shape)"):
        capture(nn.Linear(4, 4), torch.randn(2, 5))


def test_a_state_that_calls_change_is_refused_and_left_as_it_was() -> None:
    model = Counting()
    with pytest.raises(CaptureError, match="Counting, which changes its buffer 'calls' in evaluation mode"):
        capture(model, torch.randn(2, 4))
    assert model.calls.item() == 0.0


def test_a_model_may_write_over_its_input(written: Callable[..., nn.Module]) -> None:
    model = written(lambda self, x: self.line(functional.relu(x, inplace=True)), line=nn.Linear(4, 4))
    example = -torch.ones(2, 4)
    captured = capture(model, example)
    assert example.eq(-1.0).all()
    assert [output.name for output in captured.program.graph.output_node().args[0]] == ["linear"]
    assert [live.tensors for live in captured.live_sets] == [
        ("inputs_0",),
        ("inputs_0", "relu"),
        ("relu", "linear"),
    ]


def test_forward_may_take_any_number_of_inputs(written: Callable[..., nn.Module]) -> None:
    model = written(lambda self, a, b: self.line(a) + b, line=nn.Linear(4, 4))
    assert len(capture(model, (torch.randn(2, 4), torch.randn(2, 4))).program.graph_signature.user_inputs) == 2
    twice = torch.randn(2, 4)
    assert capture(model, (twice, twice)).macs == 16


def test_checks_and_unread_layers_are_left_out() -> None:
    captured = capture(Watched(), torch.randn(2, 4))
    assert captured.operators == ("linear", "relu")
    assert [layer.name for layer in captured.layers] == ["line"]
    assert [live.tensors for live in captured.live_sets] == [("x",), ("x", "relu"), ("relu",)]


def test_lengths_are_dynamic_on_request(written: Callable[..., nn.Module]) -> None:
    model = written(lambda self, x: self.line(x), line=nn.Linear(4, 4))
    for dims, dynamic in (((0,), [True, False, False]), ((0, 1), [True, True, False])):
        node = next(
            n for n in capture(model, torch.randn(2, 5, 4), dynamic_dims=dims).flow.nodes if n.name == "inputs_0"
        )
        assert [isinstance(size, torch.SymInt) for size in node.meta["val"].shape] == dynamic


@pytest.mark.parametrize(
    "output",
    [
        lambda self, x: (self.line(x), x),
        lambda self, x: {"a": [self.line(x)], "weights": self.line.weight},
        lambda self, x: (self.line(x), None, 3),
    ],
)
def test_outputs_may_be_anything(written: Callable[..., nn.Module], output: Callable[..., Any]) -> None:
    assert capture(written(output, line=nn.Linear(4, 4)), torch.randn(2, 4)).macs == 16
