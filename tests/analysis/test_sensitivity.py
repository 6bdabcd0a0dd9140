"""Output distances against closed forms, and the shared pass against the naive loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import entropy

from hwdse.analysis.sensitivity import first_tensor, kl, measure_sensitivity, sqnr_db
from hwdse.errors import InputError
from hwdse.formats import Precision, Scheme
from hwdse.quantize.network import QuantizedNetwork, Recipe, Setting, observe
from tests import networks

CANDIDATES = tuple(map(Precision.parse, ("W2A8", "W4A4", "W8A8", "fp32")))


def quantized(name: str) -> QuantizedNetwork:
    program, case = networks.program(name), networks.CASES[name]
    batches = [case.inputs(n, seed=n) for n in (4, 4)]
    return QuantizedNetwork(
        program, scheme=Scheme(), streams=observe(program, batches), recipe=Recipe(activation_ranges="minmax")
    )


def test_kl_of_two_coins() -> None:
    p, q = 0.8, 0.3
    reference, other = (torch.tensor([[math.log(x), math.log(1 - x)]]) for x in (p, q))
    expected = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert kl(reference, other).item() == pytest.approx(expected, rel=1e-6)
    assert kl(other, reference).item() != pytest.approx(expected, rel=1e-2)


@given(st.integers(0, 2**31), st.integers(2, 9))
def test_kl_is_scipys(seed: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(5, classes, generator=generator, dtype=torch.float64) * 4 for _ in range(2))
    expected = entropy(softmax(a.numpy(), axis=1), softmax(b.numpy(), axis=1), axis=1)
    np.testing.assert_allclose(kl(a, b).numpy(), expected, rtol=1e-9, atol=1e-13)


def test_kl_ignores_a_constant_added_to_all_logits_and_averages_tokens() -> None:
    a, b = torch.randn(2, 3, 7), torch.randn(2, 3, 7)
    torch.testing.assert_close(kl(a, b), kl(a + 5.0, b - 3.0), rtol=1e-5, atol=1e-6)
    tokens = torch.stack([kl(a[:, i], b[:, i]) for i in range(3)], 1)
    torch.testing.assert_close(kl(a, b), tokens.mean(1))


def test_kl_of_nothing_is_zero_and_masked_classes_add_nothing() -> None:
    a = torch.randn(4, 6)
    assert kl(a, a).tolist() == [0.0] * 4
    masked, other = a.clone(), torch.randn(4, 6)
    masked[:, 2] = -torch.inf
    rest = [0, 1, 3, 4, 5]
    assert kl(masked, masked).tolist() == [0.0] * 4
    both = other.clone()
    both[:, 2] = -torch.inf
    torch.testing.assert_close(kl(masked, both), kl(a[:, rest], other[:, rest]))


def test_sqnr_of_known_noise() -> None:
    signal = torch.ones(1, 100)
    assert sqnr_db(signal, signal * 1.1).item() == pytest.approx(20.0, abs=1e-4)
    assert sqnr_db(signal, signal * 1.01).item() == pytest.approx(40.0, abs=1e-4)
    assert sqnr_db(signal, -signal).item() == pytest.approx(-20 * math.log10(2.0))
    assert sqnr_db(1e-6 * signal, 1.1e-6 * signal).item() == pytest.approx(20.0, abs=1e-3)  # small outputs count alike


def test_sqnr_is_numpys_per_sample_and_bounded() -> None:
    y, q = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    a, b = y.double().numpy().reshape(3, -1), q.double().numpy().reshape(3, -1)
    expected = 10 * np.log10((a**2).mean(1) / ((a - b) ** 2).mean(1))
    np.testing.assert_allclose(sqnr_db(y, q).numpy(), expected, rtol=1e-12)
    assert sqnr_db(y, y).tolist() == pytest.approx([120.0] * 3)
    zeros = torch.zeros(2, 4)
    assert torch.isfinite(sqnr_db(zeros, torch.ones(2, 4))).all()
    assert torch.isfinite(sqnr_db(zeros, zeros)).all()


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
        assert measured.scores[method].tolist() == (total / 8).tolist()
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
    with pytest.raises(InputError, match="expected a model that returns a tensor, got dict"):
        first_tensor({"a": None, "b": 3})
    assert first_tensor({"a": [None, torch.ones(2)]}).tolist() == [1.0, 1.0]
