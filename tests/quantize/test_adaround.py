"""Whole networks whose rounding is learned, by layer and by block."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hwdse.errors import InputError
from hwdse.formats import Granularity, Precision, Scheme, Symmetry, parse
from hwdse.quantize.adaround_settings import AdaRoundSettings
from hwdse.quantize.blocks import blocks, single_layers
from hwdse.quantize.network import QuantizedNetwork, Recipe
from hwdse.quantize.observe import observe
from hwdse.quantize.rebuild import rebuild
from hwdse.quantize.rebuildable import rebuildable
from tests import networks
from tests.listener import Listener

SETTINGS = AdaRoundSettings(iterations=40, batch=16, learning_rate=0.1, regularisation=0.1)
SCHEMES = {
    "channel": Scheme(),
    "affine": Scheme(weights=Symmetry.AFFINE, activations=Symmetry.AFFINE),
    "tensor": Scheme(weight_granularity=Granularity.PER_TENSOR),
    "block": Scheme(weight_granularity=Granularity.PER_BLOCK, block_size=8),
}


class Case:
    """A small network with calibration data, its weights rounded to nearest and its quantizers."""

    def __init__(self, name, *, scheme="channel", batches=None):
        self.program = networks.program(name)
        self.batches = [networks.CASES[name].inputs(16, seed=seed) for seed in range(3)] if batches is None else batches
        self.scheme = SCHEMES[scheme]
        self.network = QuantizedNetwork(
            self.program,
            scheme=self.scheme,
            streams=observe(self.program, self.batches),
            recipe=Recipe(activation_ranges="minmax"),
        )
        setting = self.network.setting(dict.fromkeys(self.network.captured.layer_index, Precision.parse("W8A8")))
        self.quantizers = setting.quantizers

    def nearest(self, text):
        layers = {layer.weight: layer for layer in self.network.captured.layers if layer.weight is not None}
        return lambda name: self.network.quantized_weight(layers[name], parse(text))

    def rebuild(self, text="int2", **options):
        settings = replace(options.pop("settings", SETTINGS), by_block=options.pop("by_block", False))
        return rebuild(
            self.program,
            options.pop("batches", self.batches),
            scheme=self.scheme,
            recipe=Recipe(activation_ranges="minmax", weight_rounding="adaround", adaround=settings),
            nearest=self.nearest(text),
            quantizers=self.quantizers,
            **options,
        )

    def weights(self, found, text="int2"):
        """Return all weights by position: those found, or rounded to nearest."""
        return {
            position: found[name].weight.values if name in found else self.nearest(text)(name).values
            for name, position in self.program.weights.items()
        }

    def harm(self, weights):
        """Return the mean squared error of the network's first output on calibration data."""
        errors = []
        for batch in self.batches:
            outputs = []
            for own, quantizers in ((weights, self.quantizers), ({}, {})):
                values = self.program.start(batch, own)
                self.program.quantize_inputs(values, quantizers)
                self.program.advance(values, quantizers)
                outputs.append(self.program.result(values))
            errors.append(float((outputs[0] - outputs[1]).square().mean()))
        return sum(errors) / len(errors)

    def block_errors(self, block, weights, trial):
        """Return the squared errors of a block's output with the weights ``trial``, before it those of ``weights``."""
        found = []
        for batch in self.batches:
            full = self.program.start(batch, {})
            self.program.advance(full, {}, last=block.stop)
            rounded = self.program.start(batch, weights)
            self.program.quantize_inputs(rounded, self.quantizers)
            self.program.advance(rounded, self.quantizers, last=block.start)
            for position, value in trial.items():
                rounded[position] = value
            for i in block.steps:
                for values, wanted in ((rounded, True), (full, i >= block.stop)):
                    if wanted:
                        self.program.advance(values, {}, first=i, last=i + 1)
            (position,) = block.writes
            found.append((rounded[position] - full[position]).double().square())
        return found


@pytest.mark.parametrize("by_block", [False, True])
@pytest.mark.parametrize("name", ["residual", "mlp", "functional", "vit"])
def test_learned_rounding_harms_less_than_rounding_to_nearest(name, by_block):
    case = Case(name)

    found = case.rebuild("int3", by_block=by_block)

    assert set(found) == set(rebuildable(case.program))
    assert case.harm(case.weights(found, "int3")) < 0.95 * case.harm(case.weights({}, "int3"))


@pytest.mark.parametrize("text", ["int3", "nf4", "posit4_1", "pot4", "apot4", "fp4_e2m1", "ternary", "codebook3"])
def test_every_format_lands_on_its_grid_with_the_scales_of_the_nearest(text):
    case = Case("functional", scheme="channel")

    for name, rebuilt in case.rebuild(text).items():
        nearest = case.nearest(text)(name)
        found = rebuilt.weight
        assert (rebuilt.bias, rebuilt.missing) == (None, 0)
        assert found.levels == nearest.levels
        assert found.values.stride() == nearest.values.stride()
        torch.testing.assert_close(found.scale, nearest.scale, rtol=0, atol=0)
        rows = found.values.reshape(len(found.scale), -1).double() / found.scale[:, None]
        levels = torch.tensor(found.levels.values)
        assert (rows[..., None] - levels).abs().amin(-1).max() < 1e-5


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", ["residual", "functional", "products", "normed", "vit"])
def test_no_channel_of_a_layer_is_worse_than_rounded_to_nearest(name, scheme):
    batches = [networks.CASES[name].inputs(8, seed=seed) for seed in range(2)]
    case = Case(name, scheme=scheme, batches=batches)
    found = case.rebuild("int3", settings=replace(SETTINGS, iterations=8, learning_rate=0.5))
    weights = case.weights(found, "int3")
    gains = []
    for block in single_layers(case.program):
        (site,) = block.sites
        position = case.program.weights[site.weight]
        axis = 1 if site.is_convolution else -1
        sums = []
        for trial in (weights[position], case.nearest("int3")(site.weight).values):
            squares = case.block_errors(block, weights, {position: trial})
            sums.append(sum(s.movedim(axis, 0).flatten(1).sum(1) for s in squares))
        assert (sums[0] <= sums[1] * (1 + 1e-4) + 1e-9).all()
        gains.append(float(sums[0].sum() / sums[1].sum()))
    assert min(gains) < 0.99


@pytest.mark.parametrize("name", ["residual", "vit", "encoder", "packed", "inception"])
def test_no_block_is_worse_than_rounded_to_nearest(name):
    case = Case(name)
    found = case.rebuild(by_block=True)
    weights = case.weights(found)
    gains = []
    for block in blocks(case.program):
        own = [(case.program.weights[site.weight], site.weight) for site in block.sites]
        errors = [
            float(sum(square.sum() for square in case.block_errors(block, weights, trial)))
            for trial in (
                {position: weights[position] for position, _ in own},
                {position: case.nearest("int2")(name).values for position, name in own},
            )
        ]
        assert errors[0] <= errors[1] * (1 + 1e-6)
        gains.append(errors[0] / errors[1])
    assert min(gains) < 0.9


def test_blocks_of_a_chain_are_its_layers():
    case = Case("mlp")

    for name, rebuilt in case.rebuild().items():
        torch.testing.assert_close(case.rebuild(by_block=True)[name].weight.values, rebuilt.weight.values)


@pytest.mark.parametrize("by_block", [False, True])
def test_the_same_data_and_seed_give_the_same_weights(by_block):
    case = Case("residual")
    found = [
        case.rebuild(by_block=by_block, settings=replace(SETTINGS, iterations=10, seed=seed)) for seed in (0, 0, 1)
    ]

    assert all(torch.equal(found[0][name].weight.values, found[1][name].weight.values) for name in found[0])
    assert not all(torch.equal(found[0][name].weight.values, found[2][name].weight.values) for name in found[0])


@pytest.mark.parametrize("by_block", [False, True])
def test_waiting_batches_that_take_too_much_memory_start_again(monkeypatch, by_block):
    case = Case("residual")
    quick = {"settings": replace(SETTINGS, iterations=5), "by_block": by_block}
    kept = case.rebuild(**quick)
    monkeypatch.setattr("hwdse.quantize.adaround.KEPT_BYTES", 0)

    forgotten = case.rebuild(**quick)

    for name, rebuilt in kept.items():
        assert torch.equal(forgotten[name].weight.values, rebuilt.weight.values)


@pytest.mark.parametrize("by_block", [False, True])
@pytest.mark.parametrize("name", ["llama", "packed"])
def test_batches_of_different_lengths_and_sizes(name, by_block):
    shape = networks.CASES[name]
    batches = [shape.inputs(count, length=length, seed=length) for count, length in ((20, 6), (5, 4), (3, 6), (1, 7))]
    case = Case(name, batches=batches)

    found = case.rebuild(by_block=by_block)

    assert set(found) == set(rebuildable(case.program))
    assert case.harm(case.weights(found)) < case.harm(case.weights({}))


def test_it_can_be_called_in_inference_mode():
    case = Case("residual")
    expected = case.rebuild(settings=replace(SETTINGS, iterations=5))

    with torch.inference_mode():
        found = case.rebuild(settings=replace(SETTINGS, iterations=5))

    for name, rebuilt in expected.items():
        assert torch.equal(found[name].weight.values, rebuilt.weight.values)


def test_what_stays_at_nearest_is_told():
    case, listener = Case("mlp"), Listener()
    program = networks.program("mlp")
    recipe = Recipe(activation_ranges="minmax", weight_rounding="adaround", adaround=SETTINGS)
    network = QuantizedNetwork(
        program,
        scheme=Scheme(),
        streams=observe(program, case.batches),
        recipe=recipe,
        batches=[(torch.zeros(8, 12),)],
    )

    network.reconstruct([parse("int2")], progress=listener)

    assert listener.steps == 2
    (sentence,) = listener.sentences
    assert sentence.startswith(
        "expected adaround to find better weights in int2 than rounding to nearest, got none for"
    )
    layer = network.captured.layers[network.captured.layer_index["first"]]
    torch.testing.assert_close(
        network.quantized_weight(layer, parse("int2")).values, case.nearest("int2")("first.weight").values
    )


@pytest.mark.parametrize("name", ["reused", "tied"])
def test_a_weight_that_something_else_reads_too_is_left_out(name):
    case = Case(name)

    assert set(case.rebuild(by_block=True)) == set(case.rebuild()) == set(rebuildable(case.program))


@pytest.mark.parametrize("batches", [[], [(torch.zeros(0, 12),)]])
def test_no_samples_are_refused(batches):
    with pytest.raises(InputError, match="expected calibration batches with samples, got none"):
        Case("mlp").rebuild(batches=batches)
