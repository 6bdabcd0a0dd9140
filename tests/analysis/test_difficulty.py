"""Predicted errors against the errors of quantizing, closed forms, and what a layer makes of two operands."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from hwdse.analysis.difficulty import Predictor, bits_needed, family_name, measure_difficulty, width_family
from hwdse.analysis.operands import layer_operands
from hwdse.calibrate import calibrator
from hwdse.capture import capture
from hwdse.errors import InputError
from hwdse.formats import Granularity, Precision, Scheme, Symmetry, parse
from hwdse.quantize.network import QuantizedNetwork, Setting
from hwdse.quantize.observe import observe
from hwdse.quantize.program import Program
from hwdse.quantize.quantizer import activation_quantizer
from hwdse.quantize.recipe import Recipe
from hwdse.quantize.weights import quantize_weight
from tests import networks

FORMATS = ("int8", "int4", "int2", "nf4", "apot4", "posit8_0", "fp8_e4m3", "bf16", "ternary", "codebook4", "quantile4")
METHODS = ("minmax", "mse", "l2.4", "percentile", "aciq_gauss", "entropy")
SCHEMES = {
    "symmetric": Scheme(),
    "affine": Scheme(weights=Symmetry.AFFINE, activations=Symmetry.AFFINE, weight_granularity=Granularity.PER_TENSOR),
    "blocks": Scheme(weight_granularity=Granularity.PER_BLOCK, block_size=16),
}


def decibel(x: torch.Tensor, rounded: torch.Tensor) -> float:
    signal, noise = x.double().square().sum(), (x.double() - rounded.double()).square().sum()
    return float(10.0 * torch.log10(signal / noise))


@pytest.fixture(scope="module")
def inputs() -> torch.Tensor:
    return networks.CASES["residual"].inputs(64, seed=3)[0]


def network_of(inputs: torch.Tensor, scheme: Scheme, recipe: Recipe | None = None) -> QuantizedNetwork:
    program = networks.program("residual")
    return QuantizedNetwork(program, scheme=scheme, streams=observe(program, [inputs]), recipe=recipe)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("method", METHODS)
def test_weights_lose_what_was_predicted(inputs: torch.Tensor, scheme: str, method: str) -> None:
    network = network_of(inputs, SCHEMES[scheme])
    predictor = Predictor.of(network)
    for name, weight in network.program.folded.items():
        for text in FORMATS:
            predicted = predictor.predict(name, parse(text), method)
            rounded = quantize_weight(
                weight, parse(text), scheme=network.scheme, axis=network.weight_axis(name), ranges=method
            )
            assert predicted.sqnr_db == pytest.approx(decibel(weight, rounded.values), abs=0.01), (name, text)
            assert sorted(predicted.scale.tolist()) == sorted(rounded.scale.tolist())
            assert predicted.mean_square_error == pytest.approx(predicted.errors.sum() / weight.numel())


@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
@pytest.mark.parametrize("method", METHODS)
def test_activations_lose_what_was_predicted(inputs: torch.Tensor, scheme: str, method: str) -> None:
    network = network_of(inputs, SCHEMES[scheme])
    predictor = Predictor.of(network)
    seen: dict[str, torch.Tensor] = {}

    class Keep:
        is_unsigned = False

        def __init__(self, point: str) -> None:
            self.point = point

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            seen[self.point] = x.clone()
            return x

        apply_ = __call__

    network.forward(inputs, Setting(quantizers={point: Keep(point) for point in network.program.points}))
    assert set(seen) == set(network.program.points)
    for point, x in seen.items():
        for text in FORMATS:
            quantizer = activation_quantizer(
                predictor.operands[point].tables[0],
                number_format=parse(text),
                scheme=network.scheme,
                calibrate=calibrator(method),
            )
            assert quantizer is not None
            measured = decibel(x, quantizer(x))
            assert predictor.predict(point, parse(text), method).sqnr_db == pytest.approx(measured, abs=0.3), (
                point,
                text,
            )


def test_the_closed_form_is_the_step_squared_over_twelve(inputs: torch.Tensor) -> None:
    predictor = Predictor.of(network_of(inputs, Scheme()))
    weight = networks.program("residual").folded["b2.weight"].double()
    rows = weight.reshape(len(weight), -1)
    step = rows.abs().amax(1) / 127
    wanted = 10 * math.log10(float(rows.square().sum() / (step.square() / 12 * rows.shape[1]).sum()))
    predicted = predictor.predict("b2.weight", parse("int8"), "minmax")
    assert predicted.sqnr_db_closed_form == pytest.approx(wanted, abs=1e-5)
    assert predicted.sqnr_db == pytest.approx(wanted, abs=0.5)
    assert math.isnan(predictor.predict("b2.weight", parse("nf4"), "minmax").sqnr_db_closed_form)
    assert math.isnan(predictor.predict("b2.weight", parse("int8"), "mse").sqnr_db_closed_form)


@pytest.mark.parametrize("text", ["W8A8", "W4A8", "W4A4", "W2A8", "Wnf4A8", "Wposit8_0Aposit8_0"])
def test_the_noise_of_a_layer_on_independent_data_is_what_both_operands_make(text: str) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(256, 64, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(64, 256, generator=generator))
    x = torch.randn(2000, 256, generator=generator)
    program = Program.of(capture(layer, x[:2]))
    network = QuantizedNetwork(program, scheme=Scheme(), streams=observe(program, [x]))
    (only,) = network.captured.layers
    predicted = Predictor.of(network).noise_ratio(only, Precision.parse(text), weights="minmax", activations="mse")
    exact = layer(x)
    rounded = network.forward(x, network.setting({only.name: Precision.parse(text)}))
    assert 10 * math.log10(1 / predicted) == pytest.approx(decibel(exact.detach(), rounded), abs=0.15)
    assert measure_difficulty(network, [Precision.parse(text)]).tolist() == [[predicted]]


def test_difficulty_is_the_sum_over_a_groups_layers_and_nothing_in_full_precision(inputs: torch.Tensor) -> None:
    network = network_of(inputs, Scheme(), Recipe(weight_ranges="mse"))
    candidates = [Precision.parse(text) for text in ("fp32", "W8A8", "W4A8", "W2A8", "W8Afp32")]
    found = measure_difficulty(network, candidates)
    assert found.shape == (len(network.captured.groups), len(candidates))
    assert (found[:, 0] == 0.0).all()
    assert (np.diff(found[:, :4], axis=1) > 0.0).all()
    predictor = Predictor.of(network)
    group = next(i for i, g in enumerate(network.captured.groups) if set(g.layers) == {"b1", "short"})
    parts = [
        predictor.noise_ratio(layer, candidates[2], weights="mse", activations="mse")
        for layer in network.captured.layers
        if layer.name in {"b1", "short"}
    ]
    assert found[group, 2] == pytest.approx(sum(parts))


def test_the_second_operand_of_a_product_has_the_weight_format() -> None:
    layers = networks.program("packed").captured.layers
    product = next(layer for layer in layers if layer.weight is None)
    (second, first_format), (name, second_format) = layer_operands(product, Precision.parse("W3A5"))
    assert (second, str(first_format)) == (f"{product.name}.second", "int3")
    assert (name, str(second_format)) == (product.input, "int5")


def test_the_bits_that_an_sqnr_needs_lie_between_two_widths(inputs: torch.Tensor) -> None:
    predictor = Predictor.of(network_of(inputs, Scheme()))
    at = {bits: predictor.predict("b2.weight", parse(f"int{bits}"), "mse").sqnr_db for bits in (4, 5)}
    target = (at[4] + at[5]) / 2
    assert bits_needed(predictor, "b2.weight", parse("int8"), "mse", sqnr_db=target) == pytest.approx(4.5)
    assert bits_needed(predictor, "b2.weight", parse("int4"), "mse", sqnr_db=at[5]) == pytest.approx(5.0)
    assert bits_needed(predictor, "b2.weight", parse("nf4"), "mse", sqnr_db=1.0) == 2.0
    assert bits_needed(predictor, "b2.weight", parse("pot4"), "mse", sqnr_db=40.0) == math.inf


def test_a_family_is_a_name_at_every_width() -> None:
    assert [f.bits for f in width_family(parse("int4"))] == list(range(1, 17))
    assert [f.name for f in width_family(parse("posit8_1"))][:2] == ["posit3_1", "posit4_1"]
    assert width_family(parse("fp8_e4m3")) == (parse("fp8_e4m3"),)
    assert width_family(parse("bf16")) == (parse("bf16"),)
    assert (family_name(parse("apot4")), family_name(parse("ternary"))) == ("apot*", "ternary")


def test_what_a_format_cannot_hold_is_named_with_its_layer(inputs: torch.Tensor) -> None:
    predictor = Predictor.of(network_of(inputs, Scheme()))
    with pytest.raises(InputError, match=r"symmetric grid, got int1.*\(layer 'b2', tensor 'b2.weight'\)"):
        predictor.predict("b2.weight", parse("int1"), "mse")
    with pytest.raises(InputError, match="expected one of the installed calibrators"):
        predictor.predict("b2.weight", parse("int4"), "median")


def test_a_network_of_zeros_is_easy() -> None:
    model = nn.Linear(4, 3)
    with torch.no_grad():
        model.weight.zero_()
    program = Program.of(capture(model, torch.zeros(2, 4)))
    network = QuantizedNetwork(program, scheme=Scheme(), streams=observe(program, [torch.zeros(5, 4)]))
    candidates = [Precision.parse(text) for text in ("W8A8", "W2A8", "Wnf4Aposit8_0", "Wcodebook4A8")]
    assert (measure_difficulty(network, candidates) == 0.0).all()
