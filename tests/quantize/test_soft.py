"""Learned rounding of single layers against closed forms, autograd and exhaustive search."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from hwdse.errors import InputError
from hwdse.formats import Granularity, Scheme, Symmetry, parse
from hwdse.quantize.adaround_settings import AdaRoundSettings
from hwdse.quantize.soft import Piece, SoftWeight, learn
from hwdse.quantize.weights import quantize_weight

SCHEMES = {
    "channel": Scheme(),
    "affine": Scheme(weights=Symmetry.AFFINE),
    "tensor": Scheme(weight_granularity=Granularity.PER_TENSOR),
    "block": Scheme(weight_granularity=Granularity.PER_BLOCK, block_size=5),
}
FORMATS = ("int2", "int3", "int8", "ternary", "binary", "nf4", "posit4_1", "posit8_0", "fp4_e2m1", "pot4", "apot4")
LEARNED = "codebook3"
QUICK = AdaRoundSettings(iterations=60, batch=16, learning_rate=0.1, regularisation=0.1)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def soft_of(weight, name="int3", scheme="channel", *, axis=0, ranges="minmax"):
    nearest = quantize_weight(weight, parse(name), scheme=SCHEMES[scheme], axis=axis, ranges=ranges)
    return SoftWeight(weight, nearest, scheme=SCHEMES[scheme], axis=axis)


def row_grid(nearest, row):
    """Return what the values of a row may be, ascending."""
    return (nearest.levels.values - float(nearest.zero_point[row])) * float(nearest.scale[row])


def rows_of(weight, scheme, axis):
    """Return values that share a scale, in the order of the scales."""
    moved = weight.movedim(axis, 0)
    if scheme == "tensor":
        return [moved.reshape(-1)]
    channels = list(moved.reshape(len(moved), -1))
    return channels if scheme != "block" else [block for channel in channels for block in channel.split(5)]


def linear_piece(x, weight, activation=None):
    act = activation or (lambda y: y)
    return Piece((x,), (act(x @ weight.T),), lambda inputs, w: (act(inputs[0] @ w[0].T),), (-1,))


def error_of(x, weight, value, activation=None):
    act = activation or (lambda y: y)
    return (act(x @ value.T) - act(x @ weight.T)).double().square().sum(0)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", [*FORMATS, LEARNED])
def test_soft_weights_start_at_full_precision_without_what_lies_beyond_the_ends(name, scheme):
    weight, axis = normal(6, 7), len(name) % 2

    soft = soft_of(weight, name, scheme, axis=axis, ranges="mse")

    for row, (found, full) in enumerate(
        zip(rows_of(soft.value.detach(), scheme, axis), rows_of(weight, scheme, axis), strict=True)
    ):
        grid = row_grid(soft.nearest, row)
        np.testing.assert_allclose(found, np.clip(full.numpy(), grid[0], grid[-1]), atol=2e-6)


@settings(max_examples=40)
@given(
    name=st.sampled_from([*FORMATS, LEARNED]),
    scheme=st.sampled_from(sorted(SCHEMES)),
    seed=st.integers(0, 2**31),
    axis=st.sampled_from([0, 1]),
)
def test_a_weight_is_rounded_to_a_level_next_to_it(name, scheme, seed, axis):
    weight = normal(4, 6, seed=seed)
    soft = soft_of(weight, name, scheme, axis=axis, ranges="mse")
    ways = []
    for start in (-9.0, 9.0):
        soft.variable.fill_(start)
        soft.soften()
        ways.append(soft.hard())
        torch.testing.assert_close(soft.value.detach(), ways[-1], rtol=1e-6, atol=1e-6)
    low, high = ways

    # The nearest level is one of the two, to the last bit.
    assert ((soft.nearest.values == low) | (soft.nearest.values == high)).all()
    parts = zip(*(rows_of(w, scheme, axis) for w in (weight, low, high)), strict=True)
    for row, (full, below, above) in enumerate(parts):
        grid = row_grid(soft.nearest, row)
        places = [np.abs(grid[:, None] - w.numpy()).argmin(0) for w in (below, above)]
        np.testing.assert_allclose(grid[places[0]], below, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(grid[places[1]], above, rtol=1e-6, atol=1e-9)
        inside = (full.numpy() >= grid[0]) & (full.numpy() < grid[-1])
        assert (places[1] - places[0] == inside).all()
        assert (below.numpy()[inside] <= full.numpy()[inside] + 1e-6).all()
        assert (above.numpy()[inside] >= full.numpy()[inside] - 1e-6).all()


@pytest.mark.parametrize("beta", [None, 20.0, 7.5, 2.0])
def test_the_gradient_is_that_of_the_published_formula(beta):
    soft = soft_of(normal(5, 9))
    soft.variable.copy_(2.0 * normal(5, 9, seed=1))
    soft.soften()
    x, t = normal(8, 9, seed=2), normal(8, 5, seed=3)
    low, step = (a.double() for a in (soft._low, soft._step))
    v = soft.variable.detach().double().requires_grad_()
    h = torch.clamp(torch.sigmoid(v) * (1.1 - -0.1) + -0.1, 0.0, 1.0)
    loss = ((x.double() @ (low + h * step).T - t) ** 2).sum(1).mean() / 0.25
    if beta is not None:
        loss = loss + 0.3 * (1.0 - (2.0 * h - 1.0).abs().pow(beta)).sum()
    (expected,) = torch.autograd.grad(loss, v)
    piece = Piece((x,), (t,), lambda inputs, w: (inputs[0] @ w[0].T,), (-1,))

    (gradient,) = piece.gradients(torch.arange(8), [soft.value], 0.25)
    soft.pull(gradient, beta, 0.3)

    assert expected.count_nonzero() > 20
    torch.testing.assert_close(soft.variable.grad.double(), expected, rtol=1e-4, atol=1e-5)


def test_the_error_is_summed_over_channels_and_averaged_over_the_rest():
    weight = normal(3, 2, 3, 3).requires_grad_()
    x, t = normal(10, 2, 6, 7), normal(10, 3, 6, 7, seed=1)
    index = torch.tensor([7, 2, 3])

    def forward(inputs, weights):
        return (torch.conv2d(inputs[0], weights[0], padding=1),)

    piece = Piece((x,), (t,), forward, (-3,))
    square = (torch.conv2d(x[index], weight, padding=1) - t[index]) ** 2
    (expected,) = torch.autograd.grad(square.sum(1).mean(), weight)

    (found,) = piece.gradients(index, [weight])

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    whole = (torch.conv2d(x, weight, padding=1) - t).detach() ** 2
    errors = [piece.errors([weight], batch=4, channelwise=c) for c in (True, False)]
    torch.testing.assert_close(errors[0], whole.double().sum((0, 2, 3)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(errors[1], whole.double().sum().reshape(1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", [None, torch.relu])
@pytest.mark.parametrize("name", ["int2", "nf4"])
def test_tiny_layers_come_near_the_best_of_all_roundings(name, activation):
    near = 0
    for seed in range(10):
        weight = normal(1, 8, seed=seed)
        x = normal(64, 8, seed=100 + seed) @ (torch.eye(8) + 0.3 * normal(8, 8, seed=200 + seed))
        soft = soft_of(weight, name)
        low, high = soft._low, soft._high
        choices = torch.tensor(list(product([False, True], repeat=8)))
        errors = error_of(x, weight.expand(256, -1), torch.where(choices, high, low), activation)
        (found,) = learn([soft], [linear_piece(x, weight, activation)], replace(QUICK, iterations=300)).weights
        reached = float(error_of(x, weight, found.values, activation))
        assert reached <= float(error_of(x, weight, soft.nearest.values, activation)) * (1 + 1e-6)
        near += reached <= 1.25 * float(errors.min())

    assert near >= 7


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", ["int2", "int4", "nf4", "posit4_1", "pot4", "apot4", "fp4_e2m1", LEARNED])
def test_every_channel_gains_or_stays(name, scheme):
    weight = normal(6, 20)
    x = normal(80, 20, seed=1) @ normal(20, 20, seed=2) / 4.0
    soft = soft_of(weight, name, scheme)

    learned = learn([soft], [linear_piece(x, weight)], QUICK, channelwise=True)

    (found,) = learned.weights
    assert learned.fault == ""
    errors = [error_of(x, weight, w.values) for w in (found, soft.nearest)]
    assert (errors[0] <= errors[1]).all()
    assert errors[0].sum() < 0.95 * errors[1].sum()
    torch.testing.assert_close(found.scale, soft.nearest.scale, rtol=0, atol=0)
    for row, values in enumerate(rows_of(found.values, scheme, 0)):
        grid = row_grid(found, row)
        assert np.abs(grid[:, None] - values.numpy()).min(0).max() < 1e-6


def test_weights_stored_as_columns_and_as_rows_learn_alike():
    weight = normal(8, 5)
    x = normal(60, 8, seed=1) @ normal(8, 8, seed=2)
    columns = soft_of(weight, "int2", axis=1)
    piece = Piece((x,), (x @ weight,), lambda inputs, w: (inputs[0] @ w[0],), (-1,))
    rows = soft_of(weight.T.contiguous(), "int2")

    found = learn([columns], [piece], QUICK, channelwise=True).weights[0].values
    expected = learn([rows], [linear_piece(x, weight.T.contiguous())], QUICK, channelwise=True).weights[0].values

    torch.testing.assert_close(found, expected.T)
    assert not torch.equal(found, columns.nearest.values)


def test_two_weights_make_up_for_each_other():
    first, second = normal(6, 6), normal(6, 6, seed=1)
    x = normal(100, 6, seed=2)
    target = functional.relu(x @ first.T) @ second.T
    softs = [soft_of(w, "int2") for w in (first, second)]

    def forward(inputs, w):
        return (functional.relu(inputs[0] @ w[0].T) @ w[1].T,)

    found = learn(softs, [Piece((x,), (target,), forward, (-1,))], replace(QUICK, iterations=300)).weights

    errors = [
        float((forward((x,), [w.values for w in ws])[0] - target).square().sum())
        for ws in (found, [s.nearest for s in softs])
    ]
    assert errors[0] < 0.9 * errors[1]


@pytest.mark.parametrize("unit", [2.0**-7, 2.0**7])
def test_the_unit_of_the_outputs_does_not_matter(unit):
    weight, x = normal(8, 30), normal(100, 30, seed=1)

    found = [
        learn([soft_of(weight, "int2")], [linear_piece(u * x, weight)], QUICK).weights[0].values for u in (1.0, unit)
    ]

    assert torch.equal(*found)


def test_the_seed_decides_and_the_global_generator_is_left_alone():
    weight, x = normal(8, 30), normal(100, 30, seed=1)
    before = torch.random.get_rng_state()
    found = [
        learn([soft_of(weight, "int2")], [linear_piece(x, weight)], replace(QUICK, seed=seed)).weights[0].values
        for seed in (0, 0, 1)
    ]

    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_every_sample_comes_once_before_one_comes_again():
    seen = []

    def forward(inputs, w):
        seen.append(inputs[0][:, 0].tolist())
        return (inputs[0] @ w[0].T,)

    weight = normal(2, 3)
    xs = [
        torch.cat([torch.arange(start, stop)[:, None], normal(stop - start, 2)], 1) for start, stop in ((0, 7), (7, 11))
    ]
    pieces = [Piece((x,), (x @ weight.T,), forward, (-1,)) for x in xs]

    learn([soft_of(weight)], pieces, AdaRoundSettings(iterations=10, batch=3))

    # Three batches of the first piece and two of the other are a turn of all samples.
    assert [len(s) for s in seen[:5]].count(3) == 3
    for turn in (seen[:5], seen[5:10]):
        assert sorted(value for batch in turn for value in batch) == list(range(11))
    assert seen[:5] != seen[5:10]


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_values_that_are_not_finite_leave_the_nearest(bad):
    weight, x = normal(4, 6), normal(40, 6, seed=1)
    x[3, 2] = bad
    soft = soft_of(weight)

    learned = learn([soft], [linear_piece(x, weight)], QUICK)

    assert learned.fault == "values that are not finite"
    assert learned.weights == (soft.nearest,)


def test_weights_on_the_grid_stay():
    weight, x = torch.tensor([[3.0, -2.0, 1.0, 0.0]]), normal(40, 4)
    soft = soft_of(weight)

    learned = learn([soft], [linear_piece(x, weight)], QUICK)

    assert learned.fault == "no smaller error of the outputs"
    torch.testing.assert_close(learned.weights[0].values, weight, rtol=0, atol=0)


def test_the_exponent_goes_from_first_to_last_on_half_a_cosine():
    own = AdaRoundSettings(iterations=1000, beta=(20.0, 2.0), warm_up=0.2)

    assert own.beta_at(199) is None
    assert own.beta_at(200) == 20.0
    assert own.beta_at(600) == pytest.approx(11.0)
    assert own.beta_at(400) == pytest.approx(2.0 + 9.0 * (1.0 + 0.5**0.5))
    assert own.beta_at(999) == pytest.approx(2.0, abs=1e-3)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"iterations": 0}, "expected at least one iteration and one sample per batch, got 0 and 32"),
        ({"batch": 0}, "expected at least one iteration and one sample per batch, got 2000 and 0"),
        ({"learning_rate": 0.0}, "expected a positive learning rate, no negative regularisation and a warm-up"),
        ({"regularisation": -1.0}, "expected a positive learning rate, no negative regularisation and a warm-up"),
        ({"warm_up": 1.5}, "expected a positive learning rate, no negative regularisation and a warm-up"),
        ({"beta": (20.0, 1.0)}, "expected two exponents above 1, got 20.0 and 1.0"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, sentence):
    with pytest.raises(InputError, match=sentence):
        AdaRoundSettings(**wrong)
