"""What can be wrong with calibration data or with what they lead to, and what is made of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from hwdse.capture import capture
from hwdse.errors import InputError
from hwdse.formats import Granularity, Precision, Scheme, Symmetry, parse
from hwdse.quantize import gram as gram_module
from hwdse.quantize.adaround_settings import AdaRoundSettings
from hwdse.quantize.network import QuantizedNetwork
from hwdse.quantize.observe import observe
from hwdse.quantize.rebuildable import rebuildable
from hwdse.quantize.recipe import OUTPUT, Recipe
from tests import networks
from tests.listener import Listener

NEAREST = Recipe(activation_ranges="minmax")
GRAM = replace(NEAREST, weight_rounding="gram")
FINDING = {
    "gram": GRAM,
    "corrected": replace(NEAREST, bias_correction="local"),
    "adaround": replace(NEAREST, weight_rounding="adaround", adaround=AdaRoundSettings(iterations=10, batch=8)),
    "ranges": Recipe(activation_ranges=OUTPUT),
}


class Two(nn.Module):
    """Two layers, with a bias or without."""

    def __init__(self, *, bias=True):
        super().__init__()
        self.first, self.last = nn.Linear(8, 6, bias=bias), nn.Linear(6, 3, bias=bias)

    def forward(self, x):
        return self.last(self.first(x).relu())


def two(batches, *, bias=True, recipe=GRAM, scheme=None):
    torch.manual_seed(4)
    captured = capture(Two(bias=bias).eval(), torch.ones(2, 8))
    return QuantizedNetwork.calibrated(captured, batches, scheme=scheme or Scheme(), recipe=recipe)


def everywhere(network, text):
    return network.setting(dict.fromkeys(network.captured.layer_index, Precision.parse(text)))


def residual(recipe, batches):
    program = networks.program("residual")
    streams = observe(program, [networks.CASES["residual"].inputs(8)])
    return QuantizedNetwork(program, scheme=Scheme(), streams=streams, recipe=recipe, batches=batches)


@pytest.mark.parametrize("name", FINDING)
def test_no_calibration_data(name):
    with pytest.raises(InputError, match="expected at least one batch of calibration data, got none; check the calibr"):
        two([], recipe=FINDING[name])


@pytest.mark.parametrize("name", FINDING)
def test_no_batches_beside_what_tensors_hold(name):
    with pytest.raises(InputError, match=r"expected calibration batches for a recipe that .*, got none; give batches"):
        residual(FINDING[name], [])


@pytest.mark.parametrize("name", FINDING)
def test_batches_without_samples(name):
    network = residual(FINDING[name], [torch.zeros(0, 3, 12, 12)])

    with pytest.raises(
        InputError, match=r"expected (calibration batches with samples|at least one batch of calibration data), got no"
    ):
        everywhere(network, "W4A4")


@pytest.mark.parametrize(("samples", "missing"), [(3, 6), (8, 1)])
def test_too_few_samples_are_told(samples, missing):
    network, listener = two([torch.randn(samples, 8)]), Listener()

    network.reconstruct([parse("int3")], progress=listener)

    # A covariance of 8 columns has full rank with 9 rows, one of 6 with 7.
    others = "too few for 2 layers in all; " if samples < 7 else ""
    assert listener.sentences[0] == (
        "expected 9 rows of calibration data (samples, or positions of samples) or more to reconstruct the weights of "
        f"first, got {9 - missing}; {others}add samples"
    )


def test_enough_samples_are_not_talked_about():
    network, listener = two([torch.randn(9, 8)]), Listener()

    network.reconstruct([parse("int3")], progress=listener)

    assert not [sentence for sentence in listener.sentences if "rows of calibration data" in sentence]


def ordinary():
    return torch.randn(48, 8, generator=torch.Generator().manual_seed(1))


def twins():
    x = ordinary()
    x[:, 1] = x[:, 0]
    return x


def steady():
    x = ordinary()
    x[:, 2] = 3.0
    return x


def dead():
    x = ordinary()
    x[:, [0, 5]] = 0.0
    return x


INPUTS = {
    "zeros": lambda: torch.zeros(48, 8),
    "one sample again and again": lambda: ordinary()[:1].repeat(48, 1),
    "two channels alike": twins,
    "a constant channel": steady,
    "dead channels": dead,
    "tiny": lambda: ordinary() * 1e-20,
    "huge": lambda: ordinary() * 1e20,
    "far from zero": lambda: ordinary() + 1e4,
    "of very different sizes": lambda: ordinary() * torch.logspace(-10, 10, 8),
}
SCHEMES = {
    "channel": Scheme(),
    "affine": Scheme(weights=Symmetry.AFFINE, activations=Symmetry.AFFINE),
    "tensor": Scheme(weight_granularity=Granularity.PER_TENSOR),
    "block": Scheme(weight_granularity=Granularity.PER_BLOCK, block_size=4),
}


def first_error(network, setting, batches):
    """Return the mean squared error of what the first layer writes from rounded inputs, in float64."""
    layer = network.captured.layers[network.captured.layer_index["first"]]
    program, x = network.program, torch.cat(batches).double()
    quantizer = setting.quantizers.get(layer.input)
    rounded = x if quantizer is None else quantizer(x.float().clone()).double()
    position = program.weights[layer.weight]
    target = x @ program.folded[layer.weight].double().T
    found = rounded @ setting.weights[position].double().T
    bias = program.biases.get("first")
    if bias in setting.biases:
        found = found + (setting.biases[bias] - program.constants[bias]).double()
    return (found - target).square().mean(0)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("name", INPUTS)
def test_ill_conditioned_data(name, bias, scheme):
    batches = list(INPUTS[name]().split(16))
    found, plain = (two(batches, bias=bias, recipe=r, scheme=SCHEMES[scheme]) for r in (GRAM, NEAREST))
    for text in ("W2A8", "W4A8"):
        settings = [everywhere(network, text) for network in (found, plain)]

        for setting in settings:
            assert all(bool(torch.isfinite(value).all()) for value in setting.constants.values())
            assert all(bool(torch.isfinite(found.forward(batch, setting)).all()) for batch in batches)
        errors = [first_error(found, setting, batches) for setting in settings]
        program, bias_at = found.program, found.program.biases.get("first")
        full = torch.cat(batches).double() @ program.folded["first.weight"].double().T
        size = (full if bias_at is None else full + program.constants[bias_at].double()).square().mean(0)
        if scheme == "tensor":
            errors, size = [error.sum() for error in errors], size.sum()
        # What single precision cannot tell apart does not count.
        assert (errors[0] <= errors[1] * (1.0 + 1e-4) + 1e-10 * size).all()


def test_data_that_say_nothing_leave_weights_at_nearest():
    batches = [torch.zeros(32, 8)]
    found, plain = (two(batches, recipe=recipe) for recipe in (GRAM, NEAREST))

    position = found.program.weights["first.weight"]

    weights = [everywhere(network, "W3A8").weights[position] for network in (found, plain)]
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)


@pytest.mark.parametrize("garbage", ["far", "nan"])
def test_a_layer_that_diverges_stays_at_nearest_and_is_told(garbage, monkeypatch):
    real = gram_module.reconstruct

    def diverging(damped, grid):
        codes, fitted = real(damped, grid)
        if codes.shape[1] == 8:  # the first layer
            codes = np.full_like(codes, 1e9 if garbage == "far" else np.nan)
        return codes, fitted

    monkeypatch.setattr(gram_module, "reconstruct", diverging)
    batches = [ordinary()]
    network, plain, listener = two(batches), two(batches, recipe=NEAREST), Listener()

    network.reconstruct([parse("int3")], progress=listener)

    setting, expected = everywhere(network, "W3A8"), everywhere(plain, "W3A8")
    position = network.program.weights["first.weight"]
    torch.testing.assert_close(setting.weights[position], expected.weights[position], rtol=0, atol=0)
    layer = network.captured.layers[network.captured.layer_index["first"]]
    scales = [n.quantized_weight(layer, parse("int3")).scale for n in (network, plain)]
    torch.testing.assert_close(scales[0], scales[1], rtol=0, atol=0)
    assert all(bool(torch.isfinite(value).all()) for value in setting.constants.values())
    last = network.program.weights["last.weight"]
    assert not torch.equal(setting.weights[last], expected.weights[last])
    assert listener.sentences == [
        "expected gram to find better weights in int3 than rounding to nearest, got none for first; these stay rounded "
        "to nearest"
    ]


def test_a_channel_that_diverges_stays_at_nearest_alone(monkeypatch):
    real = gram_module.reconstruct

    def diverging(damped, grid):
        codes, fitted = real(damped, grid)
        codes[:, :, 1] = 1e9
        return codes, fitted

    batches = [ordinary()]
    good, plain = everywhere(two(batches), "W2A8"), everywhere(two(batches, recipe=NEAREST), "W2A8")
    monkeypatch.setattr(gram_module, "reconstruct", diverging)
    network = two(batches)

    weight = everywhere(network, "W2A8").weights[network.program.weights["first.weight"]]

    others = [0, 2, 3, 4, 5]
    position = network.program.weights["first.weight"]
    torch.testing.assert_close(weight[1], plain.weights[position][1], rtol=0, atol=0)
    torch.testing.assert_close(weight[others], good.weights[position][others], rtol=0, atol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", FINDING)
def test_numbers_in_the_calibration_data_that_are_none(name, value):
    batch = ordinary()
    batch[7, 3] = value

    with pytest.raises(InputError, match=r"finite.*\(tensor 'x'\)"):
        two([ordinary(), batch], recipe=FINDING[name])


@pytest.mark.parametrize("name", ["gram", "corrected"])
def test_a_layer_that_meets_such_a_number_is_named(name):
    """Data that were not looked at before, such as others than the ranges are from."""
    batch = networks.CASES["residual"].inputs(8)[0]
    batch[2, 1, 5, 5] = float("nan")
    network = residual(FINDING[name], [batch])

    with pytest.raises(InputError, match=r"expected finite activations, got NaN or infinity; .*\(layer 'stem'\)"):
        everywhere(network, "W4A8")


def test_a_tensor_whose_rounding_meets_such_a_number_is_named():
    batch = networks.CASES["residual"].inputs(8)[0]
    batch[2, 1, 5, 5] = float("nan")
    network = residual(FINDING["ranges"], [batch])

    with pytest.raises(InputError, match=r"expected finite outputs, got NaN or infinity with 'x' rounded; check"):
        everywhere(network, "W4A4")


def test_a_channel_whose_weights_are_zero():
    torch.manual_seed(0)
    model = Two().eval()
    with torch.no_grad():
        model.first.weight[2] = 0.0
    batches = [ordinary()]
    network = QuantizedNetwork.calibrated(capture(model, batches[0]), batches, scheme=Scheme(), recipe=GRAM)
    assert set(rebuildable(network.program)) == {"first.weight", "last.weight"}

    setting = everywhere(network, "W2A8")

    weight = setting.weights[network.program.weights["first.weight"]]
    assert not weight[2].any()
    assert all(bool(torch.isfinite(value).all()) for value in setting.constants.values())
