"""The shared pass against the naive loop, parts, weighted samples and the early stop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from hwdse.analysis.draws import Drawn
from hwdse.analysis.robustness import Settled
from hwdse.analysis.sensitivity import first_tensor, kl, measure_harms, measure_sensitivity, sqnr_db
from hwdse.errors import InputError
from hwdse.formats import Precision, Scheme
from hwdse.quantize.network import QuantizedNetwork, Setting
from hwdse.quantize.observe import observe
from hwdse.quantize.recipe import Recipe
from tests import networks

CANDIDATES = tuple(map(Precision.parse, ("W2A8", "W4A4", "W8A8", "fp32")))


def quantized(name: str) -> QuantizedNetwork:
    program, case = networks.program(name), networks.CASES[name]
    batches = [case.inputs(n, seed=n) for n in (4, 4)]
    return QuantizedNetwork(
        program, scheme=Scheme(), streams=observe(program, batches), recipe=Recipe(activation_ranges="minmax")
    )


@pytest.mark.parametrize(
    "name", ["residual", "llama", "odd_norms", "packed", "inception", "reused", "tied", "siamese", "aliases", "vit"]
)
def test_sharing_what_a_group_cannot_change_gives_what_the_naive_loop_gives(name: str) -> None:
    network, case = quantized(name), networks.CASES[name]
    batches = [case.inputs(n, seed=10 + n) for n in (3, 5)]
    before = [[x.clone() for x in batch] for batch in batches]
    measured = measure_sensitivity(network, iter(batches), candidates=CANDIDATES)
    groups = network.captured.groups
    expected = {method: np.zeros((len(groups), len(CANDIDATES))) for method in ("kl", "sqnr_db")}
    for batch in batches:
        reference = first_tensor(network.forward(batch, Setting()))
        for g, group in enumerate(groups):
            for c, candidate in enumerate(CANDIDATES):
                setting = network.setting(dict.fromkeys(group.layers, candidate))
                output = first_tensor(network.forward(batch, setting))
                expected["kl"][g, c] += float(kl(reference, output).sum())
                expected["sqnr_db"][g, c] += float(sqnr_db(reference, output).sum())
    assert measured.samples == 8
    assert (measured.groups, measured.candidates) == (tuple(group.name for group in groups), CANDIDATES)
    for method, total in expected.items():
        np.testing.assert_allclose(measured.scores[method], total / 8, rtol=1e-13, atol=1e-300)
    assert all(torch.equal(x, y) for pair in zip(batches, before, strict=True) for x, y in zip(*pair, strict=True))


def test_full_precision_harms_nothing_and_fewer_bits_harm_more() -> None:
    measured = measure_sensitivity(
        quantized("residual"), [networks.CASES["residual"].inputs(16)], candidates=CANDIDATES
    )
    two, _, eight, full = measured.scores["kl"].T
    assert full.tolist() == [0.0] * 6
    assert (eight > 0.0).all()
    assert two.sum() > 10 * eight.sum()
    assert measured.scores["sqnr_db"][:, 3].tolist() == pytest.approx([120.0] * 6)
    assert (measured.scores["sqnr_db"][:, 2] > measured.scores["sqnr_db"][:, 0]).all()


def test_methods_are_chosen_by_name_and_batches_reported() -> None:
    calls: list[int] = []
    measured = measure_sensitivity(
        quantized("mlp"),
        [networks.CASES["mlp"].inputs(2)] * 3,
        candidates=CANDIDATES[:1],
        methods=("sqnr_db",),
        on_batch=lambda: calls.append(1),
    )
    assert list(measured.scores) == ["sqnr_db"]
    assert measured.scores["sqnr_db"].shape == (2, 1)
    assert (len(calls), measured.samples) == (3, 6)


def test_bad_requests() -> None:
    with pytest.raises(InputError, match="expected at least one batch of calibration data, got none"):
        measure_sensitivity(quantized("mlp"), [], candidates=CANDIDATES)
    with pytest.raises(InputError, match=r"installed sensitivities \(.*kl, sqnr_db.*\), got 'hessian'"):
        measure_sensitivity(quantized("mlp"), [], candidates=CANDIDATES, methods=("hessian",))
    with pytest.raises(InputError, match="expected at least one method, got none"):
        measure_sensitivity(quantized("mlp"), [], candidates=CANDIDATES, methods=())
    with pytest.raises(InputError, match="expected the part both, weights, activations, got 'biases'"):
        measure_sensitivity(quantized("mlp"), [], candidates=CANDIDATES, part="biases")
    harms = {"sum": lambda reference, quantized, _: (reference - quantized).sum()}
    pairs = [(networks.CASES["mlp"].inputs(2), None)]
    with pytest.raises(InputError, match="expected one number for each of 2 samples from 'sum', got shape"):
        measure_harms(quantized("mlp"), pairs, harms, candidates=CANDIDATES)


def test_the_score_is_the_mean_over_samples_however_they_are_batched() -> None:
    network, (x,) = quantized("residual"), networks.CASES["residual"].inputs(12)
    whole = measure_sensitivity(network, [x], candidates=CANDIDATES)
    parts = measure_sensitivity(network, x.split(5), candidates=CANDIDATES)
    for method, values in parts.per_sample.items():
        assert values.shape == (6, 4, 12)
        np.testing.assert_allclose(values.mean(axis=-1), parts.scores[method], rtol=1e-14)
        np.testing.assert_allclose(values, whole.per_sample[method], rtol=1e-3, atol=1e-9)


def test_parts_are_candidates_with_the_other_side_in_full_precision() -> None:
    network, batch = quantized("packed"), networks.CASES["packed"].inputs(6)
    eight = Precision.parse("W8A8")
    names = {"both": "W8A8", "weights": "W8Afp32", "activations": "Wfp32A8"}
    for part, name in names.items():
        found = measure_sensitivity(network, [batch], candidates=(eight, eight), part=part)
        expected = measure_sensitivity(network, [batch], candidates=[Precision.parse(name)])
        assert found.candidates == (eight, eight)
        for method, scores in expected.scores.items():
            assert found.scores[method].tolist() == np.repeat(scores, 2, axis=1).tolist()
            assert (found.scores[method] > 0.0).all()


def test_weights_of_a_draw_count() -> None:
    network, (x,) = quantized("residual"), networks.CASES["residual"].inputs(6)
    weights = np.array([0.5, 2.0, 0.0, 1.0, 1.0, 1.5])
    plain = measure_sensitivity(network, [x], candidates=CANDIDATES).per_sample["kl"]
    found = measure_sensitivity(
        network, [Drawn(x[:4], weights[:4]), Drawn((x[4:],), weights[4:])], candidates=CANDIDATES
    )
    np.testing.assert_allclose(found.scores["kl"], (plain * weights).mean(axis=-1), rtol=1e-3, atol=1e-9)


def test_a_settled_order_stops_early_and_is_the_order_of_all_samples() -> None:
    network, (x,) = quantized("dscnn"), networks.CASES["dscnn"].inputs(96)
    two = CANDIDATES[:1]
    whole = measure_sensitivity(network, x.split(8), candidates=two)
    calls: list[int] = []
    rule = Settled(tau=0.8, samples=16)
    found = measure_sensitivity(
        network, x.split(8), candidates=two, stop_when_settled=rule, on_batch=lambda: calls.append(1)
    )
    again = measure_sensitivity(network, x.split(8), candidates=two, stop_when_settled=rule)
    assert 16 <= found.samples < 96
    assert found.samples == 8 * len(calls)
    assert again.scores["kl"].tolist() == found.scores["kl"].tolist()
    assert kendalltau(found.scores["kl"], whole.scores["kl"]).statistic >= 0.8
    never = measure_sensitivity(
        network, x[:24].split(8), candidates=two, stop_when_settled=Settled(tau=0.8, samples=25)
    )
    assert never.samples == 24
