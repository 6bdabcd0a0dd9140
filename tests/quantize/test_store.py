"""Weights on disk: found once, resumed, and refused where they belong to something else."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

from hwdse.errors import InputError
from hwdse.formats import Precision, Scheme, parse
from hwdse.quantize import rebuild
from hwdse.quantize.network import QuantizedNetwork
from hwdse.quantize.observe import observe
from hwdse.quantize.rebuilt import Rebuilt
from hwdse.quantize.recipe import Recipe
from hwdse.quantize.store import Store
from hwdse.quantize.weights import quantize_weight
from tests import networks

GRAM = Recipe(activation_ranges="minmax", weight_rounding="gram")
IDENTITY = {"network": "n", "calibration": "c"}


def network_of(store, *, name="residual", recipe=GRAM):
    batches = [networks.CASES[name].inputs(16, seed=seed) for seed in range(2)]
    program = networks.program(name)
    streams = observe(program, batches)
    return QuantizedNetwork(program, scheme=Scheme(), streams=streams, recipe=recipe, batches=batches, store=store)


def constants_of(network, text="W3A8"):
    return network.setting(dict.fromkeys(network.captured.layer_index, Precision.parse(text))).constants


def same(found, expected):
    assert found.keys() == expected.keys()
    for position, value in expected.items():
        torch.testing.assert_close(found[position], value, rtol=0, atol=0)
        assert found[position].stride() == value.stride()


@pytest.fixture
def counted(monkeypatch):
    """Return the list of layers that are found, not read."""
    names, found = [], rebuild._rebuilt

    def count(part, recipe):
        names.extend(site.name for site in part.block.sites)
        return found(part, recipe)

    monkeypatch.setattr(rebuild, "_rebuilt", count)
    return names


@pytest.mark.parametrize("text", ["W3A8", "Wcodebook3A8", "Wnf4A8"])
def test_what_is_there_is_not_found_again(tmp_path, counted, text):
    store = Store(tmp_path, IDENTITY)
    expected = constants_of(network_of(store), text)
    layers = len(counted)

    found = constants_of(network_of(store), text)

    assert layers == len(counted) > 0
    same(found, expected)
    same(found, constants_of(network_of(None), text))


def test_scales_and_learned_levels_come_back(tmp_path):
    store = Store(tmp_path, IDENTITY)
    first, second = network_of(store), network_of(store)
    layer = first.captured.layers[first.captured.layer_index["b1"]]
    for text in ("int3", "codebook3"):
        one, other = (n.quantized_weight(layer, parse(text)) for n in (first, second))

        assert one.levels == other.levels
        torch.testing.assert_close(one.scale, other.scale, rtol=0, atol=0)
        torch.testing.assert_close(one.zero_point, other.zero_point, rtol=0, atol=0)


def test_an_interrupted_search_goes_on_where_it_was(tmp_path, counted, monkeypatch):
    store, counting = Store(tmp_path, IDENTITY), rebuild._rebuilt

    def interrupted(view, recipe):
        if len(counted) == 3:
            raise KeyboardInterrupt
        return counting(view, recipe)

    monkeypatch.setattr(rebuild, "_rebuilt", interrupted)
    with pytest.raises(KeyboardInterrupt):
        constants_of(network_of(store))
    before = list(counted)
    monkeypatch.setattr(rebuild, "_rebuilt", counting)

    found = constants_of(network_of(store))

    assert len(before) == 3
    assert not set(before) & set(counted[3:])
    same(found, constants_of(network_of(None)))


def test_formats_schemes_and_recipes_lie_apart(tmp_path, counted):
    store = Store(tmp_path, IDENTITY)
    constants_of(network_of(store), "W3A8")
    once = len(counted)

    constants_of(network_of(store), "W2A8")
    constants_of(network_of(store, recipe=replace(GRAM, weight_ranges="mse")), "W3A8")

    assert len(counted) == 3 * once


def test_weights_of_another_network_are_refused(tmp_path):
    constants_of(network_of(Store(tmp_path, IDENTITY)))

    with pytest.raises(
        InputError, match=r"expected weights of this network in .*, got those of another calibration; del"
    ):
        constants_of(network_of(Store(tmp_path, {**IDENTITY, "calibration": "other"})))


@pytest.mark.parametrize("content", [b"", b"no weights", bytes(64)])
def test_a_damaged_file_is_named(tmp_path, content):
    constants_of(network_of(Store(tmp_path, IDENTITY)))
    path = sorted(tmp_path.rglob("*.safetensors"))[2]
    path.write_bytes(content)

    with pytest.raises(
        InputError, match=f"expected a weight in .*{path.name}, got .*; delete the file to find it again"
    ):
        constants_of(network_of(Store(tmp_path, IDENTITY)))


@pytest.mark.parametrize("part", ["levels", "scale", "is_nearest", "missing"])
def test_a_file_without_one_of_its_parts_is_named(tmp_path, part):
    constants_of(network_of(Store(tmp_path, IDENTITY)))
    path = sorted(tmp_path.rglob("*.safetensors"))[2]
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["hwdse"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    kept = {key: value for key, value in tensors.items() if key != part}
    header.pop(part, None)
    path.write_bytes(save(kept, metadata={"hwdse": json.dumps(header)}))

    with pytest.raises(InputError, match=f"expected a whole weight in .*{path.name}, got no {part}; delete the file"):
        constants_of(network_of(Store(tmp_path, IDENTITY)))


def test_a_file_of_another_layer_is_refused(tmp_path):
    constants_of(network_of(Store(tmp_path, IDENTITY)))
    first, second = sorted(tmp_path.rglob("*.safetensors"))[:2]
    second.write_bytes(first.read_bytes())

    with pytest.raises(InputError, match="got those of another weight; delete"):
        constants_of(network_of(Store(tmp_path, IDENTITY)))


def test_nothing_else_is_left_in_the_folder(tmp_path):
    constants_of(network_of(Store(tmp_path, IDENTITY)))

    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".safetensors"}


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("values", torch.zeros(1)),  # would be spread over the whole weight
        ("values", torch.full((4, 2, 3, 3), float("nan"))),
        ("scale", torch.ones(3, dtype=torch.float64)),
        ("zero_point", torch.zeros(4, dtype=torch.int8)),
        ("levels", torch.tensor(0.5)),
        ("bias", torch.zeros(2, 2)),
        ("missing", "many"),
        ("is_nearest", None),
    ],
)
def test_numbers_of_another_shape_or_kind_are_refused(part, value, tmp_path):
    nearest = quantize_weight(torch.randn(4, 2, 3, 3), parse("codebook3"), scheme=Scheme())
    shelf = Store(tmp_path, IDENTITY).shelf("s", "r", "codebook3")
    shelf.put("w", Rebuilt(nearest, torch.zeros(4)))
    assert torch.equal(shelf.get("w", nearest).weight.values, nearest.values)
    path = shelf.folder / "w.safetensors"
    with safe_open(path, framework="pt") as file:
        tensors, header = {key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()["hwdse"])  # noqa: SIM118
    (header if part in header else tensors)[part] = value
    path.write_bytes(save(tensors, metadata={"hwdse": json.dumps(header)}))
    with pytest.raises(InputError, match=r"expected numbers of w in .*, got others; delete the file to find it again"):
        shelf.get("w", nearest)
