"""The compiled program against the module it came from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils import _pytree as pytree

from hwdse.capture import capture
from hwdse.errors import InputError
from hwdse.formats import Levels, parse
from hwdse.quantize.program import Program
from hwdse.quantize.quantizer import UniformQuantizer
from tests import networks


def run(program: Program, inputs: tuple[torch.Tensor, ...]) -> Any:
    with torch.inference_mode():
        values = program.start(inputs, {})
        program.quantize_inputs(values, {})
        program.advance(values, {})
        return program.result(values)


def same(mine: Any, theirs: Any, *, tolerance: float = 0.0) -> bool:
    """Return True if two outputs are equal, tensors to ``tolerance`` of their largest value."""

    def agree(a: Any, b: Any) -> bool:
        if not isinstance(a, torch.Tensor) or tolerance == 0.0:
            return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        alike = (a.shape, a.dtype) == (b.shape, b.dtype)
        return alike and bool((a - b).abs().max() <= tolerance * b.abs().max())

    leaves = pytree.tree_leaves(mine), pytree.tree_leaves(theirs)
    return pytree.tree_structure(mine) == pytree.tree_structure(theirs) and all(map(agree, *leaves))


def shapes(name: str) -> list[tuple[int, int]]:
    """Return batch sizes and sequence lengths other than the example's."""
    lengths = (0, 4, 11) if 1 in networks.CASES[name].dynamic_dims else (0,)
    return [(batch, length) for batch in (1, 3, 8) for length in lengths]


@pytest.mark.parametrize("name", networks.CASES)
def test_full_precision_is_the_modules_own_output(name: str) -> None:
    case, model, program = networks.CASES[name], networks.model(name), networks.program(name)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    for batch, length in shapes(name):
        inputs = case.inputs(batch, length=length, seed=batch)
        before = [x.clone() for x in inputs]
        with torch.no_grad():
            expected = model(*(x.clone() for x in inputs))
        first, again = run(program, inputs), run(program, inputs)
        assert same(first, expected, tolerance=1e-5)
        assert same(again, first)
        assert all(map(torch.equal, inputs, before))
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", networks.CASES)
def test_a_program_can_stop_and_go_on(name: str) -> None:
    program, inputs = networks.program(name), networks.CASES[name].inputs(3)
    expected = run(program, inputs)
    for cut in range(len(program.steps) + 1):
        with torch.inference_mode():
            values = program.start(inputs, {})
            program.advance(values, {}, last=cut)
            program.advance(values, {}, first=cut)
            assert same(program.result(values), expected)


@pytest.mark.parametrize("name", ["residual", "odd_norms", "llama", "packed", "siamese"])
def test_nothing_changes_before_the_first_change(name: str) -> None:
    program, inputs = networks.program(name), networks.CASES[name].inputs(2)
    coarse = UniformQuantizer(Levels(parse("int2"), -2, 1), 0.7)

    def trace(weights: dict[int, torch.Tensor], quantizers: dict[str, UniformQuantizer]) -> list[Any]:
        with torch.inference_mode():
            values = program.start(inputs, weights)
            program.quantize_inputs(values, quantizers)
            results = []
            for i, step in enumerate(program.steps):
                program.advance(values, quantizers, first=i, last=i + 1)
                result = (
                    program.start(inputs, weights)[step.output] if step.output in step.frees else values[step.output]
                )
                results.append(pytree.tree_map_only(torch.Tensor, torch.clone, result))
        return results

    full = trace({}, {})
    changes: list[tuple[dict[int, torch.Tensor], dict[str, UniformQuantizer]]] = [
        ({}, {p: coarse}) for p in program.points
    ]
    changes += [({position: torch.ones_like(program.folded[w])}, {}) for w, position in program.weights.items()]
    for weights, quantizers in changes:
        first = program.first_change(weights, quantizers)
        changed = trace(weights, quantizers)
        for i in range(first):  # and the first that is named does change
            assert same(changed[i], full[i])
        if not any(point in quantizers for _, point in program.inputs):
            assert not same(changed[first], full[first])
    assert program.first_change({}, {}) == len(program.steps)


def test_folding_by_hand() -> None:
    conv, norm = nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3, eps=0.25)
    norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    norm.running_var.copy_(torch.tensor([0.0, 0.75, 3.75]))
    nn.init.constant_(norm.weight, 6.0)
    nn.init.constant_(norm.bias, 0.5)
    program = Program.of(capture(nn.Sequential(conv, norm).eval(), torch.randn(2, 2, 4, 4)))
    factor = torch.tensor([12.0, 6.0, 3.0])  # 6 / sqrt(variance + 1/4)
    torch.testing.assert_close(program.folded["0.weight"], conv.weight.detach() * factor.view(3, 1, 1, 1))
    (step,) = program.steps
    bias = program.constants[step.arguments[2].position]
    torch.testing.assert_close(bias, 0.5 + (conv.bias.detach() - norm.running_mean) * factor)


class Written(nn.Module):
    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, value in parts.items():
            setattr(self, name, value)

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self, x)


LINE = nn.Linear(6, 6)
ODD = {
    "in place on the input": lambda self, x: self.line(x.relu_()),
    "in place on a copy": lambda self, x: self.line(x) + x.clone().mul_(2.0),
    "in place twice": lambda self, x: self.line(x).add_(1.0).mul_(3.0).clamp_(-1.0, 1.0),
    "an output that is changed later": lambda self, x: (lambda y: (y, y.relu() + 1.0))(self.line(x)),
    "an output in place": lambda self, x: (lambda y: (y, y.relu_()))(self.line(x)),
    "a diagonal": lambda self, x: (lambda y: y.unflatten(1, (2, 3)).diagonal(0, 1, 2).relu().sum() + y)(self.line(x)),
    "windows": lambda self, x: (lambda y: y.unfold(1, 2, 2).relu().flatten(1) + y)(self.line(x)),
    "parts": lambda self, x: torch.cat([part.relu() for part in self.line(x).chunk(3, 1)], 1),
    "part and whole": lambda self, x: (lambda y: y[:, :3].tanh().sum() + y.sigmoid())(self.line(x)),
    "a row on itself": lambda self, x: (lambda y: y * y + y)(self.line(x)),
    "broadcast": lambda self, x: (self.line(x)[:, None] + x[:, :, None]).relu_(),
    "grown in place": lambda self, x: self.line(x).sum(1, keepdim=True).relu() + x,
    "integers": lambda self, x: self.line(x) * (self.line(x) > 0) + (x > 0).long(),
    "another type": lambda self, x: (self.line(x).double() + 1.0).float().relu_(),
    "no change of type": lambda self, x: (lambda y: y.to(torch.float32).relu() + y)(self.line(x)),
    "filled": lambda self, x: self.line(x).index_fill(1, torch.tensor([0, 2]), 0.0),
    "assigned": lambda self, x: (lambda y: (y.__setitem__((slice(None), 0), 0.0), y)[1])(self.line(x)),
    "sorted": lambda self, x: self.line(x).sort(1)[0].relu_() + self.line(x).max(1, keepdim=True)[0].relu_(),
    "weights among the outputs": lambda self, x: (self.line(x), self.line.weight, x, 3, None),
    "weights used elsewhere": lambda self, x: self.line(x) + self.line.weight.sum(),
}


@pytest.mark.parametrize("name", ODD)
def test_memory_is_never_shared_by_mistake(name: str) -> None:
    model = Written(ODD[name], line=LINE).eval()
    program = Program.of(capture(model, torch.randn(2, 6)))
    x = torch.randn(5, 6)
    before = x.clone()
    with torch.no_grad():
        expected = model(x.clone())
    for _ in range(2):
        result = run(program, (x,))
        assert torch.equal(x, before)
        assert same(result, expected, tolerance=1e-5)


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(4),
        nn.BatchNorm2d(4, affine=False),
        lambda y: functional.batch_norm(y, torch.arange(4.0), torch.arange(1.0, 5.0), weight=torch.arange(4.0)),
        lambda y: functional.batch_norm(y, torch.arange(4.0), torch.arange(1.0, 5.0), bias=torch.arange(4.0)),
    ],
)
@pytest.mark.parametrize("bias", [None, torch.arange(4.0)])
def test_any_norm_behind_any_convolution_is_folded(
    norm: Callable[..., torch.Tensor], bias: torch.Tensor | None
) -> None:
    weight = nn.Parameter(torch.randn(4, 3, 2, 2))
    doubled = None if bias is None else nn.Parameter(bias)
    model = Written(
        lambda self, x: norm(functional.conv2d(x, self.weight * 1.5, None if doubled is None else self.bias * 2.0)),
        weight=weight,
        bias=doubled,
        norm=norm if isinstance(norm, nn.Module) else None,
    ).eval()
    program = Program.of(capture(model, torch.randn(2, 3, 5, 5)))
    assert [step.function for step in program.steps] == [torch.ops.aten.conv2d.default]
    x = torch.randn(3, 3, 5, 5)
    with torch.no_grad():
        assert same(run(program, (x,)), model(x), tolerance=1e-5)


def test_the_model_may_change_after_capture_without_effect_on_folded_weights() -> None:
    model = networks.Residual().eval()
    program = Program.of(capture(model, torch.randn(2, 3, 12, 12)))
    x = torch.randn(2, 3, 12, 12)
    before = run(program, (x,))
    model.train()(torch.randn(4, 3, 12, 12))  # moves the running statistics
    assert torch.equal(run(program, (x,)), before)


def test_batches_have_the_models_inputs() -> None:
    program = networks.program("siamese")
    with pytest.raises(InputError, match="expected batches of 2 input tensors, got 1"):
        program.start(torch.randn(2, 3, 6, 6), {})


def test_points_are_what_layers_read() -> None:
    assert networks.program("mlp").points == ("x", "relu")
    points = ("x", "linear", "matmul.second", "softmax", "matmul_1.second", "matmul_1")
    assert sorted(networks.program("packed").points) == sorted(points)
    assert networks.program("llama").points[0] == "mul_26"  # after the norm; words themselves are not rounded
