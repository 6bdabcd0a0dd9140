"""Learned step sizes: closed forms element by element, and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hwdse.formats import Levels, Scheme, parse
from hwdse.quantize.learned_step import balanced, learned_step

LISTS = {
    "int2": Levels.of_weights(parse("int2"), Scheme()).values,
    "int4": Levels.of_weights(parse("int4"), Scheme()).values,
    "affine": np.arange(-3.0, 13.0),  # codes 0 to 15 with the zero point 3
    "nf4": parse("nf4").values,
    "posit6_0": parse("posit6_0").values,
}


def problem(name: str, shape: tuple[int, ...], steps: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
    """Return values, step sizes, what the values are rounded to, and a gradient; none lies on a border."""
    generator = torch.Generator().manual_seed(len(name))
    levels = LISTS[name]
    step = torch.rand(steps, generator=generator, dtype=torch.float64) + 0.5
    spread = (levels[-1] - levels[0]) * 0.8
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * spread * step
    scaled = (x / step).numpy()
    q = levels[np.abs(scaled[..., None] - levels).argmin(-1)]
    return x, step, torch.from_numpy(q) * step, torch.randn(shape, generator=generator, dtype=torch.float64)


def gradients(name: str, x, step, rounded, gradient) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x, step = x.clone().requires_grad_(), step.clone().requires_grad_()
    found = learned_step(x, step, rounded, ends=(LISTS[name][0], LISTS[name][-1]))
    found.backward(gradient)
    return found.detach(), x.grad, step.grad


@pytest.mark.parametrize("name", LISTS)
def test_every_element_has_the_closed_form(name):
    x, step, rounded, gradient = problem(name, (40, 3), (40, 3))
    found, of_x, of_step = gradients(name, x, step, rounded, gradient)
    assert torch.equal(found, rounded)
    low, high = LISTS[name][0], LISTS[name][-1]
    kinds = set()
    for i in np.ndindex(40, 3):
        u, q, g = float(x[i] / step[i]), float(rounded[i] / step[i]), float(gradient[i])
        kind = "below" if u < low else "above" if u > high else "inside"
        expected = {"below": low, "above": high, "inside": q - u}[kind]
        assert float(of_step[i]) == pytest.approx(g * expected, abs=1e-12)
        assert float(of_x[i]) == (g if kind == "inside" else 0.0)
        kinds.add(kind)
    assert kinds == {"below", "inside", "above"}


@pytest.mark.parametrize("steps", [(), (1,), (6, 1), (1, 1, 5)])
@pytest.mark.parametrize("name", LISTS)
def test_gradients_are_those_of_the_surrogate(name, steps):
    """Rounding moves a value by a share of the step that stays what it is: ``step (clip(x / step) + moved)``."""
    x, step, rounded, gradient = problem(name, (4, 6, 5), steps)
    _, of_x, of_step = gradients(name, x, step, rounded, gradient)
    low, high = LISTS[name][0], LISTS[name][-1]
    moved = rounded / step - (x / step).clamp(low, high)

    def surrogate(x: torch.Tensor, step: torch.Tensor) -> float:
        return float((gradient * step * ((x / step).clamp(low, high) + moved)).sum())

    width = 1e-6
    for tensor, found, place in ((x, of_x, 0), (step, of_step, 1)):
        assert found.shape == tensor.shape
        for i in np.ndindex(*tensor.shape):
            ends = []
            for side in (width, -width):
                shifted = tensor.clone()
                shifted[i] += side
                ends.append(surrogate(*((shifted, step) if place == 0 else (x, shifted))))
            assert float(found[i]) == pytest.approx((ends[0] - ends[1]) / (2 * width), rel=1e-5, abs=1e-6)


def test_a_step_that_does_not_learn_costs_nothing_and_changes_nothing():
    x, step, rounded, gradient = problem("int4", (30,), ())
    own = x.clone().requires_grad_()
    learned_step(own, step, rounded, ends=(-7.0, 7.0)).backward(gradient)
    assert torch.equal(own.grad, gradients("int4", x, step, rounded, gradient)[1])


def test_a_balanced_step_is_the_same_step_with_less_gradient():
    step = torch.rand(50, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = balanced(step, values=144, highest=7.0)
    assert torch.equal(found, step)
    found.sum().backward()
    assert torch.allclose(step.grad, torch.full((50,), (144 * 7) ** -0.5))
