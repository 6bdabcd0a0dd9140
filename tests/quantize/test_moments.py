"""Moments of layers against the stacked columns of the same data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from hwdse.capture import capture
from hwdse.errors import InputError
from hwdse.quantize.moments import SecondMoments, add_layer, columns_of
from tests import networks

LAYERS = {
    "padded": (lambda: nn.Conv2d(4, 6, 3, padding=1), (4, 9, 8)),
    "strided": (lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0)), (4, 9, 8)),
    "dilated": (lambda: nn.Conv2d(4, 6, 3, dilation=(2, 1), padding=(2, 1)), (4, 9, 8)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), (4, 9, 8)),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4, padding=1), (4, 9, 8)),
    "same": (lambda: nn.Conv2d(4, 6, (4, 3), padding="same"), (4, 9, 8)),
    "valid": (lambda: nn.Conv2d(4, 6, 3, padding="valid"), (4, 9, 8)),
    "line": (lambda: nn.Conv1d(4, 6, 5, stride=2, padding=2), (4, 11)),
    "volume": (lambda: nn.Conv3d(2, 3, (1, 2, 3), padding=(0, 1, 1)), (2, 3, 5, 4)),
    "linear": (lambda: nn.Linear(8, 5), (8,)),
    "tokens": (lambda: nn.Linear(8, 5), (7, 8)),
}


def case(name):
    """Return a layer, its site, and inputs with a large mean."""
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    layer = make().double()
    x = torch.randn(5, *shape, dtype=torch.float64) + 3.0
    with torch.no_grad():
        site = next(iter(capture(nn.Sequential(layer).float().eval(), x.float()).sites.values()))
    return layer.double(), site, x


def empty(site):
    columns = int(np.prod(site.weight_shape[1:]))
    return SecondMoments(site.groups, columns, site.weight_shape[0] // site.groups)


@pytest.mark.parametrize("name", LAYERS)
def test_columns_times_weights_are_outputs(name):
    layer, site, x = case(name)
    groups = site.groups

    columns = columns_of(site, x)

    weight = layer.weight.detach().reshape(groups, -1, columns.shape[2])
    product = (columns @ weight.mT).transpose(0, 1).flatten(1) + layer.bias.detach()
    expected = layer(x).detach()
    expected = expected.movedim(1, -1) if site.is_convolution else expected
    np.testing.assert_allclose(product, expected.reshape(-1, expected.shape[-1]))


@pytest.mark.parametrize("name", ["padded", "strided", "grouped", "depthwise"])
def test_columns_of_images_are_those_of_the_framework(name):
    _, site, x = case(name)
    _, _, _, stride, padding, dilation = (*site.node.args, 1, 0, 1)[:6]

    unfolded = functional.unfold(x, site.weight_shape[2:], dilation=dilation, padding=padding, stride=stride)

    expected = unfolded.mT.reshape(-1, site.groups, unfolded.shape[1] // site.groups).transpose(0, 1)
    np.testing.assert_array_equal(columns_of(site, x), expected)


@pytest.mark.parametrize("piece", [2**22, 1])
@pytest.mark.parametrize("name", LAYERS)
def test_moments_are_those_of_the_stacked_columns(name, piece, monkeypatch):
    monkeypatch.setattr("hwdse.quantize.moments._PIECE", piece)
    layer, site, x = case(name)
    t = layer(x).detach()
    moments = empty(site)

    for part, written in zip(x.split(2), t.split(2), strict=True):
        add_layer(moments, site, part, written)

    columns = columns_of(site, x).numpy()
    outputs = (t.movedim(1, -1) if site.is_convolution else t).reshape(-1, *moments.target_mean.shape).numpy()
    covariance, cross = moments.covariances(centred=True)
    raw, raw_cross = moments.covariances(centred=False)
    assert moments.count == columns.shape[1]
    for g in range(site.groups):
        rows, written = columns[g], outputs[:, g]
        both = np.cov(np.concatenate([rows, written], 1), rowvar=False, bias=True)
        size = rows.shape[1]
        np.testing.assert_allclose(moments.mean[g], rows.mean(0))
        np.testing.assert_allclose(moments.target_mean[g], written.mean(0))
        np.testing.assert_allclose(covariance[g], both[:size, :size], atol=1e-10)
        np.testing.assert_allclose(cross[g], both[:size, size:], atol=1e-10)
        np.testing.assert_allclose(raw[g], rows.T @ rows / len(rows))
        np.testing.assert_allclose(raw_cross[g], rows.T @ written / len(rows))


def test_a_large_mean_costs_no_accuracy():
    torch.manual_seed(0)
    x = torch.randn(1, 400, 3)
    near, far = SecondMoments(1, 3, 1), SecondMoments(1, 3, 1)

    near.add(x, x[..., :1])
    far.add(x.double() + 1e6, x[..., :1].double() - 1e6)

    np.testing.assert_allclose(far.squares, near.squares, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(far.products, near.products, rtol=1e-5, atol=1e-4)


def test_merging_equals_one_pass():
    torch.manual_seed(0)
    x, t = torch.randn(2, 50, 4, dtype=torch.float64) + 5, torch.randn(2, 50, 3, dtype=torch.float64)
    whole, first, second = (SecondMoments(2, 4, 3) for _ in range(3))

    whole.add(x, t)
    first.add(x[:, :13], t[:, :13])
    second.add(x[:, 13:], t[:, 13:])
    first.merge(second)
    first.merge(SecondMoments(2, 4, 3))

    assert first.count == whole.count == 50
    for name in ("mean", "target_mean", "squares", "products"):
        np.testing.assert_allclose(getattr(first, name), getattr(whole, name), atol=1e-12)


def test_nothing_is_nothing():
    moments = SecondMoments(1, 3, 2)

    moments.add(torch.zeros(1, 0, 3), torch.zeros(1, 0, 2))
    moments.merge(SecondMoments(1, 3, 2))

    assert moments.count == 0
    assert moments.missing == 4


def test_rows_that_are_missing_for_a_full_rank_are_counted():
    moments = SecondMoments(1, 6, 1)

    moments.add(torch.randn(1, 5, 6, dtype=torch.float64), torch.randn(1, 5, 1, dtype=torch.float64))

    assert moments.missing == 2
    assert np.linalg.matrix_rank(moments.squares[0]) == 4


def test_moments_of_another_layer_are_refused():
    with pytest.raises(InputError, match=r"expected moments of shape \(1, 3, 2\), got \(1, 4, 2\)"):
        SecondMoments(1, 3, 2).merge(SecondMoments(1, 4, 2))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_with_the_layer(bad):
    site = replace(networks.captured("mlp").sites["first"], name="spoilt")
    moments, x = empty(site), torch.ones(4, 12)
    x[2, 3] = bad

    with pytest.raises(InputError, match=r"expected finite activations, got NaN or infinity.*layer 'spoilt'"):
        add_layer(moments, site, x, torch.ones(4, 20))

    assert moments.count == 0
