"""What convolutions of integers write, against the same written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from hwdse.capture import capture
from hwdse.errors import InputError
from hwdse.formats import Precision, Scheme, Symmetry
from hwdse.quantize.network import QuantizedNetwork
from hwdse.quantize.observe import observe
from hwdse.quantize.program import Program
from hwdse.quantize.recipe import Recipe
from tests import networks

CPU = Scheme(activations=Symmetry.AFFINE, quantized_outputs=True)
MINMAX = Recipe(activation_ranges="minmax")


class Chain(nn.Module):
    """Two convolutions around a ReLU or a clip."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 4, 3)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.activation(self.first(x)))


def grid(x: torch.Tensor, like: torch.Tensor, bits: int) -> torch.Tensor:
    """Return ``x`` on the affine grid of the range of ``like``."""
    low, high = min(float(like.min()), 0.0), max(float(like.max()), 0.0)
    step = float(np.float32((high - low) / (2**bits - 1)))
    zero = round(-low / step)
    return ((x / step).round() + zero).clamp(0, 2**bits - 1).sub(zero) * step


def weight(conv: nn.Conv2d, bits: int) -> torch.Tensor:
    rows = conv.weight.flatten(1)
    step = (rows.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)).float().double()
    return ((rows / step).round() * step).float().double().view_as(conv.weight)


def network_of(model: nn.Module, x: torch.Tensor, scheme: Scheme = CPU) -> QuantizedNetwork:
    program = Program.of(capture(model, x), written=True)
    return QuantizedNetwork(program, scheme=scheme, streams=observe(program, [x]), recipe=MINMAX)


def precisions(**texts: str) -> dict[str, Precision]:
    return {name: Precision.parse(text) for name, text in texts.items()}


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU6(), nn.Hardtanh(), nn.Identity(), nn.Sigmoid()], ids=str)
@pytest.mark.parametrize(("first", "second"), [("W8A8", "fp32"), ("W4A4", "fp32"), ("W8A8", "W4A4"), ("fp32", "W8A8")])
def test_a_chain_is_its_plain_composition(activation, first, second):
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = Chain(activation).double().eval()
    x = torch.randn(8, 3, 9, 9, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    network = network_of(model, x)
    given = precisions(first=first, second=second)
    with torch.no_grad():
        full_inner = model.first(x)
        full_act = activation(full_inner)
        a, w = given["first"].activations.bits, given["first"].weights.bits
        inner = model.first(x)
        if first != "fp32":
            inner = functional.conv2d(grid(x, x, a), weight(model.first, w), model.first.bias, padding=1)
            if isinstance(activation, nn.Sigmoid):
                inner = grid(inner, full_inner, a)
        act = activation(inner)
        if second != "fp32":
            act = grid(act, full_act, given["second"].activations.bits)
        elif not isinstance(activation, nn.Sigmoid):
            act = grid(act, full_act, a)
        last = weight(model.second, given["second"].weights.bits) if second != "fp32" else model.second.weight
        out = functional.conv2d(act, last, model.second.bias)
        if second != "fp32":
            out = grid(out, model.second(full_act), given["second"].activations.bits)
    torch.testing.assert_close(network.forward(x, network.setting(given)), out, rtol=0, atol=1e-9)


def test_a_residual_block_is_its_plain_composition():
    """The convolution before an addition is rounded by itself, its sum by the reader's format."""
    model = networks.Residual().double().eval()
    model.load_state_dict(networks.model("residual").state_dict())
    x = torch.randn(8, 3, 12, 12, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    network = network_of(model, x)
    given = precisions(stem="fp32", a1="W8A8", a2="W4A4", b1="fp32", short="fp32", b2="fp32", head="fp32")

    def conv(layer: str, x: torch.Tensor, bits: int = 0) -> torch.Tensor:
        module, norm = getattr(model, layer), getattr(model, f"{layer}_norm")
        factor = norm.weight / (norm.running_var + norm.eps).sqrt()
        folded = nn.Conv2d(1, 1, 1).double()
        folded.weight = nn.Parameter(module.weight * factor.view(-1, 1, 1, 1))
        kernel = weight(folded, bits) if bits else folded.weight
        return functional.conv2d(x, kernel, norm.bias - norm.running_mean * factor, module.stride, module.padding)

    with torch.no_grad():
        stem = conv("stem", x).relu()
        inner = conv("a1", stem).relu()
        branch = conv("a2", inner)
        rounded_stem = grid(stem, stem, 8)
        rounded_inner = grid(conv("a1", rounded_stem, 8).relu(), inner, 4)  # the reader's format wins
        rounded_branch = grid(conv("a2", rounded_inner, 4), branch, 4)  # nobody rounds it: its own
        y = (rounded_branch + rounded_stem).relu()
        y = (conv("b2", conv("b1", y).relu()) + conv("short", y)).relu()
        expected = model.head(y.mean((2, 3)))
    torch.testing.assert_close(network.forward(x, network.setting(given)), expected, rtol=0, atol=1e-9)


def test_other_schemes_and_other_layers_write_as_before():
    program = Program.of(networks.captured("vit"), written=True)
    streams = observe(program, [networks.CASES["vit"].inputs(8)])
    given = {layer.name: Precision.parse("W8A8") for layer in program.captured.layers}
    plain = QuantizedNetwork(program, scheme=Scheme(activations=Symmetry.AFFINE), streams=streams)
    written = QuantizedNetwork(program, scheme=CPU, streams=streams)
    more = set(written.setting(given).quantizers) - set(plain.setting(given).quantizers)
    assert program.written == {"patches": "conv2d"}
    assert more == {"conv2d"}
    assert set(plain.streams) == set(written.streams) == set(networks.program("vit").points)


def test_only_integers_write_integers():
    program = Program.of(networks.captured("residual"), written=True)
    streams = observe(program, [networks.CASES["residual"].inputs(8)])
    network = QuantizedNetwork(program, scheme=CPU, streams=streams)
    assert set(network.setting(precisions(b2="fp32")).quantizers) == set()
    assert set(network.setting(precisions(b2="Wnf4A8")).quantizers) == {"relu_3"}
    assert set(network.setting(precisions(b2="W8A8")).quantizers) == {"relu_3", program.written["b2"]}


def test_a_program_without_results_is_refused():
    program = networks.program("residual")
    with pytest.raises(InputError, match=r"expected a program with the results of convolutions for the scheme w-.*"):
        QuantizedNetwork(program, scheme=CPU, streams={})


def test_ranges_by_the_output_leave_out_what_this_scheme_does_not_round():
    batches = [networks.CASES["residual"].inputs(8)]
    quantizers = []
    for written in (False, True):
        program = Program.of(networks.captured("residual"), written=written)
        network = QuantizedNetwork(
            program,
            scheme=Scheme(activations=Symmetry.AFFINE),
            streams=observe(program, batches),
            recipe=Recipe(weight_rounding="nearest", activation_ranges="output"),
            batches=batches,
        )
        given = {layer.name: Precision.parse("W4A4") for layer in program.captured.layers}
        quantizers.append(network.setting(given).quantizers)
    assert quantizers[0] == quantizers[1]
