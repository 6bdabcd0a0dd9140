"""Whole configurations against implementations in plain PyTorch and in integers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from hwdse.calibrate import Stream
from hwdse.capture import capture
from hwdse.errors import InputError
from hwdse.formats import Granularity, Precision, Scheme, Symmetry
from hwdse.quantize.network import QuantizedNetwork, Setting
from hwdse.quantize.observe import observe
from hwdse.quantize.program import Program
from hwdse.quantize.recipe import Recipe
from tests import networks

MINMAX = Recipe(activation_ranges="minmax")
SCHEMES = {
    "default": Scheme(),
    "signed": Scheme(unsigned_activations=False),
    "full": Scheme(full_range=True),
    "affine": Scheme(weights=Symmetry.AFFINE, activations=Symmetry.AFFINE),
    "tensor": Scheme(weight_granularity=Granularity.PER_TENSOR),
}


def network_of(
    model: nn.Module, batches: list[torch.Tensor], scheme: Scheme = SCHEMES["default"], recipe: Recipe = MINMAX
) -> QuantizedNetwork:
    program = Program.of(capture(model.eval(), batches[0]))
    return QuantizedNetwork(program, scheme=scheme, streams=observe(program, batches), recipe=recipe)


def parsed(**texts: str) -> dict[str, Precision]:
    return {name: Precision.parse(text) for name, text in texts.items()}


class Plain:
    """The residual network again in plain PyTorch and float64, quantizing what each layer reads where it is made."""

    def __init__(self, model: networks.Residual, scheme: Scheme, precisions: Mapping[str, Precision]) -> None:
        self.model, self.scheme, self.precisions = model, scheme, precisions
        self.ranges: dict[str, tuple[float, float]] = {}
        self.calibrating = False

    def read(self, x: torch.Tensor, layer: str) -> torch.Tensor:
        if self.calibrating:
            self.ranges[layer] = (float(x.min()), float(x.max()))
            return x
        bits = self.precisions[layer].activations.bits
        low, high = min(self.ranges[layer][0], 0.0), max(self.ranges[layer][1], 0.0)
        lowest, highest, zero = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, 0
        if self.scheme.activations is Symmetry.AFFINE:
            lowest, highest = 0, 2**bits - 1
            step = (high - low) / highest
            zero = round(-low / step)
        else:
            if low == 0.0 and self.scheme.unsigned_activations:
                lowest, highest = 0, 2**bits - 1
            step = max(low / lowest if lowest else 0.0, high / highest)
        step = float(np.float32(step))
        return (((x / step).round() + zero).clamp(lowest, highest) - zero) * step

    def weight(self, layer: str) -> tuple[torch.Tensor, torch.Tensor]:
        module = getattr(self.model, layer)
        weight, bias = module.weight, module.bias
        if layer != "head":
            norm = getattr(self.model, f"{layer}_norm")
            factor = norm.weight / (norm.running_var + norm.eps).sqrt()
            weight, bias = weight * factor.view(-1, 1, 1, 1), norm.bias - norm.running_mean * factor
        if self.calibrating:
            return weight, bias
        bits = self.precisions[layer].weights.bits
        rows = weight.reshape(1 if self.scheme.weight_granularity is Granularity.PER_TENSOR else len(weight), -1)
        low, high = rows.min(1, True)[0].clamp(max=0.0), rows.max(1, True)[0].clamp(min=0.0)
        lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        if self.scheme.weights is Symmetry.AFFINE:
            step = ((high - low) / (highest - lowest)).float().double()
            zero = (lowest - low / step).round()
            rounded = (((rows / step).round() + zero).clamp(lowest, highest) - zero).mul(step)
            return rounded.float().double().view_as(weight), bias
        lowest = lowest if self.scheme.full_range else -highest
        step = torch.maximum(low / lowest, high / highest).float().double()
        return (rows / step).round().clamp(lowest, highest).mul(step).float().double().view_as(weight), bias

    def conv(self, x: torch.Tensor, layer: str) -> torch.Tensor:
        module = getattr(self.model, layer)
        return functional.conv2d(x, *self.weight(layer), module.stride, module.padding)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        x = self.read(self.conv(self.read(x, "stem"), "stem").relu(), "a1")
        y = self.read(self.conv(x, "a1").relu(), "a2")
        x = self.read((self.conv(y, "a2") + x).relu(), "b1")
        y = self.read(self.conv(x, "b1").relu(), "b2")
        x = (self.conv(y, "b2") + self.conv(x, "short")).relu()
        return functional.linear(self.read(x.mean((2, 3)), "head"), *self.weight("head"))


MIXED = parsed(stem="W8A8", a1="W4A8", a2="W2A4", b1="W3A5", b2="W6A3", short="W3A5", head="W8A6")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("uniform", ["", "W8A8", "W4A4", "W2A8"])
def test_a_configuration_is_its_plain_composition(scheme: str, uniform: str) -> None:
    model = networks.Residual().double()
    model.load_state_dict(networks.model("residual").state_dict())
    model.eval()
    precisions = {name: Precision.parse(uniform) if uniform else p for name, p in MIXED.items()}
    generator = torch.Generator().manual_seed(5)
    batch = torch.randn(16, 3, 12, 12, generator=generator, dtype=torch.float64)
    plain = Plain(model, SCHEMES[scheme], precisions)
    with torch.no_grad():
        plain.calibrating = True
        torch.testing.assert_close(plain(batch), model(batch))
        plain.calibrating = False
        expected = plain(batch)
    network = network_of(model, [batch], SCHEMES[scheme])
    output = network.forward(batch, network.setting(precisions))
    # Scales and rounded weights are float32 in both, and no value is near enough to a tie to go the other way.
    torch.testing.assert_close(output, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("scheme", ["default", "signed", "affine"])
@pytest.mark.parametrize("bits", [(8, 8), (4, 8), (3, 5), (2, 2)])
@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_a_layer_computes_what_an_integer_core_computes(scheme: str, bits: tuple[int, int], kind: str) -> None:
    layer = nn.Conv2d(6, 5, 3, stride=2, groups=1) if kind == "conv" else nn.Linear(6, 5)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn((4, 6, 9, 9) if kind == "conv" else (4, 6), generator=generator)
    network = network_of(nn.Sequential(layer), [x], SCHEMES[scheme])
    setting = network.setting(parsed(**{"0": f"W{bits[0]}A{bits[1]}"}))
    ((_, quantizer),) = setting.quantizers.items()
    lowest, highest = (int(bound) for bound in quantizer.bounds)
    x_codes = (x.double() / quantizer.scale).round().clamp(lowest, highest).to(torch.int64)
    ((_, fake),) = setting.weights.items()
    rows = layer.weight.detach().double().flatten(1)
    top = 2 ** (bits[0] - 1) - 1
    if scheme == "affine":
        step = (rows.amax(1).clamp(min=0) - rows.amin(1).clamp(max=0)) / (2 * top + 1)
        zero = (-top - 1 - rows.amin(1).clamp(max=0) / step).round()
        w_codes = ((rows / step[:, None]).round() + zero[:, None]).clamp(-top - 1, top) - zero[:, None]
    else:
        step = rows.abs().amax(1) / top
        w_codes = (rows / step[:, None]).round()
    torch.testing.assert_close(fake.double().flatten(1), w_codes * step[:, None], rtol=1e-6, atol=0.0)
    if kind == "conv":
        columns = functional.unfold(x_codes.double(), 3, stride=2).to(torch.int64)  # small integers are exact
        sums = (w_codes.to(torch.int64) @ columns).view(4, 5, 4, 4)
        exact = sums.double() * step.view(5, 1, 1) * quantizer.scale + layer.bias.detach().double().view(5, 1, 1)
    else:
        exact = (x_codes @ w_codes.to(torch.int64).t()).double() * step * quantizer.scale + layer.bias.detach().double()
    output = network.forward(x, setting)
    assert (output.double() - exact).abs().max() <= 2e-6 * exact.abs().max()


def test_swapping_configurations_leaves_no_trace() -> None:
    x = networks.CASES["residual"].inputs(4)[0]
    network = network_of(networks.model("residual"), [x])
    full = network.forward(x, Setting())
    settings = [network.setting(MIXED), network.setting(dict.fromkeys(MIXED, Precision.parse("W2A2")))]
    first = [network.forward(x, setting) for setting in settings]
    for setting, output in zip(settings * 2, first * 2, strict=True):
        assert torch.equal(network.forward(x, setting), output)
    assert torch.equal(network.forward(x, Setting()), full)
    fresh = network_of(networks.model("residual"), [x])
    assert torch.equal(fresh.forward(x, fresh.setting(MIXED)), first[0])
    assert not torch.equal(first[0], first[1])


def test_weights_and_ranges_are_found_once() -> None:
    x = networks.CASES["residual"].inputs(4)[0]
    network = network_of(networks.model("residual"), [x])
    one, two = network.setting(MIXED), network.setting(MIXED)
    assert all(one.weights[position] is two.weights[position] for position in one.weights)
    assert all(one.quantizers[point] is two.quantizers[point] for point in one.quantizers)


def test_layers_in_fp32_and_layers_left_out_are_untouched() -> None:
    x = networks.CASES["residual"].inputs(4)[0]
    network = network_of(networks.model("residual"), [x])
    nothing = network.setting(dict.fromkeys(MIXED, Precision.parse("fp32")))
    assert (nothing.weights, nothing.quantizers) == ({}, {})
    assert network.setting({}) == nothing
    weights_only = network.setting(parsed(a2="W4Afp32"))
    assert (list(weights_only.weights), weights_only.quantizers) == ([network.program.weights["a2.weight"]], {})
    inputs_only = network.setting(parsed(a2="Wfp32A4"))
    assert (inputs_only.weights, list(inputs_only.quantizers)) == ({}, ["relu_1"])


def test_a_reused_layer_uses_one_quantized_copy_each_time() -> None:
    model, x = networks.model("reused"), networks.CASES["reused"].inputs(4)[0]
    network = network_of(model, [x])
    setting = network.setting(parsed(**dict.fromkeys(("loop", "loop@2", "loop@3"), "W2Afp32")))
    assert len(setting.weights) == 1
    (weight,) = setting.weights.values()
    with torch.no_grad():
        y = model.stem(x).relu()
        for _ in range(3):
            y = functional.conv2d(y, weight, model.loop.bias, padding=1).relu()
    torch.testing.assert_close(network.forward(x, setting), y.mean((2, 3)))


def test_a_weight_that_is_read_both_ways_has_one_copy_whatever_the_order() -> None:
    model, x = networks.model("tied"), networks.CASES["tied"].inputs(4)[0]
    both = parsed(**{"weight": "W2Afp32", "weight@2": "W2Afp32"})
    outputs = []
    for order in (both, dict(reversed(both.items()))):
        network = network_of(model, [x])
        outputs.append(network.forward(x, network.setting(order)))
    assert torch.equal(*outputs)
    rows = model.weight.detach()
    step = rows.abs().amax(1, keepdim=True)
    ternary = (rows / step).round() * step  # one scale per row, the encoder's output channels
    with torch.no_grad():
        code = functional.linear(x, ternary, model.low).relu()
        torch.testing.assert_close(outputs[0], functional.linear(code, ternary.t(), model.high))


def test_an_embedding_reads_the_quantized_copy_of_its_head() -> None:
    case, model = networks.CASES["llama"], networks.model("llama")
    words = case.inputs(3)[0]
    program = networks.program("llama")
    network = QuantizedNetwork(program, scheme=Scheme(), streams=observe(program, [words]), recipe=MINMAX)
    head = network.captured.layers[-1].name
    output = network.forward(words, network.setting({head: Precision.parse("W3Afp32")}))
    copy = networks.Llama()
    copy.load_state_dict(model.state_dict())
    step = copy.embedding.weight.detach().abs().amax(1, keepdim=True) / 3
    with torch.no_grad():
        copy.embedding.weight.copy_((copy.embedding.weight / step).round() * step)
        torch.testing.assert_close(output, copy(words), rtol=1e-4, atol=1e-5)


def test_the_second_operand_of_a_product_has_the_weight_format() -> None:
    model, x = networks.model("packed"), networks.CASES["packed"].inputs(3)[0]
    program = networks.program("packed")
    network = QuantizedNetwork(program, scheme=Scheme(), streams=observe(program, [x]), recipe=MINMAX)
    setting = network.setting(parsed(matmul_1="W3A5"))
    assert {point: str(q.levels.number_format) for point, q in setting.quantizers.items()} == {
        "softmax": "uint5", "matmul_1.second": "int3",
    }  # fmt: skip
    with torch.no_grad():
        q, k, v = model.qkv(x).chunk(3, -1)
        mask = torch.full((6, 6), -torch.inf).triu(1)
        shares = (q @ k.mT / 8**0.5 + mask).softmax(-1)
        step = shares.max() / 31
        shares = (shares / step).round() * step
        step = torch.maximum(-v.min() / 4, v.max() / 3)
        v = (v / step).round().clamp(-4, 3) * step
        torch.testing.assert_close(network.forward(x, setting), model.out(shares @ v))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_merged_relu_is_a_relu(scheme: str) -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    x = torch.randn(32, 6)
    network = network_of(model, [x], SCHEMES[scheme])
    with torch.no_grad():
        hidden = model[0](x).relu()
        step = float(hidden.max()) / (127 if scheme == "signed" else 255)
        expected = model[2]((hidden / step).round() * step)
    torch.testing.assert_close(network.forward(x, network.setting(parsed(**{"2": "Wfp32A8"}))), expected)


@pytest.mark.parametrize("name", networks.CASES)
def test_any_configuration_of_any_network_runs_and_repeats(name: str) -> None:
    case, program = networks.CASES[name], networks.program(name)
    inputs = case.inputs(3)
    before = [x.clone() for x in inputs]
    network = QuantizedNetwork(program, scheme=Scheme(), streams=observe(program, [inputs]))
    settings = [
        network.setting({layer.name: Precision.parse(p) for layer in program.captured.layers}) for p in ("W8A8", "W2A2")
    ]
    full, eight, two = (network.forward(inputs, setting) for setting in (Setting(), *settings))
    again = network.forward(inputs, settings[0])

    def first(output: object) -> torch.Tensor:
        return output["both"][0] if isinstance(output, dict) else output  # type: ignore[return-value]

    assert torch.equal(first(again), first(eight))
    assert all(map(torch.equal, inputs, before))
    error = [(first(output) - first(full)).norm() / first(full).norm() for output in (eight, two)]
    assert 0.0 < error[0] < 0.2
    assert error[1] > 2 * error[0]


def test_observing_sees_what_every_layer_reads() -> None:
    model = networks.model("residual")
    seen: dict[str, list[torch.Tensor]] = {}
    hooks = [
        module.register_forward_pre_hook(lambda _, x, name=name: seen.setdefault(name, []).append(x[0].clone()))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    batches = [networks.CASES["residual"].inputs(n, seed=n)[0] for n in (2, 5)]
    with torch.no_grad():
        for batch in batches:
            model(batch)
    for hook in hooks:
        hook.remove()
    program = networks.program("residual")
    calls: list[int] = []
    streams = observe(program, iter(batches), on_batch=lambda: calls.append(1))
    assert len(calls) == 2
    assert set(streams) == set(program.points)
    for layer in program.captured.layers:
        values, histogram = torch.cat([x.flatten() for x in seen[layer.name]]), streams[layer.input].tensor
        assert histogram.count[0] == values.numel() == histogram.counts.sum() + histogram.zeros[0]
        torch.testing.assert_close(float(histogram.minimum[0]), float(values.min()), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(float(histogram.maximum[0]), float(values.max()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_calibration_data_must_be_finite(value: float) -> None:
    batch = networks.CASES["residual"].inputs(2)[0]
    batch[1, 0, 3, 3] = value
    with pytest.raises(InputError, match=r"expected finite calibration data, got NaN or infinity.*\(tensor 'x'\)"):
        observe(networks.program("residual"), [batch])


@pytest.mark.parametrize("batches", [[], [torch.zeros(0, 3, 12, 12)]])
def test_calibration_needs_a_sample(batches: list[torch.Tensor]) -> None:
    with pytest.raises(InputError, match="expected at least one batch of calibration data, got none"):
        observe(networks.program("residual"), batches)


def test_weights_that_are_not_finite_name_their_layer() -> None:
    model = networks.Residual().eval()
    with torch.no_grad():
        model.a2.weight[0, 0, 0, 0] = torch.nan
    program = Program.of(capture(model, torch.randn(2, 3, 12, 12)))
    streams = {point: Stream() for point in program.points}
    network = QuantizedNetwork(program, scheme=Scheme(), streams=streams)
    with pytest.raises(InputError, match=r"expected finite weights, got NaN or infinity.*\(layer 'a2'\)"):
        network.setting(parsed(a2="W4Afp32"))


def test_layers_must_be_known_and_tied_layers_agree() -> None:
    network = network_of(networks.model("residual"), [networks.CASES["residual"].inputs(2)[0]])
    with pytest.raises(InputError, match="expected layer names of this network, got 'a3'"):
        network.setting(parsed(a3="W4A8"))
    with pytest.raises(InputError, match="one precision for the tied layers b1, short, got W4A8 and W8A8"):
        network.setting(parsed(b1="W4A8", short="W8A8"))
    with pytest.raises(InputError, match="expected one of the installed calibrators"):
        network_of(networks.model("residual"), [torch.randn(2, 3, 12, 12)], recipe=Recipe(activation_ranges="median"))
    with pytest.raises(InputError, match=r"expected one of the installed calibrators .*, got 'best'"):
        network_of(
            networks.model("residual"), [torch.randn(2, 3, 12, 12)], recipe=Recipe(weight_ranges="best")
        ).setting(MIXED)


def test_recipes_have_different_keys() -> None:
    recipes = [Recipe(w, a) for w in ("minmax", "mse") for a in ("minmax", "mse", "percentile")]
    assert len({recipe.key for recipe in recipes}) == 6
    assert Recipe("mse", "percentile").key == "nearest.w-mse.a-percentile"
