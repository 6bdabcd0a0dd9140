"""Ranges by the output as part of a recipe: with which weights they are chosen, how they are kept, what for."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from hwdse.capture import capture
from hwdse.errors import InputError
from hwdse.formats import Precision, Scheme, parse
from hwdse.quantize import network as network_module
from hwdse.quantize.network import QuantizedNetwork
from hwdse.quantize.observe import observe
from hwdse.quantize.ranges import choose_ranges, mean_harm, output_harm, range_candidates
from hwdse.quantize.recipe import OUTPUT, Recipe
from hwdse.quantize.store import Store
from tests import networks
from tests.listener import Listener

CHOSEN = Recipe(activation_ranges=OUTPUT)
SEEN = Recipe(activation_ranges="minmax")
IDENTITY = {"network": "n", "calibration": "c"}
INT4 = parse("int4")


def network_of(name="residual", *, recipe=CHOSEN, store=None):
    batches = [networks.CASES[name].inputs(12, seed=seed) for seed in range(2)]
    program = networks.program(name)
    streams = observe(program, batches)
    return QuantizedNetwork(program, scheme=Scheme(), streams=streams, recipe=recipe, batches=batches, store=store)


def everywhere(network, text):
    return network.setting(dict.fromkeys(network.captured.layer_index, Precision.parse(text)))


@pytest.fixture
def counted(monkeypatch):
    """Return the list of choices that are made, not read: of how many points each was."""
    made = []

    def choose(program, batches, constants, candidates, **options):
        made.append(len(candidates))
        return choose_ranges(program, batches, constants, candidates, **options)

    monkeypatch.setattr(network_module, "choose_ranges", choose)
    return made


@pytest.mark.parametrize("rounding", ["nearest", "gram"])
@pytest.mark.parametrize("text", ["int4", "int8", "fp8_e4m3"])
@pytest.mark.parametrize("name", ["residual", "mlp"])
def test_quantizers_are_those_of_a_choice_by_hand(name, text, rounding):
    number_format = parse(text)
    precision = str(Precision(number_format, number_format))
    network = network_of(name, recipe=replace(CHOSEN, weight_rounding=rounding))

    setting = everywhere(network, precision)

    # The way that weights are found on does not know of chosen ranges.
    constants = everywhere(network_of(name, recipe=replace(SEEN, weight_rounding=rounding)), precision).constants
    candidates = range_candidates(network.all_streams, number_format, scheme=network.scheme)
    chosen = choose_ranges(network.program, network.batches, constants, candidates)
    assert setting.quantizers == {p: candidates[p][i] for p, i in chosen.items() if p in setting.quantizers}
    assert setting.quantizers
    assert setting.constants.keys() == constants.keys()
    for position, value in constants.items():
        torch.testing.assert_close(setting.constants[position], value, rtol=0, atol=0)


def test_the_precision_of_the_weights_does_not_move_the_ranges():
    network = network_of(recipe=replace(CHOSEN, weight_rounding="gram"))

    assert everywhere(network, "W2A4").quantizers == everywhere(network_of(recipe=network.recipe), "W8A4").quantizers


@pytest.mark.parametrize("text", ["fp16", "bf16", "int16"])
def test_more_than_8_bits_keep_the_range_seen(text, counted):
    network, plain = network_of(), network_of(recipe=SEEN)
    precision = str(Precision(parse("int8"), parse(text)))

    network.choose_ranges([parse(text)])

    assert everywhere(network, precision).quantizers == everywhere(plain, precision).quantizers
    assert counted == []


def test_a_choice_is_made_once_per_format_and_shown(counted):
    network, listener = network_of(), Listener()
    formats = [INT4, INT4, parse("int8"), parse("int16"), parse("fp32")]

    network.choose_ranges(formats, progress=listener)
    before = everywhere(network, "W4A4").quantizers
    network.choose_ranges(formats, progress=listener)
    everywhere(network, "W8A8")

    points = len(network.program.points)
    assert counted == [points, points]
    assert listener.stages == [("ranges in int4", points), ("ranges in int8", points)]
    assert listener.steps == 2 * points
    assert everywhere(network, "W4A4").quantizers == before


def test_other_recipes_choose_nothing(counted):
    listener = Listener()

    network_of(recipe=SEEN).choose_ranges([INT4], progress=listener)

    assert counted == []
    assert listener.stages == []


def test_a_choice_on_disk_is_not_made_again(tmp_path, counted):
    store = Store(tmp_path, IDENTITY)
    first = everywhere(network_of(store=store), "W4A4")
    assert len(counted) == 1

    second = everywhere(network_of(store=store), "W4A4")

    assert len(counted) == 1
    assert second.quantizers == first.quantizers == everywhere(network_of(), "W4A4").quantizers
    (path,) = tmp_path.rglob("activations.json")
    assert path.parent == store.shelf(Scheme().key, CHOSEN.key, "int4").folder


def test_a_choice_for_another_format_lies_apart(tmp_path, counted):
    store = Store(tmp_path, IDENTITY)
    everywhere(network_of(store=store), "W4A4")
    everywhere(network_of(store=store), "W8A8")

    assert len(counted) == 2
    assert len(list(tmp_path.rglob("activations.json"))) == 2


def test_a_choice_about_another_network_is_refused(tmp_path):
    everywhere(network_of(store=Store(tmp_path, IDENTITY)), "W4A4")

    with pytest.raises(InputError, match=r"in .*int4, got those of another network; delete the folder"):
        everywhere(network_of(store=Store(tmp_path, {**IDENTITY, "network": "other"})), "W4A4")


def damaged(tmp_path, change):
    """Keep a choice, change its text, and ask for it."""
    store = Store(tmp_path, IDENTITY)
    everywhere(network_of(store=store), "W4A4")
    (path,) = tmp_path.rglob("activations.json")
    path.write_text(change(path.read_text()))
    return everywhere(network_of(store=store), "W4A4")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"chosen": 3}', '{"chosen": {"x": "first"}}'])
def test_a_damaged_file_is_named(tmp_path, text):
    with pytest.raises(
        InputError, match=r"expected ranges in .*activations\.json, got .*; delete the file to find them again"
    ):
        damaged(tmp_path, lambda _: text)


def with_chosen(change):
    def changed(text):
        record = json.loads(text)
        change(record)
        return json.dumps(record)

    return changed


FOREIGN = {
    "identity": lambda record: record.update(identity=[]),
    "point": lambda record: record["chosen"].update(nowhere=0),
    "large": lambda record: record["chosen"].update(dict.fromkeys(record["chosen"], 99)),
    "negative": lambda record: record["chosen"].update(dict.fromkeys(record["chosen"], -1)),
    "incomplete": lambda record: record["chosen"].popitem(),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_numbers_that_no_choice_can_be_are_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"activations\.json|expected weights of this network in"):
        damaged(tmp_path, with_chosen(FOREIGN[name]))


class Outlier(nn.Module):
    """Reads a large value that it multiplies by zero."""

    def __init__(self):
        super().__init__()
        self.line = nn.Linear(8, 3)
        with torch.no_grad():
            self.line.weight[:, 0] = 0.0

    def forward(self, x):
        return self.line(x)


def test_a_value_that_does_not_matter_does_not_widen_the_range():
    torch.manual_seed(2)
    model = Outlier().eval()
    batches = [torch.rand(64, 8) * 2.0 - 1.0 for _ in range(2)]
    for batch in batches:
        batch[0, 0] = 15.0
    captured = capture(model, batches[0])
    harms = {}
    for recipe in (CHOSEN, SEEN):
        network = QuantizedNetwork.calibrated(captured, batches, scheme=Scheme(), recipe=recipe)
        quantizers = everywhere(network, "W8A4").quantizers
        harms[recipe] = mean_harm(network.program, batches, {}, quantizers)

    # A step of 15 / 7 leaves no value but the outlier: all samples get the bias alone.
    x = torch.cat(batches)
    with torch.inference_mode():
        expected = output_harm(model(x), model.line.bias.expand(len(x), 3), [1.0]).mean()
    assert harms[SEEN] == pytest.approx(float(expected), rel=1e-5)
    assert harms[CHOSEN] < 0.3 * harms[SEEN]
