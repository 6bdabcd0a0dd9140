"""Explorations whose weights are reconstructed."""

from __future__ import annotations

from hwdse.quantize.network import QuantizedNetwork
from hwdse.quantize.recipe import Recipe

GRAM = Recipe(weight_rounding="gram")


class _Listener:
    def __init__(self):
        self.stages = {}

    def start(self, stage, total):
        self.stages[stage] = total

    def advance(self):
        pass

    def warn(self, sentence):
        self.stages[sentence] = None


def test_weights_are_found_once_per_scheme_and_format_before_anything_is_measured(start, monkeypatch):
    listener, rebuilt = _Listener(), []
    rebuild = QuantizedNetwork._rebuild

    def counted(self, number_format, progress):
        rebuilt.append((self.scheme.key, number_format.name))
        return rebuild(self, number_format, progress)

    monkeypatch.setattr(QuantizedNetwork, "_rebuild", counted)

    study = start(devices=["mpic", "stm32h7a3", "nvidia_t4"], recipe=GRAM, progress=listener)

    assert len(rebuilt) == len(set(rebuilt))
    assert {name for name, _ in rebuilt} == set(study.prepared.states)
    stages = [stage.split(" (scheme ")[0] for stage in listener.stages if stage.startswith("weights")]
    told = [stage.removeprefix("weights in ").split(", ") for stage in stages]
    assert {name for names in told for name in names} == {name for _, name in rebuilt}
    assert study.prepared.identity.recipe == "gram.w-minmax.a-mse"
    assert len(study.measured("mpic"))


def test_an_exploration_of_reconstructed_weights_finds_less_harm(start):
    gram, nearest = (start(devices=["mpic"], recipe=recipe) for recipe in (GRAM, Recipe()))

    totals = [
        sum(float(s.sensitivity.scores["kl"].sum()) for s in run.prepared.states.values()) for run in (gram, nearest)
    ]

    assert totals[0] < totals[1]
