"""The measured design space of DS-CNN: what the file says, and that it says what the usual evaluation says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hwdse.analysis.sensitivity import measure_sensitivity
from hwdse.capture import Capture, capture
from hwdse.errors import InputError
from hwdse.evaluate import Evaluator, top1_on
from hwdse.evaluate.fingerprint import fingerprint, fingerprint_of_batches, fingerprint_of_network
from hwdse.factories import load_factory
from hwdse.formats import Precision, Scheme
from hwdse.quantize.network import QuantizedNetwork
from hwdse.quantize.observe import observe
from hwdse.quantize.program import Program
from hwdse.quantize.recipe import Recipe

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
SAMPLES, LAYERS = 800, 10
RANDOM = 30

Truth: Any = load_factory("kws_truth.py:Truth", folder=EXPERIMENTS)
every_output = load_factory("kws_truth.py:every_output", folder=EXPERIMENTS)
summary = load_factory("kws_truth.py:summary", folder=EXPERIMENTS)


@pytest.fixture(scope="module")
def truth() -> Any:
    return Truth.load()


def config_genes(truth: Any, number: int) -> np.ndarray:
    """Return the genes of a configuration by writing its number in the base of the candidates."""
    digits = np.base_repr(number, len(truth.candidates)).zfill(LAYERS)
    return np.array([int(digit) for digit in digits])


# What the file holds. It needs neither network nor data.


def test_the_file_holds_every_configuration_once(truth: Any) -> None:
    choices = len(truth.candidates)
    assert choices == len(set(truth.candidates)) == 3
    assert len(truth.layers) == len(set(truth.layers)) == LAYERS
    assert truth.full_precision.shape == (SAMPLES,)
    assert truth.answers.shape == (SAMPLES, -(-(choices**LAYERS) // 8))
    assert truth.correct.shape == (choices,) * LAYERS
    assert truth.kl.shape == (LAYERS, choices)
    assert len(np.unique(truth.genes, axis=0)) == len(truth.genes) == truth.space.size == choices**LAYERS
    assert {"network", "data", "scheme", "recipe", "metric", "torch"} <= set(truth.origin)
    assert truth.origin["scheme"] == Scheme().key
    assert truth.origin["recipe"] == Recipe().key


def test_counts_are_the_sums_of_answers(truth: Any) -> None:
    numbers = np.random.default_rng(1).integers(0, truth.space.size, 50)
    genes = np.array([config_genes(truth, int(number)) for number in numbers])
    np.testing.assert_array_equal(truth.genes[numbers], genes)
    right = truth.right(genes)
    assert right.shape == (50, SAMPLES)
    bits = np.unpackbits(truth.answers, axis=1)[:, numbers].T
    np.testing.assert_array_equal(right, bits)
    assert [truth.correct[tuple(g)] for g in genes] == bits.sum(axis=1).tolist()
    np.testing.assert_allclose(truth.drop(genes), truth.full_precision.mean() - bits.mean(axis=1), rtol=0.0, atol=1e-12)


def test_sizes_and_bit_operations_are_those_of_the_architecture(truth: Any) -> None:
    """Weights packed; 4 bytes for each bias, each scale of an output channel, and the scale of the input."""
    shapes = [(64, 40, 125), *[(64, 9, 125), (64, 64, 125)] * 4, (12, 64, 1)]  # outputs, weights per output, positions
    for (outputs, inputs, positions), layer in zip(shapes, truth.costs, strict=True):
        for candidate, (size_kib, bops_g) in zip(truth.candidates, layer, strict=True):
            weights, activations = candidate.weights.bits, candidate.activations.bits
            packed = -(-outputs * inputs * weights // 8)
            assert size_kib == pytest.approx((packed + 8 * outputs + 4) / 1024, rel=1e-12)
            assert bops_g == pytest.approx(outputs * inputs * positions * weights * activations * 1e-9, rel=1e-12)


def test_more_bits_are_better_on_the_whole(truth: Any) -> None:
    w8a8, w3a8 = (truth.candidates.index(Precision.parse(text)) for text in ("W8A8", "W3A8"))
    assert (truth.kl >= 0.0).all()
    assert (truth.kl.argmin(axis=1) == w8a8).all()
    assert abs(truth.drop(np.full((1, LAYERS), w8a8))[0]) < 0.02
    for axis in range(LAYERS):
        means = np.moveaxis(truth.correct, axis, 0).reshape(len(truth.candidates), -1).mean(axis=1)
        assert means[w8a8] > means[w3a8]
    finest = (truth.genes == w8a8).sum(axis=1)
    assert (np.diff([truth.correct.ravel()[finest == count].mean() for count in range(LAYERS + 1)]) > 0.0).all()
    harms = truth.drop(truth.genes)
    assert harms.max() > 0.5
    assert 0.1 < (harms < 0.2).mean() < 0.9  # a search has something to tell apart


@pytest.mark.parametrize("cost", ["size_kib", "bops_g"])
def test_the_front_is_the_running_best_over_all_configurations(truth: Any, cost: str) -> None:
    column = ["size_kib", "bops_g"].index(cost)
    genes = np.stack([g.ravel() for g in np.indices(truth.shape)], axis=1)
    # In bytes or in bit operations: whole numbers, so that equal costs are equal.
    costs = np.rint(truth.costs[np.arange(LAYERS), genes, column].sum(axis=1) * (1024, 1e9)[column]).astype(np.int64)
    correct = truth.correct.ravel().astype(np.int64)
    best: list[tuple[int, int]] = []
    for i in np.lexsort((-correct, costs)):
        if not best or correct[i] > best[-1][1]:
            best.append((int(costs[i]), int(correct[i])))
    front = truth.front(cost)
    numbers = np.ravel_multi_index(tuple(front.T), truth.shape)
    assert sorted({(int(costs[n]), int(correct[n])) for n in numbers}) == best
    assert len(numbers) == len(best) > 10


def test_the_front_has_the_largest_volume(truth: Any) -> None:
    rng = np.random.default_rng(2)
    for cost in ("size_kib", "bops_g"):
        whole = truth.volume(truth.front(cost), cost)
        assert whole == pytest.approx(truth.volume(truth.genes, cost), rel=1e-12)
        assert 0.0 < truth.volume(truth.space.random(100, rng), cost) < whole
        # One configuration dominates a rectangle up to a drop of 20 points and the largest cost.
        drop, value = truth.points(truth.front(cost)[-1:], cost)[0]
        spans = np.sort(truth.costs[..., ["size_kib", "bops_g"].index(cost)], axis=1)
        low, high = spans[:, 0].sum(), spans[:, -1].sum()
        expected = (0.2 - drop) * (high - value) / (high - low)
        assert truth.volume(truth.front(cost)[-1:], cost) == pytest.approx(expected, rel=1e-9)


def test_what_the_predicted_loss_finds_is_below_the_truth(truth: Any) -> None:
    table = summary(truth).set_index(["cost", "front"])["share_of_truth"].unstack()
    assert (table["truth"] == 1.0).all()
    assert (table["its hull"] <= table["exact front of the predicted loss"]).all()
    assert table["exact front of the predicted loss"].between(0.5, 1.0, inclusive="left").all()


def test_what_is_saved_is_loaded_again(truth: Any, tmp_path: Path) -> None:
    path = truth.save(tmp_path / "again.npz")
    again = Truth.load(path)
    assert (again.layers, again.candidates, again.origin) == (truth.layers, truth.candidates, truth.origin)
    for name in ("answers", "full_precision", "kl", "costs", "correct"):
        np.testing.assert_array_equal(getattr(again, name), getattr(truth, name))
    with np.load(path) as archive:
        np.testing.assert_array_equal(archive["correct"], truth.correct)
    with pytest.raises(InputError, match=r"expected measured answers in .*none\.npz, got no file; run kws_truth\.py"):
        Truth.load(tmp_path / "none.npz")


# How it was measured.


class Chain(nn.Module):
    """Three convolutions and a linear, with one channel at the beginning and without a ReLU before the second."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.pointwise = nn.Conv2d(6, 8, 1)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pointwise(self.depthwise(self.stem(x)).relu())
        logits: torch.Tensor = self.fc(x.relu().mean((2, 3)))
        return logits


def network_of(captured: Capture, batches: list[torch.Tensor]) -> QuantizedNetwork:
    program = Program.of(captured)
    return QuantizedNetwork(program, scheme=Scheme(), streams=observe(program, batches))


def test_every_output_is_that_of_its_configuration() -> None:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(16, 1, 8, 6, generator=generator)
    torch.manual_seed(7)
    captured = capture(Chain().eval(), x[:2])
    network = network_of(captured, [x])
    candidates = [Precision.parse(text) for text in ("W8A8", "fp32", "W2A8", "W3A6")]
    with torch.inference_mode():
        outputs = dict(every_output(network, x, candidates))
    assert sorted(outputs) == list(range(4**4))
    for number, output in outputs.items():
        chosen = [candidates[int(digit)] for digit in np.base_repr(number, 4).zfill(4)]
        expected = network.forward(x, network.configure(captured.config(chosen)))
        torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)
    # The means of a small network round to few values: a few configurations agree, most must not.
    assert len({tuple(output.flatten().tolist()) for output in outputs.values()}) > 0.9 * len(outputs)


def test_a_network_with_branches_is_refused() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = (nn.Linear(4, 4) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.first(x)
            result: torch.Tensor = self.third(self.second(y) + y)
            return result

    x = torch.randn(3, 4)
    network = network_of(capture(Branches().eval(), x), [x])
    with pytest.raises(InputError, match="expected a chain of layers, each reading what the one before it wrote"):
        every_output(network, x, [Precision.parse("W8A8")])


# With the published weights and the recordings.


def from_data(name: str) -> Any:
    """Return what a factory makes of the data, or skip the test where they are absent."""
    try:
        return load_factory(name, folder=EXPERIMENTS)()
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def calibrated() -> QuantizedNetwork:
    captured = capture(from_data("models.py:dscnn"), from_data("models.py:dscnn_example"))
    return network_of(captured, from_data("data.py:kws_calibration"))


def test_the_file_is_about_this_network_and_these_data(truth: Any, calibrated: QuantizedNetwork) -> None:
    calibration, evaluation = from_data("data.py:kws_calibration"), from_data("data.py:kws_evaluation")
    samples = {"calibration": fingerprint_of_batches(calibration), "evaluation": fingerprint_of_batches(evaluation)}
    assert truth.origin["network"] == fingerprint_of_network(calibrated.captured)
    assert truth.origin["data"] == fingerprint(samples)
    assert truth.layers == tuple(layer.name for layer in calibrated.captured.layers)
    measured = measure_sensitivity(calibrated, calibration, candidates=truth.candidates, methods=("kl",))
    assert measured.groups == truth.layers
    np.testing.assert_allclose(truth.kl, measured.scores["kl"], rtol=1e-3, atol=1e-6)


def test_the_usual_evaluation_gives_the_same_answers(truth: Any, calibrated: QuantizedNetwork) -> None:
    """Uniform precisions agree to the answer; of others one answer may differ, by the order of sums in fp32."""
    evaluator = Evaluator(top1_on(from_data("data.py:kws_evaluation")))
    np.testing.assert_array_equal(evaluator.score(calibrated, None).per_sample, truth.full_precision)
    uniform = np.repeat(np.arange(len(truth.candidates))[:, None], LAYERS, axis=1)
    drawn = truth.space.random(RANDOM, np.random.default_rng(2024))
    for i, genes in enumerate([*uniform, *drawn]):
        scores = evaluator.score(calibrated, truth.space.config(genes, calibrated.captured)).per_sample
        allowed = 0 if i < len(uniform) else 1
        assert abs(int(scores.sum()) - int(truth.correct[tuple(genes)])) <= allowed
        assert (scores != truth.right(genes[None])[0]).sum() <= 2 * allowed
