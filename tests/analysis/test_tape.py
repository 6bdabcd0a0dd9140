"""Gradients through a recorded program against those of the module it was captured from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hwdse.analysis.sensitivity import first_tensor
from hwdse.analysis.tape import differentiable, operator_name, record, sign_seeds
from hwdse.capture import capture
from hwdse.quantize.program import Program
from tests import networks


@pytest.mark.parametrize("name", ["residual", "odd_norms", "aliases", "vit", "inception", "packed", "siamese"])
def test_gradients_are_those_of_the_module(name: str) -> None:
    program, (x, *others) = networks.program(name), networks.CASES[name].inputs(3)
    place = program.inputs[0][0]
    values, output = record(differentiable(program), (x, *others), leaves={place})
    given = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    (found,) = torch.autograd.grad(output, values[place], given)
    own = x.clone().requires_grad_()
    expected_output = first_tensor(networks.model(name)(own.clone(), *others))
    (expected,) = torch.autograd.grad(expected_output, own, given)
    torch.testing.assert_close(output, expected_output, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_a_weight_may_be_another_and_inference_mode_is_left() -> None:
    program, batch = networks.program("mlp"), networks.CASES["mlp"].inputs(4)
    position = program.weights["second.weight"]
    other = torch.full_like(program.folded["second.weight"], 0.5).requires_grad_()
    with torch.inference_mode():
        values, output = record(differentiable(program), batch, weights={position: other})
    hidden = values[next(step.output for step in program.steps if step.is_relu)]
    torch.testing.assert_close(output, hidden @ other.T)
    (found,) = torch.autograd.grad(output.sum(), other)
    torch.testing.assert_close(found, hidden.sum(0).expand(5, -1))


class Cut(nn.Module):
    """A linear whose result is cut off from the gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).detach())


def test_a_detached_value_still_matters() -> None:
    torch.manual_seed(0)
    model = Cut()
    program = Program.of(capture(model, torch.randn(2, 3)))
    place = program.inputs[0][0]
    values, output = record(differentiable(program), torch.randn(5, 3), leaves={place})
    (found,) = torch.autograd.grad(output[:, 0].sum(), values[place])
    expected = model.second.weight[0] @ model.first.weight
    torch.testing.assert_close(found, expected.detach().expand(5, -1))


def test_names_of_operators() -> None:
    assert operator_name(torch.ops.aten.add_.Tensor) == "add_"
    assert operator_name(torch.relu) == ""


def test_seeds_have_the_fisher_matrix_as_their_second_moment() -> None:
    logits = torch.tensor([[1.0, -0.5, 2.0], [0.0, 3.0, 0.5]], dtype=torch.float64)
    seeds = torch.stack(sign_seeds(logits, 20000, np.random.default_rng(0))).flatten(1)
    p = logits.softmax(-1)
    expected = torch.block_diag(*(torch.diag(row) - torch.outer(row, row) for row in p))
    torch.testing.assert_close(seeds.T @ seeds / 20000, expected, rtol=0.0, atol=0.01)
