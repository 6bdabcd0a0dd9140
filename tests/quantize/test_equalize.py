"""Channels equalized across layers: what the network computes stays, ranges become equal, rounding errors fall."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.utils import _pytree as pytree

from hwdse.capture import capture
from hwdse.errors import InputError
from hwdse.factories import load_factory
from hwdse.formats import Granularity, Scheme, parse
from hwdse.quantize.equalize import equalize
from hwdse.quantize.program import Program
from hwdse.quantize.weights import quantize_weight
from tests import networks

EXPERIMENTS = networks._MODELS
PER_TENSOR = Scheme(weight_granularity=Granularity.PER_TENSOR)


def norm(channels):
    found = nn.BatchNorm2d(channels)
    found.running_mean.uniform_(-0.5, 0.5)
    found.running_var.uniform_(0.1, 4.0)
    nn.init.uniform_(found.weight, 0.01, 3.0)
    nn.init.uniform_(found.bias, -0.5, 1.5)
    return found


def unit(inputs, outputs, kernel, **options):
    convolution = nn.Conv2d(inputs, outputs, kernel, **options)
    with torch.no_grad():
        # Ranges of channels that differ by orders of magnitude.
        convolution.weight *= torch.exp(torch.randn(outputs, 1, 1, 1))
    return nn.Sequential(convolution, norm(outputs), nn.ReLU())


def inverted(clip):
    return nn.Sequential(
        nn.Conv2d(3, 6, 1), clip, nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.ReLU(), nn.Conv2d(6, 4, 1)
    )


CHAINS = {
    "plain": lambda: nn.Sequential(unit(3, 8, 3, padding=1), nn.Conv2d(8, 5, 3)),
    "separable": lambda: nn.Sequential(
        unit(3, 8, 1), unit(8, 8, 3, padding=1, groups=8), unit(8, 6, 1), unit(6, 12, 3, groups=6), unit(12, 4, 1)
    ),
    "grouped": lambda: nn.Sequential(unit(3, 8, 3), unit(8, 12, 3, groups=4), unit(12, 6, 1, groups=2)),
    "linear": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(243, 9), nn.ReLU(), nn.Linear(9, 7, bias=False), nn.LeakyReLU(0.3), nn.Linear(7, 4)
    ),
    "pooled": lambda: nn.Sequential(
        unit(3, 8, 3), nn.MaxPool2d(2, padding=1), nn.Dropout(), unit(8, 6, 1), nn.AvgPool2d(2, 2, 1), unit(6, 4, 1)
    ),
    "flattened": lambda: nn.Sequential(
        unit(3, 4, 3), nn.PReLU(4), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5)
    ),
    "shuffled": lambda: nn.Sequential(unit(3, 8, 1), nn.PixelShuffle(2), nn.ZeroPad2d(1), nn.Conv2d(2, 3, 1)),
    "exchanged": lambda: nn.Sequential(unit(3, 8, 1), nn.ChannelShuffle(4), nn.Conv2d(8, 3, 1)),
}  # fmt: skip
PAIRS = {
    "plain": [("0.0", "1")],
    "separable": [("0.0", "1.0"), ("1.0", "2.0"), ("2.0", "3.0"), ("3.0", "4.0")],
    "grouped": [("0.0", "1.0"), ("1.0", "2.0")],
    "linear": [("1", "3"), ("3", "5")],
    "pooled": [("0.0", "3.0"), ("3.0", "5.0")],
    "flattened": [("0.0", "4")],
    # Four channels become one.
    "shuffled": [],
    "exchanged": [("0.0", "2")],
}


def compiled(model, shape):
    return Program.of(capture(model.eval(), torch.zeros(2, *shape)))


@cache
def chain(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return compiled(CHAINS[name](), (3, 9, 9))


def outputs(program, batch):
    with torch.inference_mode():
        values = program.start(batch, {})
        program.advance(values, {})
        return [leaf for leaf in pytree.tree_leaves(program.result(values)) if isinstance(leaf, torch.Tensor)]


def assert_same(program, other, batch):
    for one, two in zip(outputs(program, batch), outputs(other, batch), strict=True):
        assert float((one - two).abs().max()) <= 1e-5 * float(one.abs().max())


def assert_equal_ranges(program, pairs):
    """Look at every channel apart; those with equal numbers on either side only (no shuffles)."""
    sites = program.captured.sites
    for first, second in pairs:
        one, two = (program.folded[sites[name].weight].double() for name in (first, second))
        groups, own = sites[second].groups, two.shape[1]
        repeats = groups * own // len(one)
        for channel in range(len(one)):
            columns = [c for c in range(groups * own) if c // repeats == channel]
            rows = len(two) // groups
            read = [two[c // own * rows : (c // own + 1) * rows, c % own].abs().max() for c in columns]
            np.testing.assert_allclose(float(max(read)), float(one[channel].abs().max()), rtol=1e-4)


@pytest.mark.parametrize("name", CHAINS)
def test_chains_compute_what_they_did(name):
    program = chain(name)

    found = equalize(program)

    assert list(found.pairs) == PAIRS[name]
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        assert_same(program, found.program, torch.randn(4, 3, 9, 9, generator=generator) * 10.0**seed)


@pytest.mark.parametrize("name", sorted(set(CHAINS) - {"shuffled", "exchanged"}))
def test_ranges_of_every_pair_become_equal(name):
    found = equalize(chain(name))

    assert found.turns < 1000
    assert_equal_ranges(found.program, found.pairs)


@pytest.mark.parametrize("name", networks.CASES)
def test_any_network_computes_what_it_did(name):
    program, case = networks.program(name), networks.CASES[name]

    found = equalize(program)

    assert_same(program, found.program, case.inputs(4, seed=3))
    firsts = {first for first, _ in found.pairs}
    assert firsts.isdisjoint(found.left_out)
    assert firsts | set(found.left_out) == set(program.captured.sites)


def test_the_given_program_stays_as_it_is():
    program = chain("separable")
    before = [value.clone() if isinstance(value, torch.Tensor) else value for value in program.constants]

    found = equalize(program, [torch.rand(2, 3, 9, 9)])

    for own, old in zip(program.constants, before, strict=True):
        if isinstance(own, torch.Tensor):
            torch.testing.assert_close(own, old, rtol=0, atol=0, equal_nan=True)
    for name, position in found.program.weights.items():
        assert found.program.constants[position] is found.program.folded[name]
        assert found.program.folded[name].stride() == program.folded[name].stride()
        assert program.constants[position] is program.folded[name]


def two_linears(first, bias, second, shift=None):
    model = nn.Sequential(
        nn.Linear(first.shape[1], len(first)),
        nn.ReLU(),
        nn.Linear(second.shape[1], len(second), bias=shift is not None),
    )
    with torch.no_grad():
        model[0].weight.copy_(first)
        model[0].bias.copy_(bias)
        model[2].weight.copy_(second)
        if shift is not None:
            model[2].bias.copy_(shift)
    return compiled(model, first.shape[1:])


def test_factors_are_those_of_the_formula():
    first, bias = torch.tensor([[8.0, -2.0], [0.5, 0.25]]), torch.tensor([3.0, -1.0])
    second = torch.tensor([[0.5, 1.0], [-0.25, 8.0]])

    found = equalize(two_linears(first, bias, second)).program

    s = torch.tensor([4.0, 0.25])  # sqrt(8 / 0.5), sqrt(0.5 / 8)
    torch.testing.assert_close(found.folded["0.weight"], first / s[:, None])
    torch.testing.assert_close(found.constants[found.biases["0"]], bias / s)
    torch.testing.assert_close(found.folded["2.weight"], second * s)


@pytest.mark.parametrize("text", ["int8", "int4"])
def test_opposite_scales_leave_no_error(text):
    # Weights d and 1 / d become 1 and 1, which any grid holds.
    d = torch.tensor([1.0, 30.0, 1000.0])
    program = two_linears(torch.diag(d), torch.zeros(3), torch.diag(1 / d))

    def error(folded):
        return sum(
            float((quantize_weight(w, parse(text), scheme=PER_TENSOR).values - w).abs().max()) for w in folded.values()
        )

    assert error(program.folded) > 0.03
    assert error(equalize(program).program.folded) < 1e-6


@pytest.mark.parametrize("text", ["int8", "int4"])
def test_factors_that_spoil_per_tensor_weights_are_undone(text):
    generator = torch.Generator().manual_seed(0)
    first, bias, second = (torch.randn(shape, generator=generator) for shape in ((6, 5), (6,), (3, 6)))
    d = torch.logspace(-2, 2, 6)
    program = two_linears(d[:, None] * first, d * bias, second / d)
    batch = torch.randn(64, 5, generator=generator)

    def harm(own):
        rounded = {
            own.weights[n]: quantize_weight(w, parse(text), scheme=PER_TENSOR).values for n, w in own.folded.items()
        }
        return float((outputs(own.with_constants(rounded), batch)[0] - outputs(program, batch)[0]).square().mean())

    found, expected = equalize(program).program, equalize(two_linears(first, bias, second)).program

    for name, weight in expected.folded.items():
        torch.testing.assert_close(found.folded[name], weight)
    assert harm(found) < 0.1 * harm(program)


def test_dead_channels_keep_their_scale():
    first = torch.tensor([[4.0, 1.0], [0.0, 0.0], [1.0, 2.0], [1e-9, 0.0]])
    second = torch.tensor([[1.0, 5.0, 0.0, 1.0]])
    bias = torch.tensor([1.0, 2.0, 3.0, 4.0])

    found = equalize(two_linears(first, bias, second)).program

    torch.testing.assert_close(found.folded["0.weight"][1:], first[1:], rtol=0, atol=0)
    torch.testing.assert_close(found.folded["2.weight"][:, 1:], second[:, 1:], rtol=0, atol=0)
    torch.testing.assert_close(found.constants[found.biases["0"]], torch.tensor([0.5, 2.0, 3.0, 4.0]))
    torch.testing.assert_close(found.folded["0.weight"][0], torch.tensor([2.0, 0.5]))


@pytest.mark.parametrize(
    ("clip", "name"),
    [(nn.ReLU6(), "hardtanh"), (nn.Hardtanh(0.0, 1.0), "hardtanh"), (nn.Hardswish(), "hardswish"), (nn.GELU(), "gelu")],
)
def test_a_bound_between_leaves_a_pair_out(clip, name):
    torch.manual_seed(0)
    program = compiled(inverted(clip), (3, 7, 7))

    found = equalize(program)

    assert found.pairs == (("2", "4"),)
    assert found.left_out["0"].startswith(name)
    assert_same(program, found.program, torch.randn(4, 3, 7, 7) * 5.0)


def test_a_clamp_at_zero_alone_is_a_relu():
    class Clamped(nn.Module):
        def __init__(self, **bounds):
            super().__init__()
            self.a, self.b, self.bounds = nn.Linear(4, 6), nn.Linear(6, 3), bounds

        def forward(self, x):
            return self.b(self.a(x).clamp(**self.bounds))

    for bounds, reason in (
        ({"min": 0.0}, None),
        ({"min": 0.0, "max": 1.0}, "clamp bounds its result"),
        ({"max": 0.0}, "clamp bounds its result"),
        ({"min": 0.1}, "clamp bounds its result"),
    ):
        found = equalize(compiled(Clamped(**bounds), (4,)))
        assert found.left_out.get("a") == reason
        assert found.pairs == ((("a", "b"),) if reason is None else ())


def test_why_layers_are_left_out():
    residual = equalize(networks.program("residual")).left_out
    assert residual["stem"] == "several read its result"
    assert residual["a2"] == "add does not keep factors of its channels"
    assert residual["head"] == "its result is an output"
    assert equalize(networks.program("tied")).left_out["weight"] == "it has no weights of its own"
    assert equalize(networks.program("reused")).left_out["stem"] == "loop has no weights of its own for it"
    assert equalize(chain("shuffled")).left_out["0.0"] == "its channels cannot be followed to 3"


class Averaged(nn.Module):
    """A mean over the channels, and a bias that is computed from the inputs."""

    def __init__(self):
        super().__init__()
        self.wide, self.line, self.last = nn.Conv2d(3, 4, 1), nn.Linear(9, 4), nn.Linear(4, 4)
        self.matrix = nn.Parameter(torch.randn(4, 4))

    def forward(self, x):
        y = self.wide(x).mean(1).mean(1)
        y = self.line(y)
        return self.last(torch.addmm(x.mean((1, 2, 3))[:, None], y, self.matrix).relu())


def test_mixed_channels_and_computed_biases_are_left_out():
    torch.manual_seed(0)
    program = compiled(Averaged(), (3, 9, 9))

    found = equalize(program)

    assert found.left_out["wide"] == "its channels cannot be followed to line"
    assert found.left_out["matrix"] == "something else reads its bias, or it is computed from the inputs"
    assert found.pairs == (("line", "matrix"),)
    assert_same(program, found.program, torch.randn(4, 3, 9, 9))


def test_weights_that_are_not_finite_are_refused():
    with pytest.raises(InputError, match=r"expected finite weights, got NaN or infinity; .* \(layer '2'\)"):
        equalize(two_linears(torch.ones(2, 2), torch.zeros(2), torch.tensor([[1.0, torch.nan]])))


def test_the_lowest_value_seen_goes_to_the_next_bias():
    first, bias = torch.eye(2), torch.tensor([5.0, -5.0])
    second, shift = torch.tensor([[1.0, 1.0], [-1.0, 0.5]]), torch.tensor([1.0, 2.0])
    program = two_linears(first, bias, second, shift)
    batches = [torch.tensor([[0.5, 1.0], [-2.0, 9.0]]), torch.tensor([[-1.0, 3.0]])]

    found = equalize(program, batches)

    # The first channel is never below 5 - 2 = 3; the second is negative at times.
    assert found.absorbed == {"0": 1}
    torch.testing.assert_close(found.program.constants[found.program.biases["0"]], torch.tensor([2.0, -5.0]))
    torch.testing.assert_close(found.program.constants[found.program.biases["2"]], shift + torch.tensor([3.0, -3.0]))
    for batch in batches:
        assert_same(program, found.program, batch)


def absorbing(first, second, *, kernel=1, padding=0, between=nn.Identity):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1, bias=first), nn.ReLU(), between(), nn.Conv2d(4, 2, kernel, padding=padding, bias=second)
    )
    if first:
        nn.init.constant_(model[0].bias, 20.0)
    return compiled(model, (3, 6, 6))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, None),
        ({"kernel": 3}, None),
        ({"kernel": 1, "padding": "same"}, None),
        ({"kernel": 3, "padding": "valid"}, None),
        ({"between": partial(nn.MaxPool2d, 3, padding=1)}, None),
        ({"between": partial(nn.AvgPool2d, 3, padding=1, count_include_pad=False)}, None),
        ({"kernel": 3, "padding": 1}, "3 pads with zeros"),
        ({"kernel": 3, "padding": "same"}, "3 pads with zeros"),
        ({"between": partial(nn.ZeroPad2d, 1)}, "a constant does not reach all that 3 reads"),
        ({"between": partial(nn.AvgPool2d, 3, padding=1)}, "a constant does not reach all that 3 reads"),
        ({"first": False}, "0 has no bias of its own"),
        ({"second": False}, "3 has no bias of its own"),
    ],
)
def test_constants_are_absorbed_only_where_they_reach_everything(options, reason):
    program = absorbing(**{"first": True, "second": True, **options})
    batches = [torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]

    found = equalize(program, batches)

    assert found.not_absorbed.get("0") == reason
    assert found.absorbed == ({"0": 4} if reason is None else {})
    for batch in batches:
        assert_same(program, found.program, batch)


def test_no_more_is_absorbed_than_the_batch_norm_bears_out():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    shift, scale = torch.tensor([8.0, 8.0, 1.0, 8.0]), torch.tensor([1.0, -2.0, 1.0, 0.5])
    with torch.no_grad():
        model[1].bias.copy_(shift)
        model[1].weight.copy_(scale)
    program = compiled(model, (3, 6, 6))
    batch = torch.zeros(1, 3, 6, 6)
    plain = equalize(program)

    found = equalize(program, [batch])

    # One sample shows no spread: of shift + bias * scale, three scales are left where they are.
    position = found.program.biases["0"]
    bias, seen = plain.program.constants[position], program.constants[position]
    s = seen / bias
    expected = torch.minimum(bias, (shift - 3.0 * scale.abs()) / s).clamp(min=0.0)
    assert found.absorbed == {"0": 3}
    torch.testing.assert_close(bias - found.program.constants[position], expected)
    assert_same(program, found.program, batch)


def test_absorbed_biases_of_a_chain_add_up():
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = nn.Sequential(*(part for _ in range(3) for part in (nn.Linear(5, 5), nn.ReLU())), nn.Linear(5, 2))
    for i in (0, 2, 4):
        nn.init.constant_(model[i].bias, 6.0)
    program = compiled(model, (5,))
    batches = [torch.randn(16, 5, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]

    found = equalize(program, batches)

    assert sum(found.absorbed.values()) > 10
    for batch in batches:
        assert_same(program, found.program, batch)


@settings(max_examples=12)
@given(
    seed=st.integers(0, 2**16),
    widths=st.lists(st.integers(1, 3), min_size=2, max_size=4),
    groups=st.sampled_from([1, 2]),
    kernel=st.sampled_from([1, 3]),
    spread=st.floats(0.0, 3.0),
)
def test_any_chain_computes_what_it_did_with_equal_ranges(seed, widths, groups, kernel, spread):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        channels = [2 * width for width in widths]
        layers = []
        for inputs, written in zip([2, *channels], channels, strict=False):
            layers += [nn.Conv2d(inputs, written, kernel, padding=kernel // 2, groups=groups), nn.ReLU()]
        for layer in layers[::2]:
            with torch.no_grad():
                layer.weight *= torch.exp(spread * torch.randn(len(layer.weight), 1, 1, 1))
        program = compiled(nn.Sequential(*layers), (2, 5, 5))
        batch = torch.randn(3, 2, 5, 5)

    found = equalize(program)

    assert len(found.pairs) == len(channels) - 1
    assert_equal_ranges(found.program, found.pairs)
    for one, two in zip(outputs(program, batch), outputs(found.program, batch), strict=True):
        # What is left after large terms cancelled is as exact as these.
        assert float((one - two).abs().max()) <= 1e-5 * float(functional.relu(one).abs().max()) + 1e-6


@pytest.mark.parametrize(
    ("name", "data", "pairs"), [("resnet20", "cifar10_calibration", 9), ("dscnn", "kws_calibration", 9)]
)
def test_trained_networks_compute_what_they_did(name, data, pairs):
    try:
        model, batches = (load_factory(text, folder=EXPERIMENTS)() for text in (f"models.py:{name}", f"data.py:{data}"))
    except InputError as error:
        pytest.skip(str(error))
    program = Program.of(capture(model, batches[0][:2]))

    scaled, absorbed = equalize(program), equalize(program, batches)

    assert len(scaled.pairs) == pairs
    assert_equal_ranges(scaled.program, scaled.pairs)
    # What was not seen may be lower than all that was.
    assert_same(program, scaled.program, torch.randn(batches[0].shape, generator=torch.Generator().manual_seed(0)))
    for batch in batches:
        assert_same(program, absorbed.program, batch)
