import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hwdse.capture import capture
from hwdse.errors import InputError
from hwdse.evaluate import evaluation_of
from hwdse.evaluate.fingerprint import fingerprint, fingerprint_of_batches, fingerprint_of_network
from hwdse.factories import load_factory
from hwdse.hardware import load_profile
from hwdse.quantize.recipe import Recipe

TINY = Path(__file__).parents[1] / "tiny"
EXAMPLE = torch.zeros(2, 1, 6, 6)


def network(*, stride=1, eps=1e-5, slope=0.1, cap=6.0, seed=0, nudge=0.0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=stride, padding=1), nn.BatchNorm2d(4, eps=eps), nn.LeakyReLU(slope),
            nn.Hardtanh(0.0, cap), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
        )  # fmt: skip
    with torch.no_grad():
        layers[6].bias[1] += nudge
    return layers.eval()


def address(model: nn.Module) -> str:
    return fingerprint_of_network(capture(model, EXAMPLE))


@pytest.mark.parametrize(
    "change", [{"stride": 2}, {"eps": 1e-3}, {"slope": 0.2}, {"cap": 4.0}, {"seed": 1}, {"nudge": 1e-7}]
)
def test_any_change_of_a_network_changes_its_address(change):
    assert address(network(**change)) != address(network())


def test_the_statistics_of_a_batch_norm_count():
    model = network()
    model[1].running_mean[2] += 0.25
    assert address(model) != address(network())


def test_an_equal_network_has_an_equal_address():
    assert address(network()) == address(network())


def test_addresses_agree_across_processes():
    code = (
        "import sys; from pathlib import Path; from hwdse.capture import capture\n"
        "from hwdse.evaluate import evaluation_of\n"
        "from hwdse.evaluate.fingerprint import fingerprint_of_batches, fingerprint_of_network\n"
        "from hwdse.factories import load_factory\n"
        "part = lambda name: load_factory(f'parts.py:{name}', folder=Path(sys.argv[1]))\n"
        "print(fingerprint_of_network(capture(part('model')(), part('example')())))\n"
        "print(fingerprint_of_batches(part('evaluation')()))\n"
        "print(evaluation_of([], part('margin')).metric.key)\n"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code, TINY], capture_output=True, text=True, check=True, timeout=60,
            env={"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
        ).stdout.split()
        for seed in ("1", "2")
    ]  # fmt: skip
    assert said[0] == said[1]
    part = {
        name: load_factory(f"parts.py:{name}", folder=TINY) for name in ("model", "example", "evaluation", "margin")
    }
    assert said[0] == [
        fingerprint_of_network(capture(part["model"](), part["example"]())),
        fingerprint_of_batches(part["evaluation"]()),
        evaluation_of([], part["margin"]).metric.key,
    ]


X, Y = torch.arange(6.0).reshape(3, 2), torch.tensor([0, 1, 2])
BATCHES = {
    "plain": [(X, Y)],
    "label": [(X, torch.tensor([0, 1, 1]))],
    "value": [(X + torch.eye(3, 2) * 1e-6, Y)],
    "order": [(X.flip(0), Y.flip(0))],
    "shape": [(X.reshape(2, 3), Y)],
    "type": [(X.double(), Y)],
    "width": [(X, Y.int())],
    "array": [(X.numpy(), Y.numpy())],
    "numbers": [(X, [0, 1, 2])],
    "text": [(X, ["0", "1", "2"])],
    "joined": [(X, ["0", "12"])],
    "mapping": [(X, {"labels": Y})],
    "other mapping": [(X, {"labels": Y.flip(0)})],
    "other key": [(X, {"label": Y})],
    "large": [(X, {"labels": torch.arange(5000)})],
    "large, one differs": [(X, {"labels": torch.arange(5000) + (torch.arange(5000) == 2500)})],
    "objects": [(X, np.array(["a", "b"], dtype=object))],
    "other objects": [(X, np.array(["a", "c"], dtype=object))],
    "none": [(X, None)],
    "nested": [((X, Y), Y)],
    "flat": [(X, Y, Y)],
    "truth": [(X, True)],
    "one": [(X, 1)],
    "empty": [],
}  # fmt: skip


def test_any_change_of_data_changes_its_address():
    found = {name: fingerprint_of_batches(batches) for name, batches in BATCHES.items()}
    assert len(set(found.values())) == len(found)


def test_memory_layout_is_no_change_of_data():
    images = torch.arange(48.0).reshape(1, 3, 4, 4)
    assert fingerprint_of_batches([images.contiguous(memory_format=torch.channels_last)]) == fingerprint_of_batches(
        [images]
    )
    assert fingerprint_of_batches([torch.zeros(2, dtype=torch.bfloat16)]) != fingerprint_of_batches([torch.zeros(2)])


def test_data_of_unknown_kind_are_refused():
    with pytest.raises(InputError, match=r"expected batches of tensors, .*, got object; change what the data factory"):
        fingerprint_of_batches([(X, object())])


def test_metrics_of_one_name_are_told_apart_by_their_source():
    def quality(outputs, targets):
        return outputs[:, 0] - targets

    first = evaluation_of([], quality).metric

    def quality(outputs, targets):  # the same name is the point
        return outputs[:, 1] - targets

    second = evaluation_of([], quality).metric
    assert first.name == second.name == "quality"
    assert first.key != second.key
    assert evaluation_of([], "top1").metric.key == "top1"
    assert evaluation_of([], lambda outputs, targets: outputs[:, 0] - targets).metric.name == "quality"


def test_schemes_and_recipes_have_keys_of_their_own():
    scheme = load_profile("mpic").scheme
    assert len({scheme.key, replace(scheme, full_range=not scheme.full_range).key}) == 2
    assert len({scheme.key, replace(scheme, unsigned_activations=not scheme.unsigned_activations).key}) == 2
    assert len({Recipe(w, a).key for w in ("minmax", "mse") for a in ("minmax", "mse", "percentile")}) == 6


def test_parts_are_told_apart_by_their_names():
    assert fingerprint({"a": "x", "b": "y"}) != fingerprint({"a": "y", "b": "x"})
    assert fingerprint({"b": "y", "a": "x"}) == fingerprint({"a": "x", "b": "y"})
