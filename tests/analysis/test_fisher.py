"""Predicted divergences against measured ones where first order is exact, or nearly."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau
from torch import nn

from hwdse.analysis import fisher
from hwdse.analysis.draws import Drawn, draw
from hwdse.analysis.fisher import predict_sensitivity
from hwdse.analysis.sensitivity import measure_sensitivity
from hwdse.capture import capture
from hwdse.errors import InputError
from hwdse.factories import load_factory
from hwdse.formats import Precision, Scheme
from hwdse.quantize.network import QuantizedNetwork
from hwdse.quantize.observe import observe
from hwdse.quantize.program import Program
from hwdse.quantize.recipe import Recipe
from tests import networks

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
FINE = tuple(map(Precision.parse, ("W12A12", "W12Afp32", "Wfp32A12", "fp32")))
COARSE = tuple(map(Precision.parse, ("W2A8", "W4A4", "W4A8", "W8A8")))


def network_of(model: nn.Module, batches: list[tuple[torch.Tensor, ...]], **capturing: object) -> QuantizedNetwork:
    example = tuple(x[:1] for x in batches[0])
    program = Program.of(capture(model, example, **capturing))
    streams = observe(program, batches)
    return QuantizedNetwork(program, scheme=Scheme(), streams=streams, recipe=Recipe(activation_ranges="minmax"))


@cache
def linear() -> tuple[QuantizedNetwork, torch.Tensor]:
    """A linear layer under a softmax, in double precision."""
    torch.manual_seed(0)
    model, x = nn.Linear(6, 5).double(), torch.randn(40, 6, dtype=torch.float64)
    return network_of(model, [(x,)]), x


@cache
def double(name: str) -> tuple[QuantizedNetwork, list[tuple[torch.Tensor, ...]]]:
    """A network of the tests in double precision, with its batches."""
    case = networks.CASES[name]
    batches = [tuple(x.double() if x.is_floating_point() else x for x in case.inputs(n, seed=n)) for n in (4, 3)]
    model = copy.deepcopy(networks.model(name)).double()
    return network_of(model, batches, dynamic_dims=case.dynamic_dims), batches


def test_small_errors_of_a_linear_softmax_are_predicted_to_a_thousandth() -> None:
    network, x = linear()
    found = predict_sensitivity(network, [x], candidates=FINE, passes=5, rng=np.random.default_rng(0))
    measured = measure_sensitivity(network, [x], candidates=FINE, methods=("kl",))
    np.testing.assert_allclose(found.scores["kl_predicted"], measured.scores["kl"], rtol=1e-3)
    assert found.per_sample["kl_predicted"].shape == (1, 4, 40)
    assert found.scores["kl_predicted"][0, 3] == 0.0


@pytest.mark.parametrize("part", ["weights", "activations"])
def test_errors_of_any_size_of_one_operand_of_a_linear_softmax_are_predicted_exactly(part: str) -> None:
    network, x = linear()
    found = predict_sensitivity(network, [x], candidates=COARSE, part=part, passes=9, rng=np.random.default_rng(0))
    measured = measure_sensitivity(network, [x], candidates=COARSE, part=part, methods=("kl",))
    np.testing.assert_allclose(found.per_sample["kl_predicted"], measured.per_sample["kl"], rtol=1e-6, atol=1e-15)
    assert found.candidates == COARSE


@pytest.mark.parametrize("passes", [1, 2, 3, 4])
def test_classes_without_a_pass_of_their_own_enter_without_bias(passes: int) -> None:
    network, x = linear()
    rng = np.random.default_rng(1)
    scores = [
        predict_sensitivity(network, [x], candidates=FINE[:1], passes=passes, rng=rng).scores["kl_predicted"]
        for _ in range(300)
    ]
    measured = measure_sensitivity(network, [x], candidates=FINE[:1], methods=("kl",)).scores["kl"]
    deviation = float(np.std(scores)) / np.sqrt(300)
    assert np.mean(scores) == pytest.approx(measured.item(), abs=4.0 * deviation + 1e-3 * measured.item())
    assert deviation < 0.02 * measured.item()


@pytest.mark.parametrize("name", ["mlp", "residual", "vit", "normed", "siamese"])
def test_small_errors_anywhere_in_a_network_are_predicted(name: str) -> None:
    network, batches = double(name)
    found = predict_sensitivity(network, batches, candidates=FINE, passes=16, rng=np.random.default_rng(0))
    measured = measure_sensitivity(network, batches, candidates=FINE, methods=("kl",))
    np.testing.assert_allclose(found.scores["kl_predicted"], measured.scores["kl"], rtol=0.01)


@pytest.mark.parametrize("name", ["mlp", "residual"])
def test_biases_that_come_with_weights_are_predicted_with_them(name: str) -> None:
    plain, batches = double(name)
    recipe = Recipe(activation_ranges="minmax", weight_rounding="gram")
    network = QuantizedNetwork(
        plain.program, scheme=Scheme(), streams=plain.all_streams, recipe=recipe, batches=batches
    )
    weights = (Precision.parse("W8Afp32"),)
    assert network.setting(dict.fromkeys(plain.captured.layer_index, weights[0])).biases
    found = predict_sensitivity(network, batches, candidates=weights, passes=16, rng=np.random.default_rng(0))
    measured = measure_sensitivity(network, batches, candidates=weights, methods=("kl",))
    np.testing.assert_allclose(found.scores["kl_predicted"], measured.scores["kl"], rtol=0.05)


@pytest.mark.parametrize("name", ["packed", "encoder", "products", "functional"])
def test_tokens_are_averaged_without_bias(name: str) -> None:
    network, batches = double(name)
    weights = FINE[1:2]
    found = predict_sensitivity(network, batches, candidates=weights, passes=300, rng=np.random.default_rng(0))
    measured = measure_sensitivity(network, batches, candidates=weights, methods=("kl",))
    np.testing.assert_allclose(found.scores["kl_predicted"], measured.scores["kl"], rtol=0.15)


def test_a_view_of_a_rounded_tensor_adds_only_its_own_rounding() -> None:
    """Queries, keys and values are views of one tensor: keys are rounded with it, then once more as second operand."""
    network, batches = double("vit")
    twice = tuple(map(Precision.parse, ("W12A9", "W9A12", "W10A10")))
    found = predict_sensitivity(network, batches, candidates=twice, passes=7, rng=np.random.default_rng(0))
    measured = measure_sensitivity(network, batches, candidates=twice, methods=("kl",))
    np.testing.assert_allclose(found.scores["kl_predicted"], measured.scores["kl"], rtol=0.03)


def test_parts_are_candidates_with_the_other_side_in_full_precision() -> None:
    network, batches = double("vit")
    for part, column in (("weights", 1), ("activations", 2)):
        found, expected = (
            predict_sensitivity(network, batches, candidates=c, part=p, rng=np.random.default_rng(0)).scores
            for c, p in ((FINE[:1], part), (FINE[column : column + 1], "both"))
        )
        assert found["kl_predicted"].tolist() == expected["kl_predicted"].tolist()


def test_portions_of_a_batch_and_weights_of_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    network, batches = double("residual")
    joined = (torch.cat([x for (x,) in batches]),)
    weights = np.array([0.5, 1.0, 2.0, 0.0, 1.0, 1.0, 1.5])
    whole = predict_sensitivity(network, [joined], candidates=COARSE, passes=10, rng=np.random.default_rng(0))
    monkeypatch.setattr(fisher, "_TAPE_BYTES", 1)
    calls: list[int] = []
    found = predict_sensitivity(
        network,
        [Drawn(joined, weights)],
        candidates=COARSE,
        passes=10,
        rng=np.random.default_rng(0),
        on_batch=lambda: calls.append(1),
    )
    np.testing.assert_allclose(
        found.per_sample["kl_predicted"], whole.per_sample["kl_predicted"] * weights, rtol=1e-6, atol=1e-15
    )
    assert len(calls) == 1


def test_the_largest_are_measured_if_asked() -> None:
    network, plain_batches = double("residual")
    batches = [Drawn(batch, np.linspace(0.5, 2.0, len(batch[0]))) for batch in plain_batches]
    arguments = {"candidates": COARSE, "passes": 10}
    plain, quarter, whole = (
        predict_sensitivity(network, batches, **arguments, measured_share=share, rng=np.random.default_rng(0))
        for share in (0.0, 0.25, 1.0)
    )
    measured = measure_sensitivity(network, batches, candidates=COARSE, methods=("kl",)).scores["kl"]
    predicted = plain.scores["kl_predicted"]
    assert whole.scores["kl_predicted"].tolist() == measured.tolist()
    largest = np.zeros(predicted.size, dtype=bool)
    largest[np.argsort(-predicted, axis=None)[: predicted.size // 4]] = True
    largest = largest.reshape(predicted.shape)
    assert quarter.scores["kl_predicted"].tolist() == np.where(largest, measured, predicted).tolist()


def test_a_logit_that_moves_without_bound_saturates() -> None:
    logits = torch.tensor([[0.0, 0.0]])
    _, divergence = fisher._of_classes(logits, 2, np.random.default_rng(0))
    assert torch.isfinite(divergence(torch.tensor([[1e6], [-1e6]]).double())).all()
    small = divergence(torch.tensor([[1e-6], [-1e-6]]).double())
    assert small.item() == pytest.approx(0.5e-12, rel=1e-3)


def test_a_trained_network_is_ranked_as_by_measurement() -> None:
    try:
        model = load_factory("models.py:dscnn", folder=EXPERIMENTS)()
        batches = load_factory("data.py:kws_calibration", folder=EXPERIMENTS)()
    except InputError as error:
        pytest.skip(str(error))
    network = network_of(model, [(x,) for x in batches])
    rng = np.random.default_rng(0)
    drawn = draw(network, batches, draws=48, rng=rng)
    found = predict_sensitivity(network, drawn, candidates=COARSE, rng=rng).scores["kl_predicted"]
    measured = measure_sensitivity(network, batches, candidates=COARSE, methods=("kl",)).scores["kl"]
    assert kendalltau(found, measured).statistic >= 0.87
    for columns in ([0], [1, 2], [3]):
        assert kendalltau(found[:, columns], measured[:, columns]).statistic >= 0.5


def test_bad_requests() -> None:
    network, x = linear()
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="expected at least one batch of calibration data, got none"):
        predict_sensitivity(network, [], candidates=FINE, rng=rng)
    with pytest.raises(InputError, match="expected at least 1 pass and a share between 0 and 1, got 0 and 2"):
        predict_sensitivity(network, [x], candidates=FINE, rng=rng, passes=0, measured_share=2)
    with pytest.raises(InputError, match="expected the part both, weights, activations, got 'biases'"):
        predict_sensitivity(network, [x], candidates=FINE, rng=rng, part="biases")
