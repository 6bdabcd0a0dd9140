"""Recipes as text, JSON and files; and what each named one does to a network, its export and an exploration."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils import _pytree as pytree

from hwdse.calibrate import GROUP
from hwdse.capture import capture
from hwdse.deploy.onnx import explicit_model
from hwdse.deploy.run import compare
from hwdse.deploy.translate import Translation
from hwdse.errors import InputError
from hwdse.experiment import load_experiment, make_inputs
from hwdse.files import read_json
from hwdse.plugins import plugin_names
from hwdse.quantize.adaround_settings import AdaRoundSettings
from hwdse.quantize.network import QuantizedNetwork, program_of
from hwdse.quantize.program import Program
from hwdse.quantize.recipe import CORRECTIONS, OUTPUT, RECIPES, ROUNDINGS, Recipe, recipe_named
from hwdse.study import Budget, explore
from tests import networks
from tests.deploy.cases import CPU, inputs, uniform

TINY = Path(__file__).parents[1] / "tiny"
PATHS = ("int8", "fp32")
CHANGED = ["weight_ranges", "activation_ranges", "bias_correction", "equalization", "path"]
CALIBRATORS = sorted(plugin_names(GROUP))
SETTINGS = st.builds(
    AdaRoundSettings,
    iterations=st.integers(1, 10**4),
    batch=st.integers(1, 64),
    learning_rate=st.floats(1e-6, 1.0),
    regularisation=st.floats(0.0, 1.0),
    beta=st.tuples(st.floats(1.5, 30.0), st.floats(1.5, 30.0)),
    warm_up=st.floats(0.0, 1.0),
    by_block=st.booleans(),
    seed=st.integers(0, 99),
)


@st.composite
def recipes(draw):
    rounding = draw(st.sampled_from(ROUNDINGS))
    return Recipe(
        weight_ranges=draw(st.sampled_from(CALIBRATORS)),
        activation_ranges=draw(st.sampled_from([*CALIBRATORS, OUTPUT])),
        weight_rounding=rounding,
        bias_correction="none" if rounding == "gram" else draw(st.sampled_from(CORRECTIONS)),
        equalization=draw(st.booleans()),
        path=draw(st.sampled_from(PATHS)),
        adaround=draw(SETTINGS) if rounding == "adaround" else AdaRoundSettings(),
    )


@given(recipes())
def test_a_recipe_comes_back_from_json(recipe):
    assert Recipe.of(json.loads(json.dumps(asdict(recipe)))) == recipe


@given(recipes(), recipes())
def test_different_recipes_have_different_keys(one, other):
    assert (one.key == other.key) == (one == other)


@given(recipes(), st.sampled_from(CHANGED), st.data())
def test_a_change_of_one_setting_changes_the_key(recipe, name, data):
    options = {
        "weight_ranges": CALIBRATORS,
        "activation_ranges": [*CALIBRATORS, OUTPUT],
        "bias_correction": CORRECTIONS if recipe.weight_rounding != "gram" else ("none",),
        "equalization": (False, True),
        "path": PATHS,
    }[name]
    other = replace(recipe, **{name: data.draw(st.sampled_from(options))})
    assert (other.key == recipe.key) == (other == recipe)


def test_settings_of_another_way_are_no_other_recipe():
    learning = AdaRoundSettings(iterations=7)

    assert Recipe(adaround=learning).key == Recipe().key
    assert Recipe(weight_rounding="adaround", adaround=learning).key != Recipe(weight_rounding="adaround").key


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"rounding": "gram"}, "expected the settings of a recipe, got .*; correct them"),
        ({"weight_rounding": 3}, "expected a weight rounding of nearest, gram, adaround, got 3"),
        ({"bias_correction": None}, "expected a bias correction of none, local, global, got None"),
        ({"adaround": {"steps": 3}}, "expected the settings of a recipe, got .*; correct them"),
        ({"adaround": {"iterations": "many"}}, "expected the settings of a recipe, got .*; correct them"),
        ({"adaround": {"iterations": 0}}, "expected at least one iteration and one sample per batch, got 0 and 32"),
        ({"adaround": {"beta": 2.0}}, "expected the settings of a recipe, got .*; correct them"),
        ({"adaround": {"beta": [2.0]}}, "expected two exponents above 1, got 2.0"),
        ({"adaround": 5}, "expected the settings of a recipe, got .*; correct them"),
        ({"adaround": "long"}, "expected the settings of a recipe, got .*; correct them"),
    ],
    ids=str,
)
def test_settings_that_are_none_are_refused(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        Recipe.of(settings)


def test_recipes_have_names():
    assert {name: recipe_named(name) for name in RECIPES} == dict(RECIPES)
    assert len({recipe.key for recipe in RECIPES.values()}) == len(RECIPES)
    with pytest.raises(
        InputError, match="expected a recipe of gram, nearest, adaround, equalized, got 'Gram'; correct --recipe"
    ):
        recipe_named("Gram")


def outputs(program, batch):
    with torch.inference_mode():
        values = program.start(batch, {})
        program.advance(values, {})
        return pytree.tree_leaves(program.result(values))


@pytest.mark.parametrize("with_data", [True, False])
@pytest.mark.parametrize("name", ["residual", "dscnn", "functional"])
def test_equalization_keeps_what_the_network_computes(name, with_data):
    batches = [inputs(name, 8, seed) for seed in (1, 2)]
    captured = networks.captured(name)
    program = program_of(captured, Recipe(equalization=True), batches if with_data else [], written=False)
    plain = Program.of(captured)

    assert any(not torch.equal(program.folded[w], plain.folded[w]) for w in plain.weights)
    for batch in batches:
        for found, expected in zip(outputs(program, batch), outputs(plain, batch), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["residual", "dscnn"])
def test_an_equalized_and_corrected_network_is_exported_as_it_is_simulated(name):
    batches = [inputs(name, 16, seed) for seed in (1, 2)]
    recipe = Recipe(equalization=True, bias_correction="local", activation_ranges="minmax")
    network = QuantizedNetwork.calibrated(networks.captured(name), batches, scheme=CPU, recipe=recipe)
    config = uniform(network.captured, "W8A8")
    setting = network.configure(config)
    assert setting.biases

    translation = Translation.of(network.program.with_constants(setting.biases))
    model = explicit_model(translation, network, config).SerializeToString()

    found = compare(network, config, model, [*batches, inputs(name, 16, 9)])
    assert found.holds
    assert found.samples == 48


NAMED = {
    **RECIPES,
    "adaround": replace(RECIPES["adaround"], adaround=AdaRoundSettings(iterations=20, batch=8)),
}


@pytest.mark.parametrize("name", NAMED)
def test_an_exploration_says_which_recipe_it_followed(name, tmp_path):
    tiny, recipe = make_inputs(load_experiment(TINY / "tiny.toml"), TINY), NAMED[name]

    study = explore(
        tiny.model,
        capture(tiny.model, tiny.example),
        calibration=tiny.calibration,
        evaluation=tiny.evaluation,
        devices=["mpic"],
        objectives=("accuracy", "latency_ms", "size_kib"),
        precisions=("W2A8", "W4A4", "W8A8"),
        budget=Budget(evaluations=3),
        recipe=recipe,
        out=tmp_path / "run",
    )

    assert study.prepared.identity.recipe == recipe.key
    resolved = read_json(tmp_path / "run" / "resolved.json")
    assert resolved["identity"]["recipe"] == recipe.key
    assert Recipe.of(resolved["quantize"]) == recipe
    assert len(study.measured("mpic")) >= 3
    assert (tmp_path / "run" / "weights").is_dir() == (recipe.finds_weights or recipe.activation_ranges == OUTPUT)
