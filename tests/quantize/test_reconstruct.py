"""Reconstruction of single layers against textbook loops, exhaustive search and closed forms."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, minimize_scalar

from hwdse.calibrate.distribution import nearest
from hwdse.formats import Levels, Scheme, Symmetry, parse
from hwdse.quantize.reconstruct import Damped, Grid, descend, greedy, output_error, reconstruct, refit

SCHEMES = {"symmetric": Scheme(), "affine": Scheme(weights=Symmetry.AFFINE)}
FORMATS = ("int2", "int3", "nf4", "posit4_1", "ternary", "fp4_e2m1")


def problem(groups=2, columns=7, channels=3, *, rows=40, seed=0):
    """Return covariances of correlated columns and of outputs, and the weights behind these."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(groups, rows, columns)) @ rng.normal(size=(groups, columns, columns))
    weight = rng.normal(size=(groups, columns, channels))
    x = mixed - mixed.mean(1, keepdims=True)
    t = x @ weight + 0.3 * rng.normal(size=(groups, rows, channels))
    return x.transpose(0, 2, 1) @ x / rows, x.transpose(0, 2, 1) @ t / rows, weight


def grid_of(weight, name="int3", scheme="symmetric", *, length=None, is_shared=False):
    """Return a min-max grid of weights ``(groups, columns, channels)``."""
    columns = weight.shape[1]
    length = length or columns
    levels = Levels.of_weights(parse(name), SCHEMES[scheme])
    blocks = [weight[:, start : start + length] for start in range(0, columns, length)]
    low, high = (np.stack([getattr(b, f)(1) for b in blocks], 1) for f in ("min", "max"))
    if is_shared:
        low, high = np.full_like(low, low.min()), np.full_like(high, high.max())
    return Grid(levels, *levels.grid(low, high), length, is_shared)


def nearest_codes(weight, grid):
    scale, zero = grid.spread(weight.shape[1])
    return grid.nearest(weight / scale, zero)


def error_of(codes, grid, damped):
    return output_error(codes * grid.spread(codes.shape[1])[0], damped.covariance, damped.cross)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", ["int2", "int4", "nf4", "ternary", "fp4_e2m1"])
def test_a_grid_rounds_as_weights_are_rounded(name, scheme):
    weight = np.random.default_rng(0).normal(size=(1, 50, 4)).astype(np.float32).astype(np.float64)
    grid = grid_of(weight, name, scheme)
    scale, zero = grid.spread(50)
    scaled = (weight / scale).astype(np.float32).astype(np.float64)

    expected = nearest(torch.from_numpy(scaled), grid.levels, torch.from_numpy(zero))

    np.testing.assert_array_equal(grid.nearest(scaled, zero), expected.numpy())


def test_the_output_error_is_that_of_the_data():
    rng = np.random.default_rng(1)
    x, t, w = rng.normal(size=(2, 30, 5)), rng.normal(size=(2, 30, 4)), rng.normal(size=(2, 5, 4))
    covariance, cross = x.transpose(0, 2, 1) @ x / 30, x.transpose(0, 2, 1) @ t / 30

    found = output_error(w, covariance, cross) + (t**2).mean(1)

    np.testing.assert_allclose(found, ((x @ w - t) ** 2).mean(1))


def test_the_target_has_the_least_damped_error():
    covariance, cross, weight = problem(groups=1, channels=1)
    damped = Damped.of(covariance, cross, weight, 0.1)
    damping = 0.1 * np.trace(covariance[0]) / 7

    def error(w):
        own = w[None, :, None]
        return float(output_error(own, covariance, cross)[0, 0]) + damping * float(((own - weight) ** 2).sum())

    np.testing.assert_allclose(damped.target[0, :, 0], minimize(error, np.zeros(7)).x, atol=1e-4)


def textbook_greedy(covariance, target, grid, group, channel):
    """Round column after column; after each, solve for those that are left from the rows and columns left over."""
    scale, zero = (a[group, :, channel] for a in grid.spread(len(target)))
    left = sorted(range(len(target)), key=lambda k: -covariance[k, k])
    values, codes = target.copy(), np.zeros(len(target))
    while left:
        k, rest = left[0], left[1:]
        codes[k] = grid.nearest(values[k] / scale[k], zero[k])
        error = values[k] - codes[k] * scale[k]
        if rest:
            # The rest minimises the error with column k held: G_rr d = G_rk e.
            values[rest] += np.linalg.solve(covariance[np.ix_(rest, rest)], covariance[rest, k]) * error
        left = rest
    return codes


@pytest.mark.parametrize("columns", [7, 150])
@pytest.mark.parametrize("name", ["int3", "nf4"])
def test_greedy_rounding_is_the_textbook_loop(name, columns):
    covariance, cross, weight = problem(columns=columns, rows=4 * columns)
    damped, grid = Damped.of(covariance, cross, weight), grid_of(weight, name, "affine", length=3)

    codes = greedy(damped, grid)

    for g, channel in product(range(2), range(3)):
        expected = textbook_greedy(damped.covariance[g], damped.target[g, :, channel], grid, g, channel)
        np.testing.assert_array_equal(codes[g, :, channel], expected)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", FORMATS)
def test_descending_never_raises_the_error_and_ends_where_no_single_code_can_improve(name, scheme):
    covariance, cross, weight = problem(columns=70, rows=300)
    damped, grid = Damped.of(covariance, cross, weight), grid_of(weight, name, scheme)
    start = nearest_codes(weight, grid)

    codes = descend(start, damped, grid)

    reached = error_of(codes, grid, damped)
    assert (reached <= error_of(start, grid, damped)).all()
    zero = grid.zero_point[0, 0]
    for level in grid.levels.values:
        for k in range(0, 70, 9):
            other = codes.copy()
            other[:, k] = level - zero if grid.levels.is_affine else level
            assert (error_of(other, grid, damped) >= reached - 1e-9).all()


@pytest.mark.parametrize("name", ["int2", "int3"])
def test_descending_finds_the_optimum_of_tiny_layers_from_next_to_it(name):
    for seed in range(12):
        covariance, cross, weight = problem(groups=1, columns=4, channels=1, seed=seed)
        damped, grid = Damped.of(covariance, cross, weight), grid_of(weight, name)
        all_codes = np.array(list(product(grid.levels.values, repeat=4)))
        errors = [error_of(codes.reshape(1, 4, 1), grid, damped).item() for codes in all_codes]
        best = all_codes[int(np.argmin(errors))]
        for level in grid.levels.values:
            start = np.array([level, *best[1:]])
            codes = descend(start.reshape(1, 4, 1), damped, grid)
            np.testing.assert_array_equal(codes.ravel(), best)


@pytest.mark.parametrize("name", ["int3", "nf4"])
def test_scales_are_those_of_least_error(name):
    covariance, cross, weight = problem()
    damped, grid = Damped.of(covariance, cross, weight), grid_of(weight, name)
    codes = nearest_codes(weight, grid)

    fitted = refit(codes, damped, grid)

    for g, channel in product(range(2), range(3)):
        c, G, C = codes[g, :, channel], damped.covariance[g], damped.cross[g, :, channel]
        best = minimize_scalar(lambda s, c=c, G=G, C=C: s * s * (c @ G @ c) - 2 * s * (c @ C))
        assert fitted.scale[g, 0, channel] == pytest.approx(best.x, rel=1e-5)
        assert fitted.scale[g, 0, channel] == pytest.approx(c @ C / (c @ G @ c), rel=1e-6)


def test_the_scale_of_a_whole_layer_is_that_of_least_error():
    covariance, cross, weight = problem()
    damped, grid = Damped.of(covariance, cross, weight), grid_of(weight, is_shared=True)
    codes = nearest_codes(weight, grid)

    fitted = refit(codes, damped, grid)

    assert np.unique(fitted.scale).size == 1
    best = (codes * damped.cross).sum() / (codes * (damped.covariance @ codes)).sum()
    assert fitted.scale[0, 0, 0] == pytest.approx(best, rel=1e-6)


def test_scales_of_blocks_settle_at_the_joint_optimum():
    covariance, cross, weight = problem(groups=1, channels=1)
    damped, grid = Damped.of(covariance, cross, weight), grid_of(weight, length=3)
    codes = nearest_codes(weight, grid)
    errors = [error_of(codes, grid, damped).item()]

    for _ in range(400):
        grid = refit(codes, damped, grid)
        errors.append(error_of(codes, grid, damped).item())

    parts = np.zeros((3, 7))
    for block, part in enumerate(parts):
        part[3 * block : 3 * block + 3] = codes[0, 3 * block : 3 * block + 3, 0]
    joint = np.linalg.solve(parts @ damped.covariance[0] @ parts.T, parts @ damped.cross[0, :, 0])
    np.testing.assert_allclose(grid.scale[0, :, 0], joint, rtol=1e-4)
    assert np.diff(errors).max() <= 1e-5 * abs(errors[0])


def test_scales_of_codes_that_are_all_zero_stay():
    covariance, cross, weight = problem()
    grid = grid_of(weight)

    fitted = refit(np.zeros_like(weight), Damped.of(covariance, cross, weight), grid)

    np.testing.assert_array_equal(fitted.scale, grid.scale)


@pytest.mark.parametrize(("length", "is_shared"), [(None, False), (None, True), (16, False)])
@pytest.mark.parametrize("name", [*FORMATS, "int6"])
def test_a_reconstruction_beats_nearest_and_greedy_rounding(name, is_shared, length):
    covariance, cross, weight = problem(columns=40, rows=300)
    damped, grid = Damped.of(covariance, cross, weight), grid_of(weight, name, length=length, is_shared=is_shared)

    codes, fitted = reconstruct(damped, grid)

    others = [error_of(c, grid, damped).sum() for c in (nearest_codes(weight, grid), greedy(damped, grid))]
    assert error_of(codes, fitted, damped).sum() < min(others)
    assert np.isin(codes, grid.levels.values).all()
    np.testing.assert_array_equal(fitted.scale, fitted.scale.astype(np.float32))


@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize("name", ["int2", "int3", "ternary"])
def test_several_starts_find_less_error_than_the_first(name, is_shared, monkeypatch):
    covariance, cross, weight = problem(columns=40, channels=12, rows=300)
    damped, grid = Damped.of(covariance, cross, weight), grid_of(weight, name, is_shared=is_shared)

    several = error_of(*reconstruct(damped, grid), damped).sum()
    monkeypatch.setattr("hwdse.quantize.reconstruct.FACTORS", (1.0,))
    first = error_of(*reconstruct(damped, grid), damped).sum()

    assert several < first


@pytest.mark.parametrize("turn", [0, 1, 99])
def test_starts_that_are_given_up_leave_whole_layers_at_a_minimum(turn, monkeypatch):
    covariance, cross, weight = problem(columns=30, channels=8, rows=300)
    damped, grid = Damped.of(covariance, cross, weight), grid_of(weight, "int2")
    monkeypatch.setattr("hwdse.quantize.reconstruct._HALVED_AFTER", turn)

    codes, fitted = reconstruct(damped, grid)

    assert codes.shape == weight.shape
    assert fitted.scale.shape == grid.scale.shape
    assert fitted.copies == 1
    np.testing.assert_array_equal(codes, descend(codes, damped, fitted))


def test_codes_of_an_affine_grid_stay_within_it():
    covariance, cross, weight = problem(columns=40, rows=300)
    grid = grid_of(weight + 0.5, "int3", "affine")

    codes, fitted = reconstruct(Damped.of(covariance, cross, weight + 0.5), grid)

    stored = codes + fitted.spread(40)[1]
    assert stored.min() >= -4
    assert stored.max() <= 3


def test_inputs_that_never_change_leave_weights_at_the_nearest_levels():
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(1, 6, 4))
    covariance, cross = np.zeros((1, 6, 6)), np.zeros((1, 6, 4))
    grid = grid_of(weight, "int4")
    damped = Damped.of(covariance, cross, weight)

    codes, fitted = reconstruct(damped, grid)

    start = ((nearest_codes(weight, grid) * grid.spread(6)[0] - weight) ** 2).sum()
    assert ((codes * fitted.spread(6)[0] - weight) ** 2).sum() <= start
    np.testing.assert_array_equal(codes, grid.nearest(weight / fitted.spread(6)[0], fitted.spread(6)[1]))


def test_a_singular_covariance_is_no_obstacle():
    covariance, cross, weight = problem(columns=30, rows=5)
    assert np.linalg.matrix_rank(covariance[0]) < 30
    damped, grid = Damped.of(covariance, cross, weight), grid_of(weight)

    codes, fitted = reconstruct(damped, grid)

    before = output_error(nearest_codes(weight, grid) * grid.spread(30)[0], covariance, cross)
    assert output_error(codes * fitted.spread(30)[0], covariance, cross).sum() < before.sum()
