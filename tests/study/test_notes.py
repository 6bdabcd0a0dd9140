"""What a device's figures are worth for a network, and what it does not run, is said before anything is measured."""

from __future__ import annotations

import json

from hwdse.hardware import load_profile
from hwdse.hardware.load import parse_profile
from hwdse.quantize.recipe import RECIPES
from tests.listener import Listener


def test_an_interval_that_is_about_other_networks_is_not_stated(start):
    """The networks that a T4 was held against are a thousand times the tiny one."""
    profile = load_profile("nvidia_t4")
    accuracy = profile.spec.accuracy
    assert accuracy is not None
    assert accuracy.smallest_mmacs is not None
    assert accuracy.largest_mmacs is not None
    problem = start(devices=["nvidia_t4", "mpic"], evaluations=2).problems["nvidia_t4"]
    macs = sum(layer.macs for layer in problem.graph.layers) / 1e6
    assert problem.uncertainty == {}
    assert problem.note.endswith(
        f"no interval: held against networks of {accuracy.smallest_mmacs.value:,.0f} to "
        f"{accuracy.largest_mmacs.value:,.0f} million MACs, and this one has {macs:.2g}"
    )
    assert "interval: a factor" not in problem.note
    assert "held against networks" not in start(devices=["mpic"], evaluations=2).problems["mpic"].note


def test_a_class_that_an_efficiency_leaves_out_is_a_warning(start):
    raw = load_profile("mpic").spec.model_dump(mode="json", exclude_none=True, by_alias=True)
    share = {"value": 0.5, "kind": "measured", "source": next(iter(raw["sources"]))}
    raw["efficiency"] = {"conv": share, "pointwise": share}
    linear = next(rate for rate in raw["rates"] if rate["weights"] == rate["activations"] == "int8")
    raw["rates"].append(linear | {"op_classes": ["linear"], "efficiency": share})
    listener = Listener()
    start(devices=[parse_profile(raw)], evaluations=2, progress=listener)
    (sentence,) = [text for text in listener.sentences if "[efficiency]" in text]
    assert sentence.startswith("mpic runs no linear layer at W")
    assert sentence.endswith(", since [efficiency] has no share for linear")


def test_what_no_figure_was_published_of_widens_the_interval_of_those_that_use_it_alone(start):
    """The processor was held against networks of 8 bits; weights of 2 and 4 bits are somebody's kernels."""
    raw = load_profile("stm32h7a3").spec.model_dump(mode="json", exclude_none=True, by_alias=True)
    for end in ("smallest_mmacs", "largest_mmacs"):  # networks of any size
        del raw["accuracy"][end]
    problem = start(devices=[parse_profile(raw)], evaluations=2).problems["stm32h7a3"]
    names = {str(candidate) for candidate in problem.space.candidates}
    assert set(problem.widening) < names
    assert "W8A8" not in problem.widening
    assert problem.uncertainty["latency_ms_predicted"] == problem.profile.uncertainty("latency_ms_predicted")
    both = max(problem.widening.values()) * problem.uncertainty["latency_ms_predicted"]
    assert f"a factor of {both:.3g} with {', '.join(problem.widening)}" in problem.note


def test_what_is_said_about_the_calibration_is_said_once_and_kept(start, tiny, tmp_path):
    """Two schemes reconstruct their weights from the same few samples."""
    listener = Listener()
    few = [batch[:2] for batch in tiny.calibration][:1]
    devices = ["mpic", "stm32h7a3"]
    start(
        devices=devices, evaluations=2, calibration=few, recipe=RECIPES["gram"], progress=listener, out=tmp_path / "r"
    )
    (sentence,) = [text for text in listener.sentences if "rows of calibration data" in text]
    assert sentence in json.loads((tmp_path / "r" / "resolved.json").read_text())["warnings"]
    stages = [name for name, _ in listener.stages]
    for place in (1, 2):
        assert [name for name in stages if name.startswith("weights in ") and name.endswith(f" (scheme {place}/2)")]
    assert len(stages) == len(set(stages))


def test_going_on_with_a_run_that_is_not_there_is_said(start, tmp_path):
    listener = Listener()
    start(devices=["mpic"], evaluations=2, out=tmp_path / "new", resume=True, progress=listener)
    assert f"expected a run in {tmp_path / 'new'} to go on with, got none; a new one begins" in listener.sentences
    listener = Listener()
    again = start(devices=["mpic"], evaluations=3, out=tmp_path / "new", resume=True, progress=listener)
    assert not [text for text in listener.sentences if "to go on with" in text]
    assert (again.meter.evaluations, again.meter.earlier) == (3, 2)


def test_groups_without_a_choice_are_said(start, tiny_problem):
    raw = load_profile("mpic").spec.model_dump(mode="json", exclude_none=True, by_alias=True)
    classes = {layer.op_class for layer in tiny_problem.graph.layers}
    bound = sorted(classes)[0]
    for rate in raw["rates"]:
        if not rate["weights"] == rate["activations"] == "int8":
            rate["op_classes"] = sorted(classes - {bound})
    listener = Listener()
    problem = start(devices=[parse_profile(raw)], evaluations=2, progress=listener).problems["mpic"]
    (sentence,) = [text for text in listener.sentences if "has no other precision than" in text]
    names = [
        group.name for group, row in zip(problem.space.groups, problem.space.allowed, strict=True) if row.sum() == 1
    ]
    assert sentence.startswith("mpic has no other precision than W8A8, of those asked for, for ")
    assert f"for {len(names)} of {len(problem.space.groups)} groups of layers ({', '.join(names[:4])}" in sentence
